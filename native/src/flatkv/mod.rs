//! FlatKV: four databases of a snapshot under the blocks of the state log, as logical rows (docs/contracts/digest.md 4).

mod blocks;
mod lattice;
pub(crate) mod rows;
mod scan;
mod values;

pub use blocks::{BlockFile, BlockFormat, Changes};
pub use scan::{FlatScan, FlatState, Statistics, decode};
pub use values::payload;
