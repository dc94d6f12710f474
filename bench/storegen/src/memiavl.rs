//! A memiavl store: one snapshot with all its hashes, and a changelog behind it.

use std::fs::{self, File};
use std::io::{BufWriter, Result, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::state::{Shape, VERSION, height};
use crate::wire::{changeset, field, framed, number, uvarint};

const SEGMENT: u64 = 20 << 20;

struct Branch {
    first: u64,
    leaves: u64,
    height: u8,
    hash: [u8; 32],
}

/// Writes leaves as they come and every branch once its leaves are there; the tree is split in halves of powers of two.
struct Writer {
    kvs: BufWriter<File>,
    leaves: BufWriter<File>,
    nodes: BufWriter<File>,
    offset: u64,
    count: u64,
    waiting: Vec<Branch>,
}

impl Writer {
    fn leaf(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let version = height(key);
        let mut head = vec![0, 2];
        uvarint(&mut head, u64::from(version) * 2);
        framed(&mut head, key);
        head.push(32);
        head.extend_from_slice(&Sha256::digest(value));
        let hash: [u8; 32] = Sha256::digest(&head).into();
        self.leaves.write_all(&version.to_le_bytes())?;
        self.leaves.write_all(&(key.len() as u32).to_le_bytes())?;
        self.leaves.write_all(&self.offset.to_le_bytes())?;
        self.leaves.write_all(&hash)?;
        for part in [key, value] {
            self.kvs.write_all(&(part.len() as u32).to_le_bytes())?;
            self.kvs.write_all(part)?;
        }
        self.offset += 8 + (key.len() + value.len()) as u64;
        self.waiting.push(Branch { first: self.count, leaves: 1, height: 0, hash });
        self.count += 1;
        while let [.., left, right] = self.waiting.as_slice()
            && left.leaves == right.leaves
        {
            self.join()?;
        }
        Ok(())
    }

    fn join(&mut self) -> Result<()> {
        let (right, left) = (self.waiting.pop().unwrap(), self.waiting.pop().unwrap());
        let (height, leaves) = (left.height.max(right.height) + 1, left.leaves + right.leaves);
        let mut head = Vec::new();
        for value in [u64::from(height), leaves, u64::from(VERSION)] {
            uvarint(&mut head, value * 2);
        }
        for side in [&left, &right] {
            head.push(32);
            head.extend_from_slice(&side.hash);
        }
        let hash: [u8; 32] = Sha256::digest(&head).into();
        self.nodes.write_all(&[height, self.waiting.len() as u8, 0, 0])?;
        for value in [VERSION, leaves as u32, right.first as u32] {
            self.nodes.write_all(&value.to_le_bytes())?;
        }
        self.nodes.write_all(&hash)?;
        self.waiting.push(Branch { first: left.first, leaves, height, hash });
        Ok(())
    }

    fn finish(mut self) -> Result<[u8; 32]> {
        while self.waiting.len() > 1 {
            self.join()?;
        }
        for file in [&mut self.kvs, &mut self.leaves, &mut self.nodes] {
            file.flush()?;
        }
        Ok(self.waiting[0].hash)
    }
}

/// `blocks` of `writes` each behind the snapshot.
pub fn write(root: &Path, shape: &Shape, blocks: u32, writes: u64) -> Result<()> {
    let name = format!("snapshot-{VERSION:020}");
    let tree = root.join(&name).join("evm");
    fs::create_dir_all(&tree)?;
    let create =
        |file: &str| Ok::<_, std::io::Error>(BufWriter::with_capacity(1 << 20, File::create(tree.join(file))?));
    let mut writer = Writer {
        kvs: create("kvs")?,
        leaves: create("leaves")?,
        nodes: create("nodes")?,
        offset: 0,
        count: 0,
        waiting: Vec::new(),
    };
    let mut outcome = Ok(());
    shape.raw_rows(&mut |key, value| {
        if outcome.is_ok() {
            outcome = writer.leaf(key, value);
        }
    });
    outcome?;
    let root_hash = writer.finish()?;
    let mut metadata = Vec::new();
    for word in [1_280_721_225, 0, VERSION] {
        metadata.extend_from_slice(&word.to_le_bytes());
    }
    fs::write(tree.join("metadata"), metadata)?;
    let (mut commit, mut store, mut info, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    number(&mut commit, 1, u64::from(VERSION));
    field(&mut commit, 2, &root_hash);
    field(&mut store, 1, b"evm");
    field(&mut store, 2, &commit);
    number(&mut info, 1, u64::from(VERSION));
    field(&mut info, 2, &store);
    field(&mut all, 1, &info);
    fs::write(root.join(&name).join("__metadata"), all)?;
    symlink(&name, root.join("current"))?;
    changelog(&root.join("changelog"), shape, blocks, writes)
}

fn changelog(directory: &Path, shape: &Shape, blocks: u32, writes: u64) -> Result<()> {
    fs::create_dir_all(directory)?;
    let mut segment: Option<(BufWriter<File>, u64)> = None;
    for block in 1..=blocks {
        let (mut entry, mut record) = (Vec::new(), Vec::new());
        number(&mut entry, 1, u64::from(VERSION + block));
        field(&mut entry, 2, &changeset(shape, block, writes));
        framed(&mut record, &entry);
        if segment.as_ref().is_none_or(|(_, size)| *size >= SEGMENT) {
            segment = Some((BufWriter::new(File::create(directory.join(format!("{block:020}")))?), 0));
        }
        let (file, size) = segment.as_mut().unwrap();
        file.write_all(&record)?;
        *size += record.len() as u64;
    }
    Ok(())
}
