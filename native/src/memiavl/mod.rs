//! memiavl snapshots: leaves in key order from flat files, overlaid with the changelog, as logical rows
//! (docs/contracts/digest.md 1.8, 3.2).
//!
//! Accounts are two contiguous key ranges (code hash, nonce) in address order, so they are joined by two cursors instead of a
//! map. Work is cut at leaf boundaries; the pieces share nothing but progress counters.

mod cursor;
mod scan;
mod tree;
mod verify;

pub use scan::{AccountFields, Piece, Scan, State, Wording, emit_account};
pub use tree::Tree;
