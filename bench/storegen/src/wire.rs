//! Varints, protobuf fields and change sets, as both logs hold them.

use crate::state::Shape;

pub fn uvarint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

pub fn framed(into: &mut Vec<u8>, data: &[u8]) {
    uvarint(into, data.len() as u64);
    into.extend_from_slice(data);
}

pub fn field(into: &mut Vec<u8>, number: u64, data: &[u8]) {
    uvarint(into, number << 3 | 2);
    framed(into, data);
}

pub fn number(into: &mut Vec<u8>, field: u64, value: u64) {
    uvarint(into, field << 3);
    uvarint(into, value);
}

/// The `evm` change set of a block.
pub fn changeset(shape: &Shape, block: u32, writes: u64) -> Vec<u8> {
    let (mut pairs, mut pair) = (Vec::new(), Vec::new());
    shape.block(block, writes, &mut |key, value| {
        pair.clear();
        if value.is_none() {
            number(&mut pair, 1, 1);
        }
        field(&mut pair, 2, key);
        if let Some(value) = value {
            field(&mut pair, 3, value);
        }
        field(&mut pairs, 1, &pair);
    });
    let mut set = Vec::new();
    field(&mut set, 1, &pairs);
    field(&mut set, 2, b"evm");
    set
}
