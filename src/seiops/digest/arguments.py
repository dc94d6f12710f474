"""seidb's flags, parsed and checked in seidb's order and words, so that scripts written for it keep working.

Parsing follows the flag library seidb is built with (`--flag value`, `--flag=value`, `-d value`, positional arguments
ignored); which check comes first decides which error a script sees (docs/contracts/digest.md 1.13).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from seiops.digest.engine import InspectQuery
from seiops.digest.errors import DigestError
from seiops.digest.keys import Bucket
from seiops.digest.model import Backend, Normalization, OpenMode

_INT64 = range(-(2**63), 2**63)
_GO_INTEGER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]*|[1-9][0-9]*)", re.ASCII)
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_NORMALIZATIONS = {
    "": Normalization.SEMANTIC,
    "semantic": Normalization.SEMANTIC,
    "independent": Normalization.SEMANTIC,
    "translator": Normalization.TRANSLATOR,
}
_OPEN_MODES = {"": OpenMode.SNAPSHOT, "snapshot": OpenMode.SNAPSHOT, "replay": OpenMode.REPLAY}


@dataclass(slots=True)
class DigestArguments:
    """Flag values as given; nothing is validated yet."""

    backend: str = ""
    db_dir: str = ""
    flatkv_dir: str = ""
    memiavl_dir: str = ""
    height: int = 0
    memiavl_open_mode: str = "snapshot"
    memiavl_normalization: str = "semantic"
    inspect_bucket: str = ""
    key_offset: int = 0
    key_prefix: str = ""
    shard_next_bytes: int = 0
    list: bool = False
    list_limit: int = 1000
    details: bool = False
    find_hash: str = ""
    engine: str = "auto"
    threads: int = 1
    verify: bool = False
    format: str = "seidb"

    @property
    def roots(self) -> tuple[str, ...]:
        """The store directories named."""
        return tuple(root for root in (self.db_dir, self.flatkv_dir, self.memiavl_dir) if root)


_SHORT = {"d": "db_dir"}


def parse_flags(argv: Sequence[str]) -> DigestArguments:
    """Parse a seidb command line. Raises DigestError with the flag library's texts."""
    arguments = DigestArguments()
    waiting = list(argv)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            _long(arguments, word, waiting)
        elif word.startswith("-") and word != "-":
            _shorthand(arguments, word, waiting)
    return arguments


def _long(arguments: DigestArguments, word: str, waiting: list[str]) -> None:
    name, separator, value = word[2:].partition("=")
    attribute = name.replace("-", "_")
    if attribute not in DigestArguments.__dataclass_fields__ or "_" in name:
        raise DigestError(f"unknown flag: --{name}")
    kind = type(getattr(arguments, attribute))
    if not separator:
        if kind is bool:
            value = "true"
        elif waiting:
            value = waiting.pop(0)
        else:
            raise DigestError(f"flag needs an argument: --{name}")
    _assign(arguments, attribute, f"--{name}", value)


def _shorthand(arguments: DigestArguments, word: str, waiting: list[str]) -> None:
    letter, rest = word[1], word[2:]
    if letter not in _SHORT:
        raise DigestError(f"unknown shorthand flag: '{letter}' in {word}")
    if rest:
        value = rest.removeprefix("=")
    elif waiting:
        value = waiting.pop(0)
    else:
        raise DigestError(f"flag needs an argument: '{letter}' in {word}")
    _assign(arguments, _SHORT[letter], f"-{letter}, --{_SHORT[letter].replace('_', '-')}", value)


def _assign(arguments: DigestArguments, attribute: str, shown: str, value: str) -> None:
    kind = type(getattr(arguments, attribute))
    try:
        if kind is bool:
            setattr(arguments, attribute, _boolean(value))
        elif kind is int:
            setattr(arguments, attribute, _integer(value))
        else:
            setattr(arguments, attribute, value)
    except ValueError as error:
        raise DigestError(f"invalid argument {quoted(value)} for {quoted(shown)} flag: {error}") from error


def _boolean(value: str) -> bool:
    if value not in _TRUE | _FALSE:
        raise ValueError(f"strconv.ParseBool: parsing {quoted(value)}: invalid syntax")
    return value in _TRUE


def _integer(value: str) -> int:
    digits = value
    if "_" in value and re.fullmatch(r"[+-]?(0[xXbBoO]?_)?[0-9a-zA-Z]+(_[0-9a-zA-Z]+)*", value):
        digits = value.replace("_", "")
    if not _GO_INTEGER.fullmatch(digits):
        raise ValueError(f"strconv.ParseInt: parsing {quoted(value)}: invalid syntax")
    sign = -1 if digits.startswith("-") else 1
    body = digits.lstrip("+-")
    octal = body.startswith("0") and body[1:].isdigit()
    number = sign * (int(body, 8) if octal else int(body, 0))
    if number not in _INT64:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(value)}: value out of range")
    return number


def quoted(text: str) -> str:
    """Text in double quotes, escaped the way seidb's messages are."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    for plain, form in (("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        escaped = escaped.replace(plain, form)
    return f'"{escaped}"'


def decode_hex(text: str) -> bytes:
    """Bytes of a hex string in either case. Raises DigestError with the texts of the original's decoder."""
    for position, character in enumerate(text):
        if character not in "0123456789abcdefABCDEF":
            byte = text[position].encode()[0]
            shown = repr(chr(byte))[1:-1]
            raise DigestError(f"encoding/hex: invalid byte: U+{byte:04X} '{shown}'")
    if len(text) % 2:
        raise DigestError("encoding/hex: odd length hex string")
    return bytes.fromhex(text)


def check_db_dir(arguments: DigestArguments) -> None:
    if arguments.backend != Backend.COMPOSITE and not arguments.db_dir:
        raise DigestError("must provide --db-dir")


def inspect_query(arguments: DigestArguments) -> tuple[Backend, InspectQuery, Normalization]:
    """Checks of an inspect run, in order."""
    if arguments.memiavl_open_mode != OpenMode.SNAPSHOT:
        raise DigestError(
            f"--inspect-bucket does not support --memiavl-open-mode={quoted(arguments.memiavl_open_mode)} yet"
        )
    if arguments.inspect_bucket not in list(Bucket):
        raise DigestError(f"unknown --inspect-bucket {quoted(arguments.inspect_bucket)}")
    try:
        prefix = decode_hex(arguments.key_prefix)
    except DigestError as error:
        raise DigestError(f"decode --key-prefix: {error}") from error
    if arguments.key_offset < 0:
        raise DigestError("--key-offset must be non-negative")
    if arguments.shard_next_bytes < 0:
        raise DigestError("--shard-next-bytes must be non-negative")
    if arguments.backend not in (Backend.FLATKV, Backend.MEMIAVL):
        raise DigestError(f"unknown --backend {quoted(arguments.backend)} (want flatkv|memiavl)")
    backend = Backend(arguments.backend)
    chosen = normalization(arguments) if backend is Backend.MEMIAVL else Normalization.SEMANTIC
    query = InspectQuery(Bucket(arguments.inspect_bucket), arguments.key_offset, prefix, arguments.shard_next_bytes)
    return backend, query, chosen


def find_hash(arguments: DigestArguments) -> bytes | None:
    if not arguments.find_hash:
        return None
    try:
        wanted = decode_hex(arguments.find_hash)
    except DigestError as error:
        raise DigestError(f"decode --find-hash: {error}") from error
    if len(wanted) != 32:
        raise DigestError(f"--find-hash must be 32 bytes, got {len(wanted)}")
    return wanted


def backend(arguments: DigestArguments) -> Backend:
    if arguments.backend not in list(Backend):
        raise DigestError(f"unknown --backend {quoted(arguments.backend)} (want flatkv|memiavl|composite)")
    chosen = Backend(arguments.backend)
    if chosen is Backend.COMPOSITE and not (arguments.flatkv_dir and arguments.memiavl_dir):
        raise DigestError("--backend composite requires --flatkv-dir and --memiavl-dir")
    return chosen


def open_mode(arguments: DigestArguments) -> OpenMode:
    try:
        return _OPEN_MODES[arguments.memiavl_open_mode]
    except KeyError:
        text = quoted(arguments.memiavl_open_mode)
        raise DigestError(f"unknown --memiavl-open-mode {text} (want snapshot|replay)") from None


def normalization(arguments: DigestArguments) -> Normalization:
    try:
        return _NORMALIZATIONS[arguments.memiavl_normalization]
    except KeyError:
        text = quoted(arguments.memiavl_normalization)
        raise DigestError(f"unknown --memiavl-normalization {text} (want semantic|independent|translator)") from None
