//! One tree of a snapshot: its files, their consistency, and point access by leaf index (docs/contracts/digest.md 3.2).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::cursor::{Cursor, Records};
use crate::error::{Error, Result};
use crate::rows::Progress;
use crate::wire::{le32, le64};

pub const LEAF: usize = 48;
const MAGIC: u32 = 1_280_721_225;

/// One tree of a snapshot, opened and checked.
pub struct Tree {
    pub(super) dir: PathBuf,
    pub(super) kvs: File,
    pub(super) kvs_len: u64,
    pub(super) leaves: File,
    nodes: File,
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

    /// Recompute every leaf and branch hash from the files and compare; returns the root hash (3.2).
    pub fn verify_hashes(&self, progress: &Progress) -> Result<[u8; 32]> {
        if self.count == 0 {
            return Ok(Sha256::digest(b"").into());
        }
        let leaves_path = self.dir.join("leaves");
        let nodes_path = self.dir.join("nodes");
        let mut cursor = Cursor::over(self, 0, self.count)?;
        let mut leaves = Records::new(&self.leaves, &leaves_path);
        let mut nodes = Records::new(&self.nodes, &nodes_path);
        // subtrees waiting for their parent: first leaf, leaf count, hash
        let mut waiting: Vec<(u64, u64, [u8; 32])> = Vec::new();
        let mut branch = if self.count > 1 { nodes.next_record()? } else { None };
        for index in 0..self.count {
            cursor.advance()?;
            let record = leaves.next_record()?.ok_or_else(|| Error::file(&leaves_path, "too short"))?;
            let hash = leaf_hash(cursor.key(), cursor.value(), le32(&record));
            if hash != record[16..] || le64(&record[8..]) != cursor.record_offset() {
                return Err(Error::file(
                    &leaves_path,
                    format!("leaf {index} does not hash to what the snapshot holds"),
                ));
            }
            waiting.push((index, 1, hash));
            // post-order: every branch whose leaves are complete follows at once
            while let Some(node) = branch {
                let size = u64::from(le32(&node[8..]));
                let Some(&[.., left, right]) = waiting.get(..) else {
                    break;
                };
                if left.1 + right.1 != size || u64::from(le32(&node[12..])) != right.0 {
                    break;
                }
                let hash = branch_hash(node[0], size, le32(&node[4..]), &left.2, &right.2);
                if hash != node[16..] {
                    return Err(Error::file(
                        &nodes_path,
                        format!(
                            "the branch over leaves {} to {index} does not hash to what the snapshot holds",
                            left.0
                        ),
                    ));
                }
                waiting.truncate(waiting.len() - 2);
                waiting.push((left.0, size, hash));
                branch = nodes.next_record()?;
            }
            if index % 65_536 == 65_535 {
                progress.moved(65_536, 0)?;
            }
        }
        match waiting.as_slice() {
            [(0, _, root)] if branch.is_none() => Ok(*root),
            _ => Err(Error::file(&nodes_path, "branches do not form one tree over all leaves")),
        }
    }
}

fn put_uvarint(into: &mut Sha256, mut value: u64) {
    while value >= 0x80 {
        into.update([(value as u8) | 0x80]);
        value >>= 7;
    }
    into.update([value as u8]);
}

fn put_varint(into: &mut Sha256, value: u64) {
    put_uvarint(into, value << 1);
}

fn leaf_hash(key: &[u8], value: &[u8], version: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    put_varint(&mut hash, 0);
    put_varint(&mut hash, 1);
    put_varint(&mut hash, u64::from(version));
    put_uvarint(&mut hash, key.len() as u64);
    hash.update(key);
    put_uvarint(&mut hash, 32);
    hash.update(Sha256::digest(value));
    hash.finalize().into()
}

fn branch_hash(height: u8, size: u64, version: u32, left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    put_varint(&mut hash, u64::from(height));
    put_varint(&mut hash, size);
    put_varint(&mut hash, u64::from(version));
    put_uvarint(&mut hash, 32);
    hash.update(left);
    put_uvarint(&mut hash, 32);
    hash.update(right);
    hash.finalize().into()
}
