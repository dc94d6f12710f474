//! Recomputing every hash of a tree, in pieces that workers share (docs/contracts/digest.md 3.2).
//!
//! Leaves are hashed from their keys and values. Then each branch is hashed from the stored hashes of its children, whose places
//! follow from its own record; the children's sizes must fit, so that from the root down the branches are one tree over all
//! leaves. Right stored hashes everywhere make the root right.

use sha2::{Digest, Sha256};

use super::cursor::{Cursor, Records};
use super::tree::{LEAF, Tree, Window};
use crate::error::{Error, Result};
use crate::pieces::{Nothing, run_pieces};
use crate::rows::Progress;
use crate::wire::{le32, le64};

const PIECES_PER_THREAD: u64 = 8;
const SMALLEST_PIECE: u64 = 16;
const BATCH: u64 = 65_536;

enum Piece {
    Leaves(u64, u64),
    Branches(u64, u64),
}

impl Tree {
    /// Recompute every leaf and branch hash from the files and compare; returns the root hash.
    pub fn verify_hashes(&self, progress: &Progress, threads: usize) -> Result<[u8; 32]> {
        if self.count == 0 {
            return Ok(Sha256::digest(b"").into());
        }
        let branches = self.count - 1;
        let wanted = match threads {
            0 | 1 => 1,
            _ => (threads as u64 * PIECES_PER_THREAD).min(self.count / SMALLEST_PIECE).max(1),
        };
        let mut pieces = Vec::new();
        for at in 0..wanted {
            let edge = |total: u64, at: u64| total * at / wanted;
            pieces.push(Piece::Leaves(edge(self.count, at), edge(self.count, at + 1)));
            pieces.push(Piece::Branches(edge(branches, at), edge(branches, at + 1)));
        }
        run_pieces(&pieces, Nothing, threads, |piece, _| match piece {
            Piece::Leaves(from, to) => self.verify_leaves(*from, *to, progress),
            Piece::Branches(from, to) => self.verify_branches(*from, *to),
        })?;
        let record = if branches == 0 {
            *Window::over(&self.leaves, &self.dir.join("leaves")).get(0)?
        } else {
            let path = self.dir.join("nodes");
            let root = *Window::over(&self.nodes, &path).get(branches - 1)?;
            let place = Place::of(&root, branches - 1);
            if place.first != 0 || place.size != self.count as i128 {
                return Err(Error::file(&path, "branches do not form one tree over all leaves"));
            }
            root
        };
        Ok(record[16..].try_into().expect("32 bytes"))
    }

    fn verify_leaves(&self, from: u64, to: u64, progress: &Progress) -> Result<u64> {
        let path = self.dir.join("leaves");
        let mut cursor = Cursor::over(self, from, to)?;
        let mut leaves = Records::starting(&self.leaves, &path, from);
        for index in from..to {
            cursor.advance()?;
            let record = leaves.next_record()?.ok_or_else(|| Error::file(&path, "too short"))?;
            let hash = leaf_hash(cursor.key(), cursor.value(), le32(&record));
            if hash != record[16..] || le64(&record[8..]) != cursor.record_offset() {
                return Err(Error::file(&path, format!("leaf {index} does not hash to what the snapshot holds")));
            }
            if (index - from) % BATCH == BATCH - 1 {
                progress.moved(BATCH, 0)?;
            }
        }
        // the end of the range: no bytes between the last leaf and what follows
        cursor.advance()?;
        Ok(to - from)
    }

    /// Branches `from .. to` in the order of the file: the right child of a branch is the record before it, and left children
    /// wait on a stack unless they lie before the piece.
    fn verify_branches(&self, from: u64, to: u64) -> Result<u64> {
        let (leaves_path, path) = (self.dir.join("leaves"), self.dir.join("nodes"));
        let mut records = Records::starting(&self.nodes, &path, from);
        let mut leaves = Window::over(&self.leaves, &leaves_path);
        let mut before = Window::over(&self.nodes, &path);
        let mut waiting: Vec<(u64, [u8; LEAF])> = Vec::new();
        for index in from..to {
            let record = records.next_record()?.ok_or_else(|| Error::file(&path, "too short"))?;
            let place = Place::of(&record, index);
            let misplaced = || Error::file(&path, format!("branch {index} does not fit the tree around it"));
            let split = i128::from(le32(&record[12..]));
            if split <= place.first || split > place.last || place.last >= self.count as i128 {
                return Err(misplaced());
            }
            let mut child = |at: i128, first: i128, last: i128| -> Result<[u8; 32]> {
                let found = if first == last {
                    *leaves.get(first as u64)?
                } else {
                    let at = u64::try_from(at).ok().filter(|at| *at < index).ok_or_else(misplaced)?;
                    let found = match waiting.pop_if(|(waiting, _)| *waiting == at) {
                        Some((_, found)) => found,
                        None => *before.get(at)?,
                    };
                    let found_place = Place::of(&found, at);
                    if (found_place.first, found_place.last) != (first, last) {
                        return Err(misplaced());
                    }
                    found
                };
                Ok(found[16..].try_into().expect("32 bytes"))
            };
            let right = child(i128::from(index) - 1, split, place.last)?;
            let left = child(split - place.before - 2, place.first, split - 1)?;
            if branch_hash(record[0], place.size as u64, le32(&record[4..]), &left, &right) != record[16..] {
                return Err(Error::file(
                    &path,
                    format!(
                        "the branch over leaves {} to {} does not hash to what the snapshot holds",
                        place.first, place.last
                    ),
                ));
            }
            waiting.push((index, record));
        }
        Ok(0)
    }
}

/// Which leaves a branch spans, from its index, its size and the number of subtrees before it.
struct Place {
    size: i128,
    before: i128,
    first: i128,
    last: i128,
}

impl Place {
    fn of(record: &[u8; LEAF], index: u64) -> Self {
        let (size, before) = (i128::from(le32(&record[8..])), i128::from(record[1]));
        let index = i128::from(index);
        Self { size, before, first: index + 2 - size + before, last: index + before + 1 }
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
