//! A node in the middle of moving `evm` from memiavl to FlatKV: the union of both stores under the boundary
//! (docs/contracts/digest.md 1.9, 1.10).
//!
//! What lies at or left of the boundary is read from FlatKV alone, so the memiavl side is simply the leaves behind one key.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::flatkv::{FlatState, decode, payload};
use crate::memiavl::{AccountFields, Piece, Scan, State, emit_account};
use crate::pieces::{Merge, run_pieces};
use crate::rows::{Bucket, Progress, Row, Sink, hex_upper, physical_bucket};
use crate::wire::be64;

/// Rows read from FlatKV, leaves read from memiavl, and those of them that were not migrated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Consumed {
    pub flatkv: u64,
    pub memiavl: u64,
    pub unmigrated: u64,
    rewritten: u64,
}

/// Where the memiavl side begins.
pub enum Unmigrated {
    Nothing,
    /// raw keys from this one on
    From(Vec<u8>),
}

pub struct Composite<'a> {
    pub flatkv: &'a FlatState,
    pub memiavl: &'a State,
    pub unmigrated: Unmigrated,
}

enum Work<'p> {
    Database(usize),
    Leaves(&'p Piece),
    Accounts { low: Vec<u8>, high: Option<Vec<u8>> },
}

/// Counts per worker, merged like any sink.
#[derive(Clone)]
struct Tallied<S> {
    sink: S,
    consumed: Consumed,
}

impl<S: Sink> Sink for Tallied<S> {
    fn row(&mut self, row: &Row<'_>) -> Result<()> {
        self.sink.row(row)
    }
}

impl<S: Sink> Merge for Tallied<S> {
    fn settle(&mut self) {
        self.sink.settle();
    }

    fn merge(&mut self, other: Self) {
        self.sink.merge(other.sink);
        self.consumed.flatkv += other.consumed.flatkv;
        self.consumed.unmigrated += other.consumed.unmigrated;
        self.consumed.rewritten += other.consumed.rewritten;
    }
}

impl Composite<'_> {
    pub fn scan<S: Sink + Clone>(&self, sink: S, scan: Scan<'_>) -> Result<(S, Consumed)> {
        let pieces = self.memiavl.pieces(scan.threads as u64)?;
        let mut work: Vec<Work<'_>> = (1..4).map(Work::Database).collect();
        for piece in &pieces {
            match piece {
                Piece::Leaves { .. } if matches!(self.unmigrated, Unmigrated::From(_)) => {
                    work.push(Work::Leaves(piece))
                }
                Piece::Leaves { .. } => {}
                Piece::Accounts { low, high } => work.push(Work::Accounts { low: low.clone(), high: high.clone() }),
            }
        }
        let tallied = Tallied { sink, consumed: Consumed::default() };
        let (tallied, _) = run_pieces(&work, tallied, scan.threads, |work, sink| self.run(work, sink, scan))?;
        Ok((tallied.sink, self.completed(tallied.consumed, scan.progress)?))
    }

    /// Feed every row to one sink: FlatKV, then memiavl, accounts last.
    pub fn scan_in_order(&self, sink: &mut impl Sink, scan: Scan<'_>) -> Result<u64> {
        let mut consumed = Consumed::default();
        let pieces = self.memiavl.pieces(1)?;
        for database in 1..4 {
            self.database(database, sink, &mut consumed, scan.progress)?;
        }
        if let Unmigrated::From(from) = &self.unmigrated {
            for piece in pieces.iter().filter(|piece| matches!(piece, Piece::Leaves { .. })) {
                consumed.unmigrated += self.memiavl.run(piece, sink, Scan { from, ..scan })?;
            }
        }
        self.accounts(&[], None, sink, &mut consumed, scan)?;
        Ok(consumed.flatkv + consumed.unmigrated)
    }

    fn completed(&self, mut consumed: Consumed, progress: &Progress) -> Result<Consumed> {
        consumed.flatkv += self.flatkv.added_by_log(consumed.rewritten);
        if let Unmigrated::From(from) = &self.unmigrated {
            consumed.memiavl = consumed.unmigrated + self.memiavl.count_below(Some(from), progress)?;
        }
        Ok(consumed)
    }

    fn run<S: Sink>(&self, work: &Work<'_>, sink: &mut Tallied<S>, scan: Scan<'_>) -> Result<u64> {
        let mut consumed = Consumed::default();
        match work {
            Work::Database(number) => self.database(*number, &mut sink.sink, &mut consumed, scan.progress)?,
            Work::Leaves(piece) => {
                if let Unmigrated::From(from) = &self.unmigrated {
                    consumed.unmigrated = self.memiavl.run(piece, &mut sink.sink, Scan { from, ..scan })?;
                }
            }
            Work::Accounts { low, high } => {
                self.accounts(low, high.as_deref(), &mut sink.sink, &mut consumed, scan)?;
            }
        }
        sink.consumed.flatkv += consumed.flatkv;
        sink.consumed.unmigrated += consumed.unmigrated;
        sink.consumed.rewritten += consumed.rewritten;
        Ok(0)
    }

    fn database(
        &self,
        number: usize,
        sink: &mut impl Sink,
        consumed: &mut Consumed,
        progress: &Progress,
    ) -> Result<()> {
        let mut rows = self.flatkv.open(number, &[], None)?;
        while rows.advance()? {
            consumed.flatkv += 1;
            if physical_bucket(rows.key()) == Some(Bucket::Account) {
                return Err(Error::store(format!(
                    "account row {} outside the account database: the native engine cannot merge it",
                    hex_upper(rows.key())
                )));
            }
            decode(rows.key(), rows.value(), sink)?;
            if consumed.flatkv.is_multiple_of(16_384) {
                progress.moved(16_384, rows.take_bytes())?;
            }
        }
        consumed.rewritten += rows.take_rewritten();
        Ok(())
    }

    /// Accounts with `low <= address < high` from both stores; other rows of the account database pass as they are.
    fn accounts(
        &self,
        low: &[u8],
        high: Option<&[u8]>,
        sink: &mut impl Sink,
        consumed: &mut Consumed,
        scan: Scan<'_>,
    ) -> Result<()> {
        let edge = |address: &[u8]| [b"evm/\x0a", address].concat();
        let begin = if low.is_empty() { Vec::new() } else { edge(low) };
        let mut flat = self.flatkv.accounts(&begin, high.map(edge).as_deref())?;
        let path: PathBuf = self.memiavl.leaves_path();
        let mut fields = match &self.unmigrated {
            Unmigrated::Nothing => None,
            Unmigrated::From(from) => {
                let mut fields = AccountFields::open(self.memiavl, low, high, &path, Scan { from, ..scan })?;
                fields.start(sink)?;
                Some(fields)
            }
        };
        let mut live = flat.advance()?;
        loop {
            while live && !is_account(flat.key())? {
                consumed.flatkv += 1;
                decode(flat.key(), flat.value(), sink)?;
                live = flat.advance()?;
            }
            let stored: Option<[u8; 20]> = live.then(|| flat.key()[5..].try_into().expect("an address of 20 bytes"));
            let written = fields.as_ref().and_then(AccountFields::address);
            let Some(address) = [stored, written].into_iter().flatten().min() else { break };
            let mut account = [0u8; 72];
            let mut height = None;
            if stored == Some(address) {
                consumed.flatkv += 1;
                let mut wide = [0u8; 72];
                let value = payload(Bucket::Account, flat.value(), &mut wide).map_err(Error::Store)?;
                account.copy_from_slice(value);
                height = Some(be64(&flat.value()[1..]) as i64);
                live = flat.advance()?;
            }
            if let Some(fields) = &mut fields
                && written == Some(address)
            {
                height = height.max(fields.take(&address, &mut account, sink)?);
            }
            emit_account(&address, &account, height, sink)?;
        }
        if let Some(fields) = &mut fields {
            consumed.unmigrated += fields.finish()?;
        }
        scan.progress.moved(0, flat.take_bytes())
    }
}

fn is_account(key: &[u8]) -> Result<bool> {
    if physical_bucket(key) != Some(Bucket::Account) {
        return Ok(false);
    }
    if key[4] != 0x0a {
        return Err(Error::store(format!("account row {} of an unknown shape", hex_upper(key))));
    }
    Ok(true)
}
