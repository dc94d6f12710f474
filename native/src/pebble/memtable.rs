//! Rows that exist only in the write-ahead logs: a checkpoint is taken without a flush, so up to 64 MiB or more of the newest
//! data stands nowhere else (docs/contracts/digest.md 5.1, 5.4).

use std::fs;
use std::path::Path;

use super::manifest::SENTINEL_SEQUENCE;
use super::record::{End, Framing, records};
use super::{RangeTombstone, kind};
use crate::error::{Error, Result};
use crate::wire::Reader;

#[derive(Clone, Copy, Debug)]
struct Entry {
    record: u32,
    key_at: u32,
    key_len: u32,
    value_at: u32,
    value_len: u32,
    trailer: u64,
}

/// Point entries of all replayed logs: user key ascending, newest first.
#[derive(Default)]
pub struct Memtable {
    records: Vec<Vec<u8>>,
    entries: Vec<Entry>,
}

impl Memtable {
    /// Replay `logs` ((number, failover index, name), ascending). Only the last log may end torn.
    pub fn replay(dir: &Path, logs: &[(u64, u64, String)], tombstones: &mut Vec<RangeTombstone>) -> Result<Self> {
        let mut table = Self::default();
        let mut last_number = None;
        let mut last_sequence = 0u64;
        for (position, (number, _, name)) in logs.iter().enumerate() {
            let path = dir.join(name);
            let data = fs::read(&path).map_err(|error| Error::io(&path, &error))?;
            let (found, end) = records(&data, Framing::Recyclable(*number as u32));
            let newest = logs[position + 1..].iter().all(|(other, _, _)| other == number);
            if end == End::Torn && !newest {
                return Err(Error::file(&path, "a log that is not the last one is cut or corrupt"));
            }
            if last_number != Some(*number) {
                last_number = Some(*number);
                last_sequence = 0;
            }
            for record in found {
                let Some(first) = record.get(..8).map(crate::wire::le64) else {
                    return Err(Error::file(&path, "a batch shorter than its header"));
                };
                // failover may have written a batch to two segments of one log
                if last_sequence != 0 && first <= last_sequence && first != 0 {
                    continue;
                }
                let entries = table.entries.len();
                table
                    .add(record, tombstones)
                    .ok_or_else(|| Error::file(&path, "a malformed batch"))?
                    .map_err(|what| Error::file(&path, format!("{what} is not supported")))?;
                if table.entries.len() > entries {
                    last_sequence = first;
                }
            }
        }
        table.sort();
        Ok(table)
    }

    /// None: malformed; Err: a kind of entry that is refused.
    fn add(
        &mut self,
        record: Vec<u8>,
        tombstones: &mut Vec<RangeTombstone>,
    ) -> Option<std::result::Result<(), &'static str>> {
        let mut reader = Reader::new(&record);
        let first = reader.le64()?;
        if first > SENTINEL_SEQUENCE || record.len() > u32::MAX as usize {
            return None;
        }
        let count = reader.le32()?;
        if count == 0 {
            return Some(Ok(()));
        }
        let number = u32::try_from(self.records.len()).ok()?;
        let mut sequence = first;
        while !reader.is_empty() {
            let entry_kind = reader.byte()?;
            if entry_kind == kind::LOG_DATA {
                reader.bytes()?;
                continue;
            }
            let key = reader.bytes()?;
            let key_at = (reader.position() - key.len()) as u32;
            let value = match entry_kind {
                kind::DELETE | kind::SINGLE_DELETE => &[],
                kind::SET
                | kind::MERGE
                | kind::RANGE_DELETE
                | kind::SET_WITH_DELETE
                | kind::DELETE_SIZED
                | kind::RANGE_KEY_DELETE..=kind::RANGE_KEY_SET => reader.bytes()?,
                kind::INGEST => return Some(Err("an ingested table in a log")),
                kind::EXCISE => return Some(Err("an excise in a log")),
                _ => return None,
            };
            match entry_kind {
                kind::MERGE => return Some(Err("a merge")),
                kind::RANGE_DELETE => {
                    tombstones.push(RangeTombstone { start: key.to_vec(), end: value.to_vec(), sequence });
                }
                kind::RANGE_KEY_DELETE..=kind::RANGE_KEY_SET => {}
                _ => self.entries.push(Entry {
                    record: number,
                    key_at,
                    key_len: key.len() as u32,
                    value_at: (reader.position() - value.len()) as u32,
                    value_len: value.len() as u32,
                    trailer: sequence << 8 | u64::from(entry_kind),
                }),
            }
            sequence += 1;
        }
        if sequence - first != u64::from(count) {
            return None;
        }
        self.records.push(record);
        Some(Ok(()))
    }

    fn sort(&mut self) {
        let records = &self.records;
        self.entries.sort_unstable_by(|a, b| {
            key_of(records, a).cmp(key_of(records, b)).then_with(|| b.trailer.cmp(&a.trailer))
        });
        // the newest entry of a key hides the others; keep only it
        self.entries.dedup_by(|later, kept| key_of(records, later) == key_of(records, kept));
    }

    /// Positions of the first entry with key >= `low`, and of the first with key >= `high`.
    pub fn range(&self, low: &[u8], high: Option<&[u8]>) -> (usize, usize) {
        let from = self.entries.partition_point(|entry| key_of(&self.records, entry) < low);
        let to = high.map_or(self.entries.len(), |high| {
            self.entries.partition_point(|entry| key_of(&self.records, entry) < high)
        });
        (from, to.max(from))
    }

    pub fn key(&self, at: usize) -> &[u8] {
        key_of(&self.records, &self.entries[at])
    }

    pub fn value(&self, at: usize) -> &[u8] {
        let entry = &self.entries[at];
        let from = entry.value_at as usize;
        &self.records[entry.record as usize][from..from + entry.value_len as usize]
    }

    pub fn trailer(&self, at: usize) -> u64 {
        self.entries[at].trailer
    }
}

fn key_of<'a>(records: &'a [Vec<u8>], entry: &Entry) -> &'a [u8] {
    let from = entry.key_at as usize;
    &records[entry.record as usize][from..from + entry.key_len as usize]
}
