//! Stored values: a version byte, the height of the last write, and the logical payload (docs/contracts/digest.md 1.7, 4.3).

use crate::error::Error;
use crate::rows::{Bucket, hex_upper};
use crate::wire::be64;

pub const HEADER: usize = 9;
const COMPACT_ACCOUNT: usize = 49;
const FULL_ACCOUNT: usize = 81;
pub const ACCOUNT_PAYLOAD: usize = 72;

/// The logical payload of a stored value; the compact account form is widened into `wide`.
pub fn payload<'a>(
    bucket: Bucket,
    stored: &'a [u8],
    wide: &'a mut [u8; ACCOUNT_PAYLOAD],
) -> std::result::Result<&'a [u8], String> {
    let Some(version) = stored.first() else { return Err("data is empty".into()) };
    if *version != 0 {
        return Err(format!("unsupported serialization version: {version}"));
    }
    let length = stored.len();
    match bucket {
        Bucket::Account => match length {
            FULL_ACCOUNT => Ok(&stored[HEADER..]),
            COMPACT_ACCOUNT => {
                wide[..40].copy_from_slice(&stored[HEADER..]);
                wide[40..].fill(0);
                Ok(wide)
            }
            _ => Err(format!("data length at version 0 should be 49 or 81, got {length}")),
        },
        Bucket::Storage if length != 41 => Err(format!("data length at version 0 should be 41, got {length}")),
        Bucket::Code | Bucket::Misc if length < HEADER => {
            Err(format!("data length at version 0 should be at least 9, got {length}"))
        }
        _ => Ok(&stored[HEADER..]),
    }
}

pub fn height(stored: &[u8]) -> i64 {
    be64(&stored[1..HEADER]) as i64
}

/// The error of a row that does not decode, with its key.
pub fn undecodable(bucket: Bucket, key: &[u8], problem: &str) -> Error {
    let name = match bucket {
        Bucket::Account => "account",
        Bucket::Code => "code",
        Bucket::Storage => "storage",
        Bucket::Misc => "misc",
    };
    Error::store(format!("deserialize {name} {}: {problem}", hex_upper(key)))
}

/// Begin a stored value written at `height`.
pub fn header(into: &mut Vec<u8>, height: u32) {
    into.clear();
    into.push(0);
    into.extend_from_slice(&u64::from(height).to_be_bytes());
}
