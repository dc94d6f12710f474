//! The Python face of the kernel: opened stores as objects, scans as calls that release the interpreter lock.

mod flatkv;
mod memiavl;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use pyo3::exceptions::{PyInterruptedError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::entry::{Accumulator, accumulate_rows, entry_hash};
use crate::error::{Error, Result};
use crate::rows::{
    BOUNDARY_MARKER, Bucket, DigestSink, OwnedRow, Progress, Query, Row, RowSink, ShardSink, TreeSink, VERSION_MARKER,
    shard_of,
};

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(text) => PyValueError::new_err(text),
            Error::Cancelled => PyInterruptedError::new_err("cancelled"),
        }
    }
}

/// Counters of a running scan, readable from another thread.
#[pyclass(name = "Progress", frozen)]
#[derive(Default)]
pub struct PyProgress {
    inner: Arc<Progress>,
}

#[pymethods]
impl PyProgress {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[getter]
    fn rows(&self) -> u64 {
        self.inner.rows.load(Ordering::Relaxed)
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }

    fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::Relaxed);
    }
}

pub fn bucket(number: u8) -> PyResult<Bucket> {
    Ok(match number {
        0 => Bucket::Account,
        1 => Bucket::Code,
        2 => Bucket::Storage,
        3 => Bucket::Misc,
        _ => return Err(PyValueError::new_err(format!("no bucket {number}"))),
    })
}

/// (bucket, key offset, key prefix, shard next bytes)
pub fn query_of((number, offset, prefix, next_bytes): (u8, usize, Vec<u8>, usize)) -> PyResult<Query> {
    Ok(Query { bucket: bucket(number)?, offset, prefix, next_bytes })
}

/// (bucket, key, payload, stored, height or None)
fn row_tuple<'py>(py: Python<'py>, row: &OwnedRow) -> PyResult<Bound<'py, PyTuple>> {
    (
        row.bucket as u8,
        PyBytes::new(py, &row.key),
        PyBytes::new(py, &row.payload),
        PyBytes::new(py, &row.stored),
        row.height,
    )
        .into_pyobject(py)
}

fn tally<'py>(py: Python<'py>, tally: &Accumulator) -> PyResult<Bound<'py, PyTuple>> {
    (PyBytes::new(py, &tally.xor), tally.count).into_pyobject(py)
}

/// Everything a digest scan found, as a dict.
pub fn totals<'py>(py: Python<'py>, sink: &DigestSink, input_rows: u64) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let buckets = sink.buckets.iter().map(|bucket| tally(py, bucket)).collect::<PyResult<Vec<_>>>()?;
    dict.set_item("buckets", PyList::new(py, buckets)?)?;
    dict.set_item("input_rows", input_rows)?;
    dict.set_item("version_marker", sink.version_marker.map(|hash| PyBytes::new(py, &hash)))?;
    dict.set_item("boundary_marker", sink.boundary_marker.map(|hash| PyBytes::new(py, &hash)))?;
    let found = sink.found.iter().map(|row| row_tuple(py, row)).collect::<PyResult<Vec<_>>>()?;
    dict.set_item("found", PyList::new(py, found)?)?;
    Ok(dict)
}

pub fn digest_sink(find: Option<&[u8]>) -> PyResult<DigestSink> {
    let find = find
        .map(|hash| <[u8; 32]>::try_from(hash).map_err(|_| PyValueError::new_err("an entry hash has 32 bytes")))
        .transpose()?;
    Ok(DigestSink::finding(find))
}

pub fn shards<'py>(py: Python<'py>, sink: &ShardSink, input_rows: u64) -> PyResult<Bound<'py, PyTuple>> {
    let dict = PyDict::new(py);
    for (shard, accumulator) in &sink.shards {
        dict.set_item(PyBytes::new(py, shard), tally(py, accumulator)?)?;
    }
    (input_rows, sink.matched, dict).into_pyobject(py)
}

/// What a digest scan found, and under "shards" the non-empty ones: {(bucket, index): (xor, count)}.
pub fn survey<'py>(py: Python<'py>, sink: &TreeSink, input_rows: u64) -> PyResult<Bound<'py, PyDict>> {
    let found = totals(py, &sink.digest(), input_rows)?;
    let dict = PyDict::new(py);
    for (bucket, shards) in sink.shards.iter().enumerate() {
        for (index, accumulator) in shards.iter().enumerate() {
            if accumulator.count > 0 {
                dict.set_item((bucket, index), tally(py, accumulator)?)?;
            }
        }
    }
    found.set_item("shards", dict)?;
    Ok(found)
}

/// A row selection: an inspect query, or shards of the shard tree.
pub enum Selection {
    Query(Query),
    Shards(Vec<(u8, usize)>),
}

impl Selection {
    pub fn wants(&self, row: &Row<'_>) -> bool {
        match self {
            Self::Query(query) => query.matches(row),
            Self::Shards(shards) => {
                let mine = (row.bucket as u8, shard_of(row.key));
                shards.binary_search(&mine).is_ok() && row.key != VERSION_MARKER && row.key != BOUNDARY_MARKER
            }
        }
    }

    pub fn shards(mut shards: Vec<(u8, usize)>) -> Self {
        shards.sort_unstable();
        Self::Shards(shards)
    }
}

/// Hand a batch of rows to a Python callable; an exception there stops the scan and is raised again afterwards.
pub fn emit_to(callback: &Py<PyAny>, failure: &Mutex<Option<PyErr>>, batch: &[OwnedRow]) -> Result<()> {
    Python::attach(|py| {
        let send = || -> PyResult<()> {
            let rows = batch.iter().map(|row| row_tuple(py, row)).collect::<PyResult<Vec<_>>>()?;
            callback.call1(py, (PyList::new(py, rows)?,))?;
            Ok(())
        };
        send().map_err(|error| {
            *failure.lock().expect("never poisoned") = Some(error);
            Error::Cancelled
        })
    })
}

/// Run a row export: `scan` feeds a `RowSink`; whatever the callback raised wins over the cancellation it caused.
pub fn export(
    py: Python<'_>,
    selection: &Selection,
    callback: &Py<PyAny>,
    scan: impl FnOnce(&mut RowSink<'_>) -> Result<u64> + Send,
) -> PyResult<u64> {
    let failure = Mutex::new(None);
    let wanted = |row: &Row<'_>| selection.wants(row);
    let emit = |batch: Vec<OwnedRow>| emit_to(callback, &failure, &batch);
    let outcome = py.detach(|| {
        let mut sink = RowSink { wanted: &wanted, emit: &emit, batch: Vec::new() };
        let rows = scan(&mut sink)?;
        sink.flush()?;
        Ok::<u64, Error>(rows)
    });
    if let Some(error) = failure.into_inner().expect("never poisoned") {
        return Err(error);
    }
    Ok(outcome?)
}

/// Hash of one row, 32 bytes.
#[pyfunction]
#[pyo3(name = "entry_hash")]
fn py_entry_hash<'py>(py: Python<'py>, key: &[u8], value: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &entry_hash(key, value))
}

/// XOR of the entry hashes of a batch of rows, and their number.
#[pyfunction]
#[pyo3(name = "accumulate")]
fn py_accumulate<'py>(
    py: Python<'py>,
    rows: Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
) -> PyResult<Bound<'py, PyTuple>> {
    let total = accumulate_rows(rows.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())));
    tally(py, &total)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<PyProgress>()?;
    module.add_class::<memiavl::PyMemiavl>()?;
    module.add_class::<flatkv::PyDatabase>()?;
    module.add_class::<flatkv::PyFlatkv>()?;
    module.add_class::<flatkv::PyComposite>()?;
    module.add_function(wrap_pyfunction!(py_entry_hash, module)?)?;
    module.add_function(wrap_pyfunction!(py_accumulate, module)?)?;
    Ok(())
}
