//! One function a parser, each taking any bytes: what the fuzz targets and the mutation tests call. With `cfg(fuzzing)` checksums
//! count as right, so that the parsers behind them are reached.

use std::fs;
use std::path::{Path, PathBuf};

use crate::changelog::{Segment, Span, replay};
use crate::flatkv::{BlockFile, BlockFormat, Changes};
use crate::memiavl::{Scan, State, Tree, Wording};
use crate::overlay::Overlay;
use crate::pebble::fuzzing as pebble;
use crate::rows::{DigestSink, Progress};
use crate::wire::{Reader, named_changeset};
use crate::writes::Limits;

/// Records, MANIFEST edits, write-ahead log batches, table files.
pub use pebble::{batches, manifest, records, table};

/// A file with these bytes, for the parsers that want one; each thread has its own.
pub(crate) fn on_disk<T>(name: &str, data: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let directory = scratch();
    let path = directory.join(name);
    fs::write(&path, data).expect("scratch is writable");
    read(&path)
}

fn scratch() -> PathBuf {
    let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let directory = base.join(format!("seiops-fuzz-{}-{:?}", std::process::id(), std::thread::current().id()));
    fs::create_dir_all(&directory).expect("scratch is writable");
    directory
}

pub fn wire(data: &[u8]) {
    let mut reader = Reader::new(data);
    while reader.field().is_some() {}
    let _ = named_changeset(data, &mut |_, pair| {
        assert!(pair.key.0 + pair.key.1 <= data.len() && pair.value.0 + pair.value.1 <= data.len());
        Ok(())
    });
}

/// A memiavl changelog of one segment.
pub fn changelog(data: &[u8]) {
    on_disk("00000000000000000001", data, |path| {
        let segments = [Segment { path: path.to_path_buf(), first_index: 1 }];
        let trees = [b"evm".to_vec(), b"bank".to_vec()].into();
        if let Ok(found) = replay(&segments, trees, b"evm", Span::behind(0, None), limits(path)) {
            let state = State { tree: None, overlay: found.overlay };
            scan(&state);
        }
    });
}

/// So few in memory that inputs of a few bytes spill.
fn limits(path: &Path) -> Limits<'_> {
    Limits { held: 3, spill_dir: path.parent().unwrap_or(path), threads: 1 }
}

/// A state log file, as an unsealed and as a sealed one; a first byte picks the container.
pub fn state_log(data: &[u8]) {
    let Some((pick, data)) = data.split_first() else { return };
    let format = if pick % 2 == 0 { BlockFormat::StateWal } else { BlockFormat::Changelog };
    on_disk("0.wal.u", data, |path| {
        for sealed in [false, true] {
            let file = BlockFile { path: path.to_path_buf(), sealed, sequence: 0, first: 1, last: 3 };
            let _ = Changes::replay(&[file], format, (0, u64::from(pick >> 1)), limits(path));
        }
    });
}

/// A memiavl tree: two bytes say where `leaves` begins behind `kvs`; `nodes` has the size it must have.
pub fn tree(data: &[u8]) {
    let Some((cut, data)) = data.split_first_chunk::<2>() else { return };
    let cut = usize::from(u16::from_le_bytes(*cut)).min(data.len());
    let (kvs, leaves) = data.split_at(cut);
    let leaves = &leaves[..leaves.len() / 48 * 48];
    let directory = scratch();
    let metadata = [1_280_721_225u32, 0, 7].map(u32::to_le_bytes).concat();
    let nodes = &leaves[..leaves.len().saturating_sub(48)];
    for (name, data) in [("metadata", metadata.as_slice()), ("kvs", kvs), ("leaves", leaves), ("nodes", nodes)] {
        fs::write(directory.join(name), data).expect("scratch is writable");
    }
    if let Ok(tree) = Tree::open(&directory) {
        for threads in [1, 2] {
            let _ = tree.verify_hashes(&Progress::default(), threads);
        }
        scan(&State { tree: Some(tree), overlay: Overlay::default() });
    }
}

fn scan(state: &State) {
    let progress = Progress::default();
    for threads in [1, 2] {
        let scan = Scan { wording: Wording::Semantic, threads, heights: true, from: &[], progress: &progress };
        let _ = state.scan(DigestSink::default(), scan);
    }
    let _ = state.raw_leaves(&progress, |_, _, _| Ok(()));
}
