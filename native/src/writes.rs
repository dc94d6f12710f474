//! Writes on their way from a log to an overlay, in bounded memory.
//!
//! Up to `Limits::held` writes wait in memory. Past that, overwritten ones are dropped, and if too many are left, they go as a
//! sorted run into an unlinked file that ends with this process, however it ends. In the end runs are merged into one such file,
//! which is mapped: what lies in it is page cache, not private memory.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::overlay::{Change, Logs, Overlay, Settled};

/// 256 MiB of changes: 6 % of a keyspace of 140 million rows without a file.
pub const HELD: usize = 1 << 23;
/// Fewer writes than this are not worth a thread.
const SMALLEST_SHARE: usize = 1 << 16;
const BUFFER: usize = 1 << 20;

/// How many writes may wait in memory, where the rest goes, and how many threads sort.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    pub held: usize,
    pub spill_dir: &'a Path,
    pub threads: usize,
}

/// The writes of one overlay.
#[derive(Default)]
pub struct Writes {
    pending: Vec<Change>,
    runs: Vec<Mmap>,
}

impl Writes {
    pub fn push(&mut self, change: Change) {
        self.pending.push(change);
    }

    /// Number of writes that wait in memory.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Make one overlay of everything pushed.
    pub fn settle(mut self, logs: Arc<Logs>, limits: Limits<'_>) -> Result<Overlay> {
        if self.runs.is_empty() {
            self.sort(&logs, limits.threads);
            self.pending.shrink_to_fit();
            return Ok(Overlay::new(logs, Settled::Held(self.pending)));
        }
        self.spill(&logs, limits)?;
        let merged = match self.runs.len() {
            1 => self.runs.swap_remove(0),
            _ => merge(self.runs, &logs, limits.spill_dir)?,
        };
        Ok(Overlay::new(logs, Settled::Mapped(merged)))
    }

    /// Sort what waits in memory and keep the last write of each key.
    fn sort(&mut self, logs: &Logs, threads: usize) {
        let changes = &mut self.pending;
        let share = changes.len().div_ceil(threads.max(1)).max(SMALLEST_SHARE);
        if changes.len() > share {
            std::thread::scope(|scope| {
                for part in changes.chunks_mut(share) {
                    scope.spawn(|| part.sort_unstable_by(|a, b| logs.order(a, b)));
                }
            });
            changes.sort_by(|a, b| logs.order(a, b)); // finds the sorted parts and only merges them
        } else {
            changes.sort_unstable_by(|a, b| logs.order(a, b));
        }
        let mut kept = 0;
        for at in 0..changes.len() {
            if changes.get(at + 1).is_none_or(|next| !logs.same_key(next, &changes[at])) {
                changes[kept] = changes[at];
                kept += 1;
            }
        }
        changes.truncate(kept);
    }

    /// Move what waits in memory into a run.
    fn spill(&mut self, logs: &Logs, limits: Limits<'_>) -> Result<()> {
        self.sort(logs, limits.threads);
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            let mut run = Run::create(limits.spill_dir)?;
            run.add(&pending)?;
            self.runs.push(run.finish()?);
        }
        Ok(())
    }
}

/// Keep all lists together within the limit.
pub fn relieve(lists: &mut [&mut Writes], logs: &Logs, limits: Limits<'_>) -> Result<()> {
    let waiting = |lists: &[&mut Writes]| lists.iter().map(|list| list.waiting()).sum::<usize>();
    if waiting(lists) < limits.held {
        return Ok(());
    }
    for list in lists.iter_mut() {
        list.sort(logs, limits.threads);
    }
    lists.sort_by_key(|list| std::cmp::Reverse(list.pending.len()));
    for at in 0..lists.len() {
        if waiting(lists) <= limits.held / 4 {
            break;
        }
        lists[at].spill(logs, limits)?;
    }
    Ok(())
}

/// A file of changes being written. It has no name, so nothing can be left behind.
struct Run<'a> {
    directory: &'a Path,
    file: BufWriter<File>,
}

impl<'a> Run<'a> {
    fn create(directory: &'a Path) -> Result<Self> {
        let file = tempfile::tempfile_in(directory).map_err(|error| failed(directory, &error))?;
        Ok(Self { directory, file: BufWriter::with_capacity(BUFFER, file) })
    }

    fn add(&mut self, changes: &[Change]) -> Result<()> {
        self.file.write_all(Change::bytes(changes)).map_err(|error| failed(self.directory, &error))
    }

    fn finish(self) -> Result<Mmap> {
        let directory = self.directory;
        let file = self.file.into_inner().map_err(|error| failed(directory, error.error()))?;
        // SAFETY: nobody else can open the file, and we write to it no more.
        unsafe { Mmap::map(&file) }.map_err(|error| failed(directory, &error))
    }
}

fn failed(directory: &Path, error: &std::io::Error) -> Error {
    Error::file(
        directory,
        format!("cannot spill the writes of the log here ({error}); set TMPDIR to a directory with room"),
    )
}

/// What a run has next. The heap gives the smallest key first, of equal keys the oldest write.
struct Head<'a> {
    logs: &'a Logs,
    change: Change,
    run: usize,
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.logs.order(&other.change, &self.change)
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head<'_> {}

fn merge(runs: Vec<Mmap>, logs: &Logs, directory: &Path) -> Result<Mmap> {
    let runs: Vec<Settled> = runs.into_iter().map(Settled::Mapped).collect();
    let mut merged = Run::create(directory)?;
    let mut left: Vec<std::slice::Iter<'_, Change>> = runs.iter().map(|run| run.iter()).collect();
    let mut heads = BinaryHeap::new();
    for (run, changes) in left.iter_mut().enumerate() {
        heads.extend(changes.next().map(|change| Head { logs, change: *change, run }));
    }
    while let Some(Head { change, run, .. }) = heads.pop() {
        heads.extend(left[run].next().map(|change| Head { logs, change: *change, run }));
        if heads.peek().is_none_or(|next| !logs.same_key(&next.change, &change)) {
            merged.add(&[change])?;
        }
    }
    merged.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;

    use super::*;

    /// A log file of 3-byte keys and 4-byte values, and the writes in it: (key, value or None).
    fn log(writes: &[(u32, Option<u32>)]) -> (Arc<Logs>, Vec<Change>) {
        let mut file = tempfile::NamedTempFile::new().expect("scratch");
        for (key, value) in writes {
            file.write_all(&key.to_be_bytes()[1..]).expect("scratch");
            file.write_all(&value.unwrap_or(0).to_be_bytes()).expect("scratch");
        }
        let mut logs = Logs::default();
        let number = logs.map(file.path()).expect("a log");
        let changes = writes
            .iter()
            .enumerate()
            .map(|(at, (_, value))| logs.change(number, (at * 7, 3), value.map(|_| (at * 7 + 3, 4)), at as u32))
            .collect();
        (Arc::new(logs), changes)
    }

    fn draw(count: u32, keys: u32) -> Vec<(u32, Option<u32>)> {
        let mut seed = 7u32;
        (0..count)
            .map(|at| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((seed >> 8) % keys, (!seed.is_multiple_of(5)).then_some(at))
            })
            .collect()
    }

    fn settled(writes: &[(u32, Option<u32>)], held: usize) -> Overlay {
        let (logs, changes) = log(writes);
        let directory = std::env::temp_dir();
        let limits = Limits { held, spill_dir: &directory, threads: 2 };
        let mut list = Writes::default();
        for change in changes {
            list.push(change);
            relieve(&mut [&mut list], &logs, limits).expect("room");
            assert!(list.pending.len() <= held);
        }
        list.settle(logs, limits).expect("room")
    }

    #[test]
    fn spilled_or_not_the_last_write_of_each_key_stays() {
        let writes = draw(5000, 900);
        let want: BTreeMap<u32, Option<u32>> = writes.iter().copied().collect();
        for held in [1, 7, 100, 2000, 10_000] {
            let overlay = settled(&writes, held);
            assert_eq!(overlay.spilled(), held < 4 * want.len(), "{held}");
            let found: Vec<(u32, Option<u32>)> = overlay
                .range(&[], None)
                .iter()
                .map(|change| {
                    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
                    (word(overlay.key(change)), overlay.value(change).map(word))
                })
                .collect();
            assert_eq!(found, want.clone().into_iter().collect::<Vec<_>>(), "{held}");
        }
    }

    #[test]
    fn keys_written_over_and_over_need_no_file() {
        assert!(!settled(&draw(50_000, 200), 1000).spilled());
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let (logs, changes) = log(&draw(100, 90));
        let limits = Limits { held: 10, spill_dir: Path::new("/nowhere/at/all"), threads: 1 };
        let mut list = Writes { pending: changes, runs: Vec::new() };
        let error = relieve(&mut [&mut list], &logs, limits).expect_err("no such directory");
        assert!(error.to_string().starts_with("/nowhere/at/all: cannot spill"), "{error}");
    }
}
