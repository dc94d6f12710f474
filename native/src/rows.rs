//! Logical rows: which bucket a key belongs to, and what a scan does with a row (docs/contracts/digest.md 1.3, 1.6, 2.2).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::entry::{Accumulator, entry_hash};
use crate::error::{Error, Result};
use crate::lanes::Hasher;
use crate::pieces::Merge;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Bucket {
    #[default]
    Account = 0,
    Code = 1,
    Storage = 2,
    Misc = 3,
}

/// Shape of a key inside the `evm` module. Lengths must match exactly; everything else is misc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawKind {
    Empty,
    Nonce,
    Codehash,
    Code,
    Storage,
    Misc,
}

pub const ADDRESS_KEY: usize = 21;
pub const STORAGE_KEY: usize = 53;
pub const VERSION_MARKER: &[u8] = b"migration/migration-version";
pub const BOUNDARY_MARKER: &[u8] = b"migration/migration-boundary";

pub fn raw_kind(key: &[u8]) -> RawKind {
    match (key.len(), key.first()) {
        (0, _) => RawKind::Empty,
        (ADDRESS_KEY, Some(0x0a)) => RawKind::Nonce,
        (ADDRESS_KEY, Some(0x08)) => RawKind::Codehash,
        (ADDRESS_KEY, Some(0x07)) => RawKind::Code,
        (STORAGE_KEY, Some(0x03)) => RawKind::Storage,
        _ => RawKind::Misc,
    }
}

/// Bucket of a FlatKV row, or None when the row takes no part.
pub fn physical_bucket(key: &[u8]) -> Option<Bucket> {
    if let Some(raw) = key.strip_prefix(b"evm/") {
        return Some(match raw_kind(raw) {
            RawKind::Nonce | RawKind::Codehash => Bucket::Account,
            RawKind::Code => Bucket::Code,
            RawKind::Storage => Bucket::Storage,
            RawKind::Empty | RawKind::Misc => Bucket::Misc,
        });
    }
    (key == VERSION_MARKER || key == BOUNDARY_MARKER).then_some(Bucket::Misc)
}

pub fn hex_upper(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// One logical row. `stored` is the value as its store holds it, `height` the block of its last write where known.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub bucket: Bucket,
    pub key: &'a [u8],
    pub payload: &'a [u8],
    pub stored: &'a [u8],
    pub height: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct OwnedRow {
    pub bucket: Bucket,
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
    pub stored: Vec<u8>,
    pub height: Option<i64>,
}

impl From<&Row<'_>> for OwnedRow {
    fn from(row: &Row<'_>) -> Self {
        Self {
            bucket: row.bucket,
            key: row.key.to_vec(),
            payload: row.payload.to_vec(),
            stored: row.stored.to_vec(),
            height: row.height,
        }
    }
}

/// Counters a running scan moves and its owner reads; `cancel` stops it at the next batch.
#[derive(Debug, Default)]
pub struct Progress {
    pub rows: AtomicU64,
    pub bytes: AtomicU64,
    pub cancelled: AtomicBool,
}

impl Progress {
    pub fn moved(&self, rows: u64, bytes: u64) -> Result<()> {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}

/// What a scan does with each row. Each worker fills its own; they are merged at the end.
pub trait Sink: Merge {
    fn row(&mut self, row: &Row<'_>) -> Result<()>;
}

/// The digest: four accumulators, the marker rows apart, and rows whose hash somebody looks for.
#[derive(Clone, Default)]
pub struct DigestSink {
    pub buckets: [Accumulator; 4],
    pub version_marker: Option<[u8; 32]>,
    pub boundary_marker: Option<[u8; 32]>,
    pub find: Option<[u8; 32]>,
    pub found: Vec<OwnedRow>,
    hasher: Hasher<Bucket>,
}

impl DigestSink {
    pub fn finding(find: Option<[u8; 32]>) -> Self {
        Self { find, ..Self::default() }
    }

    /// A row whose hash is looked at, and so cannot wait.
    fn add_now(&mut self, row: &Row<'_>) {
        let hash = entry_hash(row.key, row.payload);
        self.buckets[row.bucket as usize].add(&hash);
        if row.key == VERSION_MARKER {
            self.version_marker = Some(hash);
        } else if row.key == BOUNDARY_MARKER {
            self.boundary_marker = Some(hash);
        }
        if self.find == Some(hash) {
            self.found.push(row.into());
        }
    }
}

impl Sink for DigestSink {
    fn row(&mut self, row: &Row<'_>) -> Result<()> {
        if self.find.is_some() || row.key.first() == Some(&b'm') {
            self.add_now(row);
        } else {
            let buckets = &mut self.buckets;
            self.hasher.push(row.key, row.payload, row.bucket, |bucket, hash| buckets[bucket as usize].add(hash));
        }
        Ok(())
    }
}

impl Merge for DigestSink {
    fn settle(&mut self) {
        let buckets = &mut self.buckets;
        self.hasher.flush(|bucket, hash| buckets[bucket as usize].add(hash));
    }

    fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            mine.merge(theirs);
        }
        self.version_marker = self.version_marker.or(other.version_marker);
        self.boundary_marker = self.boundary_marker.or(other.boundary_marker);
        self.found.extend(other.found);
    }
}

/// Which rows an inspect run takes: one bucket, and a prefix at an offset of the physical key (1.11).
#[derive(Clone, Debug)]
pub struct Query {
    pub bucket: Bucket,
    pub offset: usize,
    pub prefix: Vec<u8>,
    pub next_bytes: usize,
}

impl Query {
    pub fn matches(&self, row: &Row<'_>) -> bool {
        row.bucket == self.bucket && row.key.get(self.offset..).is_some_and(|rest| rest.starts_with(&self.prefix))
    }

    fn shard<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        let end = (self.offset + self.prefix.len() + self.next_bytes).min(key.len());
        &key[self.offset..end]
    }
}

/// Inspect without a listing: one accumulator a shard.
#[derive(Clone, Debug)]
pub struct ShardSink {
    pub query: Query,
    pub matched: u64,
    pub shards: BTreeMap<Vec<u8>, Accumulator>,
}

impl Sink for ShardSink {
    fn row(&mut self, row: &Row<'_>) -> Result<()> {
        if self.query.matches(row) {
            self.matched += 1;
            let hash = entry_hash(row.key, row.payload);
            let shard = self.query.shard(row.key);
            match self.shards.get_mut(shard) {
                Some(tally) => tally.add(&hash),
                None => {
                    let mut tally = Accumulator::default();
                    tally.add(&hash);
                    self.shards.insert(shard.to_vec(), tally);
                }
            }
        }
        Ok(())
    }
}

impl Merge for ShardSink {
    fn merge(&mut self, other: Self) {
        self.matched += other.matched;
        for (shard, tally) in other.shards {
            self.shards.entry(shard).or_default().merge(&tally);
        }
    }
}

pub const SHARD_BITS: u32 = 10;
pub const SHARDS: usize = 1 << SHARD_BITS;

pub fn shard_of(key: &[u8]) -> usize {
    (crc32fast::hash(key) >> (32 - SHARD_BITS)) as usize
}

/// The shard tree of a side: 1,024 shards a bucket by the CRC-32 of the physical key. Marker rows are kept apart.
#[derive(Clone)]
pub struct TreeSink {
    pub shards: Vec<[Accumulator; SHARDS]>,
    pub markers: Accumulator,
    pub version_marker: Option<[u8; 32]>,
    pub boundary_marker: Option<[u8; 32]>,
    hasher: Hasher<(Bucket, u16)>,
}

impl Default for TreeSink {
    fn default() -> Self {
        Self {
            shards: vec![[Accumulator::default(); SHARDS]; 4],
            markers: Accumulator::default(),
            version_marker: None,
            boundary_marker: None,
            hasher: Hasher::default(),
        }
    }
}

impl TreeSink {
    fn mark(&mut self, row: &Row<'_>) {
        let hash = entry_hash(row.key, row.payload);
        self.markers.add(&hash);
        let marker = if row.key == VERSION_MARKER { &mut self.version_marker } else { &mut self.boundary_marker };
        *marker = Some(hash);
    }

    /// The same rows as a digest: buckets with the marker rows among misc, as they are stored.
    pub fn digest(&self) -> DigestSink {
        let mut digest = DigestSink::default();
        for (bucket, shards) in digest.buckets.iter_mut().zip(&self.shards) {
            for shard in shards {
                bucket.merge(shard);
            }
        }
        digest.buckets[Bucket::Misc as usize].merge(&self.markers);
        digest.version_marker = self.version_marker;
        digest.boundary_marker = self.boundary_marker;
        digest
    }
}

impl Sink for TreeSink {
    fn row(&mut self, row: &Row<'_>) -> Result<()> {
        if row.key == VERSION_MARKER || row.key == BOUNDARY_MARKER {
            self.mark(row);
        } else {
            let shards = &mut self.shards;
            let tag = (row.bucket, shard_of(row.key) as u16);
            self.hasher.push(row.key, row.payload, tag, |(bucket, shard), hash| {
                shards[bucket as usize][usize::from(shard)].add(hash);
            });
        }
        Ok(())
    }
}

impl Merge for TreeSink {
    fn settle(&mut self) {
        let shards = &mut self.shards;
        self.hasher.flush(|(bucket, shard), hash| shards[bucket as usize][usize::from(shard)].add(hash));
    }

    fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.shards.iter_mut().zip(&other.shards) {
            for (a, b) in mine.iter_mut().zip(theirs) {
                a.merge(b);
            }
        }
        self.markers.merge(&other.markers);
        self.version_marker = self.version_marker.or(other.version_marker);
        self.boundary_marker = self.boundary_marker.or(other.boundary_marker);
    }
}

/// Hands rows on, in batches, to whoever listens; used by listings and by the export of shards.
pub struct RowSink<'a> {
    pub wanted: &'a (dyn Fn(&Row<'_>) -> bool + Sync),
    pub emit: &'a (dyn Fn(Vec<OwnedRow>) -> Result<()> + Sync),
    pub batch: Vec<OwnedRow>,
}

const ROW_BATCH: usize = 1024;

impl RowSink<'_> {
    pub fn flush(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        (self.emit)(std::mem::take(&mut self.batch))
    }
}

impl Sink for RowSink<'_> {
    fn row(&mut self, row: &Row<'_>) -> Result<()> {
        if (self.wanted)(row) {
            self.batch.push(row.into());
            if self.batch.len() >= ROW_BATCH {
                self.flush()?;
            }
        }
        Ok(())
    }
}

impl Merge for RowSink<'_> {
    fn merge(&mut self, other: Self) {
        self.batch.extend(other.batch);
    }
}
