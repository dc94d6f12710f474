"""The closed list of deliberate departures from the recordings, and how a comparison is settled with it.

`differences.yaml` says for each id which cases it may touch, in which *stream* of a case (a stream is one kind of
thing that an area compares: `objects`, `status`, `events`, `requests`, `startup`, `http`, `stdout` ...) and what is
expected instead. Two kinds of rules exist. A *path rule* names places of a document: where the recording holds what
`recorded` describes and ours what `produced` describes, both count as equal; with `where` only in documents that this
pattern fits. An *item rule* names items of a sequence that ours may have in addition (`extra`; with `after` only behind
such an item, with `changes` only if the two differ in nothing else), may lack (`missing`), with which ours leaves the
recording (`diverges`: what follows is not compared; with `instead` only where the recording goes on like that), or that
only an object has whose whole life is another one (`alone`). Ids are only reported where they were needed.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from replay import paths
from replay.compare import ABSENT, Deviation, deviations

LIST_FILE = Path(__file__).with_name("differences.yaml")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "differences.md"
_ITEM_KINDS = ("extra", "missing", "diverges", "alone")
_RULE_KEYS = {"stream", "path", "recorded", "produced", "where", "after", "changes", "instead", *_ITEM_KINDS}
_ENTRY_KEYS = {"id", "about", "cases", "when", "rules"}
_MATCHERS = {"absent", "equals", "matches", "like", "any"}


class DifferenceListError(ValueError):
    """differences.yaml cannot be used; the message names the entry and what is wrong with it."""


@dataclass(frozen=True)
class Matcher:
    """`absent` (nothing there), `any` (anything there), `equals: v`, `matches: regex` (whole text), or `like: pattern`
    where a pattern is a document whose members must be there and whose texts may hold `*`."""

    kind: str
    value: Any = None

    def accepts(self, value: Any) -> bool:
        if self.kind == "absent":
            return value is ABSENT
        if value is ABSENT:
            return False
        if self.kind == "any":
            return True
        if self.kind == "equals":
            return bool(value == self.value)
        if self.kind == "matches":
            return isinstance(value, str) and re.fullmatch(self.value, value, re.DOTALL) is not None
        return alike(self.value, value)


def alike(pattern: Any, value: Any) -> bool:
    """The value holds at least what the pattern names; `*` in a text stands for any text, null for an absent member,
    `{$above: n}` for a larger number, `{$any: pattern}` for a list with such an item."""
    if isinstance(pattern, dict) and set(pattern) == {"$above"}:
        return isinstance(value, int) and value > pattern["$above"]
    if isinstance(pattern, dict) and set(pattern) == {"$any"}:
        return isinstance(value, list) and any(alike(pattern["$any"], item) for item in value)
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(_member_alike(name, want, value) for name, want in pattern.items())
    if isinstance(pattern, list):
        return isinstance(value, list) and len(pattern) == len(value) and all(map(alike, pattern, value))
    if isinstance(pattern, str) and isinstance(value, str):
        return glob(pattern, value)
    return bool(pattern == value)


def _member_alike(name: str, want: Any, value: dict[str, Any]) -> bool:
    if want is None:
        return name not in value
    if "*" in name:
        return any(glob(name, other) and alike(want, member) for other, member in value.items())
    return name in value and alike(want, value[name])


def glob(pattern: str, text: str) -> bool:
    """`*` is any text; every other character stands for itself."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


@dataclass(frozen=True)
class Rule:
    id: str
    stream: str
    path: tuple[str, ...] | None = None
    recorded: Matcher = field(default_factory=lambda: Matcher("absent"))
    produced: Matcher = field(default_factory=lambda: Matcher("absent"))
    where: Any = None
    after: Any = None
    changes: tuple[tuple[str, ...], ...] | None = None
    instead: Any = None
    extra: Any = None
    missing: Any = None
    diverges: Any = None
    alone: Any = None

    def looks_at(self, document: Any) -> bool:
        """`where` describes the document, or (for objects, kept under their names) one of its members."""
        if self.where is None or alike(self.where, document):
            return True
        return isinstance(document, dict) and any(alike(self.where, member) for member in document.values())

    def may_concern(self, path: Sequence[str]) -> bool:
        """Whether one of the rule's places can be at this path, above it or below it."""
        if self.path is None or "**" in self.path:
            return True
        return all(map(paths.step_matches, self.path, path))

    def may_follow(self, before: Any, item: Any) -> bool:
        """`after` describes the item in front, `changes` says in what the two may differ."""
        if self.after is not None and not alike(self.after, before):
            return False
        return self.changes is None or all(
            any(paths.matches(pattern, paths.parse(one.path)[: len(pattern)]) for pattern in self.changes)
            for one in deviations(before, item)
        )


@dataclass(frozen=True)
class Entry:
    id: str
    cases: tuple[str, ...]
    rules: tuple[Rule, ...]
    when: tuple[Any, ...] = ()
    """Patterns of which one has to fit a step of the case's script; empty = any case."""

    def touches(self, case: str, steps: Sequence[Any]) -> bool:
        if not any(fnmatch.fnmatchcase(case, pattern) for pattern in self.cases):
            return False
        return not self.when or any(alike(pattern, step) for pattern in self.when for step in steps)


class DifferenceBook:
    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)

    @classmethod
    def load(cls, path: Path = LIST_FILE) -> DifferenceBook:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        _only_text_keys(path.name, content)
        if not isinstance(content, dict) or set(content) != {"differences"}:
            raise DifferenceListError(f"{path.name}: the only key at the top is `differences`, a list")
        entries = [_entry(path.name, index, raw) for index, raw in enumerate(content["differences"] or [])]
        return cls(entries)

    def ids(self) -> list[str]:
        return [entry.id for entry in self.entries]

    def unexplained(self, document: Path = DOCUMENT) -> list[str]:
        """Ids that have no row in docs/differences.md: a row is a table line whose first cell holds the id."""
        rows: set[str] = set()
        if document.is_file():
            for line in document.read_text(encoding="utf-8").splitlines():
                if line.startswith("|"):
                    first = line.split("|")[1]
                    rows.update(re.findall(r"[A-Za-z0-9][A-Za-z0-9-]*", first))
        return sorted({entry.id for entry in self.entries} - rows)

    def for_case(self, area: str, case: str, steps: Sequence[Any] = ()) -> CaseRules:
        """`steps`: the case's script; entries that depend on it do not apply without."""
        name = f"{area}/{case}"
        return CaseRules([rule for entry in self.entries if entry.touches(name, steps) for rule in entry.rules])


class CaseRules:
    """The rules that may touch one case. `used` collects the ids that were needed."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self.used: set[str] = set()

    def silent(self) -> CaseRules:
        """The same rules for a comparison that is only tried."""
        return CaseRules(self._rules)

    def compare(self, stream: str, recorded: Any, produced: Any) -> list[Deviation]:
        """What is left of the differences of two documents once the listed ones are settled."""
        parted = [paths.parse(one.path.removesuffix(" order")) for one in deviations(recorded, produced)]
        if not parted:
            return []
        candidates = [rule for rule in self._path_rules(stream) if any(map(rule.may_concern, parted))]
        for rule in [rule for rule in candidates if rule.looks_at(produced)]:
            listed = _listed_places(recorded, produced, rule)
            if listed:
                self.used.add(rule.id)
                recorded, produced = (paths.rebuild(side, {}, listed) for side in (recorded, produced))
        return list(deviations(recorded, produced))

    def _path_rules(self, stream: str) -> Iterator[Rule]:
        return (rule for rule in self._rules if rule.stream == stream and rule.path is not None)

    def may_be_extra(self, stream: str, item: Any, before: Any = None) -> bool:
        """`before`: the item in front of it, for rules that say after what it may stand."""
        return self._item_rule(stream, item, "extra", before)

    def may_be_missing(self, stream: str, item: Any) -> bool:
        return self._item_rule(stream, item, "missing")

    def diverges(self, stream: str, item: Any, recorded: Any) -> bool:
        """`recorded`: the item with which the recording goes on at this place (None at its end)."""
        for rule in self._rules:
            fits = rule.stream == stream and rule.diverges is not None and alike(rule.diverges, item)
            if fits and (rule.instead is None or alike(rule.instead, recorded)):
                self.used.add(rule.id)
                return True
        return False

    def stands_alone(self, stream: str, item: Any) -> bool:
        return self._item_rule(stream, item, "alone")

    def _item_rule(self, stream: str, item: Any, side: str, before: Any = None) -> bool:
        for rule in self._rules:
            pattern = getattr(rule, side)
            if pattern is None or rule.stream != stream or not rule.may_follow(before, item):
                continue
            if alike(pattern, item):
                self.used.add(rule.id)
                return True
        return False


def _listed_places(recorded: Any, produced: Any, rule: Rule) -> set[tuple[str, ...]]:
    """The places at which the two sides part just as the rule says."""
    assert rule.path is not None
    theirs, ours = (
        {tuple(path): value for path, value in paths.places(side, rule.path)} for side in (recorded, produced)
    )
    found = set()
    for place in {**theirs, **ours}:
        was, now = theirs.get(place, ABSENT), ours.get(place, ABSENT)
        if was != now and rule.recorded.accepts(was) and rule.produced.accepts(now):
            found.add(place)
    return found


def _only_text_keys(file: str, value: Any) -> None:
    """YAML 1.1 reads a key `on` as true: such a pattern would never fit."""
    if isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str):
                raise DifferenceListError(f"{file}: the key {key!r} is no text, put it in quotes: {value!r}")
            _only_text_keys(file, member)
    elif isinstance(value, list):
        for member in value:
            _only_text_keys(file, member)


def _entry(file: str, index: int, raw: Any) -> Entry:
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str):
        raise DifferenceListError(f"{file}: differences[{index}] is no map with a text `id`")
    name = f"{file}: {raw['id']}"
    unknown = set(raw) - _ENTRY_KEYS
    if unknown or not isinstance(raw.get("cases"), list) or not isinstance(raw.get("rules"), list):
        raise DifferenceListError(f"{name}: takes id, about, cases (list) and rules (list); unknown: {sorted(unknown)}")
    if not isinstance(raw.get("when", []), list):
        raise DifferenceListError(f"{name}: `when` is a list of patterns of manifests")
    if not isinstance(raw.get("about"), str):
        raise DifferenceListError(f"{name}: `about` has to say in one sentence what is expected instead")
    rules = tuple(_rule(name, raw["id"], rule) for rule in raw["rules"])
    return Entry(raw["id"], tuple(raw["cases"]), rules, tuple(raw.get("when", [])))


def _rule(name: str, ident: str, raw: Any) -> Rule:
    if not isinstance(raw, dict) or not isinstance(raw.get("stream"), str) or set(raw) - _RULE_KEYS:
        raise DifferenceListError(f"{name}: a rule is a map of {sorted(_RULE_KEYS)} with `stream`: {raw!r}")
    if "path" in raw:
        return Rule(
            ident,
            raw["stream"],
            tuple(paths.parse(raw["path"])),
            _matcher(name, raw.get("recorded", "absent")),
            _matcher(name, raw.get("produced", "absent")),
            raw.get("where"),
        )
    kinds = set(_ITEM_KINDS) & set(raw)
    if len(kinds) != 1:
        raise DifferenceListError(f"{name}: a rule has `path`, or one of {_ITEM_KINDS}: {raw!r}")
    return Rule(
        ident,
        raw["stream"],
        after=raw.get("after"),
        changes=_changes(raw),
        instead=raw.get("instead"),
        **{kind: raw[kind] for kind in kinds},
    )


def _changes(raw: dict[str, Any]) -> tuple[tuple[str, ...], ...] | None:
    return tuple(tuple(paths.parse(path)) for path in raw["changes"]) if "changes" in raw else None


def _matcher(name: str, raw: Any) -> Matcher:
    if raw in ("absent", "any"):
        return Matcher(raw)
    if isinstance(raw, dict) and len(raw) == 1 and set(raw) <= _MATCHERS:
        ((kind, value),) = raw.items()
        return Matcher(kind, value)
    raise DifferenceListError(f"{name}: not a matcher (absent, any, equals: v, matches: regex, like: pattern): {raw!r}")


def explained(book: DifferenceBook, used: Iterable[str]) -> list[str]:
    """The used ids in the order of the list."""
    wanted = set(used)
    return [ident for ident in dict.fromkeys(book.ids()) if ident in wanted]
