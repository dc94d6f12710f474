//! The MANIFEST: edits that add up to the set of live tables (docs/contracts/digest.md 5.3).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::record::{Framing, records};
use crate::error::{Error, Result};
use crate::wire::{Reader, le64};

/// A user key with its trailer (sequence number and kind).
#[derive(Clone, Debug, Default)]
pub struct InternalKey {
    pub user: Vec<u8>,
    pub trailer: u64,
}

/// A range tombstone's end as a table bound: the bound itself is outside.
pub const SENTINEL_SEQUENCE: u64 = (1 << 56) - 1;

#[derive(Clone, Debug)]
pub struct TableMeta {
    pub level: u64,
    pub number: u64,
    pub size: u64,
    pub smallest: InternalKey,
    pub largest: InternalKey,
    pub smallest_sequence: u64,
    pub largest_sequence: u64,
    /// file that holds a virtual table's rows
    pub backing: Option<u64>,
    pub may_hold_tombstones: bool,
}

impl TableMeta {
    pub fn file_number(&self) -> u64 {
        self.backing.unwrap_or(self.number)
    }

    /// One sequence number for all rows, where the table was ingested.
    pub fn uniform_sequence(&self) -> Option<u64> {
        (self.smallest_sequence == self.largest_sequence && self.smallest_sequence != 0)
            .then_some(self.smallest_sequence)
    }
}

/// Live tables, by level and then by smallest key.
#[derive(Clone, Debug, Default)]
pub struct Version {
    pub tables: Vec<TableMeta>,
    pub min_unflushed_log: u64,
}

/// Read a MANIFEST. A torn end is what a crash leaves behind; a record that does not parse, or a file without any, is damage.
pub fn read(path: &Path, name: &str) -> Result<Version> {
    let data = fs::read(path).map_err(|error| {
        Error::store(format!(
            "pebble: could not open manifest file {name:?} for DB {:?}: {error}",
            path.parent().unwrap_or(path).display().to_string()
        ))
    })?;
    parse(&data, path, name)
}

/// The version that the records of a MANIFEST add up to.
pub fn parse(data: &[u8], path: &Path, name: &str) -> Result<Version> {
    let (records, _) = records(data, Framing::Legacy);
    let malformed = || {
        Error::store(format!(
            "pebble: malformed manifest file {name:?} for DB {:?}",
            path.parent().unwrap_or(path).display().to_string()
        ))
    };
    if records.is_empty() {
        return Err(malformed());
    }
    let mut live: BTreeMap<(u64, u64), TableMeta> = BTreeMap::new();
    let mut version = Version::default();
    for record in &records {
        let edit = edit(record).map_err(|problem| match problem {
            Problem::Malformed => malformed(),
            Problem::Refused(what) => Error::file(path, format!("{what} is not supported")),
        })?;
        if edit.min_unflushed_log != 0 {
            version.min_unflushed_log = edit.min_unflushed_log;
        }
        for gone in edit.deleted {
            if live.remove(&gone).is_none() {
                return Err(malformed());
            }
        }
        for table in edit.added {
            live.insert((table.level, table.number), table);
        }
    }
    version.tables = live.into_values().collect();
    version.tables.sort_by(|a, b| (a.level, &a.smallest.user).cmp(&(b.level, &b.smallest.user)));
    Ok(version)
}

#[derive(Default)]
struct Edit {
    min_unflushed_log: u64,
    deleted: Vec<(u64, u64)>,
    added: Vec<TableMeta>,
}

enum Problem {
    Malformed,
    Refused(&'static str),
}

impl From<()> for Problem {
    fn from((): ()) -> Self {
        Self::Malformed
    }
}

fn edit(record: &[u8]) -> std::result::Result<Edit, Problem> {
    let mut reader = Reader::new(record);
    let mut edit = Edit::default();
    while !reader.is_empty() {
        match number(&mut reader)? {
            1 => {
                if text(&mut reader)? != b"leveldb.BytewiseComparator" {
                    return Err(Problem::Refused("a comparer other than leveldb.BytewiseComparator"));
                }
            }
            2 => edit.min_unflushed_log = number(&mut reader)?,
            3 | 4 | 9 | 106 => {
                number(&mut reader)?;
            }
            5 => {
                number(&mut reader)?;
                text(&mut reader)?;
            }
            6 => edit.deleted.push((number(&mut reader)?, number(&mut reader)?)),
            tag @ (7 | 100 | 102 | 103 | 104) => edit.added.push(table(&mut reader, tag)?),
            105 => {
                number(&mut reader)?;
                number(&mut reader)?;
            }
            107 | 108 => return Err(Problem::Refused("a blob file")),
            200..=203 => return Err(Problem::Refused("a column family")),
            _ => return Err(Problem::Malformed),
        }
    }
    Ok(edit)
}

fn table(reader: &mut Reader<'_>, tag: u64) -> std::result::Result<TableMeta, Problem> {
    let level = number(reader)?;
    if level > 6 {
        return Err(Problem::Malformed);
    }
    let table_number = number(reader)?;
    if tag == 102 {
        number(reader)?;
    }
    let size = number(reader)?;
    let (smallest, largest, may_hold_tombstones) = if tag == 104 {
        let marker = reader.byte().ok_or(())?;
        let points = if marker & 1 != 0 { Some((internal(reader)?, internal(reader)?)) } else { None };
        internal(reader)?;
        internal(reader)?;
        // without point keys there is nothing a scan could see
        points.map_or((InternalKey::default(), InternalKey::default(), false), |(low, high)| (low, high, true))
    } else {
        (internal(reader)?, internal(reader)?, true)
    };
    let (mut smallest_sequence, mut largest_sequence) = (0, 0);
    if tag != 7 {
        smallest_sequence = number(reader)?;
        largest_sequence = number(reader)?;
    }
    let mut backing = None;
    if tag >= 103 {
        loop {
            match number(reader)? {
                1 => break,
                66 => backing = Some(number(reader)?),
                67 | 68 => {
                    if !text(reader)?.is_empty() {
                        return Err(Problem::Refused("a synthetic prefix or suffix"));
                    }
                }
                custom if custom & 64 != 0 => return Err(Problem::Refused("an unknown table attribute")),
                _ => {
                    text(reader)?;
                }
            }
        }
    }
    Ok(TableMeta {
        level,
        number: table_number,
        size,
        smallest,
        largest,
        smallest_sequence,
        largest_sequence,
        backing,
        may_hold_tombstones,
    })
}

fn number(reader: &mut Reader<'_>) -> std::result::Result<u64, Problem> {
    reader.uvarint().ok_or(Problem::Malformed)
}

fn text<'a>(reader: &mut Reader<'a>) -> std::result::Result<&'a [u8], Problem> {
    reader.bytes().ok_or(Problem::Malformed)
}

fn internal(reader: &mut Reader<'_>) -> std::result::Result<InternalKey, Problem> {
    let key = text(reader)?;
    let split = key.len().checked_sub(8).ok_or(())?;
    Ok(InternalKey { user: key[..split].to_vec(), trailer: le64(&key[split..]) })
}
