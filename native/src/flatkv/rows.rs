//! Stored rows of one database with the replayed blocks on top, in key order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::blocks::Changes;
use super::values::{ACCOUNT_PAYLOAD, HEADER, header, payload, undecodable};
use crate::error::Result;
use crate::overlay::{Change, Overlay};
use crate::pebble::{Database, Rows};
use crate::rows::{BOUNDARY_MARKER, Bucket, VERSION_MARKER};

const PREFIX: &[u8] = b"evm/";
const META: &[u8] = b"_meta/";
const ZERO_WORD: [u8; 32] = [0; 32];

/// Which of the four databases, and so which writes belong on top of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Account,
    Code,
    Storage,
    Misc,
}

/// (rows, bytes of keys and values) of each module, counted on the snapshot's own rows.
pub type ModuleCounts = BTreeMap<Vec<u8>, (u64, u64)>;

pub struct DatabaseRows<'a> {
    base: Rows<'a>,
    base_live: bool,
    kind: Kind,
    changes: &'a Changes,
    /// pending writes: the list of this shape; for accounts nonces, then code hashes
    first: Pending<'a>,
    second: Pending<'a>,
    markers: Vec<(&'a [u8], u32, &'a [u8])>,
    source: Source,
    key: Vec<u8>,
    value: Vec<u8>,
    evm: (u64, u64),
    others: ModuleCounts,
    /// rows of other modules that the log writes again
    rewritten: u64,
}

struct Pending<'a> {
    overlay: &'a Overlay,
    changes: &'a [Change],
}

impl<'a> Pending<'a> {
    fn head(&self) -> Option<&'a [u8]> {
        self.changes.first().map(|change| self.overlay.key(change))
    }

    fn value(&self) -> Option<&'a [u8]> {
        self.changes.first().and_then(|change| self.overlay.value(change))
    }

    fn version(&self) -> u32 {
        self.changes.first().map_or(0, |change| change.version)
    }

    fn drop_head(&mut self) {
        self.changes = &self.changes[1..];
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Start,
    Base,
    /// the row in `key` and `value`; true when it replaces the base row under the cursor
    Built(bool),
}

impl<'a> DatabaseRows<'a> {
    pub fn open(
        database: &'a Database,
        kind: Kind,
        changes: &'a Changes,
        low: &[u8],
        high: Option<&[u8]>,
    ) -> Result<Self> {
        let pending =
            |overlay: &'a Overlay, first: &[u8]| Pending { overlay, changes: raw_range(overlay, first, low, high) };
        let (first, second) = match kind {
            Kind::Account => (pending(&changes.nonce, &[0x0a]), pending(&changes.codehash, &[0x08])),
            Kind::Code => (pending(&changes.code, &[]), Pending { overlay: &changes.code, changes: &[] }),
            Kind::Storage => (pending(&changes.storage, &[]), Pending { overlay: &changes.storage, changes: &[] }),
            Kind::Misc => (pending(&changes.misc, &[]), Pending { overlay: &changes.misc, changes: &[] }),
        };
        let mut markers: Vec<(&[u8], u32, &[u8])> = Vec::new();
        if kind == Kind::Misc {
            for (key, (height, value)) in &changes.markers {
                let inside = key.as_slice() >= low && high.is_none_or(|high| key.as_slice() < high);
                if let (true, Some(value)) = (inside, value) {
                    markers.push((key, *height, value));
                }
            }
            markers.reverse();
        }
        Ok(Self {
            base: database.rows(low, high)?,
            base_live: false,
            kind,
            changes,
            first,
            second,
            markers,
            source: Source::Start,
            key: Vec::new(),
            value: Vec::new(),
            evm: (0, 0),
            others: BTreeMap::new(),
            rewritten: 0,
        })
    }

    pub fn key(&self) -> &[u8] {
        match self.source {
            Source::Built(_) => &self.key,
            _ => self.base.key(),
        }
    }

    pub fn value(&self) -> &[u8] {
        match self.source {
            Source::Built(_) => &self.value,
            _ => self.base.value(),
        }
    }

    pub fn take_bytes(&mut self) -> u64 {
        self.base.take_bytes()
    }

    /// Counts of the snapshot's rows seen so far.
    pub fn counts(&mut self) -> ModuleCounts {
        let mut counts = std::mem::take(&mut self.others);
        if self.evm.0 > 0 {
            counts.insert(b"evm".to_vec(), std::mem::take(&mut self.evm));
        }
        counts
    }

    /// Rows of other modules seen so far that the log writes again.
    pub fn take_rewritten(&mut self) -> u64 {
        std::mem::take(&mut self.rewritten)
    }

    fn step_base(&mut self) -> Result<()> {
        loop {
            self.base_live = self.base.advance()?;
            if !self.base_live {
                return Ok(());
            }
            let key = self.base.key();
            if key.starts_with(META) {
                continue;
            }
            let size = (key.len() + self.base.value().len()) as u64;
            if key.starts_with(PREFIX) {
                self.evm.0 += 1;
                self.evm.1 += size;
            } else {
                let module = key.split(|byte| *byte == b'/').next().unwrap_or(key);
                if !self.others.contains_key(module) {
                    self.others.insert(module.to_vec(), (0, 0));
                }
                let counts = self.others.get_mut(module).expect("just inserted");
                counts.0 += 1;
                counts.1 += size;
                if self.kind == Kind::Misc
                    && (key == VERSION_MARKER || key == BOUNDARY_MARKER)
                    && self.changes.markers.contains_key(key)
                {
                    continue; // the log says what became of it
                }
                if self.kind == Kind::Misc
                    && let Some(overlay) = self.changes.others.get(module)
                {
                    match key.get(module.len() + 1..).and_then(|inner| overlay.get(inner)) {
                        None => {}
                        Some(None) => continue,
                        Some(Some(_)) => self.rewritten += 1,
                    }
                }
            }
            return Ok(());
        }
    }

    /// Step to the next row; false at the end.
    pub fn advance(&mut self) -> Result<bool> {
        match self.source {
            Source::Start | Source::Base | Source::Built(true) => self.step_base()?,
            Source::Built(false) => {}
        }
        loop {
            if !self.next_written() {
                self.source = Source::Base;
                return Ok(self.base_live);
            }
            let order = if self.base_live { self.key.as_slice().cmp(self.base.key()) } else { Ordering::Less };
            if order.is_gt() {
                self.source = Source::Base;
                return Ok(true);
            }
            let lives = self.build(order.is_eq())?;
            if lives {
                self.source = Source::Built(order.is_eq());
                return Ok(true);
            }
            if order.is_eq() {
                self.step_base()?;
            }
        }
    }

    /// Put the physical key of the next write into `key`; false when none is left.
    fn next_written(&mut self) -> bool {
        let raw = match (self.first.head(), self.second.head()) {
            (None, None) => {
                let Some((key, _, _)) = self.markers.last() else { return false };
                self.key.clear();
                self.key.extend_from_slice(key);
                return true;
            }
            (Some(key), None) => key,
            (None, Some(key)) => key,
            (Some(nonce), Some(codehash)) => {
                if nonce[1..] <= codehash[1..] {
                    nonce
                } else {
                    codehash
                }
            }
        };
        self.key.clear();
        self.key.extend_from_slice(PREFIX);
        self.key.extend_from_slice(raw);
        if self.kind == Kind::Account {
            self.key[PREFIX.len()] = 0x0a;
        }
        true
    }

    /// Build the written row into `value`, taking its writes; false when it is a deletion.
    fn build(&mut self, over_base: bool) -> Result<bool> {
        if self.kind == Kind::Account {
            return self.build_account(over_base);
        }
        if self.first.head().is_none() {
            let Some((_, height, value)) = self.markers.pop() else { return Ok(false) };
            header(&mut self.value, height);
            self.value.extend_from_slice(value);
            return Ok(true);
        }
        let written = self.first.value();
        header(&mut self.value, self.first.version());
        self.first.drop_head();
        let Some(value) = written else { return Ok(false) };
        self.value.extend_from_slice(value);
        Ok(match self.kind {
            Kind::Storage => value != ZERO_WORD,
            Kind::Code => !value.is_empty(),
            _ => true,
        })
    }

    fn build_account(&mut self, over_base: bool) -> Result<bool> {
        let mut account = [0u8; ACCOUNT_PAYLOAD];
        if over_base {
            let mut wide = [0u8; ACCOUNT_PAYLOAD];
            let old = payload(Bucket::Account, self.base.value(), &mut wide)
                .map_err(|problem| undecodable(Bucket::Account, self.base.key(), &problem))?;
            account.copy_from_slice(old);
        }
        let address = &self.key[PREFIX.len() + 1..];
        let mut height = 0;
        if self.first.head().is_some_and(|key| key[1..] == *address) {
            account[32..40].copy_from_slice(self.first.value().unwrap_or(&[0; 8]));
            height = self.first.version();
            self.first.drop_head();
        }
        if self.second.head().is_some_and(|key| key[1..] == *address) {
            account[40..].copy_from_slice(self.second.value().unwrap_or(&ZERO_WORD));
            height = height.max(self.second.version());
            self.second.drop_head();
        }
        header(&mut self.value, height);
        debug_assert_eq!(self.value.len(), HEADER);
        let compact = account[40..] == ZERO_WORD;
        self.value.extend_from_slice(if compact { &account[..40] } else { &account });
        Ok(account.iter().any(|byte| *byte != 0))
    }
}

/// Writes whose row has a physical key in [low, high). `first` replaces the raw key's first byte (account fields).
fn raw_range<'a>(overlay: &'a Overlay, first: &[u8], low: &[u8], high: Option<&[u8]>) -> &'a [Change] {
    let edge = |bound: &[u8]| -> Option<Vec<u8>> {
        // Some(raw bound); None: the bound lies behind every evm key
        if let Some(raw) = bound.strip_prefix(PREFIX) {
            let mut raw = raw.to_vec();
            if let (Some(byte), Some(head)) = (first.first(), raw.first_mut()) {
                // account rows all begin 0a: a bound before or behind them is before or behind every field
                match (*head).cmp(&0x0a) {
                    Ordering::Less => return Some(vec![0]),
                    Ordering::Greater => return None,
                    Ordering::Equal => *head = *byte,
                }
            }
            return Some(raw);
        }
        if bound < PREFIX { Some(Vec::new()) } else { None }
    };
    let Some(from) = edge(low) else { return &[] };
    match high.map(edge) {
        None | Some(None) => overlay.range(&from, None),
        Some(Some(to)) if to.is_empty() => &[],
        Some(Some(to)) => overlay.range(&from, Some(&to)),
    }
}
