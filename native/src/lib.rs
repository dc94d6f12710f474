//! Row-speed kernel of seiops. Policy lives in Python; this crate only touches rows.

pub mod changelog;
pub mod composite;
pub mod entry;
pub mod error;
pub mod flatkv;
#[doc(hidden)]
pub mod fuzzing;
pub mod lanes;
pub mod memiavl;
pub mod overlay;
pub mod pebble;
pub mod pieces;
#[cfg(feature = "python")]
mod python;
pub mod rows;
pub mod wire;
pub mod writes;

#[cfg(feature = "python")]
use pyo3::prelude::*;

#[cfg(feature = "python")]
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    python::register(module)
}
