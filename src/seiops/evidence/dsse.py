"""The DSSE envelope around an attestation: read strictly, signed and checked over its pre-authentication encoding.

Signing, encoding and keys are securesystemslib's, the library of the in-toto and TUF projects. Reading is our own because
a key id is only a hint in DSSE, and because an error has to name the member that is wrong.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from securesystemslib.dsse import Envelope as _Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature, Signer

PAYLOAD_TYPE = "application/vnd.in-toto+json"
LARGEST_ENVELOPE = 512 << 20


class EnvelopeError(ValueError):
    """Not a DSSE envelope; names the member."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """As read, nothing believed yet. `signatures`: pairs of key id (a hint, may be empty) and signature."""

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]

    def signed_by(self, key: Key) -> bool:
        """Whether any of the signatures is one of this key, whatever key id it claims."""
        signed = _Envelope(self.payload, self.payload_type, {}).pae()
        return any(_verifies(key, signature, signed) for _, signature in self.signatures)

    def names(self, key: Key) -> bool:
        """Whether a signature claims to be of this key."""
        return any(keyid == key.keyid for keyid, _ in self.signatures)


def _verifies(key: Key, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify_signature(Signature(key.keyid, signature.hex()), signed)
    except UnverifiedSignatureError:
        return False
    return True


def sealed(payload: bytes, signer: Signer) -> bytes:
    """The signed envelope as JSON. Raises whatever the signer raises."""
    envelope = _Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), separators=(",", ":")).encode() + b"\n"


def parse(raw: bytes) -> Envelope:
    """Raises EnvelopeError."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise EnvelopeError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise EnvelopeError("not a JSON object")
    payload_type = found.get("payloadType")
    if not isinstance(payload_type, str):
        raise EnvelopeError("payloadType is missing or no text")
    signatures = found.get("signatures")
    if not isinstance(signatures, list) or not signatures:
        raise EnvelopeError("signatures is missing or empty")
    pairs = tuple(_signature(number, one) for number, one in enumerate(signatures))
    return Envelope(_decoded("payload", found.get("payload")), payload_type, pairs)


def _signature(number: int, found: Any) -> tuple[str, bytes]:
    if not isinstance(found, dict):
        raise EnvelopeError(f"signatures[{number}] is no object")
    keyid = found.get("keyid")
    return keyid if isinstance(keyid, str) else "", _decoded(f"signatures[{number}].sig", found.get("sig"))


def _decoded(what: str, text: Any) -> bytes:
    """Standard and URL-safe base64 are both allowed by DSSE."""
    if not isinstance(text, str):
        raise EnvelopeError(f"{what} is missing or no text")
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise EnvelopeError(f"{what} is not base64: {error}") from None
