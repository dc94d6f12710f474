//! The newest live rows of a database in key order: a merge over level 0 tables, one cursor a level below, and the logs
//! (docs/contracts/digest.md 5.5, 5.9).

use std::cmp::Ordering;

use super::manifest::TableMeta;
use super::memtable::Memtable;
use super::table::{Table, TableCursor};
use super::{Database, RangeTombstone, kind};
use crate::error::{Error, Result};

/// Rows with `low <= key < high`.
pub struct Rows<'a> {
    database: &'a Database,
    cursors: Vec<Cursor<'a>>,
    /// cursor that holds the current entry, and the key up to which it may run without a look at the others
    current: Option<usize>,
    limit: Option<Vec<u8>>,
    last_key: Vec<u8>,
    any: bool,
    bytes: u64,
    /// tombstones that begin at or before the last key, and those of them that reach beyond it
    begun: usize,
    open: Vec<&'a RangeTombstone>,
}

enum Cursor<'a> {
    Logs {
        memtable: &'a Memtable,
        at: usize,
        end: usize,
        started: bool,
    },
    Tables {
        waiting: Vec<&'a TableMeta>,
        open: Option<Box<TableCursor>>,
        low: Vec<u8>,
        high: Option<Vec<u8>>,
        database: &'a Database,
    },
    Done,
}

impl<'a> Rows<'a> {
    pub(super) fn open(database: &'a Database, low: &[u8], high: Option<&[u8]>) -> Result<Self> {
        let mut cursors = Vec::new();
        let (from, to) = database.memtable.range(low, high);
        if from < to {
            cursors.push(Cursor::Logs { memtable: &database.memtable, at: from, end: to, started: false });
        }
        let overlaps = |meta: &&TableMeta| {
            meta.largest.user.as_slice() >= low && high.is_none_or(|high| meta.smallest.user.as_slice() < high)
        };
        let mut levels: Vec<Vec<&TableMeta>> = vec![Vec::new(); 7];
        for meta in database.tables().iter().filter(overlaps) {
            if meta.level == 0 {
                cursors.push(Cursor::tables(database, vec![meta], low, high));
            } else {
                levels[meta.level as usize].push(meta);
            }
        }
        for (number, mut level) in levels.into_iter().enumerate().filter(|(_, level)| !level.is_empty()) {
            for pair in level.windows(2) {
                let disjoint = pair[0].largest.user < pair[1].smallest.user
                    || (pair[0].largest.user == pair[1].smallest.user
                        && pair[0].largest.trailer >> 8 == super::manifest::SENTINEL_SEQUENCE);
                if !disjoint {
                    return Err(Error::file(
                        &database.dir,
                        format!("level {number}: tables {:06} and {:06} overlap", pair[0].number, pair[1].number),
                    ));
                }
            }
            level.reverse();
            cursors.push(Cursor::tables(database, level, low, high));
        }
        for cursor in &mut cursors {
            cursor.advance()?;
        }
        Ok(Self {
            database,
            cursors,
            current: None,
            limit: None,
            last_key: Vec::new(),
            any: false,
            bytes: 0,
            begun: 0,
            open: Vec::new(),
        })
    }

    pub fn key(&self) -> &[u8] {
        self.current.map_or(&[], |at| self.cursors[at].key())
    }

    pub fn value(&self) -> &[u8] {
        self.current.map_or(&[], |at| self.cursors[at].value())
    }

    /// Compressed bytes read since the last call.
    pub fn take_bytes(&mut self) -> u64 {
        for cursor in &mut self.cursors {
            if let Cursor::Tables { open: Some(open), .. } = cursor {
                self.bytes += std::mem::take(&mut open.bytes_read);
            }
        }
        std::mem::take(&mut self.bytes)
    }

    /// Step to the next live row; false at the end.
    pub fn advance(&mut self) -> Result<bool> {
        loop {
            if !self.next_entry()? {
                self.current = None;
                return Ok(false);
            }
            let at = self.current.expect("next_entry found one");
            let cursor = &self.cursors[at];
            let key = cursor.key();
            match key.cmp(&self.last_key) {
                Ordering::Equal if self.any => continue, // an older version of the row just handed out or hidden
                Ordering::Less if self.any => {
                    return Err(Error::file(&self.database.dir, "keys are not in ascending order"));
                }
                _ => {}
            }
            self.any = true;
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
            let trailer = cursor.trailer();
            match trailer as u8 {
                kind::SET | kind::SET_WITH_DELETE => {
                    if !self.hidden(trailer >> 8) {
                        return Ok(true);
                    }
                }
                kind::DELETE | kind::SINGLE_DELETE | kind::DELETE_SIZED => {}
                kind::MERGE => return Err(Error::file(&self.database.dir, "a merge is not supported")),
                other => return Err(Error::file(&self.database.dir, format!("unexpected entry kind {other}"))),
            }
        }
    }

    fn hidden(&mut self, sequence: u64) -> bool {
        let key = self.last_key.as_slice();
        let waiting = &self.database.tombstones[self.begun..];
        self.begun += waiting.iter().take_while(|tombstone| tombstone.start.as_slice() <= key).count();
        self.open.extend(waiting.iter().take_while(|tombstone| tombstone.start.as_slice() <= key));
        self.open.retain(|tombstone| tombstone.end.as_slice() > key);
        self.open.iter().any(|tombstone| tombstone.sequence > sequence)
    }

    /// Make `current` the cursor with the smallest internal key.
    fn next_entry(&mut self) -> Result<bool> {
        if let Some(at) = self.current {
            if self.cursors[at].advance()? {
                if self.limit.as_ref().is_none_or(|limit| self.cursors[at].key() < limit.as_slice())
                    && self.limit_holds()
                {
                    return Ok(true);
                }
            } else if let Cursor::Tables { open: Some(open), .. } = &mut self.cursors[at] {
                self.bytes += std::mem::take(&mut open.bytes_read);
            }
        }
        let mut best: Option<usize> = None;
        let mut second: Option<usize> = None;
        for at in 0..self.cursors.len() {
            if matches!(self.cursors[at], Cursor::Done) {
                continue;
            }
            if best.is_none_or(|best| self.before(at, best)) {
                second = best;
                best = Some(at);
            } else if second.is_none_or(|second| self.before(at, second)) {
                second = Some(at);
            }
        }
        self.current = best;
        match second {
            Some(second) => {
                let mut limit = self.limit.take().unwrap_or_default();
                limit.clear();
                limit.extend_from_slice(self.cursors[second].key());
                self.limit = Some(limit);
            }
            None => self.limit = None,
        }
        Ok(best.is_some())
    }

    /// With a single live cursor there is no limit and none is needed; otherwise one was noted.
    fn limit_holds(&self) -> bool {
        self.limit.is_some() || self.cursors.iter().filter(|cursor| !matches!(cursor, Cursor::Done)).count() == 1
    }

    fn before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.cursors[a], &self.cursors[b]);
        a.key().cmp(b.key()).then_with(|| b.trailer().cmp(&a.trailer())) == Ordering::Less
    }
}

impl<'a> Cursor<'a> {
    /// `tables` in descending key order.
    fn tables(database: &'a Database, tables: Vec<&'a TableMeta>, low: &[u8], high: Option<&[u8]>) -> Self {
        Self::Tables { waiting: tables, open: None, low: low.to_vec(), high: high.map(<[u8]>::to_vec), database }
    }

    fn key(&self) -> &[u8] {
        match self {
            Self::Logs { memtable, at, .. } => memtable.key(*at),
            Self::Tables { open: Some(open), .. } => open.key(),
            _ => &[],
        }
    }

    fn value(&self) -> &[u8] {
        match self {
            Self::Logs { memtable, at, .. } => memtable.value(*at),
            Self::Tables { open: Some(open), .. } => open.value(),
            _ => &[],
        }
    }

    fn trailer(&self) -> u64 {
        match self {
            Self::Logs { memtable, at, .. } => memtable.trailer(*at),
            Self::Tables { open: Some(open), .. } => open.trailer(),
            _ => 0,
        }
    }

    fn advance(&mut self) -> Result<bool> {
        let more = match self {
            Self::Logs { at, end, started, .. } => {
                if *started {
                    *at += 1;
                }
                *started = true;
                *at < *end
            }
            Self::Tables { waiting, open, low, high, database } => loop {
                if let Some(cursor) = open
                    && cursor.advance()?
                {
                    break true;
                }
                let Some(meta) = waiting.pop() else { break false };
                let table = Table::open(&database.dir, meta)?;
                *open = Some(Box::new(TableCursor::open(table, low, high.as_deref())?));
            },
            Self::Done => false,
        };
        if !more {
            *self = Self::Done;
        }
        Ok(more)
    }
}
