//! Scans over the four databases: in pieces that workers share, or in key order.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::blocks::Changes;
use super::lattice::{Lattice, LtHash};
use super::rows::{DatabaseRows, Kind, ModuleCounts};
use super::values::{ACCOUNT_PAYLOAD, height, payload, undecodable};
use crate::error::Result;
use crate::pebble::Database;
use crate::pieces::{Merge, run_pieces};
use crate::rows::{Bucket, Progress, Row, Sink, physical_bucket};

const PIECES_PER_THREAD: usize = 8;
const SMALLEST_PIECE: u64 = 1 << 10;
const BATCH: u64 = 16_384;
const KINDS: [Kind; 4] = [Kind::Account, Kind::Code, Kind::Storage, Kind::Misc];

/// Rows and bytes of each module in each of the four databases.
pub type Statistics = [ModuleCounts; 4];

#[derive(Clone, Copy)]
pub struct FlatScan<'a> {
    pub threads: usize,
    pub progress: &'a Progress,
}

/// Databases account, code, storage, misc under the replayed blocks.
pub struct FlatState {
    pub databases: [Arc<Database>; 4],
    pub changes: Changes,
}

struct Piece {
    database: usize,
    low: Vec<u8>,
    high: Option<Vec<u8>>,
}

/// A sink together with the statistics of the snapshot's rows it was fed from.
#[derive(Clone)]
struct Counted<S> {
    sink: S,
    statistics: Statistics,
    rewritten: u64,
}

impl<S: Sink> Sink for Counted<S> {
    fn row(&mut self, row: &Row<'_>) -> Result<()> {
        self.sink.row(row)
    }
}

impl<S: Sink> Merge for Counted<S> {
    fn settle(&mut self) {
        self.sink.settle();
    }

    fn merge(&mut self, other: Self) {
        self.sink.merge(other.sink);
        self.rewritten += other.rewritten;
        for (mine, theirs) in self.statistics.iter_mut().zip(other.statistics) {
            add_counts(mine, theirs);
        }
    }
}

fn add_counts(mine: &mut ModuleCounts, theirs: ModuleCounts) {
    for (module, (rows, bytes)) in theirs {
        let counts = mine.entry(module).or_default();
        counts.0 += rows;
        counts.1 += bytes;
    }
}

impl FlatState {
    /// Feed every logical row to copies of `sink`; returns the merged sink, the number of stored rows and the statistics.
    pub fn scan<S: Sink + Clone>(&self, sink: S, scan: FlatScan<'_>) -> Result<(S, u64, Statistics)> {
        let pieces = self.pieces(scan.threads)?;
        let counted = Counted { sink, statistics: Statistics::default(), rewritten: 0 };
        let (counted, rows) =
            run_pieces(&pieces, counted, scan.threads, |piece, sink| self.run(piece, sink, scan.progress))?;
        Ok((counted.sink, rows + self.added_by_log(counted.rewritten), counted.statistics))
    }

    fn run<S: Sink>(&self, piece: &Piece, sink: &mut Counted<S>, progress: &Progress) -> Result<u64> {
        let mut rows = self.open(piece.database, &piece.low, piece.high.as_deref())?;
        let mut count = 0;
        while rows.advance()? {
            count += 1;
            decode(rows.key(), rows.value(), &mut sink.sink)?;
            if count % BATCH == 0 {
                progress.moved(BATCH, rows.take_bytes())?;
            }
        }
        progress.moved(count % BATCH, rows.take_bytes())?;
        add_counts(&mut sink.statistics[piece.database], rows.counts());
        sink.rewritten += rows.take_rewritten();
        Ok(count)
    }

    /// Rows of other modules that exist only in the log, given how many of its live ones replace a stored row.
    pub(crate) fn added_by_log(&self, rewritten: u64) -> u64 {
        self.changes.others.values().map(|overlay| overlay.live() as u64).sum::<u64>().saturating_sub(rewritten)
    }

    pub(crate) fn open(&self, database: usize, low: &[u8], high: Option<&[u8]>) -> Result<DatabaseRows<'_>> {
        DatabaseRows::open(&self.databases[database], KINDS[database], &self.changes, low, high)
    }

    /// Feed every logical row to one sink in key order over all databases; returns the number of stored rows.
    pub fn scan_in_order(&self, sink: &mut impl Sink, progress: &Progress) -> Result<u64> {
        self.stored_in_order(progress, |key, value| decode(key, value, sink))
    }

    /// Every stored row (key, value) in key order over all databases.
    pub fn stored_in_order(
        &self,
        progress: &Progress,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let mut open: Vec<DatabaseRows<'_>> = Vec::new();
        for database in 0..KINDS.len() {
            let mut rows = self.open(database, &[], None)?;
            if rows.advance()? {
                open.push(rows);
            }
        }
        let mut count = 0;
        let mut rewritten = 0;
        while let Some(at) = (0..open.len()).min_by(|a, b| open[*a].key().cmp(open[*b].key())) {
            let rows = &mut open[at];
            visit(rows.key(), rows.value())?;
            count += 1;
            if count % BATCH == 0 {
                progress.moved(BATCH, rows.take_bytes())?;
            }
            if !rows.advance()? {
                rewritten += rows.take_rewritten();
                open.remove(at);
            }
        }
        progress.moved(count % BATCH, 0)?;
        Ok(count + self.added_by_log(rewritten))
    }

    /// Stored account rows with `low <= key < high`, for the join of a composite scan.
    pub(crate) fn accounts(&self, low: &[u8], high: Option<&[u8]>) -> Result<DatabaseRows<'_>> {
        self.open(0, low, high)
    }

    /// The stored value of a marker row, replayed blocks included.
    pub fn marker(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some((_, value)) = self.changes.markers.get(key) {
            return Ok(value.clone());
        }
        let Some(stored) = self.databases[3].get(key)? else { return Ok(None) };
        let mut wide = [0; ACCOUNT_PAYLOAD];
        let found = payload(Bucket::Misc, &stored, &mut wide).map_err(crate::error::Error::Store)?;
        Ok(Some(found.to_vec()))
    }

    /// LtHash of each module in each of the four databases, over the snapshot's own rows (4.9).
    pub fn lattice_hashes(&self, scan: FlatScan<'_>) -> Result<[BTreeMap<Vec<u8>, LtHash>; 4]> {
        let pieces = self.pieces(scan.threads)?;
        let (sums, _) = run_pieces(&pieces, Lattice::default(), scan.threads, |piece, sums| {
            let mut rows = self.databases[piece.database].rows(&piece.low, piece.high.as_deref())?;
            let mut count = 0;
            while rows.advance()? {
                if rows.key().starts_with(b"_meta/") {
                    continue;
                }
                sums.add(piece.database, rows.key(), rows.value());
                count += 1;
                if count % BATCH == 0 {
                    scan.progress.moved(BATCH, rows.take_bytes())?;
                }
            }
            scan.progress.moved(count % BATCH, rows.take_bytes())?;
            Ok(count)
        })?;
        Ok(sums.0)
    }

    pub fn table_bytes(&self) -> u64 {
        self.databases.iter().map(|database| database.table_bytes()).sum()
    }

    fn pieces(&self, threads: usize) -> Result<Vec<Piece>> {
        let total = self.table_bytes().max(1);
        let mut pieces = Vec::new();
        for (number, database) in self.databases.iter().enumerate() {
            let bytes = database.table_bytes();
            let share = (threads * PIECES_PER_THREAD) as u64 * bytes / total;
            let wanted = if threads > 1 { share.min(bytes / SMALLEST_PIECE) as usize } else { 0 };
            let cuts = if wanted > 1 { database.split_points(wanted)? } else { Vec::new() };
            let mut low = Vec::new();
            for cut in cuts {
                let next = cut.clone();
                pieces.push(Piece { database: number, low, high: Some(cut) });
                low = next;
            }
            pieces.push(Piece { database: number, low, high: None });
        }
        Ok(pieces)
    }
}

/// Turn a stored row into a logical one; rows of other modules are dropped without a look at their value.
pub fn decode(key: &[u8], stored: &[u8], sink: &mut impl Sink) -> Result<()> {
    let Some(bucket) = physical_bucket(key) else { return Ok(()) };
    let mut wide = [0; ACCOUNT_PAYLOAD];
    match payload(bucket, stored, &mut wide) {
        Ok(payload) => sink.row(&Row { bucket, key, payload, stored, height: Some(height(stored)) }),
        Err(problem) => Err(undecodable(bucket, key, &problem)),
    }
}
