//! Entry hashing and the XOR accumulator of a bucket (docs/contracts/digest.md 1.1 and 1.2).

use sha2::{Digest, Sha256};

/// SHA-256 over both lengths (big-endian, 32 bits) and both texts of a row.
pub fn entry_hash(key: &[u8], value: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((key.len() as u32).to_be_bytes());
    hash.update(key);
    hash.update((value.len() as u32).to_be_bytes());
    hash.update(value);
    hash.finalize().into()
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
        assert_eq!(
            forward,
            Accumulator {
                xor: [0; 32],
                count: 4
            }
        );
    }

    #[test]
    fn lengths_separate_key_from_value() {
        assert_ne!(entry_hash(b"ab", b"c"), entry_hash(b"a", b"bc"));
    }
}
