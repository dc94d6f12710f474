"""Stores with a bit of everything in them, and what may become of their bytes: the raw material of fuzzing."""

from __future__ import annotations

import random

from support.digest_stores import History
from support.digest_writer_flatkv import DATABASES
from support.digest_writer_pebble import Compression, DatabaseShape, Kind, TableShape


def history(draw: random.Random) -> History:
    keys = [b"\x03" + bytes([at % 3]) * 20 + bytes([at]) * 32 for at in range(30)]
    keys += [prefix + bytes([at]) * 20 for at in range(5) for prefix in (b"\x0a", b"\x08", b"\x07", b"\x01")]
    widths = {b"\x0a": 8, b"\x08": 32, b"\x03": 32}
    writes = [(key, draw.randbytes(widths.get(key[:1], draw.randrange(400)))) for key in keys]
    noise = {name: [(at, draw.choice([Kind.SET, Kind.DEL, Kind.RANGEDEL])) for at in range(9)] for name in DATABASES}
    shapes = [
        DatabaseShape(((6, 20), (5, 9), (0, 5)), 3, (TableShape(two_level=True), TableShape(3, Compression.SNAPPY))),
        DatabaseShape(
            ((6, 20), (0, 9)), shapes=(TableShape(value_blocks=True), TableShape(2, Compression.NONE)), virtual=True
        ),
    ]
    blocks = [draw.sample(writes, 6) for _ in range(3)]
    return History([writes], blocks, [[(b"a", b"x")], [], []], [1], noise, shapes, b"")


def mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(len(out) + 1)
        size = draw.choice([1, 1, 2, 4, 8, 40])
        match draw.randrange(7):
            case 0:
                out[at : at + 1] = draw.randbytes(1)
            case 1:
                out[at : at + size] = draw.choice([b"\xff", b"\x00", b"\x7f", b"\x80"]) * size
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = draw.randbytes(size)
            case 4:
                del out[at:]
            case 5:
                start = draw.randrange(len(other) + 1)
                out[at : at + size] = other[start : start + size]
            case 6:
                out[at:at] = out[max(0, at - size) : at]
    return bytes(out)
