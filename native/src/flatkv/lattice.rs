//! LtHash: a sum over rows that does not care about their order, so that workers add up parts of it (docs/contracts/digest.md 4.9).

use std::collections::BTreeMap;

use crate::pieces::Merge;

pub const LIMBS: usize = 1024;

/// Limb-wise sum of row hashes.
#[derive(Clone)]
pub struct LtHash(Box<[u16; LIMBS]>);

impl Default for LtHash {
    fn default() -> Self {
        Self(Box::new([0; LIMBS]))
    }
}

impl LtHash {
    fn add(&mut self, expanded: &[u8; LIMBS * 2]) {
        for (limb, bytes) in self.0.iter_mut().zip(expanded.chunks_exact(2)) {
            *limb = limb.wrapping_add(u16::from_le_bytes([bytes[0], bytes[1]]));
        }
    }

    fn merge(&mut self, other: &Self) {
        for (limb, more) in self.0.iter_mut().zip(other.0.iter()) {
            *limb = limb.wrapping_add(*more);
        }
    }

    /// As a database stores it.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|limb| limb.to_le_bytes()).collect()
    }
}

/// Sums by module of the four databases.
#[derive(Clone, Default)]
pub struct Lattice(pub [BTreeMap<Vec<u8>, LtHash>; 4]);

impl Lattice {
    pub fn add(&mut self, database: usize, key: &[u8], value: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        for part in [key, value] {
            hasher.update(&(part.len() as u32).to_le_bytes());
            hasher.update(part);
        }
        let mut expanded = [0u8; LIMBS * 2];
        hasher.finalize_xof().fill(&mut expanded);
        let module = key.split(|byte| *byte == b'/').next().unwrap_or(key);
        match self.0[database].get_mut(module) {
            Some(sum) => sum.add(&expanded),
            None => self.0[database].entry(module.to_vec()).or_default().add(&expanded),
        }
    }
}

impl Merge for Lattice {
    fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            for (module, sum) in theirs {
                mine.entry(module).or_default().merge(&sum);
            }
        }
    }
}
