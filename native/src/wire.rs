//! Varints and protobuf fields over a byte slice; nothing here allocates or panics on any input.

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

/// A protobuf field as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8], usize),
    Other,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn is_empty(&self) -> bool {
        self.at >= self.data.len()
    }

    pub fn remaining(&self) -> usize {
        self.data.len() - self.at
    }

    /// A LEB128 varint of at most ten bytes, or None when it is cut off or too long.
    pub fn uvarint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.data.get(self.at)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let end = self.at.checked_add(length)?;
        let bytes = self.data.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    /// `uvarint` length, then that many bytes.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.uvarint()?;
        self.take(length)
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub fn le32(&mut self) -> Option<u32> {
        self.take(4).map(le32)
    }

    pub fn le64(&mut self) -> Option<u64> {
        self.take(8).map(le64)
    }

    /// The next protobuf field: number, content. `Bytes` carries its offset inside this reader's data.
    pub fn field(&mut self) -> Option<(u32, Field<'a>)> {
        let tag = self.uvarint()?;
        let number = u32::try_from(tag >> 3).ok()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.uvarint()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let length = self.uvarint()?;
                let at = self.at;
                Field::Bytes(self.take(length)?, at)
            }
            5 => {
                self.take(4)?;
                Field::Other
            }
            _ => return None,
        };
        Some((number, field))
    }
}

pub fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}

pub fn le64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

pub fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// One pair of a changeset, as offsets into the message it stands in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair {
    pub key: (usize, usize),
    pub value: (usize, usize),
    pub delete: bool,
}

/// Walk a `NamedChangeSet`: `on_pair` gets the module's name and each pair, offsets relative to `message`.
pub fn named_changeset<'a>(message: &'a [u8], on_pair: &mut dyn FnMut(&'a [u8], Pair) -> Result<()>) -> Result<()> {
    let cut = || Error::store("changeset is cut or malformed");
    let mut name: &[u8] = b"";
    let mut sets: Vec<(usize, &[u8])> = Vec::new();
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.field().ok_or_else(cut)? {
            (1, Field::Bytes(set, at)) => sets.push((at, set)),
            (2, Field::Bytes(text, _)) => name = text,
            _ => {}
        }
    }
    for (base, set) in sets {
        let mut pairs = Reader::new(set);
        while !pairs.is_empty() {
            let (1, Field::Bytes(pair, at)) = pairs.field().ok_or_else(cut)? else {
                continue;
            };
            on_pair(name, pair_at(pair, base + at).ok_or_else(cut)?)?;
        }
    }
    Ok(())
}

fn pair_at(message: &[u8], base: usize) -> Option<Pair> {
    let mut pair = Pair::default();
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.field()? {
            (1, Field::Varint(flag)) => pair.delete = flag != 0,
            (2, Field::Bytes(key, at)) => pair.key = (base + at, key.len()),
            (3, Field::Bytes(value, at)) => pair.value = (base + at, value.len()),
            _ => {}
        }
    }
    Some(pair)
}
