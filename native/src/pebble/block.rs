//! Blocks of a table file: checksum, compression, and the prefix-compressed entries inside (docs/contracts/digest.md 5.6).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::wire::{Reader, le32};

use super::record::masked_crc32c;

pub const TRAILER: u64 = 5;
/// Nothing FlatKV writes comes near; a length beyond it is damage, not a reason to allocate.
const LARGEST_BLOCK: u64 = 1 << 28;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handle {
    pub offset: u64,
    pub length: u64,
}

impl Handle {
    pub fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { offset: reader.uvarint()?, length: reader.uvarint()? })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    None,
    Crc32c,
    XxHash64,
}

/// Where blocks come from: the file, its size, and how it is checked.
pub struct Source<'a> {
    pub file: &'a File,
    pub path: &'a Path,
    pub size: u64,
    pub checksum: Checksum,
}

/// What reading a block needs besides the block: kept from one to the next, as making a decompressor costs more than using it.
#[derive(Default)]
pub struct Scratch {
    raw: Vec<u8>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Source<'_> {
    /// Read, check and decompress a block into `into`.
    pub fn read(&self, handle: Handle, scratch: &mut Scratch, into: &mut Vec<u8>) -> Result<()> {
        let damaged = |what: &str| Error::file(self.path, format!("block at offset {}: {what}", handle.offset));
        let end = handle.offset.checked_add(handle.length).and_then(|end| end.checked_add(TRAILER));
        if end.is_none_or(|end| end > self.size) || handle.length > LARGEST_BLOCK {
            return Err(damaged("reaches beyond the file"));
        }
        let length = handle.length as usize;
        let raw = &mut scratch.raw;
        raw.resize(length + TRAILER as usize, 0);
        self.file.read_exact_at(raw, handle.offset).map_err(|error| Error::io(self.path, &error))?;
        let stored = le32(&raw[length + 1..]);
        let computed = match self.checksum {
            Checksum::None => stored,
            Checksum::Crc32c => masked_crc32c(&raw[..=length]),
            Checksum::XxHash64 => xxhash_rust::xxh64::xxh64(&raw[..=length], 0) as u32,
        };
        if !cfg!(fuzzing) && stored != computed {
            return Err(damaged("checksum mismatch"));
        }
        into.clear();
        let data = &raw[..length];
        match raw[length] {
            0 => into.extend_from_slice(data),
            1 => {
                let size = snap::raw::decompress_len(data).map_err(|_| damaged("malformed snappy data"))?;
                if size as u64 > LARGEST_BLOCK {
                    return Err(damaged("malformed snappy data"));
                }
                into.resize(size, 0);
                snap::raw::Decoder::new().decompress(data, into).map_err(|_| damaged("malformed snappy data"))?;
            }
            7 => {
                let mut reader = Reader::new(data);
                let size = reader
                    .uvarint()
                    .filter(|size| *size <= LARGEST_BLOCK)
                    .ok_or_else(|| damaged("malformed zstd data"))?;
                let frame = &data[reader.position()..];
                into.resize(size as usize, 0);
                let zstd = match &mut scratch.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new().map_err(|error| Error::io(self.path, &error))?),
                };
                let written = zstd
                    .decompress_to_buffer(frame, into.as_mut_slice())
                    .map_err(|_| damaged("malformed zstd data"))?;
                if written as u64 != size {
                    return Err(damaged("malformed zstd data"));
                }
            }
            8 => return Err(damaged("MinLZ compression is not supported")),
            other => return Err(damaged(&format!("compression {other} is not supported"))),
        }
        Ok(())
    }
}

/// A position in a row block. The block's bytes live with the caller, so that one buffer serves many blocks.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    at: usize,
    end: usize,
    pub key: Vec<u8>,
    pub value: (usize, usize),
}

impl Entries {
    /// Begin at the first entry; None when the block's tail does not make sense.
    pub fn start(&mut self, block: &[u8]) -> Option<()> {
        let count_at = block.len().checked_sub(4)?;
        let restarts = (le32(&block[count_at..]) as usize).checked_mul(4)?;
        self.end = count_at.checked_sub(restarts)?;
        self.at = 0;
        self.key.clear();
        Some(())
    }

    /// Step to the next entry: Some(false) at the end, None when it is malformed.
    #[inline]
    pub fn advance(&mut self, block: &[u8]) -> Option<bool> {
        if self.at >= self.end {
            return Some(false);
        }
        let rest = &block[self.at..self.end];
        // nearly every entry has three one-byte lengths
        let (shared, unshared, value, head) = match rest {
            [a, b, c, ..] if (a | b | c) < 0x80 => (usize::from(*a), usize::from(*b), usize::from(*c), 3),
            _ => {
                let mut reader = Reader::new(rest);
                let (a, b, c) = (reader.uvarint()?, reader.uvarint()?, reader.uvarint()?);
                let below = |n: u64, limit: usize| usize::try_from(n).ok().filter(|n| *n <= limit);
                // a long shared prefix may well be longer than all that follows
                let (shared, limit) = (below(a, self.key.len())?, rest.len());
                (shared, below(b, limit)?, below(c, limit)?, reader.position())
            }
        };
        if shared > self.key.len() || head + unshared + value > rest.len() {
            return None;
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(&rest[head..head + unshared]);
        let from = self.at + head + unshared;
        self.value = (from, from + value);
        self.at = from + value;
        Some(true)
    }
}

/// All entries of a small block (index, metaindex, properties, range deletions).
pub fn all(block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut entries = Entries::default();
    entries.start(block)?;
    let mut found = Vec::new();
    while entries.advance(block)? {
        found.push((entries.key.clone(), block[entries.value.0..entries.value.1].to_vec()));
    }
    Some(found)
}
