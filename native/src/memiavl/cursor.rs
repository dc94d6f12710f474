//! Sequential readers over a tree's flat files; their buffers do not grow with the file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::tree::{LEAF, Tree};
use crate::error::{Error, Result};
use crate::wire::le32;

const BUFFER: usize = 512 * 1024;
/// No key or value of a tree comes near; a length beyond it is damage, not a reason to allocate.
const LARGEST_RECORD: u64 = 1 << 28;

/// 48-byte records of `leaves` or `nodes`, in order.
pub struct Records<'a> {
    file: &'a File,
    path: &'a Path,
    at: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl<'a> Records<'a> {
    pub fn starting(file: &'a File, path: &'a Path, index: u64) -> Self {
        Self { file, path, at: index * LEAF as u64, buffer: Vec::new(), used: 0 }
    }

    pub fn next_record(&mut self) -> Result<Option<[u8; LEAF]>> {
        if self.used + LEAF > self.buffer.len() {
            self.buffer.resize(LEAF * 4096, 0);
            let read = read_some(self.file, self.path, &mut self.buffer, self.at)?;
            self.buffer.truncate(read - read % LEAF);
            self.at += self.buffer.len() as u64;
            self.used = 0;
            if self.buffer.is_empty() {
                return Ok(None);
            }
        }
        let record = self.buffer[self.used..self.used + LEAF].try_into().expect("48 bytes");
        self.used += LEAF;
        Ok(Some(record))
    }
}

/// Fill `buffer` from `offset` as far as the file reaches.
pub(super) fn read_some(file: &File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(path, &error)),
        }
    }
    Ok(filled)
}

/// Leaf records of `kvs` between two leaf indices, in order, with a buffer that does not grow with the file.
pub struct Cursor<'a> {
    tree: &'a Tree,
    buffer: Vec<u8>,
    /// file offset of the buffer's first byte, and of the end of this cursor's range
    base: u64,
    end: u64,
    left: u64,
    record: usize,
    next: usize,
    key_len: usize,
    value_len: usize,
    started: bool,
    pub versions: Option<Box<Records<'a>>>,
    pub version: u32,
}

impl<'a> Cursor<'a> {
    pub fn over(tree: &'a Tree, from: u64, to: u64) -> Result<Self> {
        let base = tree.offset(from)?;
        let end = tree.offset(to)?;
        if base > end || end > tree.kvs_len {
            return Err(Error::file(&tree.dir.join("leaves"), format!("leaves {from} and {to} are out of order")));
        }
        Ok(Self {
            tree,
            buffer: Vec::new(),
            base,
            end,
            left: to - from,
            record: 0,
            next: 0,
            key_len: 0,
            value_len: 0,
            started: false,
            versions: None,
            version: 0,
        })
    }

    pub fn with_versions(mut self, path: &'a Path, from: u64) -> Self {
        self.versions = Some(Box::new(Records::starting(&self.tree.leaves, path, from)));
        self
    }

    pub fn record_offset(&self) -> u64 {
        self.base + self.record as u64
    }

    pub fn key(&self) -> &[u8] {
        &self.buffer[self.record + 4..self.record + 4 + self.key_len]
    }

    pub fn value(&self) -> &[u8] {
        let from = self.record + 8 + self.key_len;
        &self.buffer[from..from + self.value_len]
    }

    /// Step to the next leaf; false at the end of the range. Keys must ascend strictly.
    pub fn advance(&mut self) -> Result<bool> {
        let previous = self.record;
        let previous_key = self.key_len;
        if self.left == 0 {
            if self.base + self.next as u64 != self.end {
                return Err(self.damaged("bytes that belong to no leaf"));
            }
            return Ok(false);
        }
        let (record, previous) = self.need(previous, 4)?;
        let key_len = le32(&self.buffer[record..]) as usize;
        let (record, previous) = self.need_from(record, previous, 8 + key_len as u64)?;
        let value_len = le32(&self.buffer[record + 4 + key_len..]) as usize;
        let (record, previous) = self.need_from(record, previous, 8 + key_len as u64 + value_len as u64)?;
        if self.started {
            let before = &self.buffer[previous + 4..previous + 4 + previous_key];
            if before >= &self.buffer[record + 4..record + 4 + key_len] {
                self.record = record;
                return Err(self.damaged("keys are not in ascending order"));
            }
        }
        self.started = true;
        self.record = record;
        self.key_len = key_len;
        self.value_len = value_len;
        self.next = record + 8 + key_len + value_len;
        self.left -= 1;
        if let Some(versions) = &mut self.versions
            && let Some(leaf) = versions.next_record()?
        {
            self.version = le32(&leaf);
        }
        Ok(true)
    }

    fn need(&mut self, previous: usize, length: u64) -> Result<(usize, usize)> {
        self.need_from(self.next, previous, length)
    }

    /// Make `length` bytes from `record` available; the previous record stays in the buffer. Returns both positions.
    fn need_from(&mut self, record: usize, previous: usize, length: u64) -> Result<(usize, usize)> {
        if record as u64 + length <= self.buffer.len() as u64 {
            return Ok((record, previous));
        }
        if self.base + record as u64 + length > self.end {
            self.record = record;
            return Err(self.damaged("the record is cut"));
        }
        if length > LARGEST_RECORD {
            self.record = record;
            return Err(self.damaged("the record claims more than 256 MiB"));
        }
        self.buffer.drain(..previous);
        self.base += previous as u64;
        let record = record - previous;
        let wanted = (record as u64 + length).max(BUFFER as u64);
        let room = (self.end - self.base).min(wanted) as usize;
        let filled = self.buffer.len();
        self.buffer.resize(room, 0);
        let path = self.tree.dir.join("kvs");
        let read = read_some(&self.tree.kvs, &path, &mut self.buffer[filled..], self.base + filled as u64)?;
        self.buffer.truncate(filled + read);
        self.next -= previous;
        if record as u64 + length > self.buffer.len() as u64 {
            self.record = record;
            return Err(self.damaged("the file is shorter than when it was opened"));
        }
        Ok((record, 0))
    }

    fn damaged(&self, what: &str) -> Error {
        Error::file(&self.tree.dir.join("kvs"), format!("at offset {}: {what}", self.base + self.record as u64))
    }
}
