//! Hashing many short rows at once. Nearly every row is a SHA-256 message of one or two blocks, and rows do not depend on each
//! other, so they are gathered and hashed side by side: sixteen in the lanes of AVX-512, or two woven into one stream of SHA-NI
//! instructions, whichever this processor has. Without either, rows are hashed one by one.
//!
//! Each routine is compiled for exactly the features it is called under; nothing here depends on how the crate is compiled.

use crate::entry::{INITIAL, entry_hash, lay_out, one_by_one};

pub const LANES: usize = 16;
const BLOCK: usize = 64;
/// Longest message of two blocks, and of one.
const LONGEST: usize = 2 * BLOCK - 9;
const LONGEST_OF_ONE: usize = BLOCK - 9;

pub type Hash = [u8; 32];

/// Messages of `BLOCKS` blocks, laid out with their padding, and whom each hash is for.
#[derive(Clone)]
struct Gathered<T, const BYTES: usize> {
    messages: Box<[[u8; BYTES]; LANES]>,
    tags: [T; LANES],
    count: usize,
}

impl<T: Copy + Default, const BYTES: usize> Default for Gathered<T, BYTES> {
    fn default() -> Self {
        Self { messages: Box::new([[0; BYTES]; LANES]), tags: [T::default(); LANES], count: 0 }
    }
}

impl<T: Copy + Default, const BYTES: usize> Gathered<T, BYTES> {
    #[inline]
    fn push(&mut self, key: &[u8], value: &[u8], tag: T, into: &mut impl FnMut(T, &Hash)) {
        lay_out(&mut self.messages[self.count], key, value);
        self.tags[self.count] = tag;
        self.count += 1;
        if self.count == LANES {
            self.flush(into);
        }
    }

    fn flush(&mut self, into: &mut impl FnMut(T, &Hash)) {
        let mut hashes = [[0; 32]; LANES];
        hash_messages(&self.messages, self.count, &mut hashes);
        for (tag, hash) in self.tags.iter().zip(&hashes).take(self.count) {
            into(*tag, hash);
        }
        self.count = 0;
    }
}

/// Rows waiting for company. A tag comes back with the hash of the row it was given with; nothing comes back in order.
#[derive(Clone)]
pub struct Hasher<T> {
    short: Gathered<T, BLOCK>,
    long: Gathered<T, { 2 * BLOCK }>,
}

impl<T: Copy + Default> Default for Hasher<T> {
    fn default() -> Self {
        Self { short: Gathered::default(), long: Gathered::default() }
    }
}

impl<T: Copy + Default> Hasher<T> {
    #[inline]
    pub fn push(&mut self, key: &[u8], value: &[u8], tag: T, mut into: impl FnMut(T, &Hash)) {
        let length = 8 + key.len() + value.len();
        if length <= LONGEST_OF_ONE {
            self.short.push(key, value, tag, &mut into);
        } else if length <= LONGEST {
            self.long.push(key, value, tag, &mut into);
        } else {
            into(tag, &entry_hash(key, value));
        }
    }

    /// Hash what is still waiting.
    pub fn flush(&mut self, mut into: impl FnMut(T, &Hash)) {
        self.short.flush(&mut into);
        self.long.flush(&mut into);
    }
}

/// Hash the first `count` messages; the others may hold anything.
fn hash_messages<const BYTES: usize>(messages: &[[u8; BYTES]; LANES], count: usize, hashes: &mut [Hash; LANES]) {
    #[cfg(target_arch = "x86_64")]
    {
        if count > 2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            // SAFETY: both features are there.
            return unsafe { x86::sixteen(messages, hashes) };
        }
        if is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3") {
            for at in (0..count).step_by(2) {
                // SAFETY: the features are there; LANES is even.
                [hashes[at], hashes[at + 1]] = unsafe { x86::two(&messages[at], &messages[at + 1]) };
            }
            return;
        }
    }
    for (message, hash) in messages.iter().zip(hashes).take(count) {
        *hash = one_by_one(message);
    }
}

#[rustfmt::skip]
const ROUND: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Hash, INITIAL, LANES, ROUND};

    /// Turn a 16 x 16 matrix of words on its diagonal.
    #[target_feature(enable = "avx512f")]
    fn transpose(rows: &mut [__m512i; 16]) {
        let mut pairs = *rows;
        for at in (0..16).step_by(2) {
            pairs[at] = _mm512_unpacklo_epi32(rows[at], rows[at + 1]);
            pairs[at + 1] = _mm512_unpackhi_epi32(rows[at], rows[at + 1]);
        }
        let mut fours = pairs;
        for at in (0..16).step_by(4) {
            fours[at] = _mm512_unpacklo_epi64(pairs[at], pairs[at + 2]);
            fours[at + 1] = _mm512_unpackhi_epi64(pairs[at], pairs[at + 2]);
            fours[at + 2] = _mm512_unpacklo_epi64(pairs[at + 1], pairs[at + 3]);
            fours[at + 3] = _mm512_unpackhi_epi64(pairs[at + 1], pairs[at + 3]);
        }
        for at in 0..4 {
            let low = _mm512_shuffle_i32x4::<0x88>(fours[at], fours[at + 4]);
            let high = _mm512_shuffle_i32x4::<0xdd>(fours[at], fours[at + 4]);
            let low_end = _mm512_shuffle_i32x4::<0x88>(fours[at + 8], fours[at + 12]);
            let high_end = _mm512_shuffle_i32x4::<0xdd>(fours[at + 8], fours[at + 12]);
            rows[at] = _mm512_shuffle_i32x4::<0x88>(low, low_end);
            rows[at + 8] = _mm512_shuffle_i32x4::<0xdd>(low, low_end);
            rows[at + 4] = _mm512_shuffle_i32x4::<0x88>(high, high_end);
            rows[at + 12] = _mm512_shuffle_i32x4::<0xdd>(high, high_end);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn big_endian(words: __m512i) -> __m512i {
        let order = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
        _mm512_shuffle_epi8(words, order)
    }

    /// All sixteen messages, one in each 32-bit lane.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn sixteen<const BYTES: usize>(messages: &[[u8; BYTES]; LANES], hashes: &mut [Hash; LANES]) {
        let mut state = [_mm512_setzero_si512(); 8];
        for (word, initial) in state.iter_mut().zip(INITIAL) {
            *word = _mm512_set1_epi32(initial as i32);
        }
        for block in 0..BYTES / BLOCK {
            let mut words = [_mm512_setzero_si512(); 16];
            for (word, message) in words.iter_mut().zip(messages) {
                // SAFETY: block * 64 + 64 <= BYTES; the load needs no alignment.
                *word = big_endian(unsafe { _mm512_loadu_si512(message.as_ptr().add(block * BLOCK).cast()) });
            }
            transpose(&mut words);
            compress(&mut state, &mut words);
        }
        let mut rows = [_mm512_setzero_si512(); 16];
        rows[..8].copy_from_slice(&state);
        transpose(&mut rows);
        for (hash, row) in hashes.iter_mut().zip(rows) {
            let low = _mm512_castsi512_si256(big_endian(row));
            // SAFETY: a hash is 32 bytes; the store needs no alignment.
            unsafe { _mm256_storeu_si256(hash.as_mut_ptr().cast(), low) };
        }
    }

    #[target_feature(enable = "avx512f")]
    fn compress(state: &mut [__m512i; 8], words: &mut [__m512i; 16]) {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        for sixteen in 0..4 {
            for at in 0..16 {
                if sixteen > 0 {
                    let (w1, w14) = (words[(at + 1) % 16], words[(at + 14) % 16]);
                    let s0 = _mm512_ternarylogic_epi32::<0x96>(
                        _mm512_ror_epi32::<7>(w1),
                        _mm512_ror_epi32::<18>(w1),
                        _mm512_srli_epi32::<3>(w1),
                    );
                    let s1 = _mm512_ternarylogic_epi32::<0x96>(
                        _mm512_ror_epi32::<17>(w14),
                        _mm512_ror_epi32::<19>(w14),
                        _mm512_srli_epi32::<10>(w14),
                    );
                    let sum = _mm512_add_epi32(words[at], words[(at + 9) % 16]);
                    words[at] = _mm512_add_epi32(sum, _mm512_add_epi32(s0, s1));
                }
                let constant = _mm512_set1_epi32(ROUND[sixteen * 16 + at] as i32);
                let s1 = _mm512_ternarylogic_epi32::<0x96>(
                    _mm512_ror_epi32::<6>(e),
                    _mm512_ror_epi32::<11>(e),
                    _mm512_ror_epi32::<25>(e),
                );
                let choice = _mm512_ternarylogic_epi32::<0xca>(e, f, g);
                let t1 = _mm512_add_epi32(
                    _mm512_add_epi32(_mm512_add_epi32(h, s1), _mm512_add_epi32(choice, constant)),
                    words[at],
                );
                let s0 = _mm512_ternarylogic_epi32::<0x96>(
                    _mm512_ror_epi32::<2>(a),
                    _mm512_ror_epi32::<13>(a),
                    _mm512_ror_epi32::<22>(a),
                );
                let majority = _mm512_ternarylogic_epi32::<0xe8>(a, b, c);
                h = g;
                g = f;
                f = e;
                e = _mm512_add_epi32(d, t1);
                d = c;
                c = b;
                b = a;
                a = _mm512_add_epi32(t1, _mm512_add_epi32(s0, majority));
            }
        }
        for (word, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *word = _mm512_add_epi32(*word, new);
        }
    }

    /// Two messages at once: the instructions of one fill the waiting times of the other.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub fn two<const BYTES: usize>(left: &[u8; BYTES], right: &[u8; BYTES]) -> [Hash; 2] {
        let start = [
            _mm_set_epi32(INITIAL[0] as i32, INITIAL[1] as i32, INITIAL[4] as i32, INITIAL[5] as i32),
            _mm_set_epi32(INITIAL[2] as i32, INITIAL[3] as i32, INITIAL[6] as i32, INITIAL[7] as i32),
        ];
        let mut states = [start, start];
        for block in 0..BYTES / BLOCK {
            weave(&mut states, [&left[block * BLOCK..][..BLOCK], &right[block * BLOCK..][..BLOCK]]);
        }
        states.map(|[abef, cdgh]| {
            let words = [
                _mm_extract_epi32::<3>(abef),
                _mm_extract_epi32::<2>(abef),
                _mm_extract_epi32::<3>(cdgh),
                _mm_extract_epi32::<2>(cdgh),
                _mm_extract_epi32::<1>(abef),
                _mm_extract_epi32::<0>(abef),
                _mm_extract_epi32::<1>(cdgh),
                _mm_extract_epi32::<0>(cdgh),
            ];
            let mut hash = [0; 32];
            for (bytes, word) in hash.chunks_exact_mut(4).zip(words) {
                bytes.copy_from_slice(&word.to_be_bytes());
            }
            hash
        })
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn weave(states: &mut [[__m128i; 2]; 2], blocks: [&[u8]; 2]) {
        let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let before = *states;
        let mut words = [[_mm_setzero_si128(); 4]; 2];
        for (words, block) in words.iter_mut().zip(blocks) {
            for (word, bytes) in words.iter_mut().zip(block.chunks_exact(16)) {
                // SAFETY: a chunk is 16 bytes; the load needs no alignment.
                *word = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }, order);
            }
        }
        for four in 0..16 {
            let at = four % 4;
            let constant = _mm_set_epi32(
                ROUND[four * 4 + 3] as i32,
                ROUND[four * 4 + 2] as i32,
                ROUND[four * 4 + 1] as i32,
                ROUND[four * 4] as i32,
            );
            for lane in 0..2 {
                let w = &mut words[lane];
                if four >= 4 {
                    let older = _mm_sha256msg1_epu32(w[at], w[(at + 1) % 4]);
                    let middle = _mm_alignr_epi8::<4>(w[(at + 3) % 4], w[(at + 2) % 4]);
                    w[at] = _mm_sha256msg2_epu32(_mm_add_epi32(older, middle), w[(at + 3) % 4]);
                }
                let [abef, cdgh] = &mut states[lane];
                let sum = _mm_add_epi32(w[at], constant);
                let next = _mm_sha256rnds2_epu32(*cdgh, *abef, sum);
                *cdgh = *abef;
                *abef = next;
                let next = _mm_sha256rnds2_epu32(*cdgh, *abef, _mm_shuffle_epi32::<0x0e>(sum));
                *cdgh = *abef;
                *abef = next;
            }
        }
        for (state, before) in states.iter_mut().zip(before) {
            for (half, old) in state.iter_mut().zip(before) {
                *half = _mm_add_epi32(*half, old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..400usize).map(|at| (vec![at as u8; at % 61], vec![!at as u8; at * 7 % 83])).collect()
    }

    #[test]
    fn rows_in_company_hash_as_rows_alone() {
        let rows = rows();
        let mut found = vec![None; rows.len()];
        let mut hasher = Hasher::default();
        for (at, (key, value)) in rows.iter().enumerate() {
            hasher.push(key, value, at, |tag, hash| found[tag] = Some(*hash));
        }
        hasher.flush(|tag, hash| found[tag] = Some(*hash));
        for ((key, value), hash) in rows.iter().zip(found) {
            assert_eq!(hash, Some(entry_hash(key, value)));
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_routine_this_processor_has_agrees() {
        let mut messages = [[0; 128]; LANES];
        for (at, message) in messages.iter_mut().enumerate() {
            lay_out(message, &vec![at as u8; 30 + at], &vec![7; 33 + at]);
        }
        let want = messages.map(|message| one_by_one(&message));
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            let mut hashes = [[0; 32]; LANES];
            // SAFETY: both features are there.
            unsafe { x86::sixteen(&messages, &mut hashes) };
            assert_eq!(hashes, want);
        }
        if is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") {
            for at in (0..LANES).step_by(2) {
                // SAFETY: the features are there.
                let pair = unsafe { x86::two(&messages[at], &messages[at + 1]) };
                assert_eq!(pair, [want[at], want[at + 1]]);
            }
        }
    }
}
