//! What can go wrong while reading a store: a sentence for the reader, or a cancelled scan.

use std::fmt;
use std::io;
use std::path::Path;

#[derive(Debug)]
pub enum Error {
    /// The store cannot be read as it stands; the text names the file or the row.
    Store(String),
    /// Somebody asked the scan to stop.
    Cancelled,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn store(text: impl Into<String>) -> Self {
        Self::Store(text.into())
    }

    pub fn file(path: &Path, text: impl fmt::Display) -> Self {
        Self::Store(format!("{}: {text}", path.display()))
    }

    pub fn io(path: &Path, error: &io::Error) -> Self {
        Self::file(path, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(text) => out.write_str(text),
            Self::Cancelled => out.write_str("cancelled"),
        }
    }
}

impl std::error::Error for Error {}
