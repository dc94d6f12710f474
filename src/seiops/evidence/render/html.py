"""HTML that cannot be written into: text is escaped unless it is `Html` already, and a page allows only its own script.

Contract addresses, node errors and receipt fields come from outside and may be hostile. So every element is made by `tag`,
data for the script travels as JSON that can end no element, and the page's policy names the hashes of its one style and
one script; nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import html
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import orjson

from seiops.evidence.render.text import printable

_VOID = frozenset({"meta", "input", "rect", "path", "line", "br"})
_JSON_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Html(str):
    """Markup that may stand in a page as it is."""

    __slots__ = ()


Inner = Html | str | int | None


def tag(name: str, /, *inner: Inner, **attributes: str | int | bool | None) -> Html:
    """An element. Attributes drop a trailing underscore and turn the others into dashes; None and False leave one out."""
    written = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>" if name in ("meta", "input", "br") else f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(*inner)}</{name}>")


def _attribute(key: str, value: str | int | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(printable(value))}"'


def join(*inner: Inner) -> Html:
    return Html(
        "".join(one if isinstance(one, Html) else html.escape(printable(one)) for one in inner if one is not None)
    )


def data(identity: str, value: Any) -> Html:
    """JSON for the script of the page; browsers do not run it, and nothing in it can end its element."""
    text = orjson.dumps(value).decode()
    for bad, good in _JSON_ESCAPES.items():
        text = text.replace(bad, good)
    return Html(f'<script type="application/json" id="{html.escape(identity)}">{text}</script>')


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def document(title: str, place: str, main: Html, *, payload: Any = None) -> str:
    """A whole page that opens from disk."""
    style, script = _asset("report.css"), _asset("report.js")
    policy = (
        f"default-src 'none'; style-src 'sha256-{_hash(style)}'; script-src 'sha256-{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    top = tag(
        "header",
        tag("span", "seiops report", class_="brand"),
        tag("span", place, class_="place"),
        tag("span", f"made {now()}", class_="made"),
        class_="top",
    )
    body = tag(
        "body",
        tag("a", "Skip to the report", href="#report", class_="skip"),
        top,
        tag("main", main, id="report"),
        data("data", payload) if payload is not None else None,
        Html(f"<script>{script}</script>"),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _asset(name: str) -> str:
    return (files("seiops.evidence.render") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
