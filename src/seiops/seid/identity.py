"""The files that make a node somebody: its keys, a first configuration and a genesis to fill in.

File forms, names and modes are those seid itself writes (docs/contracts/sidecar.md 5.15). Private keys are written to
files of mode 0600 and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from seiops.seid.editing import plain_toml
from seiops.seid.files import write_atomic

LAST_SIGN_STATE = b'{"height":"0","round":0,"step":0}\n'
"""A validator that has signed nothing, in the form reset-data leaves it."""

_PRIVATE = "tendermint/PrivKeyEd25519"
_PUBLIC = "tendermint/PubKeyEd25519"


class IdentityError(ValueError):
    """A key file that is there but cannot be used; it is never replaced."""


def ensure_node_key(home: Path) -> str:
    """The node id, from the key that is there or a new one. Raises IdentityError and OSError."""
    path = home / "config" / "node_key.json"
    if path.exists():
        return _address(_existing_public(path))
    private, public = _new_key()
    node_id = _address(public)
    document = {"id": node_id, "priv_key": _typed(_PRIVATE, private + public)}
    _write_secret(path, json.dumps(document, separators=(",", ":")))
    _write_secret(home / "config" / "node_pubkey.txt", f"node:ed25519:public:{public.hex()}")
    return node_id


def ensure_validator_key(home: Path) -> None:
    """The consensus key and its last-sign state; what exists stays. Raises IdentityError and OSError."""
    path = home / "config" / "priv_validator_key.json"
    if path.exists():
        _existing_public(path)
    else:
        private, public = _new_key()
        document = {
            "address": _address(public).upper(),
            "pub_key": _typed(_PUBLIC, public),
            "priv_key": _typed(_PRIVATE, private + public),
        }
        _write_secret(path, json.dumps(document, indent=2))
        _write_secret(home / "config" / "validator_pubkey.txt", f"validator:ed25519:public:{public.hex()}")
    state = home / "data" / "priv_validator_state.json"
    if not state.exists():
        _write_secret(state, json.dumps({"height": "0", "round": 0, "step": 0}, indent=2))


def write_first_config(home: Path, moniker: str) -> None:
    """config.toml with CometBFT's defaults and the moniker; whatever was there is replaced. Raises OSError."""
    document = {"moniker": moniker, **_defaults()["config.toml"]}
    write_atomic(home / "config" / "config.toml", plain_toml(document).encode())


def ensure_genesis(home: Path, chain_id: str) -> None:
    """A genesis without accounts, unless one is there. Raises OSError."""
    path = home / "config" / "genesis.json"
    if path.exists():
        return
    document = {
        "genesis_time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "chain_id": chain_id,
        "initial_height": "1",
        "consensus_params": _defaults()["consensus_params"],
        "app_hash": "",
        "app_state": {},
    }
    write_atomic(path, json.dumps(document, indent=2, ensure_ascii=False).encode())


def _defaults() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("seiops.seid") / "new_node.json").read_bytes())
    return found


def _new_key() -> tuple[bytes, bytes]:
    """Seed and public key, 32 bytes each."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _address(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:40]


def _typed(name: str, raw: bytes) -> dict[str, str]:
    return {"type": name, "value": base64.b64encode(raw).decode()}


def _existing_public(path: Path) -> bytes:
    try:
        raw = base64.b64decode(json.loads(path.read_bytes())["priv_key"]["value"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise IdentityError(f"{path} is no key file") from None
    if len(raw) != 64:
        raise IdentityError(f"{path} holds no Ed25519 key")
    return raw[32:]


def _write_secret(path: Path, text: str) -> None:
    write_atomic(path, text.encode(), mode=0o600)
