"""Who signs an attestation, and the key it is checked with: a PEM file, a PKCS#11 token, or a cloud's key service.

All of them are securesystemslib's signers. Those beyond key files need an extra of ours to be installed, which the error
says; nothing of them is imported before it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import AWSSigner, AzureSigner, CryptoSigner, GCPSigner, HSMSigner, Key, Signer, SSlibKey

SECRET = "SEIOPS_KEY_PASSPHRASE"
SCHEMES = {"hsm": "hsm", "awskms": "awskms", "azurekms": "azurekms", "gcpkms": "gcpkms"}
"""URI scheme of a signer and the extra it needs."""
_CURVES = (SECP256R1, SECP384R1)
_WANTED = "use an Ed25519 or an ECDSA P-256 key"


class SigningKeyError(ValueError):
    """A key that cannot be used; names it and says what to do."""


def signer(place: str, secret_env: str = SECRET) -> Signer:
    """The signer a path or URI names: `key.pem`, `hsm:2?label=TOKEN`, `awskms:ID`, `gcpkms:projects/...`, `azurekms:VAULT/KEY`.

    `secret_env` names the variable that holds a key file's passphrase or a token's PIN. Raises SigningKeyError.
    """
    scheme, separator, rest = place.partition(":")
    if not separator or scheme not in SCHEMES:
        return _from_file(Path(place.removeprefix("file:")), secret_env)
    try:
        return _from_uri(scheme, rest, place, secret_env)
    except UnsupportedLibraryError as error:
        raise SigningKeyError(f"{place}: {error}: install it with: pip install 'seiops[{SCHEMES[scheme]}]'") from None
    except SigningKeyError:
        raise
    except Exception as error:
        # the vendors' clients raise what they like; whatever it is, the key could not be used
        raise SigningKeyError(f"{place}: {str(error) or type(error).__name__}") from error


def _from_file(path: Path, secret_env: str) -> Signer:
    secret = os.environ.get(secret_env)
    try:
        key = load_pem_private_key(path.read_bytes(), secret.encode() if secret else None)
    except OSError as error:
        raise SigningKeyError(f"{path}: {error.strerror or error}") from None
    except TypeError:
        if secret:
            raise SigningKeyError(
                f"{path}: the key is not encrypted, but {secret_env} holds a passphrase: unset it"
            ) from None
        raise SigningKeyError(f"{path}: the key is encrypted: put its passphrase into {secret_env}") from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = f", or the passphrase in {secret_env} is not its own" if secret else ""
        raise SigningKeyError(f"{path}: not a private key in PEM form{wrong}") from None
    ours = isinstance(key, Ed25519PrivateKey) or (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES)
    )
    if not ours:
        raise SigningKeyError(f"{path}: a key of this kind does not sign attestations: {_WANTED}")
    return CryptoSigner(key)


def _from_uri(scheme: str, rest: str, place: str, secret_env: str) -> Signer:
    ask = _secret(secret_env, place)
    match scheme:
        case "hsm":
            parts = urlsplit(place)
            if parts.path and not parts.path.isdigit():
                raise SigningKeyError(f"{place}: the key id {parts.path!r} is no number: write hsm:2?label=TOKEN")
            keyid = int(parts.path) if parts.path else None
            uri, public = HSMSigner.import_(keyid, dict(parse_qsl(parts.query)).get("label"), ask)
        case "awskms":
            uri, public = AWSSigner.import_(rest)
        case "gcpkms":
            uri, public = GCPSigner.import_(rest)
        case _:
            vault, separator, name = rest.partition("/")
            if not separator:
                raise SigningKeyError(f"{place}: write azurekms:VAULT/KEY")
            uri, public = AzureSigner.import_(vault, name)
    return Signer.from_priv_key_uri(uri, public, ask)


def _secret(secret_env: str, place: str) -> Callable[[str], str]:
    def ask(what: str) -> str:
        value = os.environ.get(secret_env)
        if not value:
            raise SigningKeyError(f"{place}: the token asks for its {what}: put it into {secret_env}")
        return value

    return ask


def public_key(path: Path) -> Key:
    """A public key in PEM form. Raises SigningKeyError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise SigningKeyError(f"{path}: {error.strerror or error}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SigningKeyError(f"{path}: not a public key in PEM form (BEGIN PUBLIC KEY)") from None
    ours = isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    )
    if not ours:
        raise SigningKeyError(f"{path}: a key of this kind does not sign attestations: {_WANTED}")
    return SSlibKey.from_crypto(key)
