//! memiavl's write-ahead log: entries in segment files, and which of their writes concern one tree
//! (docs/contracts/digest.md 3.5 to 3.7).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::overlay::{Change, Logs, Overlay};
use crate::pieces::{Nothing, run_pieces};
use crate::wire::{Field, Reader, named_changeset};
use crate::writes::{Limits, Writes, relieve};

/// Writes a worker collects before it takes the lock.
const BATCH: usize = 1 << 14;

/// A segment file and the index of its first entry, in log order.
#[derive(Clone, Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub first_index: u64,
}

/// What replay found: the height reached, and where the wanted tree came from.
pub struct Replay {
    pub version: u64,
    /// Name of the tree in the base snapshot, or None if the tree was born in the log.
    pub base_tree: Option<Vec<u8>>,
    pub overlay: Overlay,
}

struct Upgrade {
    version: u64,
    name: Vec<u8>,
    rename_from: Vec<u8>,
    delete: bool,
}

/// The life of a tree, backwards: its name in each range of versions, newest first.
struct Lineage {
    /// (first version under this name, name)
    names: Vec<(u64, Vec<u8>)>,
    base: Option<Vec<u8>>,
    /// the tree's first block behind the snapshot, and what it stamps leaves with: one more than the tree has counted so far
    first: (u64, u32),
}

impl Lineage {
    fn name_at(&self, version: u64) -> Option<&[u8]> {
        self.names.iter().find(|(from, _)| version >= *from).map(|(_, name)| name.as_slice())
    }

    /// What a leaf written at `version` is stamped with: a tree counts from 0 until its first block is committed (3.8).
    fn stamp(&self, version: u64) -> u32 {
        if self.first.0 == version { self.first.1 } else { version as u32 }
    }
}

/// Which entries to replay: those with `after < version <= upto` (`upto` None = to the end). The first of them must be `first`:
/// `after + 1`, or where a database without any block begins with another height, that one (3.8).
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub after: u64,
    pub first: u64,
    pub upto: Option<u64>,
}

impl Span {
    pub fn behind(after: u64, upto: Option<u64>) -> Self {
        Self { after, first: after + 1, upto }
    }
}

/// Collect the writes to `tree`.
///
/// A hole between the snapshot and the first entry, between entries, or between segments is refused: upstream replays over it in
/// silence and prints the digest of a state that never existed. Segments that lie wholly below the first entry are not read.
///
/// `trees` are the names of the snapshot's trees: a log that writes to, renames or removes any other is refused, as upstream does.
pub fn replay(
    segments: &[Segment],
    trees: BTreeSet<Vec<u8>>,
    tree: &[u8],
    span: Span,
    limits: Limits<'_>,
) -> Result<Replay> {
    let mut logs = Logs::default();
    let last = segments.len().saturating_sub(1);
    let numbers: Vec<u32> = segments
        .iter()
        .enumerate()
        .map(|(at, segment)| if at < last { logs.map(&segment.path) } else { logs.read(&segment.path) })
        .collect::<Result<_>>()?;
    let first = needed_from(segments, &numbers, &logs, span.first);
    let (segments, numbers) = (&segments[first..], &numbers[first..]);
    let mut trees = trees;
    let mut upgrades = Vec::new();
    let mut reached = span.after;
    walk(segments, numbers, &logs, span, &mut |_, version, entry| {
        reached = version;
        let before = upgrades.len();
        collect_upgrades(entry, version, &mut upgrades)?;
        rename(&mut trees, &upgrades[before..])?;
        check_names(&trees, entry, version)
    })?;
    if !trees.contains(tree) {
        return Err(Error::store(format!("memiavl tree \"{}\" not found", String::from_utf8_lossy(tree))));
    }
    let lineage = trace(tree, span, &upgrades)?;
    let found = Mutex::new(Writes::default());
    let collecting = Collecting { logs: &logs, lineage: &lineage, found: &found, span, limits };
    run_pieces(numbers, Nothing, limits.threads, |number, _| collecting.segment(*number))?;
    let found = found.into_inner().expect("no worker panics while holding it");
    Ok(Replay { version: reached, base_tree: lineage.base, overlay: found.settle(Arc::new(logs), limits)? })
}

/// Writes of segments that were walked before, by several workers at once: their order is in the log, not in the list.
struct Collecting<'a> {
    logs: &'a Logs,
    lineage: &'a Lineage,
    found: &'a Mutex<Writes>,
    span: Span,
    limits: Limits<'a>,
}

impl Collecting<'_> {
    fn segment(&self, number: u32) -> Result<u64> {
        let mut mine = Vec::new();
        let mut reader = Reader::new(self.logs.file(number));
        while let Some(entry) = reader.bytes() {
            let base = reader.position() - entry.len();
            let version = entry_version(entry).ok_or_else(|| Error::store("changelog entry is malformed"))?;
            let wanted = version > self.span.after && self.span.upto.is_none_or(|upto| version <= upto);
            if let (true, Some(name)) = (wanted, self.lineage.name_at(version)) {
                self.entry((number, base), version, entry, name, &mut mine)?;
            }
        }
        self.hand_over(&mut mine)?;
        Ok(0)
    }

    fn entry(
        &self,
        (segment, base): (u32, usize),
        version: u64,
        entry: &[u8],
        name: &[u8],
        mine: &mut Vec<Change>,
    ) -> Result<()> {
        let mut reader = Reader::new(entry);
        while !reader.is_empty() {
            let (2, Field::Bytes(set, at)) = reader.field().ok_or_else(|| cut(version))? else {
                continue;
            };
            named_changeset(set, &mut |module, pair| {
                if module == name {
                    let shift = base + at;
                    let value = (!pair.delete).then_some((shift + pair.value.0, pair.value.1));
                    let key = (shift + pair.key.0, pair.key.1);
                    mine.push(self.logs.change(segment, key, value, self.lineage.stamp(version)));
                    if mine.len() == BATCH {
                        self.hand_over(mine)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn hand_over(&self, mine: &mut Vec<Change>) -> Result<()> {
        let mut found = self.found.lock().expect("no worker panics while holding it");
        for change in mine.drain(..) {
            found.push(change);
            if found.waiting() >= self.limits.held {
                relieve(&mut [&mut found], self.logs, self.limits)?;
            }
        }
        Ok(())
    }
}

/// Number of the last segment whose first entry is not beyond the first wanted version.
fn needed_from(segments: &[Segment], numbers: &[u32], logs: &Logs, first: u64) -> usize {
    let first_version = |number: u32| Reader::new(logs.file(number)).bytes().and_then(entry_version);
    (1..segments.len())
        .rev()
        .find(|at| first_version(numbers[*at]).is_some_and(|version| version <= first))
        .unwrap_or(0)
}

fn cut(version: u64) -> Error {
    Error::store(format!("changelog entry of version {version} is malformed"))
}

type Visit<'v> = dyn FnMut((u32, usize), u64, &[u8]) -> Result<()> + 'v;

/// Visit each entry in (after, upto]: (segment, offset of the entry in it), version, bytes.
fn walk(segments: &[Segment], numbers: &[u32], logs: &Logs, span: Span, visit: &mut Visit<'_>) -> Result<()> {
    let mut index = segments.first().map_or(1, |segment| segment.first_index);
    let mut previous: Option<u64> = None;
    for (position, (segment, number)) in segments.iter().zip(numbers).enumerate() {
        if segment.first_index != index {
            return Err(Error::file(
                &segment.path,
                format!("entries {index} to {} of the changelog are missing", segment.first_index.saturating_sub(1)),
            ));
        }
        let last = position + 1 == segments.len();
        let data = logs.file(*number);
        let mut reader = Reader::new(data);
        while !reader.is_empty() {
            let start = reader.position();
            let Some(entry) = reader.bytes() else {
                if last {
                    break; // a torn tail is what a crash leaves behind
                }
                return Err(Error::file(&segment.path, format!("log corrupt: entry at offset {start} is cut")));
            };
            index += 1;
            let base = reader.position() - entry.len();
            let version = entry_version(entry)
                .ok_or_else(|| Error::file(&segment.path, format!("entry at offset {start} is malformed")))?;
            if let Some(previous) = previous
                && version != previous + 1
            {
                return Err(Error::file(
                    &segment.path,
                    format!("version {version} follows version {previous}: the changelog has a hole"),
                ));
            }
            if previous.is_none() && version > span.first && span.upto.is_none_or(|upto| upto > span.after) {
                return Err(Error::file(
                    &segment.path,
                    format!(
                        "the changelog starts at version {version}, but replay must start at {}: versions between are missing",
                        span.first
                    ),
                ));
            }
            previous = Some(version);
            if version <= span.after {
                continue;
            }
            if version < span.first {
                return Err(Error::file(
                    &segment.path,
                    format!("holds version {version}, but the database begins at version {}", span.first),
                ));
            }
            if span.upto.is_some_and(|upto| version > upto) {
                continue; // read on for holes and cut entries only
            }
            visit((*number, base), version, entry)?;
        }
    }
    Ok(())
}

fn entry_version(entry: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(entry);
    let mut version = 0;
    while !reader.is_empty() {
        if let (1, Field::Varint(value)) = reader.field()? {
            version = value;
        }
    }
    (version <= u64::from(u32::MAX)).then_some(version)
}

fn collect_upgrades(entry: &[u8], version: u64, into: &mut Vec<Upgrade>) -> Result<()> {
    let mut reader = Reader::new(entry);
    while !reader.is_empty() {
        let (3, Field::Bytes(message, _)) = reader.field().ok_or_else(|| cut(version))? else {
            continue;
        };
        let mut upgrade = Upgrade { version, name: Vec::new(), rename_from: Vec::new(), delete: false };
        let mut fields = Reader::new(message);
        while !fields.is_empty() {
            match fields.field().ok_or_else(|| cut(version))? {
                (1, Field::Bytes(name, _)) => upgrade.name = name.to_vec(),
                (2, Field::Bytes(name, _)) => upgrade.rename_from = name.to_vec(),
                (3, Field::Varint(flag)) => upgrade.delete = flag != 0,
                _ => {}
            }
        }
        into.push(upgrade);
    }
    Ok(())
}

/// Apply one entry's upgrades to the set of trees.
fn rename(trees: &mut BTreeSet<Vec<u8>>, upgrades: &[Upgrade]) -> Result<()> {
    let mut conflict = None;
    for upgrade in upgrades {
        let gone = if upgrade.delete { &upgrade.name } else { &upgrade.rename_from };
        if !gone.is_empty() && !trees.remove(gone) {
            let name = String::from_utf8_lossy(gone);
            return Err(Error::store(format!("process log failed, unknown tree name {name}")));
        }
        if !upgrade.delete && !trees.insert(upgrade.name.clone()) {
            conflict.get_or_insert(&upgrade.name);
        }
    }
    match conflict {
        None => Ok(()),
        Some(name) => {
            let name = String::from_utf8_lossy(name);
            Err(Error::store(format!("process log failed, memiavl tree name conflicts: {name}")))
        }
    }
}

/// Every changeset of an entry must be for a tree that exists.
fn check_names(trees: &BTreeSet<Vec<u8>>, entry: &[u8], version: u64) -> Result<()> {
    let mut reader = Reader::new(entry);
    while !reader.is_empty() {
        let (2, Field::Bytes(set, _)) = reader.field().ok_or_else(|| cut(version))? else {
            continue;
        };
        let mut name: &[u8] = b"";
        let mut fields = Reader::new(set);
        while !fields.is_empty() {
            if let (2, Field::Bytes(text, _)) = fields.field().ok_or_else(|| cut(version))? {
                name = text;
            }
        }
        if !trees.contains(name) {
            return Err(Error::store(format!(
                "process log failed, unknown tree name {} during WAL replay (missing initial stores / upgrades)",
                String::from_utf8_lossy(name)
            )));
        }
    }
    Ok(())
}

fn trace(tree: &[u8], span: Span, upgrades: &[Upgrade]) -> Result<Lineage> {
    let mut names = Vec::new();
    let mut name = tree.to_vec();
    for upgrade in upgrades.iter().rev() {
        if upgrade.name != name {
            continue;
        }
        if upgrade.delete {
            return Err(Error::store(format!(
                "memiavl tree {:?} not found: deleted at version {}",
                String::from_utf8_lossy(tree),
                upgrade.version
            )));
        }
        names.push((upgrade.version, name.clone()));
        if upgrade.rename_from.is_empty() {
            return Ok(Lineage { names, base: None, first: (upgrade.version, 1) });
        }
        name.clone_from(&upgrade.rename_from);
    }
    names.push((span.after + 1, name.clone()));
    Ok(Lineage { names, base: Some(name), first: (span.first, span.after as u32 + 1) })
}
