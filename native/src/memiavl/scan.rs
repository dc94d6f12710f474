//! Leaves of a snapshot with the log on top, as logical rows, in pieces that workers share.

use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::overlay::{Change, Overlay};
use crate::pieces::run_pieces;
use crate::rows::{ADDRESS_KEY, Bucket, Progress, RawKind, Row, Sink, hex_upper, raw_kind};

const PIECES_PER_THREAD: u64 = 8;
const SMALLEST_PIECE: u64 = 16;
const ZERO_WORD: [u8; 32] = [0; 32];

/// Whose words an error about a leaf uses: both normalizations refuse the same leaves (1.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    Semantic,
    SemanticInspect,
    Translator,
}

/// Leaves of the snapshot with the log's writes on top.
struct Merged<'a> {
    base: Option<Cursor<'a>>,
    base_live: bool,
    overlay: &'a Overlay,
    changes: &'a [Change],
    at: usize,
    source: Source,
    leaves: u64,
    bytes: u64,
    progress: &'a Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Start,
    Base,
    Change { shadows: bool },
}

impl<'a> Merged<'a> {
    fn new(base: Option<Cursor<'a>>, overlay: &'a Overlay, changes: &'a [Change], progress: &'a Progress) -> Self {
        Self { base, base_live: false, overlay, changes, at: 0, source: Source::Start, leaves: 0, bytes: 0, progress }
    }

    fn step_base(&mut self) -> Result<()> {
        self.base_live = match &mut self.base {
            Some(cursor) => cursor.advance()?,
            None => false,
        };
        Ok(())
    }

    fn advance(&mut self) -> Result<bool> {
        match self.source {
            Source::Start | Source::Base => self.step_base()?,
            Source::Change { shadows } => {
                self.at += 1;
                if shadows {
                    self.step_base()?;
                }
            }
        }
        loop {
            let Some(change) = self.changes.get(self.at) else {
                self.source = Source::Base;
                if self.base_live {
                    self.count()?;
                }
                return Ok(self.base_live);
            };
            let order = match &self.base {
                Some(cursor) if self.base_live => self.overlay.key(change).cmp(cursor.key()),
                _ => std::cmp::Ordering::Less,
            };
            if order.is_gt() {
                self.source = Source::Base;
                self.count()?;
                return Ok(true);
            }
            if self.overlay.value(change).is_some() {
                self.source = Source::Change { shadows: order.is_eq() };
                self.count()?;
                return Ok(true);
            }
            self.at += 1;
            if order.is_eq() {
                self.step_base()?;
            }
        }
    }

    fn count(&mut self) -> Result<()> {
        self.leaves += 1;
        self.bytes += 8 + (self.key().len() + self.value().len()) as u64;
        if self.leaves.is_multiple_of(16_384) {
            self.progress.moved(16_384, std::mem::take(&mut self.bytes))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.progress.moved(self.leaves % 16_384, std::mem::take(&mut self.bytes))
    }

    fn key(&self) -> &[u8] {
        match self.source {
            Source::Change { .. } => self.overlay.key(&self.changes[self.at]),
            _ => self.base.as_ref().map_or(&[], Cursor::key),
        }
    }

    fn value(&self) -> &[u8] {
        match self.source {
            Source::Change { .. } => self.overlay.value(&self.changes[self.at]).unwrap_or_default(),
            _ => self.base.as_ref().map_or(&[], Cursor::value),
        }
    }

    fn version(&self) -> Option<i64> {
        match self.source {
            Source::Change { .. } => Some(i64::from(self.changes[self.at].version)),
            _ => self.base.as_ref().filter(|cursor| cursor.versions.is_some()).map(|cursor| i64::from(cursor.version)),
        }
    }
}

/// A piece of work: a key range of ordinary leaves, or an address range of accounts.
pub enum Piece {
    Leaves { low: Vec<u8>, high: Option<Vec<u8>> },
    Accounts { low: Vec<u8>, high: Option<Vec<u8>> },
}

/// The `evm` tree at one height.
pub struct State {
    pub tree: Option<Tree>,
    pub overlay: Overlay,
}

/// How to run a scan.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    pub wording: Wording,
    pub threads: usize,
    /// leaf versions cost the reading of `leaves`; only listings want them
    pub heights: bool,
    /// leaves below this raw key take no part
    pub from: &'a [u8],
    pub progress: &'a Progress,
}

impl State {
    /// Feed every logical row to copies of `sink`; returns the merged sink and the number of leaves.
    pub fn scan<S: Sink + Clone>(&self, sink: S, scan: Scan<'_>) -> Result<(S, u64)> {
        let pieces = self.pieces(scan.threads as u64)?;
        run_pieces(&pieces, sink, scan.threads, |piece, sink| self.run(piece, sink, scan))
    }

    /// Feed every logical row to one sink, in key order, accounts last.
    pub fn scan_in_order<S: Sink>(&self, sink: &mut S, scan: Scan<'_>) -> Result<u64> {
        let mut leaves = 0;
        let pieces = self.pieces(1)?;
        let (accounts, ordinary): (Vec<&Piece>, Vec<&Piece>) =
            pieces.iter().partition(|piece| matches!(piece, Piece::Accounts { .. }));
        for piece in ordinary.into_iter().chain(accounts) {
            leaves += self.run(piece, sink, scan)?;
        }
        Ok(leaves)
    }

    /// Feed every row but the accounts to one sink, strictly in key order: misc rows may lie between the accounts' leaves.
    pub fn ordinary_in_order(&self, sink: &mut impl Sink, scan: Scan<'_>) -> Result<u64> {
        let path = self.leaves_path();
        let mut merged = self.merged(&[], None, scan.heights, &path, scan.progress)?;
        let mut physical = b"evm/".to_vec();
        while merged.advance()? {
            let (key, value) = (merged.key(), merged.value());
            match raw_kind(key) {
                RawKind::Nonce => check_length(key, value, 8, scan.wording)?,
                RawKind::Codehash => check_length(key, value, 32, scan.wording)?,
                _ => ordinary_row(key, value, merged.version(), &mut physical, scan.wording, sink)?,
            }
        }
        merged.finish()?;
        Ok(merged.leaves)
    }

    /// Every raw leaf (key, value, version) in key order.
    pub fn raw_leaves(
        &self,
        progress: &Progress,
        mut visit: impl FnMut(&[u8], &[u8], Option<i64>) -> Result<()>,
    ) -> Result<u64> {
        let path = self.leaves_path();
        let mut merged = self.merged(&[], None, true, &path, progress)?;
        while merged.advance()? {
            visit(merged.key(), merged.value(), merged.version())?;
        }
        merged.finish()?;
        Ok(merged.leaves)
    }

    pub fn leaves_path(&self) -> PathBuf {
        self.tree.as_ref().map(|tree| tree.dir.join("leaves")).unwrap_or_default()
    }

    pub fn pieces(&self, threads: u64) -> Result<Vec<Piece>> {
        let mut cuts: Vec<Vec<u8>> = vec![vec![], vec![0x08], vec![0x09], vec![0x0a], vec![0x0b]];
        let mut addresses: Vec<Vec<u8>> = vec![vec![]];
        if let Some(tree) = &self.tree
            && threads > 1
        {
            let wanted = (threads * PIECES_PER_THREAD).min(tree.count / SMALLEST_PIECE).max(1);
            for piece in 1..wanted {
                let key = tree.key(tree.count * piece / wanted)?;
                // an account piece begins at an address, whichever of its two keys the cut fell on
                if matches!(raw_kind(&key), RawKind::Nonce | RawKind::Codehash) {
                    addresses.push(key[1..].to_vec());
                }
                cuts.push(key);
            }
        }
        for list in [&mut cuts, &mut addresses] {
            list.sort_unstable();
            list.dedup();
        }
        let mut pieces: Vec<Piece> = ranges(&cuts)
            .filter(|(low, _)| !matches!(low.first(), Some(0x08 | 0x0a)))
            .map(|(low, high)| Piece::Leaves { low, high })
            .collect();
        pieces.extend(ranges(&addresses).map(|(low, high)| Piece::Accounts { low, high }));
        Ok(pieces)
    }

    fn merged<'a>(
        &'a self,
        low: &[u8],
        high: Option<&[u8]>,
        heights: bool,
        leaves_path: &'a Path,
        progress: &'a Progress,
    ) -> Result<Merged<'a>> {
        let base = match &self.tree {
            Some(tree) if tree.count > 0 => {
                let from = if low.is_empty() { 0 } else { tree.lower_bound(low)? };
                let to = high.map_or(Ok(tree.count), |high| tree.lower_bound(high))?;
                if from > to {
                    return Err(Error::file(leaves_path, "keys are not in ascending order"));
                }
                let cursor = Cursor::over(tree, from, to)?;
                Some(if heights { cursor.with_versions(leaves_path, from) } else { cursor })
            }
            _ => None,
        };
        Ok(Merged::new(base, &self.overlay, self.overlay.range(low, high), progress))
    }

    pub fn run(&self, piece: &Piece, sink: &mut impl Sink, scan: Scan<'_>) -> Result<u64> {
        match piece {
            Piece::Leaves { low, high } => self.run_leaves(low, high.as_deref(), sink, scan),
            Piece::Accounts { low, high } => self.run_accounts(low, high.as_deref(), sink, scan),
        }
    }

    fn run_leaves(&self, low: &[u8], high: Option<&[u8]>, sink: &mut impl Sink, scan: Scan<'_>) -> Result<u64> {
        let path = self.leaves_path();
        if high.is_some_and(|high| high <= scan.from) {
            return Ok(0);
        }
        let mut merged = self.merged(low.max(scan.from), high, scan.heights, &path, scan.progress)?;
        let mut physical = b"evm/".to_vec();
        while merged.advance()? {
            ordinary_row(merged.key(), merged.value(), merged.version(), &mut physical, scan.wording, sink)?;
        }
        merged.finish()?;
        Ok(merged.leaves)
    }

    fn run_accounts(&self, low: &[u8], high: Option<&[u8]>, sink: &mut impl Sink, scan: Scan<'_>) -> Result<u64> {
        let path = self.leaves_path();
        let mut fields = AccountFields::open(self, low, high, &path, scan)?;
        fields.start(sink)?;
        while let Some(address) = fields.address() {
            let mut payload = [0u8; 72];
            let height = fields.take(&address, &mut payload, sink)?;
            emit_account(&address, &payload, height, sink)?;
        }
        fields.finish()
    }

    /// Number of leaves below `end` (None: of all leaves).
    pub fn count_below(&self, end: Option<&[u8]>, progress: &Progress) -> Result<u64> {
        let path = self.leaves_path();
        let mut merged = self.merged(&[], end, false, &path, progress)?;
        while merged.advance()? {}
        merged.finish()?;
        Ok(merged.leaves)
    }
}

/// Nonce and code hash leaves of an address range, joined by address.
pub struct AccountFields<'a> {
    nonce: AccountField<'a>,
    codehash: AccountField<'a>,
    physical: Vec<u8>,
}

impl<'a> AccountFields<'a> {
    /// Addresses in [low, high). `leaves_path` is `State::leaves_path`.
    pub fn open(
        state: &'a State,
        low: &[u8],
        high: Option<&[u8]>,
        leaves_path: &'a Path,
        scan: Scan<'a>,
    ) -> Result<Self> {
        let field = |prefix: u8| -> Result<Merged<'a>> {
            let edge = |address: &[u8]| [&[prefix], address].concat();
            let end = high.map_or_else(|| vec![prefix + 1], edge);
            let begin = edge(low).max(scan.from.to_vec());
            state.merged(&begin.min(end.clone()), Some(&end), scan.heights, leaves_path, scan.progress)
        };
        Ok(Self {
            codehash: AccountField::new(field(0x08)?, 32, scan.wording),
            nonce: AccountField::new(field(0x0a)?, 8, scan.wording),
            physical: b"evm/".to_vec(),
        })
    }

    /// Go to the first address.
    pub fn start(&mut self, sink: &mut impl Sink) -> Result<()> {
        self.codehash.advance(&mut self.physical, sink)?;
        self.nonce.advance(&mut self.physical, sink)
    }

    /// The next address that has a field.
    pub fn address(&self) -> Option<[u8; 20]> {
        match (self.codehash.live, self.nonce.live) {
            (true, true) => Some(self.codehash.address.min(self.nonce.address)),
            (true, false) => Some(self.codehash.address),
            (false, true) => Some(self.nonce.address),
            (false, false) => None,
        }
    }

    /// Overlay the fields of `address` on `payload` and move on; returns the newest version among them.
    pub fn take(&mut self, address: &[u8; 20], payload: &mut [u8; 72], sink: &mut impl Sink) -> Result<Option<i64>> {
        let mut height = None;
        if self.nonce.live && self.nonce.address == *address {
            payload[32..40].copy_from_slice(self.nonce.merged.value());
            height = self.nonce.merged.version();
            self.nonce.advance(&mut self.physical, sink)?;
        }
        if self.codehash.live && self.codehash.address == *address {
            payload[40..].copy_from_slice(self.codehash.merged.value());
            height = height.max(self.codehash.merged.version());
            self.codehash.advance(&mut self.physical, sink)?;
        }
        Ok(height)
    }

    /// Leaves read.
    pub fn finish(&mut self) -> Result<u64> {
        self.codehash.merged.finish()?;
        self.nonce.merged.finish()?;
        Ok(self.codehash.merged.leaves + self.nonce.merged.leaves)
    }
}

/// Emit the merged row of an address unless every field is zero.
pub fn emit_account(address: &[u8; 20], payload: &[u8; 72], height: Option<i64>, sink: &mut impl Sink) -> Result<()> {
    if payload.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let mut key = [0u8; 25];
    key[..5].copy_from_slice(b"evm/\x0a");
    key[5..].copy_from_slice(address);
    sink.row(&Row { bucket: Bucket::Account, key: &key, payload, stored: &[], height })
}

/// One of the two account fields: its leaves of the right shape in address order; other shapes in its range are misc rows.
struct AccountField<'a> {
    merged: Merged<'a>,
    width: usize,
    wording: Wording,
    address: [u8; 20],
    live: bool,
}

impl<'a> AccountField<'a> {
    fn new(merged: Merged<'a>, width: usize, wording: Wording) -> Self {
        Self { merged, width, wording, address: [0; 20], live: false }
    }

    fn advance(&mut self, physical: &mut Vec<u8>, sink: &mut impl Sink) -> Result<()> {
        loop {
            self.live = self.merged.advance()?;
            if !self.live {
                return Ok(());
            }
            let key = self.merged.key();
            if key.len() == ADDRESS_KEY {
                check_length(key, self.merged.value(), self.width, self.wording)?;
                self.address.copy_from_slice(&key[1..]);
                return Ok(());
            }
            ordinary_row(key, self.merged.value(), self.merged.version(), physical, self.wording, sink)?;
        }
    }
}

/// Every leaf but the two account fields (1.8).
fn ordinary_row(
    key: &[u8],
    value: &[u8],
    height: Option<i64>,
    physical: &mut Vec<u8>,
    wording: Wording,
    sink: &mut impl Sink,
) -> Result<()> {
    let bucket = match raw_kind(key) {
        RawKind::Storage => {
            check_length(key, value, 32, wording)?;
            if value == ZERO_WORD {
                return Ok(());
            }
            Bucket::Storage
        }
        RawKind::Code if value.is_empty() => return Ok(()),
        RawKind::Code => Bucket::Code,
        RawKind::Empty => {
            return Err(Error::store(match wording {
                Wording::Semantic => "semantic memiavl digest: empty EVM key",
                Wording::SemanticInspect => "semantic memiavl inspect: empty EVM key",
                Wording::Translator => "translate batch: flatkv: empty key in changeset",
            }));
        }
        RawKind::Nonce | RawKind::Codehash | RawKind::Misc => Bucket::Misc,
    };
    physical.truncate(4);
    physical.extend_from_slice(key);
    sink.row(&Row { bucket, key: physical, payload: value, stored: value, height })
}

/// Refuse a value of the wrong length in the words of the normalization.
fn check_length(key: &[u8], value: &[u8], want: usize, wording: Wording) -> Result<()> {
    if value.len() == want {
        return Ok(());
    }
    let got = value.len();
    let kind = raw_kind(key);
    let caller = match wording {
        Wording::Semantic => "digest",
        Wording::SemanticInspect => "inspect",
        Wording::Translator => {
            return Err(Error::store(match kind {
                RawKind::Storage => format!(
                    "translate batch: failed to process storage changes: failed to parse storage value: invalid storage value length: got {got}, expected 32"
                ),
                RawKind::Nonce => format!(
                    "translate batch: failed to merge account changes: invalid nonce value: invalid nonce value length: got {got}, expected 8"
                ),
                _ => format!(
                    "translate batch: failed to merge account changes: invalid codehash value: invalid codehash value length: got {got}, expected 32"
                ),
            }));
        }
    };
    let name = match kind {
        RawKind::Storage => "storage",
        RawKind::Nonce => "nonce",
        _ => "codehash",
    };
    Err(Error::store(format!("semantic memiavl {caller}: {name} {} has length {got}, want {want}", hex_upper(key))))
}

fn ranges(cuts: &[Vec<u8>]) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> + '_ {
    (0..cuts.len()).map(|at| (cuts[at].clone(), cuts.get(at + 1).cloned()))
}
