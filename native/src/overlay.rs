//! Writes that a log adds to a snapshot, as a sorted list of references into the mapped log files.
//!
//! Nothing is copied: an entry is 32 bytes whatever its key and value weigh, and the texts stay in the page cache. How the
//! list is made, in bounded memory, is told in `writes`.

use std::cmp::Ordering;
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, Result};

const DELETED: u32 = u32::MAX;
const LARGEST_FILE: u64 = DELETED as u64 - 1;

/// Log files: finished ones mapped, the one a node may still be writing to read into memory.
///
/// Reading a map beyond the end of a file that somebody has shortened kills the process, and a restarting node shortens the torn
/// tail of its last log file. Finished files are only ever unlinked, which a map survives.
#[derive(Default)]
pub struct Logs {
    files: Vec<Log>,
}

enum Log {
    Mapped(Mmap),
    Read(Vec<u8>),
}

impl Logs {
    /// Map a finished log file; returns its number.
    pub fn map(&mut self, path: &Path) -> Result<u32> {
        let file = Self::open(path)?;
        // SAFETY: a finished log file is never written to or shortened in place.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io(path, &error))?;
        self.push(Log::Mapped(map))
    }

    /// Read a log file that may still grow or lose its torn tail; returns its number.
    pub fn read(&mut self, path: &Path) -> Result<u32> {
        let mut data = Vec::new();
        Self::open(path)?.take(LARGEST_FILE).read_to_end(&mut data).map_err(|error| Error::io(path, &error))?;
        self.push(Log::Read(data))
    }

    fn open(path: &Path) -> Result<File> {
        let file = File::open(path).map_err(|error| Error::io(path, &error))?;
        let length = file.metadata().map_err(|error| Error::io(path, &error))?.len();
        if length > LARGEST_FILE {
            return Err(Error::file(path, "log file of 4 GiB or more"));
        }
        Ok(file)
    }

    fn push(&mut self, log: Log) -> Result<u32> {
        self.files.push(log);
        Ok(self.files.len() as u32 - 1)
    }

    pub fn file(&self, number: u32) -> &[u8] {
        match &self.files[number as usize] {
            Log::Mapped(map) => map,
            Log::Read(data) => data,
        }
    }

    /// A write found in file `number`; offsets and lengths are inside that file. No value: a deletion.
    pub fn change(&self, number: u32, key: (usize, usize), value: Option<(usize, usize)>, version: u32) -> Change {
        let text = &self.file(number)[key.0..key.0 + key.1];
        let (value_at, value_len) = value.map_or((0, DELETED), |(at, length)| (at as u32, length as u32));
        Change {
            prefix: prefix(text),
            file: number,
            key_at: key.0 as u32,
            key_len: key.1 as u32,
            value_at,
            value_len,
            version,
        }
    }

    fn key(&self, change: &Change) -> &[u8] {
        let from = change.key_at as usize;
        &self.file(change.file)[from..from + change.key_len as usize]
    }

    pub(crate) fn same_key(&self, a: &Change, b: &Change) -> bool {
        a.prefix == b.prefix && self.key(a) == self.key(b)
    }

    /// By key, the older write first.
    pub(crate) fn order(&self, a: &Change, b: &Change) -> Ordering {
        compare(self.key(a), a.prefix, self.key(b), b.prefix).then_with(|| (a.file, a.key_at).cmp(&(b.file, b.key_at)))
    }
}

/// One write. `prefix` holds bytes 1..9 of the key, where keys of one family differ first.
///
/// Also the record of a spilled run, in this machine's byte order: nobody else ever reads one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Change {
    prefix: u64,
    file: u32,
    key_at: u32,
    key_len: u32,
    value_at: u32,
    value_len: u32,
    pub version: u32,
}

/// The last write of each key, in key order.
#[derive(Default)]
pub struct Overlay {
    logs: Arc<Logs>,
    changes: Settled,
}

/// Settled changes, in memory or in an unlinked file.
pub(crate) enum Settled {
    Held(Vec<Change>),
    Mapped(Mmap),
}

impl Default for Settled {
    fn default() -> Self {
        Self::Held(Vec::new())
    }
}

impl Deref for Settled {
    type Target = [Change];

    fn deref(&self) -> &[Change] {
        match self {
            Self::Held(changes) => changes,
            // SAFETY: a map begins at a page, any bits are a Change, and the file was written as an array of them by us.
            Self::Mapped(map) => unsafe {
                std::slice::from_raw_parts(map.as_ptr().cast(), map.len() / size_of::<Change>())
            },
        }
    }
}

impl Change {
    /// The bytes a run keeps of changes.
    pub(crate) fn bytes(changes: &[Self]) -> &[u8] {
        // SAFETY: two halves of a word and six words without gaps between them.
        unsafe { std::slice::from_raw_parts(changes.as_ptr().cast(), size_of_val(changes)) }
    }
}

impl Overlay {
    pub(crate) fn new(logs: Arc<Logs>, changes: Settled) -> Self {
        Self { logs, changes }
    }

    /// Whether the changes lie in a file.
    pub fn spilled(&self) -> bool {
        matches!(self.changes, Settled::Mapped(_))
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn key(&self, change: &Change) -> &[u8] {
        self.logs.key(change)
    }

    /// The written value, or None for a deletion.
    pub fn value(&self, change: &Change) -> Option<&[u8]> {
        if change.value_len == DELETED {
            return None;
        }
        let from = change.value_at as usize;
        Some(&self.logs.file(change.file)[from..from + change.value_len as usize])
    }

    /// What the log says of a key: nothing, or its last value (None for a deletion).
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let at = self.changes.binary_search_by(|change| self.key(change).cmp(key)).ok()?;
        Some(self.value(&self.changes[at]))
    }

    /// Number of keys that have a value.
    pub fn live(&self) -> usize {
        self.changes.iter().filter(|change| change.value_len != DELETED).count()
    }

    /// The changes with `low <= key < high`.
    pub fn range(&self, low: &[u8], high: Option<&[u8]>) -> &[Change] {
        let from = self.changes.partition_point(|change| self.key(change) < low);
        let to = high.map_or(self.changes.len(), |high| self.changes.partition_point(|change| self.key(change) < high));
        &self.changes[from..to.max(from)]
    }
}

fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0u8; 8];
    if let Some(rest) = key.get(1..) {
        let length = rest.len().min(8);
        bytes[..length].copy_from_slice(&rest[..length]);
    }
    u64::from_be_bytes(bytes)
}

/// Bytewise order of two keys; the prefixes only decide where the first bytes agree and both are long enough.
fn compare(a: &[u8], a_prefix: u64, b: &[u8], b_prefix: u64) -> Ordering {
    if a.len() > 8 && b.len() > 8 && a[0] == b[0] && a_prefix != b_prefix {
        return a_prefix.cmp(&b_prefix);
    }
    a.cmp(b)
}
