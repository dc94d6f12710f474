//! Record framing of MANIFEST and WAL files: records cut into checksummed chunks that never cross a 32 KiB block
//! (docs/contracts/digest.md 5.2).

use crate::wire::le32;

const BLOCK: usize = 32 * 1024;

/// Which of the two framings a file uses.
#[derive(Clone, Copy, Debug)]
pub enum Framing {
    Legacy,
    /// chunks carry the low 32 bits of the log's number, so that left-overs of a recycled file show
    Recyclable(u32),
}

impl Framing {
    fn header(self) -> usize {
        match self {
            Self::Legacy => 7,
            Self::Recyclable(_) => 11,
        }
    }

    /// 0 full, 1 first, 2 middle, 3 last
    fn position(self, chunk_type: u8) -> Option<u8> {
        let base = match self {
            Self::Legacy => 1,
            Self::Recyclable(_) => 5,
        };
        chunk_type.checked_sub(base).filter(|position| *position < 4)
    }
}

/// How a file's records ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Clean,
    Torn,
}

pub fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

enum Chunk<'a> {
    Piece(u8, &'a [u8]),
    NextBlock,
    End(End),
}

/// Split `data` into records; returns them and how the file ended.
pub fn records(data: &[u8], framing: Framing) -> (Vec<Vec<u8>>, End) {
    let mut found = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    let mut at = 0;
    loop {
        let block_end = (at / BLOCK + 1) * BLOCK;
        let end = block_end.min(data.len());
        match chunk(&data[at..end], end < block_end, framing, open.is_some()) {
            Chunk::Piece(position, payload) => {
                at += framing.header() + payload.len();
                match position {
                    0 => {
                        open = None;
                        found.push(payload.to_vec());
                    }
                    1 => open = Some(payload.to_vec()),
                    last_or_middle => {
                        if let Some(record) = &mut open {
                            record.extend_from_slice(payload);
                            if last_or_middle == 3 {
                                found.extend(open.take());
                            }
                        }
                    }
                }
            }
            Chunk::NextBlock => {
                if end == data.len() {
                    return (found, if open.is_some() { End::Torn } else { End::Clean });
                }
                at = block_end;
            }
            Chunk::End(end) => return (found, if open.is_some() { End::Torn } else { end }),
        }
    }
}

/// The chunk at the start of `rest`, the unread part of a block; `short` when the file ends inside this block.
fn chunk(rest: &[u8], short: bool, framing: Framing, open: bool) -> Chunk<'_> {
    if rest.len() < 7 {
        let torn = short && !rest.is_empty();
        return if torn { Chunk::End(End::Torn) } else { Chunk::NextBlock };
    }
    let (crc, length, kind) = (le32(rest), usize::from(rest[4]) | usize::from(rest[5]) << 8, rest[6]);
    if crc == 0 && length == 0 && kind == 0 {
        if rest.len() < 11 || (rest.len() < 19 && rest.iter().all(|byte| *byte == 0)) {
            return Chunk::NextBlock;
        }
        return Chunk::End(End::Torn);
    }
    let header = framing.header();
    let Some(position) = framing.position(kind) else { return Chunk::End(End::Torn) };
    let Some(payload) = rest.get(header..header + length) else { return Chunk::End(End::Torn) };
    if let Framing::Recyclable(own) = framing {
        let number = le32(&rest[7..]);
        // a log is closed with an empty chunk of the next log number, without a checksum
        if crc == 0 && length == 0 && number == own.wrapping_add(1) && !open {
            return Chunk::End(End::Clean);
        }
        if number != own {
            return Chunk::End(End::Torn);
        }
    }
    if !cfg!(fuzzing) && masked_crc32c(&rest[6..header + length]) != crc {
        return Chunk::End(End::Torn);
    }
    Chunk::Piece(position, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legacy(payload: &[u8], kind: u8) -> Vec<u8> {
        let mut tail = vec![kind];
        tail.extend_from_slice(payload);
        let mut chunk = masked_crc32c(&tail).to_le_bytes().to_vec();
        chunk.extend_from_slice(&(payload.len() as u16).to_le_bytes());
        chunk.extend_from_slice(&tail);
        chunk
    }

    #[test]
    fn a_record_in_pieces_is_joined_and_a_cut_one_is_dropped() {
        let mut file = legacy(b"one", 1);
        file.extend(legacy(b"tw", 2));
        file.extend(legacy(b"o", 4));
        let whole = file.clone();
        file.extend(legacy(b"lost", 2));
        assert_eq!(records(&whole, Framing::Legacy), (vec![b"one".to_vec(), b"two".to_vec()], End::Clean));
        assert_eq!(records(&file, Framing::Legacy), (vec![b"one".to_vec(), b"two".to_vec()], End::Torn));
        assert_eq!(records(&whole[..whole.len() - 1], Framing::Legacy).0, vec![b"one".to_vec()]);
    }

    #[test]
    fn any_flip_is_noticed_or_ends_the_file() {
        let mut file = legacy(b"first record", 1);
        file.extend(legacy(b"second record", 1));
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 0x10;
            assert_ne!(records(&flipped, Framing::Legacy).0.len(), 2, "{at}");
        }
    }
}
