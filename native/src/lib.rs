//! Row-speed kernel of seiops. Policy lives in Python; this crate only touches rows.

pub mod entry;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Hash of one row, 32 bytes.
#[pyfunction]
fn entry_hash<'py>(py: Python<'py>, key: &[u8], value: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &entry::entry_hash(key, value))
}

/// XOR of the entry hashes of a batch of rows, and their number.
#[pyfunction]
fn accumulate<'py>(
    py: Python<'py>,
    rows: Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
) -> (Bound<'py, PyBytes>, u64) {
    let mut total = entry::Accumulator::default();
    for (key, value) in &rows {
        total.add(&entry::entry_hash(key.as_bytes(), value.as_bytes()));
    }
    (PyBytes::new(py, &total.xor), total.count)
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(entry_hash, module)?)?;
    module.add_function(wrap_pyfunction!(accumulate, module)?)?;
    Ok(())
}
