"""Typed face of the Rust kernel (native/)."""

__version__: str

def entry_hash(key: bytes, value: bytes) -> bytes:
    """Return the 32-byte hash of one row (docs/contracts/digest.md 1.1)."""

def accumulate(rows: list[tuple[bytes, bytes]]) -> tuple[bytes, int]:
    """Return the XOR of the entry hashes of `rows` (32 bytes) and their number."""
