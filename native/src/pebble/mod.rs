//! Read-only access to a Pebble database directory, as far as FlatKV needs it (docs/contracts/digest.md 5).
//!
//! Nothing is opened for writing, locked, repaired or removed. Formats that are not implemented are refused with the file named.

mod block;
mod iter;
mod manifest;
mod memtable;
mod record;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

pub use iter::Rows;

use crate::error::{Error, Result};
use manifest::{TableMeta, Version};
use memtable::Memtable;

/// Sequence numbers and kinds share the 64-bit trailer of an internal key.
pub(crate) mod kind {
    pub const DELETE: u8 = 0;
    pub const SET: u8 = 1;
    pub const MERGE: u8 = 2;
    pub const LOG_DATA: u8 = 3;
    pub const SINGLE_DELETE: u8 = 7;
    pub const RANGE_DELETE: u8 = 15;
    pub const SET_WITH_DELETE: u8 = 18;
    pub const RANGE_KEY_DELETE: u8 = 19;
    pub const RANGE_KEY_SET: u8 = 21;
    pub const INGEST: u8 = 22;
    pub const DELETE_SIZED: u8 = 23;
    pub const EXCISE: u8 = 24;
}

/// Deletes every key in [start, end) that is older than `sequence`.
#[derive(Clone, Debug)]
pub(crate) struct RangeTombstone {
    pub start: Vec<u8>,
    pub end: Vec<u8>,
    pub sequence: u64,
}

const OLDEST_FORMAT: u64 = 13;
const NEWEST_FORMAT: u64 = 16;

/// An opened database: its live tables and the rows of its logs.
pub struct Database {
    dir: PathBuf,
    version: Version,
    memtable: Memtable,
    tombstones: Vec<RangeTombstone>,
}

impl Database {
    /// Open `dir`. A directory that is missing, or holds neither manifest marker, table nor log, is an empty database.
    pub fn open(dir: &Path) -> Result<Self> {
        let names = list(dir)?;
        let Some(manifest) = marker(&names, "manifest", dir)? else {
            if let Some(name) = names.iter().find(|name| name.ends_with(".sst") || name.ends_with(".log")) {
                return Err(Error::file(
                    dir,
                    format!("holds {name} but no manifest marker; it is not a complete database"),
                ));
            }
            return Ok(Self {
                dir: dir.to_path_buf(),
                version: Version::default(),
                memtable: Memtable::default(),
                tombstones: Vec::new(),
            });
        };
        if let Some(format) = marker(&names, "format-version", dir)? {
            let number: u64 = format
                .parse()
                .map_err(|_| Error::file(dir, format!("format version marker {format:?} is no number")))?;
            if !(OLDEST_FORMAT..=NEWEST_FORMAT).contains(&number) {
                return Err(Error::file(
                    dir,
                    format!("pebble: database \"{}\" written in unknown format major version {number}", dir.display()),
                ));
            }
        }
        let version = manifest::read(&dir.join(&manifest), &manifest)?;
        let mut logs: Vec<(u64, u64, String)> = names
            .iter()
            .filter_map(|name| log_number(name).map(|(number, index)| (number, index, name.clone())))
            .filter(|(number, _, _)| *number >= version.min_unflushed_log)
            .collect();
        logs.sort_unstable();
        let mut tombstones = Vec::new();
        let memtable = Memtable::replay(dir, &logs, &mut tombstones)?;
        let database = Self { dir: dir.to_path_buf(), version, memtable, tombstones };
        database.with_table_tombstones()
    }

    /// Every live row with `low <= key < high`, in key order.
    pub fn rows(&self, low: &[u8], high: Option<&[u8]>) -> Result<Rows<'_>> {
        Rows::open(self, low, high)
    }

    /// The newest value of one key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut end = key.to_vec();
        end.push(0);
        let mut rows = self.rows(key, Some(&end))?;
        Ok(if rows.advance()? { Some(rows.value().to_vec()) } else { None })
    }

    /// Bytes of all live tables, for progress.
    pub fn table_bytes(&self) -> u64 {
        self.version.tables.iter().map(|table| table.size).sum()
    }

    /// Up to `wanted` keys that cut the database into pieces of about equal size.
    pub fn split_points(&self, wanted: usize) -> Result<Vec<Vec<u8>>> {
        let tables = &self.version.tables;
        let mut keys: Vec<(Vec<u8>, u64)> = Vec::new();
        if tables.len() >= wanted * 4 {
            keys.extend(tables.iter().map(|meta| (meta.smallest.user.clone(), meta.size)));
        } else {
            for meta in tables {
                let table = table::Table::open(&self.dir, meta)?;
                keys.extend(table.separators()?);
            }
        }
        keys.sort_unstable();
        let total: u64 = keys.iter().map(|(_, size)| size).sum();
        let step = (total / (wanted as u64 + 1)).max(1);
        let (mut points, mut seen, mut next) = (Vec::new(), 0, step);
        for (key, size) in keys {
            seen += size;
            if seen >= next {
                next = seen + step;
                points.push(key);
            }
        }
        points.dedup();
        Ok(points)
    }

    fn with_table_tombstones(mut self) -> Result<Self> {
        for meta in &self.version.tables {
            if meta.may_hold_tombstones {
                let table = table::Table::open(&self.dir, meta)?;
                self.tombstones.extend(table.tombstones()?);
            }
        }
        self.tombstones.sort_by(|a, b| a.start.cmp(&b.start));
        Ok(self)
    }

    fn tables(&self) -> &[TableMeta] {
        &self.version.tables
    }
}

fn list(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(dir, &error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(dir, &error))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Value of an atomic marker: the highest iteration wins, whatever an interrupted move left beside it.
fn marker(names: &[String], which: &str, dir: &Path) -> Result<Option<String>> {
    let mut best: Option<(u64, &str)> = None;
    for name in names {
        let Some(rest) = name.strip_prefix("marker.").and_then(|rest| rest.strip_prefix(which)) else { continue };
        let Some((iteration, value)) = rest.strip_prefix('.').and_then(|rest| rest.split_once('.')) else { continue };
        let iteration: u64 = iteration.parse().map_err(|_| Error::file(&dir.join(name), "malformed marker name"))?;
        if best.is_none_or(|(highest, _)| iteration > highest) {
            best = Some((iteration, value));
        }
    }
    Ok(best.map(|(_, value)| value.to_string()))
}

/// `NNNNNN.log` or `NNNNNN-III.log`: number and failover index.
fn log_number(name: &str) -> Option<(u64, u64)> {
    let stem = name.strip_suffix(".log")?;
    let (number, index) = stem.split_once('-').unwrap_or((stem, "0"));
    Some((number.parse().ok()?, index.parse().ok()?))
}

/// Parsers of single files, for `crate::fuzzing`.
pub(crate) mod fuzzing {
    use super::manifest::{InternalKey, TableMeta};
    use super::memtable::Memtable;
    use super::record::Framing;
    use super::table::{Table, TableCursor};
    use super::{manifest as manifests, record};
    use crate::fuzzing::on_disk;

    pub fn records(data: &[u8]) {
        record::records(data, Framing::Legacy);
        record::records(data, Framing::Recyclable(7));
    }

    pub fn manifest(data: &[u8]) {
        let _ = manifests::parse(data, "MANIFEST-000001".as_ref(), "MANIFEST-000001");
    }

    /// A write-ahead log whose records are batches.
    pub fn batches(data: &[u8]) {
        on_disk("000007.log", data, |path| {
            let logs = [(7, 0, "000007.log".to_string())];
            let mut tombstones = Vec::new();
            if let Ok(table) = Memtable::replay(path.parent().expect("a directory"), &logs, &mut tombstones) {
                let (from, to) = table.range(b"", None);
                for at in from..to {
                    std::hint::black_box((table.key(at), table.value(at), table.trailer(at)));
                }
            }
        });
    }

    pub fn table(data: &[u8]) {
        on_disk("000001.sst", data, |path| {
            let meta = TableMeta {
                level: 6,
                number: 1,
                size: data.len() as u64,
                smallest: InternalKey::default(),
                largest: InternalKey { user: vec![0xff; 64], trailer: 0 },
                smallest_sequence: 0,
                largest_sequence: 9,
                backing: None,
                may_hold_tombstones: true,
            };
            let Ok(table) = Table::open(path.parent().expect("a directory"), &meta) else { return };
            let _ = table.separators();
            let _ = table.tombstones();
            if let Ok(mut cursor) = TableCursor::open(table, b"", None) {
                while let Ok(true) = cursor.advance() {
                    std::hint::black_box((cursor.key(), cursor.value(), cursor.trailer()));
                }
            }
        });
    }
}
