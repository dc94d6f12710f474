//! Entry hashing and the XOR accumulator of a bucket (docs/contracts/digest.md 1.1 and 1.2).

use sha2::digest::generic_array::GenericArray;
use sha2::digest::typenum::U64;
use sha2::{Digest, Sha256};

pub(crate) const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
/// Longest message that fits two compressions with its padding; nearly every row does.
const SHORT: usize = 119;

/// SHA-256 over both lengths (big-endian, 32 bits) and both texts of a row.
pub fn entry_hash(key: &[u8], value: &[u8]) -> [u8; 32] {
    let length = 8 + key.len() + value.len();
    if length <= SHORT {
        // laid out at once: a streaming hasher spends a third of its time on buffering rows this small
        let mut message = [0u8; 128];
        if length < 56 {
            let block: &mut [u8; 64] = message.first_chunk_mut().expect("128 bytes");
            lay_out(block, key, value);
            return one_by_one(block);
        }
        lay_out(&mut message, key, value);
        return one_by_one(&message);
    }
    let mut hash = Sha256::new();
    hash.update((key.len() as u32).to_be_bytes());
    hash.update(key);
    hash.update((value.len() as u32).to_be_bytes());
    hash.update(value);
    hash.finalize().into()
}

/// The padded SHA-256 message of a row, which must fit.
#[inline]
pub(crate) fn lay_out<const BYTES: usize>(message: &mut [u8; BYTES], key: &[u8], value: &[u8]) {
    let value_at = 8 + key.len();
    let length = value_at + value.len();
    message[..4].copy_from_slice(&(key.len() as u32).to_be_bytes());
    message[4..4 + key.len()].copy_from_slice(key);
    message[4 + key.len()..value_at].copy_from_slice(&(value.len() as u32).to_be_bytes());
    message[value_at..length].copy_from_slice(value);
    message[length] = 0x80;
    message[length + 1..BYTES - 8].fill(0);
    message[BYTES - 8..].copy_from_slice(&((length as u64) * 8).to_be_bytes());
}

/// Hash of a padded message.
pub(crate) fn one_by_one<const BYTES: usize>(message: &[u8; BYTES]) -> [u8; 32] {
    let mut state = INITIAL;
    for block in message.chunks_exact(64) {
        sha2::compress256(&mut state, &[*GenericArray::<u8, U64>::from_slice(block)]);
    }
    let mut digest = [0u8; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// XOR of entry hashes and their number. The order of rows does not show; a row added twice cancels but counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accumulator {
    pub xor: [u8; 32],
    pub count: u64,
}

impl Accumulator {
    pub fn add(&mut self, hash: &[u8; 32]) {
        self.count += 1;
        self.fold(hash);
    }

    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.fold(&other.xor);
    }

    fn fold(&mut self, hash: &[u8; 32]) {
        for (mine, theirs) in self.xor.iter_mut().zip(hash) {
            *mine ^= theirs;
        }
    }
}

/// Accumulate the entry hashes of rows given as (key, value).
pub fn accumulate_rows<'a>(rows: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Accumulator {
    let mut total = Accumulator::default();
    for (key, value) in rows {
        total.add(&entry_hash(key, value));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_show_and_pairs_cancel_but_count() {
        let (a, b) = (entry_hash(b"a", b"1"), entry_hash(b"b", b""));
        let mut forward = Accumulator::default();
        let mut backward = Accumulator::default();
        for hash in [&a, &b] {
            forward.add(hash);
        }
        for hash in [&b, &a] {
            backward.add(hash);
        }
        assert_eq!(forward, backward);
        forward.merge(&backward);
        let twice = Accumulator { xor: [0; 32], count: 4 };
        assert_eq!(forward, twice);
    }

    #[test]
    fn short_and_long_rows_hash_alike() {
        for total in 0..300usize {
            let key = vec![7u8; total / 2];
            let value = vec![9u8; total - total / 2];
            let mut plain = Sha256::new();
            plain.update((key.len() as u32).to_be_bytes());
            plain.update(&key);
            plain.update((value.len() as u32).to_be_bytes());
            plain.update(&value);
            let want: [u8; 32] = plain.finalize().into();
            assert_eq!(entry_hash(&key, &value), want, "{total}");
        }
    }
}
