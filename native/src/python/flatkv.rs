//! FlatKV and composite stores for Python.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::memiavl::PyMemiavl;
use super::{PyProgress, Selection, digest_sink, export, query_of, shards, survey, totals};
use crate::composite::{Composite, Consumed, Unmigrated};
use crate::flatkv::{BlockFile, BlockFormat, Changes, FlatScan, FlatState, Statistics};
use crate::memiavl::{Scan, Wording};
use crate::pebble::Database;
use crate::rows::{ShardSink, TreeSink};
use crate::writes::{HELD, Limits};

/// A read-only Pebble database.
#[pyclass(name = "Database", frozen)]
pub struct PyDatabase {
    inner: Arc<Database>,
}

#[pymethods]
impl PyDatabase {
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let inner = py.detach(|| Database::open(&path))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    fn get<'py>(&self, py: Python<'py>, key: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.inner.get(key)?.map(|value| PyBytes::new(py, &value)))
    }

    /// All rows with low <= key < high; for ranges known to be small.
    #[pyo3(signature = (low, high=None))]
    fn rows<'py>(&self, py: Python<'py>, low: &[u8], high: Option<&[u8]>) -> PyResult<Bound<'py, PyList>> {
        let found = PyList::empty(py);
        let mut rows = self.inner.rows(low, high)?;
        while rows.advance()? {
            found.append((PyBytes::new(py, rows.key()), PyBytes::new(py, rows.value())))?;
        }
        Ok(found)
    }

    #[getter]
    fn table_bytes(&self) -> u64 {
        self.inner.table_bytes()
    }
}

/// (path, sealed, sequence, first block, last block)
type FileTuple = (PathBuf, bool, u64, u64, u64);

/// Four databases under the blocks after .. upto.
#[pyclass(name = "FlatkvState", frozen)]
pub struct PyFlatkv {
    state: FlatState,
    #[pyo3(get)]
    version: u64,
    #[pyo3(get)]
    overlay_rows: usize,
    #[pyo3(get)]
    table_bytes: u64,
}

#[pymethods]
impl PyFlatkv {
    /// `databases`: account, code, storage, misc. `files`: the log in order, in `log_format` "seiwal" or "changelog"; blocks
    /// after+1 ..= upto are applied. More than `held` writes spill into unlinked files in `spill_dir`.
    #[staticmethod]
    #[pyo3(signature = (databases, files, log_format, after, upto, spill_dir, threads=1, held=HELD))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python call")]
    fn open(
        py: Python<'_>,
        databases: Vec<Py<PyDatabase>>,
        files: Vec<FileTuple>,
        log_format: &str,
        after: u64,
        upto: u64,
        spill_dir: PathBuf,
        threads: usize,
        held: usize,
    ) -> PyResult<Self> {
        let format = match log_format {
            "seiwal" => BlockFormat::StateWal,
            "changelog" => BlockFormat::Changelog,
            other => return Err(PyValueError::new_err(format!("no log format {other:?}"))),
        };
        let databases: Vec<Arc<Database>> = databases.iter().map(|one| Arc::clone(&one.get().inner)).collect();
        let databases = databases.try_into().map_err(|_| PyValueError::new_err("four databases are wanted"))?;
        let files: Vec<BlockFile> = files
            .into_iter()
            .map(|(path, sealed, sequence, first, last)| BlockFile { path, sealed, sequence, first, last })
            .collect();
        let changes = py.detach(|| {
            let limits = Limits { held, spill_dir: &spill_dir, threads };
            Changes::replay(&files, format, (after, upto), limits)
        })?;
        let version = changes.version;
        let overlay_rows = changes.len();
        let state = FlatState { databases, changes };
        Ok(Self { version, overlay_rows, table_bytes: state.table_bytes(), state })
    }

    /// Payload of a marker row, or None.
    fn marker<'py>(&self, py: Python<'py>, key: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.state.marker(key)?.map(|value| PyBytes::new(py, &value)))
    }

    /// Totals, and under "statistics" what the snapshot's databases hold: one {module: (rows, bytes)} a database.
    #[pyo3(signature = (progress, threads=1, find=None))]
    fn digest<'py>(
        &self,
        py: Python<'py>,
        progress: &PyProgress,
        threads: usize,
        find: Option<&[u8]>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let sink = digest_sink(find)?;
        let (sink, rows, statistics) = py.detach(|| self.state.scan(sink, how(progress, threads)))?;
        let found = totals(py, &sink, rows)?;
        found.set_item("statistics", statistics_list(py, &statistics)?)?;
        Ok(found)
    }

    fn inspect<'py>(
        &self,
        py: Python<'py>,
        progress: &PyProgress,
        threads: usize,
        query: (u8, usize, Vec<u8>, usize),
    ) -> PyResult<Bound<'py, PyTuple>> {
        let sink = ShardSink { query: query_of(query)?, matched: 0, shards: Default::default() };
        let (sink, rows, _) = py.detach(|| self.state.scan(sink, how(progress, threads)))?;
        shards(py, &sink, rows)
    }

    /// Matching rows in key order to `on_rows`, in batches; returns the number of stored rows.
    fn inspect_rows(
        &self,
        py: Python<'_>,
        progress: &PyProgress,
        query: (u8, usize, Vec<u8>, usize),
        on_rows: Py<PyAny>,
    ) -> PyResult<u64> {
        let query = query_of(query)?;
        export(py, &Selection::Query(query), &on_rows, |sink| self.state.scan_in_order(sink, &progress.inner))
    }

    /// What `digest` says together with the shard tree, in one pass.
    #[pyo3(signature = (progress, threads=1))]
    fn survey<'py>(&self, py: Python<'py>, progress: &PyProgress, threads: usize) -> PyResult<Bound<'py, PyDict>> {
        let (sink, rows, statistics) = py.detach(|| self.state.scan(TreeSink::default(), how(progress, threads)))?;
        let found = survey(py, &sink, rows)?;
        found.set_item("statistics", statistics_list(py, &statistics)?)?;
        Ok(found)
    }

    fn rows(
        &self,
        py: Python<'_>,
        progress: &PyProgress,
        shards: Vec<(u8, usize)>,
        on_rows: Py<PyAny>,
    ) -> PyResult<u64> {
        export(py, &Selection::shards(shards), &on_rows, |sink| self.state.scan_in_order(sink, &progress.inner))
    }

    /// LtHash of each module in each database of the snapshot: four of {module: 2048 bytes}.
    #[pyo3(signature = (progress, threads=1))]
    fn lattice_hashes<'py>(
        &self,
        py: Python<'py>,
        progress: &PyProgress,
        threads: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let sums = py.detach(|| self.state.lattice_hashes(how(progress, threads)))?;
        let list = PyList::empty(py);
        for modules in sums {
            let dict = PyDict::new(py);
            for (module, sum) in modules {
                dict.set_item(PyBytes::new(py, &module), PyBytes::new(py, &sum.bytes()))?;
            }
            list.append(dict)?;
        }
        Ok(list)
    }
}

fn how(progress: &PyProgress, threads: usize) -> FlatScan<'_> {
    FlatScan { threads: threads.max(1), progress: &progress.inner }
}

fn statistics_list<'py>(py: Python<'py>, statistics: &Statistics) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for counts in statistics {
        let dict = PyDict::new(py);
        for (module, counts) in counts {
            dict.set_item(PyBytes::new(py, module), counts)?;
        }
        list.append(dict)?;
    }
    Ok(list)
}

/// Both stores of a node in mid-migration.
#[pyclass(name = "CompositeState", frozen)]
pub struct PyComposite {
    flatkv: Py<PyFlatkv>,
    memiavl: Py<PyMemiavl>,
    /// first raw key that is not migrated; None: everything is
    unmigrated_from: Option<Vec<u8>>,
}

#[pymethods]
impl PyComposite {
    #[new]
    #[pyo3(signature = (flatkv, memiavl, unmigrated_from))]
    fn new(flatkv: Py<PyFlatkv>, memiavl: Py<PyMemiavl>, unmigrated_from: Option<Vec<u8>>) -> Self {
        Self { flatkv, memiavl, unmigrated_from }
    }

    /// Totals; "memiavl_rows" counts the leaves read, "consumed_rows" those not migrated.
    #[pyo3(signature = (progress, threads=1, find=None))]
    fn digest<'py>(
        &self,
        py: Python<'py>,
        progress: &PyProgress,
        threads: usize,
        find: Option<&[u8]>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let sink = digest_sink(find)?;
        let (composite, scan) = self.parts(progress, threads, false);
        let (sink, consumed) = py.detach(|| composite.scan(sink, scan))?;
        consumption(totals(py, &sink, consumed.flatkv)?, consumed)
    }

    /// What `digest` says together with the shard tree, in one pass.
    #[pyo3(signature = (progress, threads=1))]
    fn survey<'py>(&self, py: Python<'py>, progress: &PyProgress, threads: usize) -> PyResult<Bound<'py, PyDict>> {
        let (composite, scan) = self.parts(progress, threads, false);
        let (sink, consumed) = py.detach(|| composite.scan(TreeSink::default(), scan))?;
        consumption(survey(py, &sink, consumed.flatkv)?, consumed)
    }

    fn rows(
        &self,
        py: Python<'_>,
        progress: &PyProgress,
        shards: Vec<(u8, usize)>,
        on_rows: Py<PyAny>,
    ) -> PyResult<u64> {
        let (composite, scan) = self.parts(progress, 1, true);
        export(py, &Selection::shards(shards), &on_rows, |sink| composite.scan_in_order(sink, scan))
    }
}

fn consumption(found: Bound<'_, PyDict>, consumed: Consumed) -> PyResult<Bound<'_, PyDict>> {
    found.set_item("memiavl_rows", consumed.memiavl)?;
    found.set_item("consumed_rows", consumed.unmigrated)?;
    Ok(found)
}

impl PyComposite {
    fn parts<'a>(&'a self, progress: &'a PyProgress, threads: usize, heights: bool) -> (Composite<'a>, Scan<'a>) {
        let unmigrated = self.unmigrated_from.clone().map_or(Unmigrated::Nothing, Unmigrated::From);
        let composite = Composite { flatkv: &self.flatkv.get().state, memiavl: self.memiavl.get().state(), unmigrated };
        let scan =
            Scan { wording: Wording::Semantic, threads: threads.max(1), heights, from: &[], progress: &progress.inner };
        (composite, scan)
    }
}
