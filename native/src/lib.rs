//! Row-speed kernel of seiops. Policy lives in Python; this crate only touches rows.

pub mod changelog;
pub mod composite;
pub mod entry;
pub mod error;
pub mod flatkv;
pub mod lanes;
pub mod memiavl;
pub mod overlay;
pub mod pebble;
mod python;
pub mod rows;
pub mod wire;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    python::register(module)
}
