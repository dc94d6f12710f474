"""What of an answer, a row or a file counts, and what varies from run to run (golden/sidecar/README.md, ruling 5)."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from typing import Any

from replay.compare import Deviation
from replay.differences import CaseRules, explained
from replay.report import CaseResult

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_TMP = re.compile(r"\.tmp-\w+|snapshot-\w+\.tar\.gz")
_PID = re.compile(r"\bpid \d+")
_BUILD = re.compile(r" \[[\w./@-]+(?:/[\w.@-]+)*@[^\]]*\]$")
# New keys each time; only written where none were before.
_KEY_FILES = {"node_key.json", "priv_validator_key.json", "node_pubkey.txt", "validator_pubkey.txt"}
# Where the words of a foreign library or of the operating system begin inside an error.
_FOREIGN = re.compile(
    r"(?:^|(?<=: ))(?:open |read |write |stat |lstat |mkdir |rename |unlink |remove |fork/exec |exec: |dial |Get \"|Post \""
    r"|operation error |api error |https response error |toml: |json: |invalid character |gzip: |archive/tar: |tar: "
    r"|flate: |strconv\.|time: |parse \"|EOF$|unexpected EOF|unexpected end of JSON|context deadline exceeded|net/http"
    r"|no such file|permission denied|is a directory|decoding |error decoding|yaml: |hex: |encoding/hex|illegal base64)"
)


class Comparison:
    """Collects the deviations of one case and turns them into its result."""

    def __init__(self, case: str, rules: CaseRules, book_order: Any) -> None:
        self.case = case
        self._rules = rules
        self._book = book_order
        self._found: list[str] = []

    def documents(self, stream: str, recorded: Any, produced: Any, where: str = "") -> None:
        left: list[Deviation] = self._rules.compare(stream, recorded, produced)
        self._found += [f"{where}{': ' if where else ''}{deviation}" for deviation in left]

    def fact(self, what: str, recorded: Any, produced: Any, stream: str = "facts") -> None:
        self.documents(stream, {what: recorded}, {what: produced})

    def add(self, text: str) -> None:
        self._found.append(text)

    def result(self) -> CaseResult:
        if self._found:
            return CaseResult(self.case, "fail", self._found[0], more=self._found[1:])
        return CaseResult(self.case, "pass", differences=explained(self._book, self._rules.used))


def mask_text(text: str) -> str:
    """A text with times, generated ids, process ids and random suffixes replaced by their kind."""
    text = _PID.sub("pid <pid>", text)
    return _TMP.sub("<random>", _UUID.sub("<uuid>", _TIME.sub("<time>", text)))


def mask(value: Any) -> Any:
    """A document with every text masked."""
    if isinstance(value, dict):
        return {mask_text(key) if isinstance(key, str) else key: mask(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mask(item) for item in value]
    return mask_text(value) if isinstance(value, str) else value


def row(recorded: dict[str, Any], produced: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two task rows ready to be compared: times and ids masked, foreign wording cut where both have some."""
    left, right = mask(recorded), mask(produced)
    if right.get("status") == "running" and "result" in right:
        right["progress"] = "of a running task"
        del right["result"]
    left, right = _rounded(left, right)
    left["error"], right["error"] = errors(recorded.get("error"), produced.get("error"))
    for side in (left, right):
        if side["error"] is None:
            del side["error"]
    return left, right


def errors(recorded: str | None, produced: str | None) -> tuple[str | None, str | None]:
    """Two error texts, equal when they say the same up to the words of foreign libraries."""
    if recorded is None or produced is None or recorded == produced:
        return recorded, produced
    ours, theirs = _unordered(_BUILD.sub("", mask_text(produced))), _unordered(_BUILD.sub("", mask_text(recorded)))
    if theirs == ours:
        return theirs, ours
    prefix = "parsing params: "
    if theirs.startswith(prefix) and ours.startswith(prefix):
        return prefix, prefix
    foreign = _FOREIGN.search(theirs)
    if foreign is not None and ours.startswith(theirs[: foreign.start()]) and len(ours) > foreign.start():
        return theirs[: foreign.start()], theirs[: foreign.start()]
    panic = "task handler panicked: "
    if theirs.startswith(panic) and ours.startswith(panic):
        return panic, panic
    return theirs, ours


def _unordered(text: str) -> str:
    """Keys that one error names in random order, sorted."""
    return re.sub(r"fields \[([^\]]*)\]", lambda found: f"fields [{' '.join(sorted(found[1].split()))}]", text)


def body(raw: str | bytes) -> Any:
    """A response body as a document when it is JSON, else as text."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    try:
        return json.loads(text)
    except ValueError:
        return text


def member_order(recorded: Any, produced: Any, path: str = "") -> Iterable[str]:
    """Where two documents hold the same members in another order."""
    if isinstance(recorded, dict) and isinstance(produced, dict):
        common = [key for key in recorded if key in produced]
        if common != [key for key in produced if key in recorded]:
            yield f"members of {path or 'the body'} in order {list(produced)}, recorded {list(recorded)}"
        for key in common:
            yield from member_order(recorded[key], produced[key], f"{path}.{key}" if path else key)
    elif isinstance(recorded, list) and isinstance(produced, list):
        for index, (left, right) in enumerate(zip(recorded, produced, strict=False)):
            yield from member_order(left, right, f"{path}[{index}]")


def files(
    recorded: dict[str, Any], produced: dict[str, Any], varies: list[str], byte_exact: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changed files as documents. TOML is compared by value unless `byte_exact`; what varies is compared by its shape."""
    left: dict[str, Any] = {}
    right: dict[str, Any] = {}
    for name in sorted({*recorded, *produced}):
        theirs, ours = recorded.get(name), produced.get(name)
        key = mask_text(name)
        if theirs is not None:
            left[key] = {k: v for k, v in theirs.items() if k != "bytes"}
        if ours is not None:
            right[key] = {k: v for k, v in ours.items() if k != "bytes"}
        if theirs is None or ours is None or "bytes" not in ours or "bytes" not in theirs:
            continue
        left[key]["content"], right[key]["content"] = _contents(
            name, theirs["bytes"], ours["bytes"], varies, byte_exact
        )
    return left, right


def _contents(name: str, recorded: bytes, produced: bytes, varies: list[str], byte_exact: bool) -> tuple[Any, Any]:
    if recorded == produced:
        return "equal", "equal"
    base = name.rsplit("/", 1)[-1]
    named = [entry for entry in varies if base in entry or entry.split(" ")[0] in base]
    if any(entry.strip() == base for entry in named) or base in _KEY_FILES:
        return "varies", "varies"
    try:
        left, right = recorded.decode(), produced.decode()
    except UnicodeDecodeError:
        return f"{len(recorded)} other bytes", f"{len(produced)} bytes"
    if name.endswith(".toml") and not byte_exact:
        try:
            return _same_numbers(_plain(tomllib.loads(left)), _plain(tomllib.loads(right)))
        except tomllib.TOMLDecodeError:
            return left, right
    for entry in varies:
        for word in entry.split():
            left, right = (
                re.sub(rf'("{re.escape(word)}":\s*)("[^"]*"|[\d.]+)', r"\1<varies>", text) for text in (left, right)
            )
    return mask_text(left), mask_text(right)


def _same_numbers(recorded: Any, produced: Any) -> tuple[Any, Any]:
    """Both values, with a whole double on one side and the equal integer on the other marked as such."""
    if isinstance(recorded, dict) and isinstance(produced, dict):
        pairs = {key: _same_numbers(recorded[key], produced[key]) for key in recorded if key in produced}
        return (
            {key: pairs[key][0] if key in pairs else value for key, value in recorded.items()},
            {key: pairs[key][1] if key in pairs else value for key, value in produced.items()},
        )
    if isinstance(recorded, list) and isinstance(produced, list) and len(recorded) == len(produced):
        both = [_same_numbers(left, right) for left, right in zip(recorded, produced, strict=True)]
        return [left for left, _ in both], [right for _, right in both]
    if type(recorded) is float and type(produced) is int and recorded == float(produced):
        return "<whole double>", "<integer>"
    return recorded, produced


def _rounded(recorded: Any, produced: Any) -> tuple[Any, Any]:
    """Both documents, with an integer that upstream kept as a double only marked where the two mean the same."""
    if isinstance(recorded, dict) and isinstance(produced, dict):
        pairs = {key: _rounded(recorded[key], produced[key]) for key in recorded if key in produced}
        return (
            {key: pairs[key][0] if key in pairs else value for key, value in recorded.items()},
            {key: pairs[key][1] if key in pairs else value for key, value in produced.items()},
        )
    if isinstance(recorded, list) and isinstance(produced, list) and len(recorded) == len(produced):
        both = [_rounded(left, right) for left, right in zip(recorded, produced, strict=True)]
        return [left for left, _ in both], [right for _, right in both]
    if (
        type(produced) is int
        and type(recorded) in (int, float)
        and recorded != produced
        and recorded == float(produced)
    ):
        return "<rounded>", "<exact>"
    return recorded, produced


def _plain(value: Any) -> Any:
    """TOML values as JSON ones."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) else str(value)
