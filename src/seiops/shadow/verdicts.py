"""What is said of one compared block: layers, attribution, verdict, and the record that is published.

The record keeps upstream's members in upstream's order; what is new comes after them (docs/contracts/shadow.md 5.3, 9.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from seiops.shadow.receipts import Block, ReceiptComparison
from seiops.shadow.statereads import StateComparison

Verdict = Literal["clean", "diverged", "indeterminate", "vacuous", "gap"]
VERDICTS: tuple[Verdict, ...] = ("clean", "diverged", "indeterminate", "vacuous", "gap")


def overall(counts: Mapping[str, int]) -> str:
    """The verdict of a run: the worst of its blocks, and never clean when nothing was compared."""
    for verdict in ("diverged", "indeterminate", "gap", "vacuous", "clean"):
        if counts.get(verdict):
            return verdict
    return "nothing-compared"


@dataclass(slots=True)
class HeaderComparison:
    """Layer 0. `gas` holds both sides' gas where both told it, None where gas was not compared.

    `own_results`: whether each side's own receipts of the block before hash to the results hash of its header; None where
    those receipts were not read.
    """

    shadow: Block
    canonical: Block
    gas: tuple[int, int] | None = None
    own_results: tuple[bool, bool] | None = None

    @property
    def app_hash_match(self) -> bool:
        return self.shadow.app_hash == self.canonical.app_hash

    @property
    def results_match(self) -> bool:
        return self.shadow.last_results_hash == self.canonical.last_results_hash

    @property
    def gas_match(self) -> bool:
        return self.gas is None or self.gas[0] == self.gas[1]

    @property
    def same_source(self) -> bool:
        """Both nodes serve one and the same block: equal headers say nothing about execution (T8)."""
        return bool(self.shadow.block_id) and self.shadow.block_id == self.canonical.block_id

    def real(self, migration: bool) -> bool:
        """Whether this layer alone is a divergence; the app hash is expected to differ in a migration."""
        return not (self.results_match and self.gas_match and (migration or self.app_hash_match))

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "appHashMatch": self.app_hash_match,
            "lastResultsHashMatch": self.results_match,
            "gasUsedMatch": self.gas_match,
        }
        if not self.app_hash_match:
            found |= _present("AppHash", self.shadow.app_hash, self.canonical.app_hash)
        if not self.results_match:
            found |= _present("LastResultsHash", self.shadow.last_results_hash, self.canonical.last_results_hash)
        if self.gas is not None and not self.gas_match:
            found |= _present("GasUsed", *self.gas)
        if self.same_source:
            found["sameSource"] = True
        if self.own_results is not None:
            found["ownResultsMatch"] = {"shadow": self.own_results[0], "canonical": self.own_results[1]}
        return found


def _present(name: str, shadow: Any, canonical: Any) -> dict[str, Any]:
    return {f"{side}{name}": value for side, value in (("shadow", shadow), ("canonical", canonical)) if value}


@dataclass(slots=True)
class Compared:
    """One compared block. `previous`: the block before it, looked at because headers speak of that one (D-4).

    `roots`: what both sides' receipts hash to, None where they were not read.
    """

    height: int
    timestamp: str
    migration: bool
    layer0: HeaderComparison
    layer1: ReceiptComparison | None = None
    layer2: StateComparison | None = None
    layer_h: dict[str, Any] | None = None
    previous: dict[str, Any] | None = None
    roots: tuple[str, str] | None = None
    expected_gap: bool = False
    """Indeterminate for a reason known beforehand: the first block after a restored snapshot (T13)."""

    @property
    def hash_log_differs(self) -> bool:
        """The hash logs disagree about what this block wrote or returned."""
        return self.layer_h is not None and not all(
            self.layer_h.get(f"{column}Match", True) for column in ("changeset", "resultHash", "blockHash")
        )

    @property
    def divergence_layer(self) -> int | None:
        """The deepest layer that fired (docs/contracts/shadow.md 3.1), None for a match."""
        if self.layer2 is not None and self.layer2.fired:
            return 2
        if self.layer1 is not None and self.layer1.fired:
            return 1
        return 0 if self.layer0.real(self.migration) or self.hash_log_differs else None

    @property
    def match(self) -> bool:
        return self.divergence_layer is None

    @property
    def verdict(self) -> Verdict:
        if self.layer0.real(self.migration) or self.hash_log_differs:
            return "diverged"
        if (self.layer1 is not None and self.layer1.differs) or (self.layer2 is not None and self.layer2.divergences):
            return "diverged"
        if any(layer is not None and layer.problems for layer in (self.layer1, self.layer2)):
            return "indeterminate"
        checked = self.layer1 is not None or (self.layer_h is not None and "missing" not in self.layer_h)
        return "clean" if checked or not self.layer0.same_source else "vacuous"

    @property
    def reason(self) -> str:
        """Why a block is not clean where that is known: a stable word for metrics and readers."""
        for layer in (self.layer2, self.layer1):
            if layer is not None and layer.problems:
                return layer.reason or "rpc"
        if self.verdict == "vacuous":
            return "same-source"
        if self.hash_log_differs:
            return "hash-log"
        if self.layer1 is not None and self.layer1.differs and self.layer1.consensus_match:
            return "descriptive-fields"
        return ""

    def record(self) -> dict[str, Any]:
        """The line of a page and the `comparison` of a report."""
        found: dict[str, Any] = {"height": self.height, "timestamp": self.timestamp, "match": self.match}
        if self.migration:
            found["migrationMode"] = True
        if self.divergence_layer is not None:
            found["divergenceLayer"] = self.divergence_layer
        found["layer0"] = self.layer0.record()
        if self.layer1 is not None:
            found["layer1"] = self.layer1.record()
        if self.layer2 is not None:
            found["layer2"] = self.layer2.record()
        if self.layer_h is not None:
            found["layerH"] = self.layer_h
        if self.previous is not None:
            found["previous"] = self.previous
        found["verdict"] = self.verdict
        if self.reason:
            found["reason"] = self.reason
        return found


@dataclass(slots=True)
class Gap:
    """A height that could not be read for too long and was passed over (D-27); it is never counted as compared."""

    height: int
    timestamp: str
    migration: bool
    error: str

    @property
    def verdict(self) -> Verdict:
        return "gap"

    def record(self) -> dict[str, Any]:
        """A line no reader can take for a match."""
        found: dict[str, Any] = {"height": self.height, "timestamp": self.timestamp, "match": False}
        if self.migration:
            found["migrationMode"] = True
        layer0 = {"appHashMatch": False, "lastResultsHashMatch": False, "gasUsedMatch": False}
        return found | {
            "divergenceLayer": 0,
            "layer0": layer0,
            "verdict": "gap",
            "reason": "unreadable",
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Unread:
    """A block that could not be evaluated at Layer 0, or whose results are not there yet: no result, try again."""

    height: int
    error: str
    not_ready: bool = False
