//! A table file: footer, indexes, and a cursor over its point entries (docs/contracts/digest.md 5.6 to 5.9).

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::block::{Checksum, Entries, Handle, Scratch, Source, all};
use super::manifest::{SENTINEL_SEQUENCE, TableMeta};
use super::{RangeTombstone, kind};
use crate::error::{Error, Result};
use crate::wire::{Reader, le32, le64};

const PEBBLE_MAGIC: [u8; 8] = [0xf0, 0x9f, 0xaa, 0xb3, 0xf0, 0x9f, 0xaa, 0xb3];
const ROCKSDB_MAGIC: [u8; 8] = [0xf7, 0xcf, 0xf4, 0x85, 0xb7, 0x41, 0xe2, 0x88];
const LEVELDB_MAGIC: [u8; 8] = [0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb];
const OBSOLETE: u8 = 0x40;

struct ValueIndex {
    handle: Handle,
    widths: [usize; 3],
}

/// An opened table.
pub struct Table {
    file: File,
    path: PathBuf,
    size: u64,
    checksum: Checksum,
    format: u32,
    index: Handle,
    two_level: bool,
    range_deletions: Option<Handle>,
    value_index: Option<ValueIndex>,
    /// a virtual table shows only this part of its file
    bounds: Option<Bounds>,
    uniform_sequence: Option<u64>,
}

#[derive(Clone, Debug)]
struct Bounds {
    low: Vec<u8>,
    high: Vec<u8>,
    high_exclusive: bool,
}

impl Table {
    pub fn open(dir: &Path, meta: &TableMeta) -> Result<Self> {
        let path = dir.join(format!("{:06}.sst", meta.file_number()));
        let file = File::open(&path).map_err(|error| {
            Error::file(&path, format!("L{}: {:06}: the table cannot be opened: {error}", meta.level, meta.number))
        })?;
        let size = file.metadata().map_err(|error| Error::io(&path, &error))?.len();
        if meta.backing.is_none() && size != meta.size {
            return Err(Error::file(
                &path,
                format!(
                    "L{}: {:06}: object size mismatch: {size} (disk) != {} (MANIFEST)",
                    meta.level, meta.number, meta.size
                ),
            ));
        }
        let footer = Footer::read(&file, &path, size)?;
        let bounds = meta.backing.map(|_| Bounds {
            low: meta.smallest.user.clone(),
            high: meta.largest.user.clone(),
            high_exclusive: meta.largest.trailer >> 8 == SENTINEL_SEQUENCE,
        });
        let mut table = Self {
            file,
            path,
            size,
            checksum: footer.checksum,
            format: footer.format,
            index: footer.index,
            two_level: false,
            range_deletions: None,
            value_index: None,
            bounds,
            uniform_sequence: meta.uniform_sequence(),
        };
        table.read_metaindex(footer.metaindex)?;
        Ok(table)
    }

    fn read_metaindex(&mut self, handle: Handle) -> Result<()> {
        let damaged = || Error::file(&self.path, "malformed metaindex");
        let entries: HashMap<Vec<u8>, Vec<u8>> = self.entries(handle)?.into_iter().collect();
        if let Some(value) = entries.get(b"rocksdb.properties".as_slice()) {
            let handle = Handle::parse(&mut Reader::new(value)).ok_or_else(damaged)?;
            for (name, value) in self.entries(handle)? {
                if name == b"rocksdb.block.based.table.index.type" {
                    self.two_level = match value.get(..4).map(le32) {
                        Some(0) => false,
                        Some(2) => true,
                        other => return Err(Error::file(&self.path, format!("index type {other:?} is not supported"))),
                    };
                }
            }
        }
        if let Some(value) = entries.get(b"rocksdb.range_del2".as_slice()) {
            self.range_deletions = Some(Handle::parse(&mut Reader::new(value)).ok_or_else(damaged)?);
        } else if entries.contains_key(b"rocksdb.range_del".as_slice()) {
            return Err(Error::file(&self.path, "range deletions of the old form are not supported"));
        }
        if let Some(value) = entries.get(b"pebble.value_index".as_slice()) {
            let mut reader = Reader::new(value);
            let handle = Handle::parse(&mut reader).ok_or_else(damaged)?;
            let widths = reader.take(3).ok_or_else(damaged)?;
            let widths = [usize::from(widths[0]), usize::from(widths[1]), usize::from(widths[2])];
            if widths.iter().any(|width| *width > 8) {
                return Err(damaged());
            }
            self.value_index = Some(ValueIndex { handle, widths });
        }
        Ok(())
    }

    fn source(&self) -> Source<'_> {
        Source { file: &self.file, path: &self.path, size: self.size, checksum: self.checksum }
    }

    fn entries(&self, handle: Handle) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let (mut scratch, mut block) = (Scratch::default(), Vec::new());
        self.source().read(handle, &mut scratch, &mut block)?;
        all(&block).ok_or_else(|| self.malformed(handle))
    }

    fn malformed(&self, handle: Handle) -> Error {
        Error::file(&self.path, format!("block at offset {}: malformed entries", handle.offset))
    }

    /// Entries of an index block as (separator user key, handle).
    fn index_entries(&self, handle: Handle) -> Result<Vec<(Vec<u8>, Handle)>> {
        self.entries(handle)?
            .into_iter()
            .map(|(mut key, value)| {
                let split = key.len().checked_sub(8).ok_or_else(|| self.malformed(handle))?;
                key.truncate(split);
                let block = Handle::parse(&mut Reader::new(&value)).ok_or_else(|| self.malformed(handle))?;
                Ok((key, block))
            })
            .collect()
    }

    /// Separators that cut the table into pieces, each with the bytes before it.
    pub fn separators(&self) -> Result<Vec<(Vec<u8>, u64)>> {
        let entries = self.index_entries(self.index)?;
        let mut before = 0;
        Ok(entries
            .into_iter()
            .map(|(key, block)| {
                let length = block.offset.saturating_sub(before);
                before = block.offset;
                // a top index points at index blocks, whose sizes say nothing: count each as one
                (key, if self.two_level { 1 << 20 } else { length.max(1) })
            })
            .collect())
    }

    pub fn tombstones(&self) -> Result<Vec<RangeTombstone>> {
        let Some(handle) = self.range_deletions else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (mut start, mut end) in self.entries(handle)? {
            let split = start.len().checked_sub(8).ok_or_else(|| self.malformed(handle))?;
            let sequence = self.uniform_sequence.unwrap_or(le64(&start[split..]) >> 8);
            start.truncate(split);
            if let Some(bounds) = &self.bounds {
                start = start.max(bounds.low.clone());
                let mut limit = bounds.high.clone();
                if !bounds.high_exclusive {
                    limit.push(0);
                }
                end = end.min(limit);
            }
            if start < end {
                found.push(RangeTombstone { start, end, sequence });
            }
        }
        Ok(found)
    }

    /// Value index: one (block handle) a value block.
    fn value_blocks(&self) -> Result<Vec<Handle>> {
        let Some(index) = &self.value_index else { return Ok(Vec::new()) };
        let (mut scratch, mut block) = (Scratch::default(), Vec::new());
        self.source().read(index.handle, &mut scratch, &mut block)?;
        let width: usize = index.widths.iter().sum();
        if width == 0 || block.len() % width != 0 {
            return Err(self.malformed(index.handle));
        }
        Ok(block
            .chunks_exact(width)
            .map(|row| {
                let (a, rest) = row.split_at(index.widths[0]);
                let _ = a;
                let (offset, length) = rest.split_at(index.widths[1]);
                Handle { offset: little_endian(offset), length: little_endian(length) }
            })
            .collect())
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

struct Footer {
    checksum: Checksum,
    metaindex: Handle,
    index: Handle,
    format: u32,
}

impl Footer {
    fn read(file: &File, path: &Path, size: u64) -> Result<Self> {
        let damaged = |what: String| Error::file(path, format!("not a table: {what}"));
        let length = size.min(53) as usize;
        let mut tail = vec![0u8; length];
        file.read_exact_at(&mut tail, size - length as u64).map_err(|error| Error::io(path, &error))?;
        if length < 48 {
            return Err(damaged(format!("{size} bytes")));
        }
        let magic: [u8; 8] = tail[length - 8..].try_into().expect("eight bytes");
        if magic == LEVELDB_MAGIC {
            let mut reader = Reader::new(&tail[length - 48..]);
            let handles = Handle::parse(&mut reader).zip(Handle::parse(&mut reader));
            let (metaindex, index) = handles.ok_or_else(|| damaged("malformed footer".into()))?;
            return Ok(Self { checksum: Checksum::Crc32c, metaindex, index, format: 0 });
        }
        if (magic != PEBBLE_MAGIC && magic != ROCKSDB_MAGIC) || length < 53 {
            return Err(damaged(format!("unknown magic {magic:02x?}")));
        }
        let version = le32(&tail[length - 12..]);
        let format = if magic == PEBBLE_MAGIC { version } else { 0 };
        if magic == PEBBLE_MAGIC && !(1..=4).contains(&version) {
            return Err(Error::file(path, format!("table format Pebble v{version} is not supported (v1 to v4 are)")));
        }
        let checksum = match tail[0] {
            0 => Checksum::None,
            1 => Checksum::Crc32c,
            3 => Checksum::XxHash64,
            other => return Err(damaged(format!("unknown checksum type {other}"))),
        };
        let mut reader = Reader::new(&tail[1..41]);
        let handles = Handle::parse(&mut reader).zip(Handle::parse(&mut reader));
        let (metaindex, index) = handles.ok_or_else(|| damaged("malformed footer".into()))?;
        Ok(Self { checksum, metaindex, index, format })
    }
}

/// Point entries of one table with `low <= user key < high`, in internal-key order.
pub struct TableCursor {
    table: Table,
    /// remaining index blocks (two-level) and data blocks, last one first
    partitions: Vec<(Vec<u8>, Handle)>,
    blocks: Vec<(Vec<u8>, Handle)>,
    scratch: Scratch,
    block: Vec<u8>,
    entries: Entries,
    live_block: bool,
    low: Vec<u8>,
    high: Option<Vec<u8>>,
    high_exclusive: bool,
    trailer: u64,
    value: Place,
    value_blocks: Option<Vec<Handle>>,
    value_block: Vec<u8>,
    value_block_number: Option<u64>,
    pub bytes_read: u64,
}

#[derive(Clone, Copy)]
enum Place {
    Data(usize, usize),
    ValueBlock(usize, usize),
}

impl TableCursor {
    pub fn open(table: Table, low: &[u8], high: Option<&[u8]>) -> Result<Self> {
        let mut low = low.to_vec();
        let mut high = high.map(<[u8]>::to_vec);
        let mut high_exclusive = true;
        if let Some(bounds) = &table.bounds {
            low = low.max(bounds.low.clone());
            if high.as_ref().is_none_or(|high| bounds.high < *high) {
                high = Some(bounds.high.clone());
                high_exclusive = bounds.high_exclusive;
            }
        }
        let mut top = table.index_entries(table.index)?;
        top.retain(|(separator, _)| *separator >= low);
        top.reverse();
        let (partitions, blocks) = if table.two_level { (top, Vec::new()) } else { (Vec::new(), top) };
        Ok(Self {
            table,
            partitions,
            blocks,
            scratch: Scratch::default(),
            block: Vec::new(),
            entries: Entries::default(),
            live_block: false,
            low,
            high,
            high_exclusive,
            trailer: 0,
            value: Place::Data(0, 0),
            value_blocks: None,
            value_block: Vec::new(),
            value_block_number: None,
            bytes_read: 0,
        })
    }

    pub fn key(&self) -> &[u8] {
        &self.entries.key[..self.entries.key.len() - 8]
    }

    pub fn trailer(&self) -> u64 {
        self.trailer
    }

    pub fn value(&self) -> &[u8] {
        match self.value {
            Place::Data(from, to) => &self.block[from..to],
            Place::ValueBlock(from, to) => &self.value_block[from..to],
        }
    }

    pub fn advance(&mut self) -> Result<bool> {
        loop {
            if !self.live_block && !self.next_block()? {
                return Ok(false);
            }
            if !self.entries.advance(&self.block).ok_or_else(|| self.damaged("malformed entry"))? {
                self.live_block = false;
                continue;
            }
            let Some(split) = self.entries.key.len().checked_sub(8) else {
                return Err(self.damaged("a key without its trailer"));
            };
            let user = &self.entries.key[..split];
            if user < self.low.as_slice() {
                continue;
            }
            if let Some(high) = &self.high
                && (user > high.as_slice() || (self.high_exclusive && user == high.as_slice()))
            {
                self.blocks.clear();
                self.partitions.clear();
                self.live_block = false;
                return Ok(false);
            }
            let mut trailer = le64(&self.entries.key[split..]);
            if self.table.format >= 4 {
                trailer &= !u64::from(OBSOLETE);
            }
            if let Some(sequence) = self.table.uniform_sequence {
                trailer = sequence << 8 | (trailer & 0xff);
            }
            self.trailer = trailer;
            self.locate_value()?;
            return Ok(true);
        }
    }

    fn locate_value(&mut self) -> Result<()> {
        let (from, to) = self.entries.value;
        self.value = Place::Data(from, to);
        if self.table.format < 3 || self.trailer as u8 != kind::SET {
            return Ok(());
        }
        let Some(prefix) = self.block[from..to].first() else {
            return Err(self.damaged("a value without its prefix"));
        };
        match prefix >> 6 {
            0b00 => {
                self.value = Place::Data(from + 1, to);
                Ok(())
            }
            0b10 => self.fetch_value(from + 1, to),
            0b01 => Err(self.damaged("a value in a blob file is not supported")),
            _ => Err(self.damaged("unknown value prefix")),
        }
    }

    fn fetch_value(&mut self, from: usize, to: usize) -> Result<()> {
        let mut reader = Reader::new(&self.block[from..to]);
        let parts = (reader.uvarint(), reader.uvarint(), reader.uvarint());
        let (Some(length), Some(number), Some(offset)) = parts else {
            return Err(self.damaged("malformed value handle"));
        };
        if self.value_blocks.is_none() {
            self.value_blocks = Some(self.table.value_blocks()?);
        }
        if self.value_block_number != Some(number) {
            let handles = self.value_blocks.as_deref().unwrap_or_default();
            let Some(handle) = usize::try_from(number).ok().and_then(|number| handles.get(number)) else {
                return Err(self.damaged("value block that does not exist"));
            };
            self.table.source().read(*handle, &mut self.scratch, &mut self.value_block)?;
            self.value_block_number = Some(number);
        }
        let end = offset.checked_add(length).filter(|end| *end <= self.value_block.len() as u64);
        let Some(end) = end else { return Err(self.damaged("value beyond its block")) };
        self.value = Place::ValueBlock(offset as usize, end as usize);
        Ok(())
    }

    fn next_block(&mut self) -> Result<bool> {
        while self.blocks.is_empty() {
            let Some((_, handle)) = self.partitions.pop() else { return Ok(false) };
            self.blocks = self.table.index_entries(handle)?;
            self.blocks.retain(|(separator, _)| *separator >= self.low);
            self.blocks.reverse();
        }
        let Some((_, handle)) = self.blocks.pop() else { return Ok(false) };
        self.table.source().read(handle, &mut self.scratch, &mut self.block)?;
        self.bytes_read += handle.length;
        self.entries.start(&self.block).ok_or_else(|| self.table.malformed(handle))?;
        self.live_block = true;
        Ok(true)
    }

    fn damaged(&self, what: &str) -> Error {
        Error::file(&self.table.path, what)
    }
}
