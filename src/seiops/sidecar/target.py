"""What the target of a request line means, and where an unclean one is sent instead.

Upstream's server reads targets by its language's URL rules, and callers have its answers on record: which targets are
refused, which are redirected, and that a redirect escapes the path once more (docs/contracts/sidecar.md 2.3). The bytes
of a target are held as latin-1 text, one character a byte.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_SLASHES = re.compile(r"/+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_USER = re.compile(r"[-A-Za-z0-9._:~!$&'()*+,;=%@]*")
_HOST = re.compile(r"""(?:[-A-Za-z0-9._~!$&'()*+,;=:\[\]<>"\x80-\xff]|%25|%[89A-Fa-f][0-9A-Fa-f])*""")
_PORT = re.compile(r"(?::[0-9]*)?")
# What a path may hold as it stands when it was sent so, and what it holds when it is escaped by the server.
_ESCAPED_AS_SENT = re.compile(r"[-A-Za-z0-9._~!$&'()*+,;=:@/\[\]%]*")
_NEEDS_ESCAPE = re.compile(r"[^-A-Za-z0-9._~$&+,/:;=@]")


class TargetError(ValueError):
    """The target is none."""


@dataclass(frozen=True, slots=True)
class Target:
    """`escaped` is the path that routes are matched by, `path` the same percent-decoded."""

    escaped: str
    path: str
    query: str


def parse(method: str, target: str) -> Target:
    """Origin form, absolute form, `*`, and for CONNECT an authority. Raises TargetError."""
    if not target or _CONTROL.search(target):
        raise TargetError("empty, or with control characters")
    if method == "CONNECT" and not target.startswith("/"):
        target = f"http://{target}"
    if target == "*":
        return Target("*", "*", "")
    scheme, rest = _scheme(target)
    rest, _, query = rest.partition("?")
    if not rest.startswith("/"):
        if not scheme:
            raise TargetError("neither a path nor a URL")
        return Target("", "", query)
    if scheme and rest.startswith("//"):
        authority, slash, after = rest[2:].partition("/")
        _check_authority(scheme, authority)
        rest = slash + after
    if _BROKEN_PERCENT.search(rest):
        raise TargetError("broken percent escape")
    path = unescape(rest)
    escaped = rest if _ESCAPED_AS_SENT.fullmatch(rest) else _escape(path)
    return Target(escaped, path, query)


def unescape(text: str) -> str:
    """Percent escapes as the bytes they stand for."""
    return _PERCENT.sub(lambda found: chr(int(found[1], 16)), text)


def clean(path: str) -> str:
    """The path without empty, `.` and `..` segments; a trailing slash stays."""
    if not path.startswith("/"):
        path = "/" + path
    out: list[str] = []
    for segment in _SLASHES.split(path)[1:]:
        if segment == "..":
            out = out[:-1]
        elif segment not in ("", "."):
            out.append(segment)
    cleaned = "/" + "/".join(out)
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def location(path: str, query: str) -> str:
    """A `Location` for a cleaned path. Its escapes are escaped once more, as callers know it."""
    where = _escape(path) + (f"?{query}" if query else "")
    return re.sub(r"[\x80-\xff]", lambda found: f"%{ord(found[0]):x}", where)


def _scheme(target: str) -> tuple[str, str]:
    if target.startswith(":"):
        raise TargetError("no scheme before the colon")
    found = _SCHEME.match(target)
    return (found[0].lower(), target[found.end() + 1 :]) if found else ("", target)


def _check_authority(scheme: str, authority: str) -> None:
    user, at, host = authority.rpartition("@")
    if at and (_USER.fullmatch(user) is None or _BROKEN_PERCENT.search(user)):
        raise TargetError("broken user information")
    if host.startswith("["):
        _check_literal(host)
    elif "[" in host:
        raise TargetError("broken address")
    elif ":" in host:
        # Further colons are a port list elsewhere, and an error in a web address.
        port = host[host.index(":") if scheme in ("http", "https") else host.rindex(":") :]
        if _PORT.fullmatch(port) is None:
            raise TargetError("broken port")
    if _HOST.fullmatch(host) is None:
        raise TargetError("broken host")


def _check_literal(host: str) -> None:
    literal, bracket, port = host[1:].rpartition("]")
    if not bracket or _PORT.fullmatch(port) is None:
        raise TargetError("broken address")
    try:
        ipaddress.IPv6Address(unescape(literal))
    except ValueError:
        raise TargetError("not an IPv6 address") from None


def _escape(path: str) -> str:
    return _NEEDS_ESCAPE.sub(lambda found: f"%{ord(found[0]):02X}", path)
