"""The public chains whose genesis is known by its digest.

A genesis file is the root of trust of a chain, so for these chains nothing but the exact bytes is ever written. The
files themselves are supplied with a build: packaged beside this module, or in the folder SEI_SIDECAR_GENESIS_DIR names
(docs/contracts/seid-config.md 11).
"""

from __future__ import annotations

import hashlib
import lzma
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from seiops.seid.schema import load_schema


class GenesisError(Exception):
    """A supplied genesis file is not the chain's."""


@dataclass(frozen=True, slots=True)
class KnownChain:
    """A chain this build knows by name: `sha256` (lower-case hex) and `size` in bytes are those of its genesis.json."""

    chain_id: str
    sha256: str
    size: int

    def genesis(self) -> bytes | None:
        """The exact bytes, or None where they were not supplied. Raises GenesisError when other bytes were."""
        for source, data in self._supplied():
            if hashlib.sha256(data).hexdigest() != self.sha256:
                raise GenesisError(f"{source} is not the genesis of {self.chain_id}: its SHA-256 is not {self.sha256}")
            return data
        return None

    def _supplied(self) -> list[tuple[str, bytes]]:
        packed = files("seiops.seid") / "genesis" / f"{self.chain_id}.json.xz"
        if packed.is_file():
            return [(str(packed), lzma.decompress(packed.read_bytes()))]
        folder = os.environ.get("SEI_SIDECAR_GENESIS_DIR")
        path = Path(folder) / f"{self.chain_id}.json" if folder else None
        return [(str(path), path.read_bytes())] if path and path.is_file() else []


def known_chain(chain_id: str) -> KnownChain | None:
    entry = load_schema().chains.get(chain_id)
    return KnownChain(chain_id, entry["genesis_sha256"], entry["genesis_bytes"]) if entry else None
