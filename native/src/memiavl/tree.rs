//! One tree of a snapshot: its files, their consistency, and point access by leaf index (docs/contracts/digest.md 3.2).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::cursor::read_some;
use crate::error::{Error, Result};
use crate::wire::{le32, le64};

pub const LEAF: usize = 48;
const MAGIC: u32 = 1_280_721_225;
const WINDOW: u64 = 4096;

/// One tree of a snapshot, opened and checked.
pub struct Tree {
    pub(super) dir: PathBuf,
    pub(super) kvs: File,
    pub(super) kvs_len: u64,
    pub(super) leaves: File,
    pub(super) nodes: File,
    pub count: u64,
    pub version: u32,
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    key_len: u32,
    offset: u64,
}

impl Tree {
    /// Open a tree's directory; sizes, magic and format must be right.
    pub fn open(dir: &Path) -> Result<Self> {
        let open = |name: &str| -> Result<(File, u64)> {
            let path = dir.join(name);
            let file = File::open(&path).map_err(|error| Error::io(&path, &error))?;
            let length = file.metadata().map_err(|error| Error::io(&path, &error))?.len();
            Ok((file, length))
        };
        let (metadata, length) = open("metadata")?;
        let path = dir.join("metadata");
        if length != 12 {
            return Err(Error::file(&path, format!("wrong metadata file size, expected: 12, found: {length}")));
        }
        let mut head = [0u8; 12];
        metadata.read_exact_at(&mut head, 0).map_err(|error| Error::io(&path, &error))?;
        if le32(&head) != MAGIC {
            return Err(Error::file(&path, format!("invalid metadata file magic: {}", le32(&head))));
        }
        if le32(&head[4..]) != 0 {
            return Err(Error::file(&path, format!("unknown snapshot format: {}", le32(&head[4..]))));
        }
        let (kvs, kvs_len) = open("kvs")?;
        let (leaves, leaves_len) = open("leaves")?;
        let (nodes, nodes_len) = open("nodes")?;
        for (name, length) in [("leaves", leaves_len), ("nodes", nodes_len)] {
            if length % LEAF as u64 != 0 {
                return Err(Error::file(
                    &dir.join(name),
                    format!("corrupted snapshot, size {length} is not a multiple of 48"),
                ));
            }
        }
        let (count, branches) = (leaves_len / LEAF as u64, nodes_len / LEAF as u64);
        if count.saturating_sub(1) != branches || (count == 0) != (kvs_len == 0) {
            return Err(Error::file(
                dir,
                format!("corrupted snapshot, branch nodes size {nodes_len} don't match leaves size {leaves_len}"),
            ));
        }
        Ok(Self { dir: dir.to_path_buf(), kvs, kvs_len, leaves, nodes, count, version: le32(&head[8..]) })
    }

    fn leaf(&self, index: u64) -> Result<Leaf> {
        let mut record = [0u8; LEAF];
        self.leaves
            .read_exact_at(&mut record, index * LEAF as u64)
            .map_err(|error| Error::io(&self.dir.join("leaves"), &error))?;
        Ok(Leaf { key_len: le32(&record[4..]), offset: le64(&record[8..]) })
    }

    /// Offset in `kvs` where leaf `index` begins; the file's length for the index one past the last.
    pub(super) fn offset(&self, index: u64) -> Result<u64> {
        if index == self.count {
            return Ok(self.kvs_len);
        }
        Ok(self.leaf(index)?.offset)
    }

    pub(super) fn key(&self, index: u64) -> Result<Vec<u8>> {
        let leaf = self.leaf(index)?;
        let path = self.dir.join("kvs");
        let misplaced = || Error::file(&path, format!("leaf {index} does not begin at offset {}", leaf.offset));
        if leaf.offset.saturating_add(4).saturating_add(u64::from(leaf.key_len)) > self.kvs_len {
            return Err(misplaced());
        }
        let mut head = [0u8; 4];
        self.kvs.read_exact_at(&mut head, leaf.offset).map_err(|error| Error::io(&path, &error))?;
        if le32(&head) != leaf.key_len {
            return Err(misplaced());
        }
        let mut key = vec![0u8; leaf.key_len as usize];
        self.kvs.read_exact_at(&mut key, leaf.offset + 4).map_err(|error| Error::io(&path, &error))?;
        Ok(key)
    }

    /// Index of the first leaf whose key is not below `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> Result<u64> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle)?.as_slice() < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// Records of a file by index, read in windows: neighbours cost nothing.
pub(super) struct Window<'a> {
    file: &'a File,
    path: &'a Path,
    first: u64,
    records: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn over(file: &'a File, path: &'a Path) -> Self {
        Self { file, path, first: 0, records: Vec::new() }
    }

    pub(super) fn get(&mut self, index: u64) -> Result<&[u8; LEAF]> {
        let held = (self.records.len() / LEAF) as u64;
        if index < self.first || index >= self.first + held {
            // a little of what lies before: a left leaf is asked for behind its right neighbours
            self.first = index.saturating_sub(WINDOW / 8);
            self.records.resize(WINDOW as usize * LEAF, 0);
            let read = read_some(self.file, self.path, &mut self.records, self.first * LEAF as u64)?;
            self.records.truncate(read - read % LEAF);
        }
        let at = (index - self.first) as usize * LEAF;
        self.records.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(|| Error::file(self.path, "too short"))
    }
}
