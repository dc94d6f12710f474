"""The list of watched accounts as an object of the bucket: longer than params should be, and the same for several runs.

A line or a JSON array holds addresses; which list a run used stands sealed in its manifest (docs/contracts/shadow.md 9.4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from seiops.objectstore import Store
from seiops.shadow.touched import TraceError, watched

MAX_BYTES = 1 << 20
MAX_ACCOUNTS = 10_000
"""Three values of each are read on both nodes at every sweep."""


class WatchListError(ValueError):
    """A list that cannot be used; names the object, the place in it and what is expected."""


@dataclass(frozen=True, slots=True)
class WatchList:
    """Addresses as they were written, and the SHA-256 of the object that held them."""

    key: str
    accounts: tuple[str, ...]
    sha256: str

    def wire(self) -> dict[str, Any]:
        return {"key": self.key, "accounts": len(self.accounts), "sha256": self.sha256}


async def read(store: Store, key: str) -> WatchList:
    """Raises StoreError where the object cannot be read, WatchListError where it is no list of addresses."""
    size = (await store.head(key)).size
    if size > MAX_BYTES:
        raise WatchListError(f"{key}: {size} bytes; a list of accounts has at most {MAX_BYTES}")
    body = await store.get(key)
    return WatchList(key, parse(body, key), hashlib.sha256(body).hexdigest())


def parse(body: bytes, name: str) -> tuple[str, ...]:
    """A JSON array of addresses, or one address a line with blank lines and `#` comments. Raises WatchListError."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise WatchListError(f"{name}: not text; give a JSON array of addresses, or one address a line") from None
    places = _array(text, name) if text.lstrip().startswith("[") else _lines(text)
    for place, address in places:
        _check(address, f"{name}: {place}")
    if not places:
        raise WatchListError(f"{name}: holds no address")
    if len(places) > MAX_ACCOUNTS:
        raise WatchListError(f"{name}: {len(places)} addresses; the most is {MAX_ACCOUNTS}")
    return tuple(address for _, address in places)


def _array(text: str, name: str) -> Sequence[tuple[str, Any]]:
    try:
        items = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise WatchListError(f"{name}: {error}") from None
    return [(f"[{index}]", item) for index, item in enumerate(items)]


def _lines(text: str) -> Sequence[tuple[str, str]]:
    found = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(f"line {number}", address) for number, address in found if address]


def _check(address: Any, where: str) -> None:
    if not isinstance(address, str):
        raise WatchListError(f"{where}: an address is a text such as 0x and 40 hex digits")
    try:
        watched([address])
    except TraceError as error:
        raise WatchListError(f"{where}: {error}") from None
