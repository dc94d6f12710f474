//! memiavl for Python.

use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::{PyProgress, Selection, digest_sink, export, query_of, shards, survey, totals};
use crate::changelog::{Segment, Span, replay};
use crate::error::Error;
use crate::memiavl::{Scan, State, Tree, Wording};
use crate::overlay::Overlay;
use crate::rows::{Bucket, Query, RawKind, Row, ShardSink, Sink, TreeSink, hex_upper, raw_kind};
use crate::writes::{HELD, Limits};

pub fn wording(name: &str) -> PyResult<Wording> {
    Ok(match name {
        "semantic" => Wording::Semantic,
        "inspect" => Wording::SemanticInspect,
        "translator" => Wording::Translator,
        _ => return Err(PyValueError::new_err(format!("no wording {name:?}"))),
    })
}

/// The `evm` tree of a memiavl store at one height.
#[pyclass(name = "MemiavlState", frozen)]
pub struct PyMemiavl {
    state: State,
    #[pyo3(get)]
    version: u64,
    #[pyo3(get)]
    overlay_rows: usize,
    #[pyo3(get)]
    spilled: bool,
    #[pyo3(get)]
    leaves: u64,
}

#[pymethods]
impl PyMemiavl {
    /// Open tree `tree` of `snapshot` (a directory that holds `trees`), whose state is `version`, and overlay `segments` ((path, first index) in
    /// order) from version `first` (None: the next one) up to `upto` (None: to the end of the log). Without segments the
    /// snapshot is the state. More than `held` writes spill into unlinked files in `spill_dir`.
    #[staticmethod]
    #[pyo3(signature = (snapshot, trees, tree, version, segments, spill_dir, first=None, upto=None, threads=1, held=HELD))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python call")]
    fn open(
        py: Python<'_>,
        snapshot: PathBuf,
        trees: Vec<String>,
        tree: &str,
        version: u64,
        segments: Vec<(PathBuf, u64)>,
        spill_dir: PathBuf,
        first: Option<u64>,
        upto: Option<u64>,
        threads: usize,
        held: usize,
    ) -> PyResult<Self> {
        let opened = py.detach(|| {
            let (base, reached, overlay) = if segments.is_empty() {
                (Some(tree.as_bytes().to_vec()), version, Overlay::default())
            } else {
                let segments: Vec<Segment> =
                    segments.into_iter().map(|(path, first_index)| Segment { path, first_index }).collect();
                let span = Span { after: version, first: first.unwrap_or(version + 1), upto };
                let trees = trees.into_iter().map(String::into_bytes).collect();
                let found =
                    replay(&segments, trees, tree.as_bytes(), span, Limits { held, spill_dir: &spill_dir, threads })?;
                (found.base_tree, found.version, found.overlay)
            };
            let tree = base
                .map(|name| {
                    let name = std::str::from_utf8(&name).map_err(|_| Error::store("tree name is not text"))?;
                    Tree::open(&snapshot.join(name))
                })
                .transpose()?;
            Ok::<_, Error>((State { tree, overlay }, reached))
        })?;
        Ok(Self {
            version: opened.1,
            overlay_rows: opened.0.overlay.len(),
            spilled: opened.0.overlay.spilled(),
            leaves: opened.0.tree.as_ref().map_or(0, |tree| tree.count),
            state: opened.0,
        })
    }

    #[pyo3(signature = (progress, wording_name="semantic", threads=1, find=None))]
    fn digest<'py>(
        &self,
        py: Python<'py>,
        progress: &PyProgress,
        wording_name: &str,
        threads: usize,
        find: Option<&[u8]>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scan = self.how(progress, wording_name, threads, false)?;
        let sink = digest_sink(find)?;
        let (sink, leaves) = py.detach(|| self.state.scan(sink, scan))?;
        totals(py, &sink, leaves)
    }

    /// (leaves, matched, {shard: (xor, count)})
    fn inspect<'py>(
        &self,
        py: Python<'py>,
        progress: &PyProgress,
        wording_name: &str,
        threads: usize,
        query: (u8, usize, Vec<u8>, usize),
    ) -> PyResult<Bound<'py, PyTuple>> {
        let scan = self.how(progress, wording_name, threads, false)?;
        let query = query_of(query)?;
        let sink = ShardSink { query, matched: 0, shards: Default::default() };
        let (sink, leaves) = py.detach(|| self.state.scan(sink, scan))?;
        shards(py, &sink, leaves)
    }

    /// Matching rows in key order to `on_rows`, in batches; returns the number of leaves.
    fn inspect_rows(
        &self,
        py: Python<'_>,
        progress: &PyProgress,
        wording_name: &str,
        query: (u8, usize, Vec<u8>, usize),
        on_rows: Py<PyAny>,
    ) -> PyResult<u64> {
        let scan = self.how(progress, wording_name, 1, true)?;
        let query = query_of(query)?;
        let accounts = query.bucket == Bucket::Account;
        export(py, &Selection::Query(query), &on_rows, |sink| match accounts {
            true => self.state.scan_in_order(sink, scan),
            false => self.state.ordinary_in_order(sink, scan),
        })
    }

    /// Storage leaves with their versions, zero values skipped before their length is looked at (1.11).
    fn storage_details(
        &self,
        py: Python<'_>,
        progress: &PyProgress,
        offset: usize,
        prefix: Vec<u8>,
        on_rows: Py<PyAny>,
    ) -> PyResult<u64> {
        let query = Query { bucket: Bucket::Storage, offset, prefix, next_bytes: 0 };
        export(py, &Selection::Query(query), &on_rows, |sink| {
            let mut physical = b"evm/".to_vec();
            self.state.raw_leaves(&progress.inner, |key, value, height| {
                if raw_kind(key) != RawKind::Storage || value.iter().all(|byte| *byte == 0) {
                    return Ok(());
                }
                physical.truncate(4);
                physical.extend_from_slice(key);
                let row = Row { bucket: Bucket::Storage, key: &physical, payload: value, stored: value, height };
                if (sink.wanted)(&row) && value.len() != 32 {
                    return Err(Error::store(format!(
                        "parse storage value {}: invalid storage value length: got {}, expected 32",
                        hex_upper(key),
                        value.len()
                    )));
                }
                sink.row(&row)
            })
        })
    }

    /// The totals of `digest` together with the shard tree, in one pass.
    #[pyo3(signature = (progress, wording_name="semantic", threads=1))]
    fn survey<'py>(
        &self,
        py: Python<'py>,
        progress: &PyProgress,
        wording_name: &str,
        threads: usize,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scan = self.how(progress, wording_name, threads, false)?;
        let (sink, leaves) = py.detach(|| self.state.scan(TreeSink::default(), scan))?;
        survey(py, &sink, leaves)
    }

    /// Rows of the named shards, in key order, accounts last, with the versions of their leaves.
    fn rows(
        &self,
        py: Python<'_>,
        progress: &PyProgress,
        wording_name: &str,
        shards: Vec<(u8, usize)>,
        on_rows: Py<PyAny>,
    ) -> PyResult<u64> {
        let scan = self.how(progress, wording_name, 1, true)?;
        export(py, &Selection::shards(shards), &on_rows, |sink| self.state.scan_in_order(sink, scan))
    }

    /// Number of leaves, those of the log included.
    fn count(&self, py: Python<'_>, progress: &PyProgress) -> PyResult<u64> {
        Ok(py.detach(|| self.state.count_below(None, &progress.inner))?)
    }

    /// Recompute every hash of the snapshot's tree; returns its root hash, or None when the tree was born in the log.
    #[pyo3(signature = (progress, threads=1))]
    fn verify<'py>(
        &self,
        py: Python<'py>,
        progress: &PyProgress,
        threads: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(tree) = &self.state.tree else { return Ok(None) };
        let root = py.detach(|| tree.verify_hashes(&progress.inner, threads))?;
        Ok(Some(PyBytes::new(py, &root)))
    }
}

impl PyMemiavl {
    fn how<'a>(&self, progress: &'a PyProgress, name: &str, threads: usize, heights: bool) -> PyResult<Scan<'a>> {
        Ok(Scan { wording: wording(name)?, threads: threads.max(1), heights, from: &[], progress: &progress.inner })
    }

    pub fn state(&self) -> &State {
        &self.state
    }
}
