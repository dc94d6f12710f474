//! A FlatKV store of the same state: four databases whose newest rows lie in higher levels and in the log, and a state log.

use std::fs::{self, File};
use std::io::{BufWriter, Result, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::pebble::{DELETE, Level, Records, SET, manifest};
use crate::state::{Shape, VERSION, has_code, height, keyed, mix, nonce};
use crate::wire::{changeset, framed, uvarint};

const LOG_NUMBER: u64 = 900_000;
const BATCH: usize = 500;

struct Database {
    bottom: Level,
    middle: Level,
    top: Level,
    log: Records,
    batch: Vec<u8>,
    batched: u32,
    sequence: u64,
    rows: u64,
    bytes: u64,
    sum: Box<[u16; 1024]>,
    stored: Vec<u8>,
}

impl Database {
    fn create(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            bottom: Level::new(directory, 6, 96 << 20, 100)?,
            middle: Level::new(directory, 5, 32 << 20, 100_000)?,
            top: Level::new(directory, 0, 4 << 20, 200_000)?,
            log: Records::create(&directory.join(format!("{LOG_NUMBER:06}.log")), Some(LOG_NUMBER as u32))?,
            batch: Vec::new(),
            batched: 0,
            sequence: 1_000_000_000,
            rows: 0,
            bytes: 0,
            sum: Box::new([0; 1024]),
            stored: Vec::new(),
        })
    }

    /// A live row: most stand in the bottom level alone, a few have newer versions above it, and some keys were deleted.
    fn row(&mut self, key: &[u8], height: u32, payload: &[u8]) -> Result<()> {
        let mut stored = std::mem::take(&mut self.stored);
        stored.clear();
        stored.push(0);
        stored.extend_from_slice(&u64::from(height).to_be_bytes());
        stored.extend_from_slice(payload);
        self.count(key, &stored);
        let draw = mix(30, u64::from_be_bytes(key[key.len() - 8..].try_into().unwrap()));
        let place = draw % 10_000;
        if place >= 580 || draw & 1 << 40 != 0 {
            self.bottom.add(key, 0, SET, &stored)?;
        }
        match place {
            0..30 => self.logged(key, &stored)?,
            30..80 => self.top.add(key, 500_000_000 + self.rows, SET, &stored)?,
            80..580 => self.middle.add(key, 100_000_000 + self.rows, SET, &stored)?,
            600..650 if key.last() != Some(&0xff) => {
                let mut gone = key.to_vec();
                *gone.last_mut().unwrap() += 1;
                self.bottom.add(&gone, 0, SET, &stored)?;
                self.middle.add(&gone, 100_000_000 + self.rows, DELETE, &[])?;
            }
            _ => {}
        }
        self.stored = stored;
        Ok(())
    }

    fn count(&mut self, key: &[u8], stored: &[u8]) {
        self.rows += 1;
        self.bytes += (key.len() + stored.len()) as u64;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(key.len() as u32).to_le_bytes());
        hasher.update(key);
        hasher.update(&(stored.len() as u32).to_le_bytes());
        hasher.update(stored);
        let mut expanded = [0; 2048];
        hasher.finalize_xof().fill(&mut expanded);
        for (limb, bytes) in self.sum.iter_mut().zip(expanded.chunks_exact(2)) {
            *limb = limb.wrapping_add(u16::from_le_bytes([bytes[0], bytes[1]]));
        }
    }

    fn logged(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.batched == 0 {
            self.batch.clear();
            self.batch.extend_from_slice(&self.sequence.to_le_bytes());
            self.batch.extend_from_slice(&[0; 4]);
        }
        self.batch.push(SET);
        framed(&mut self.batch, key);
        framed(&mut self.batch, value);
        self.batched += 1;
        self.sequence += 1;
        if self.batched as usize == BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.batched > 0 {
            self.batch[8..12].copy_from_slice(&self.batched.to_le_bytes());
            self.log.add(&self.batch)?;
            self.batched = 0;
        }
        Ok(())
    }

    fn finish(mut self, directory: &Path) -> Result<()> {
        let sum: Vec<u8> = self.sum.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        self.logged(b"_meta/hash", &sum)?;
        self.logged(b"_meta/version", &u64::from(VERSION).to_be_bytes())?;
        if self.rows > 0 {
            let stats = [self.rows.to_be_bytes(), self.bytes.to_be_bytes()].concat();
            self.logged(b"_meta/x:evm/hash", &sum)?;
            self.logged(b"_meta/x:evm/stats", &stats)?;
        }
        self.flush()?;
        self.log.finish()?;
        let mut edits = self.top.finish()?;
        edits.extend(self.middle.finish()?);
        edits.extend(self.bottom.finish()?);
        manifest(directory, &edits, LOG_NUMBER)
    }
}

fn physical(raw: &[u8]) -> Vec<u8> {
    [b"evm/", raw].concat()
}

pub fn write(root: &Path, shape: &Shape, blocks: u32, writes: u64) -> Result<()> {
    let name = format!("snapshot-{VERSION:020}");
    let directory = root.join(&name);
    account(&directory.join("account"), shape)?;
    database(&directory.join("code"), &mut |visit| {
        let mut code = Vec::new();
        for contract in 0..shape.contracts {
            shape.code(contract, &mut code);
            visit(&keyed(7, &shape.contract_address(contract)), &code);
        }
    })?;
    database(&directory.join("storage"), &mut |visit| shape.storage_rows(visit))?;
    database(&directory.join("misc"), &mut |visit| {
        shape.misc_links(visit);
        shape.code_sizes(visit);
    })?;
    symlink(&name, root.join("current"))?;
    state_log(&root.join("changelog"), shape, blocks, writes)
}

type Visit<'a> = dyn FnMut(&[u8], &[u8]) + 'a;

fn database(directory: &Path, rows: &mut dyn FnMut(&mut Visit<'_>)) -> Result<()> {
    let mut database = Database::create(directory)?;
    let mut outcome = Ok(());
    rows(&mut |key, value| {
        if outcome.is_ok() {
            outcome = database.row(&physical(key), height(key), value);
        }
    });
    outcome?;
    database.finish(directory)
}

fn account(directory: &Path, shape: &Shape) -> Result<()> {
    let mut database = Database::create(directory)?;
    for number in 0..shape.accounts {
        let raw = keyed(0x0a, &shape.address(number));
        let mut payload = [0; 72];
        payload[32..40].copy_from_slice(&nonce(number).to_be_bytes());
        let mut length = 40;
        if let Some(contract) = has_code(number).filter(|contract| *contract < shape.contracts) {
            payload[40..].copy_from_slice(&shape.codehash(contract));
            length = 72;
        }
        database.row(&physical(&raw), height(&raw), &payload[..length])?;
    }
    database.finish(directory)
}

fn state_log(directory: &Path, shape: &Shape, blocks: u32, writes: u64) -> Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join(format!("0-{}-{}.wal", VERSION + 1, VERSION + blocks));
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(b"SEIWL\x01")?;
    for block in 1..=blocks {
        let mut payload = vec![1];
        framed(&mut payload, &changeset(shape, block, writes));
        let mut record = Vec::new();
        uvarint(&mut record, u64::from(VERSION + block));
        framed(&mut record, &payload);
        let checksum = crc32fast::hash(&record);
        file.write_all(&record)?;
        file.write_all(&checksum.to_be_bytes())?;
    }
    file.flush()
}
