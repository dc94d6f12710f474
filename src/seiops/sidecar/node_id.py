"""The node's peer-to-peer id, derived from its key file on every request (docs/contracts/sidecar.md 2.7)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path

from seiops.sidecar import wirejson

NOT_FOUND = "node_key.json not found \u2014 generate-identity may not have run yet"
NOT_PARSED = "failed to parse node_key.json"
NOT_A_KEY = "invalid Ed25519 key in node_key.json"


class NodeIdError(Exception):
    """The key file gives no id; the text is one of the three recorded messages."""


def read_node_id(home: Path) -> str:
    """40 lower-case hex digits: the first 20 bytes of SHA-256 over the public key. The file's own `id` is ignored."""
    try:
        content = (home / "config" / "node_key.json").read_bytes()
    except OSError:
        raise NodeIdError(NOT_FOUND) from None
    try:
        value = wirejson.member(wirejson.member(wirejson.decode_document(content), "priv_key"), "value")
    except wirejson.JsonError:
        raise NodeIdError(NOT_PARSED) from None
    if value is not None and not isinstance(value, str):
        raise NodeIdError(NOT_PARSED)
    try:
        key = base64.b64decode((value or "").replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        raise NodeIdError(NOT_A_KEY) from None
    if len(key) != 64:
        raise NodeIdError(NOT_A_KEY)
    return hashlib.sha256(key[32:]).hexdigest()[:40]
