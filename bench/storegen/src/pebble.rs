//! Pebble databases as FlatKV makes them: tables of format v4 with zstd blocks in several levels, and a write-ahead log.

use std::fs::{self, File};
use std::io::{BufWriter, Result, Write};
use std::path::{Path, PathBuf};

use crate::wire::{framed, uvarint};

const DATA_BLOCK: usize = 32 << 10;
const INDEX_BLOCK: usize = 256 << 10;
const RESTART: usize = 16;
const LOG_BLOCK: usize = 32 << 10;
pub const DELETE: u8 = 0;
pub const SET: u8 = 1;

fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[derive(Default)]
struct RowBlock {
    data: Vec<u8>,
    restarts: Vec<u32>,
    count: usize,
    previous: Vec<u8>,
}

impl RowBlock {
    fn add(&mut self, key: &[u8], value: &[&[u8]], interval: usize) {
        let mut shared = 0;
        if self.count.is_multiple_of(interval) {
            self.restarts.push(self.data.len() as u32);
        } else {
            shared = key.iter().zip(&self.previous).take_while(|(a, b)| a == b).count();
        }
        uvarint(&mut self.data, shared as u64);
        uvarint(&mut self.data, (key.len() - shared) as u64);
        uvarint(&mut self.data, value.iter().map(|part| part.len() as u64).sum());
        self.data.extend_from_slice(&key[shared..]);
        for part in value {
            self.data.extend_from_slice(part);
        }
        self.previous.clear();
        self.previous.extend_from_slice(key);
        self.count += 1;
    }

    fn finish(&mut self) -> Vec<u8> {
        let mut data = std::mem::take(&mut self.data);
        let restarts = std::mem::take(&mut self.restarts);
        for restart in &restarts {
            data.extend_from_slice(&restart.to_le_bytes());
        }
        data.extend_from_slice(&(restarts.len() as u32).to_le_bytes());
        self.count = 0;
        data
    }
}

struct Table {
    file: BufWriter<File>,
    number: u64,
    offset: u64,
    block: RowBlock,
    index: Vec<(Vec<u8>, u64, u64)>,
    smallest: Vec<u8>,
    largest: Vec<u8>,
    sequences: (u64, u64),
}

/// One level of a database: rows in ascending order, cut into tables.
pub struct Level {
    directory: PathBuf,
    level: u64,
    target: u64,
    next_number: u64,
    table: Option<Table>,
    compressor: zstd::bulk::Compressor<'static>,
    edits: Vec<Vec<u8>>,
    key: Vec<u8>,
}

impl Level {
    pub fn new(directory: &Path, level: u64, target: u64, first_number: u64) -> Result<Self> {
        Ok(Self {
            directory: directory.to_path_buf(),
            level,
            target,
            next_number: first_number,
            table: None,
            compressor: zstd::bulk::Compressor::new(3)?,
            edits: Vec::new(),
            key: Vec::new(),
        })
    }

    pub fn add(&mut self, key: &[u8], sequence: u64, kind: u8, value: &[u8]) -> Result<()> {
        self.key.clear();
        self.key.extend_from_slice(key);
        self.key.extend_from_slice(&(sequence << 8 | u64::from(kind)).to_le_bytes());
        if self.table.is_none() {
            let number = self.next_number;
            self.next_number += 1;
            let path = self.directory.join(format!("{number:06}.sst"));
            self.table = Some(Table {
                file: BufWriter::with_capacity(1 << 20, File::create(path)?),
                number,
                offset: 0,
                block: RowBlock::default(),
                index: Vec::new(),
                smallest: self.key.clone(),
                largest: Vec::new(),
                sequences: (u64::MAX, 0),
            });
        }
        let table = self.table.as_mut().unwrap();
        table.sequences = (table.sequences.0.min(sequence), table.sequences.1.max(sequence));
        let prefix: &[u8] = if kind == SET { &[0] } else { &[] };
        table.block.add(&self.key, &[prefix, value], RESTART);
        if table.block.data.len() >= DATA_BLOCK {
            table.flush(&mut self.compressor)?;
            if table.offset >= self.target {
                self.close()?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(mut table) = self.table.take() else { return Ok(()) };
        table.flush(&mut self.compressor)?;
        let number = table.number;
        let (size, smallest, largest, (low, high)) = table.finish(&mut self.compressor)?;
        let mut edit = vec![103];
        for value in [self.level, number, size] {
            uvarint(&mut edit, value);
        }
        framed(&mut edit, &smallest);
        framed(&mut edit, &largest);
        uvarint(&mut edit, if low == high && low > 0 { low - 1 } else { low });
        uvarint(&mut edit, high);
        edit.push(1);
        self.edits.push(edit);
        Ok(())
    }

    pub fn finish(mut self) -> Result<Vec<Vec<u8>>> {
        self.close()?;
        Ok(self.edits)
    }
}

impl Table {
    fn write(&mut self, data: &[u8], compressor: Option<&mut zstd::bulk::Compressor<'static>>) -> Result<(u64, u64)> {
        let mut block = Vec::new();
        if let Some(compressor) = compressor {
            uvarint(&mut block, data.len() as u64);
            block.extend_from_slice(&compressor.compress(data)?);
        }
        // what saves less than 12 % is stored as it is
        if block.is_empty() || block.len() > data.len() - data.len() / 8 {
            block = data.to_vec();
            block.push(0);
        } else {
            block.push(7);
        }
        let at = (self.offset, block.len() as u64 - 1);
        self.file.write_all(&block)?;
        self.file.write_all(&masked(&block).to_le_bytes())?;
        self.offset += block.len() as u64 + 4;
        Ok(at)
    }

    fn flush(&mut self, compressor: &mut zstd::bulk::Compressor<'static>) -> Result<()> {
        if self.block.count == 0 {
            return Ok(());
        }
        self.largest.clone_from(&self.block.previous);
        let data = self.block.finish();
        let (offset, length) = self.write(&data, Some(compressor))?;
        self.index.push((self.largest.clone(), offset, length));
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn finish(
        mut self,
        compressor: &mut zstd::bulk::Compressor<'static>,
    ) -> Result<(u64, Vec<u8>, Vec<u8>, (u64, u64))> {
        let mut index = std::mem::take(&mut self.index);
        let two_level = index.len() * 70 > INDEX_BLOCK;
        if two_level {
            let mut top = Vec::new();
            for part in index.chunks(INDEX_BLOCK / 70) {
                let data = index_block(part);
                let (offset, length) = self.write(&data, Some(compressor))?;
                top.push((part.last().unwrap().0.clone(), offset, length));
            }
            index = top;
        }
        let index = self.write(&index_block(&index), Some(compressor))?;
        let mut properties = RowBlock::default();
        let kind: u32 = if two_level { 2 } else { 0 };
        properties.add(b"rocksdb.block.based.table.index.type", &[&kind.to_le_bytes()], RESTART);
        let properties = self.write(&properties.finish(), None)?;
        let mut meta = RowBlock::default();
        meta.add(b"rocksdb.properties", &[&handle(properties)], 1);
        let meta = self.write(&meta.finish(), None)?;
        let mut footer = vec![1];
        footer.extend(handle(meta));
        footer.extend(handle(index));
        footer.resize(41, 0);
        footer.extend_from_slice(&4u32.to_le_bytes());
        footer.extend_from_slice(&[0xf0, 0x9f, 0xaa, 0xb3, 0xf0, 0x9f, 0xaa, 0xb3]);
        self.file.write_all(&footer)?;
        self.file.flush()?;
        Ok((self.offset + footer.len() as u64, self.smallest, self.largest, self.sequences))
    }
}

fn handle((offset, length): (u64, u64)) -> Vec<u8> {
    let mut bytes = Vec::new();
    uvarint(&mut bytes, offset);
    uvarint(&mut bytes, length);
    bytes
}

fn index_block(entries: &[(Vec<u8>, u64, u64)]) -> Vec<u8> {
    let mut block = RowBlock::default();
    for (key, offset, length) in entries {
        block.add(key, &[&handle((*offset, *length))], 1);
    }
    block.finish()
}

/// Chunks of records; with a number the framing of a write-ahead log, without that of a MANIFEST.
pub struct Records {
    file: BufWriter<File>,
    number: Option<u32>,
    at: usize,
}

impl Records {
    pub fn create(path: &Path, number: Option<u32>) -> Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), number, at: 0 })
    }

    pub fn add(&mut self, mut record: &[u8]) -> Result<()> {
        let header = if self.number.is_some() { 11 } else { 7 };
        let base = if self.number.is_some() { 5 } else { 1 };
        let mut first = true;
        while first || !record.is_empty() {
            let room = LOG_BLOCK - self.at % LOG_BLOCK;
            if room < header {
                self.file.write_all(&vec![0; room])?;
                self.at += room;
                continue;
            }
            let (piece, rest) = record.split_at(record.len().min(room - header));
            let position = match (first, rest.is_empty()) {
                (true, true) => 0,
                (true, false) => 1,
                (false, false) => 2,
                (false, true) => 3,
            };
            let mut chunk = vec![base + position];
            chunk.extend(self.number.map(u32::to_le_bytes).into_iter().flatten());
            chunk.extend_from_slice(piece);
            self.file.write_all(&masked(&chunk).to_le_bytes())?;
            self.file.write_all(&(piece.len() as u16).to_le_bytes())?;
            self.file.write_all(&chunk)?;
            self.at += header + piece.len();
            record = rest;
            first = false;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<()> {
        self.file.flush()
    }
}

pub fn manifest(directory: &Path, edits: &[Vec<u8>], log_number: u64) -> Result<()> {
    let mut file = Records::create(&directory.join("MANIFEST-000001"), None)?;
    let mut head = vec![1];
    framed(&mut head, b"leveldb.BytewiseComparator");
    head.push(2);
    uvarint(&mut head, log_number);
    file.add(&head)?;
    for edit in edits {
        file.add(edit)?;
    }
    file.finish()?;
    for name in ["marker.manifest.000001.MANIFEST-000001", "marker.format-version.000001.016"] {
        fs::write(directory.join(name), b"")?;
    }
    Ok(())
}
