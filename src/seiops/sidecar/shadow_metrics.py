"""Metrics of shadow comparison beyond upstream's two (docs/contracts/shadow.md 8.1).

They are declared when the first comparison starts: the exposition of a node that compares nothing keeps its shape.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from seiops.sidecar.metrics import REGISTRY

INDETERMINATE = Counter(
    "seictl_shadow_indeterminate_total",
    "Blocks whose comparison could not be carried out, by the deepest layer concerned and why.",
    ["chain_id", "pod_name", "layer", "reason"],
    registry=REGISTRY,
)
HEIGHT = Gauge(
    "seictl_shadow_height",
    "Heights of a running comparison: the shadow's head, and the last compared block.",
    ["chain_id", "pod_name", "role"],
    registry=REGISTRY,
)
LAG = Gauge(
    "seictl_shadow_lag_blocks",
    "Blocks the shadow has that are not compared yet.",
    ["chain_id", "pod_name"],
    registry=REGISTRY,
)
KEYS = Counter(
    "seictl_shadow_keys_checked_total",
    "State values read on both nodes and compared.",
    ["chain_id", "pod_name"],
    registry=REGISTRY,
)
STUCK = Counter(
    "seictl_shadow_stuck_total",
    "Heights that could not be read for minutes; the run waits there or passes over them.",
    ["chain_id", "pod_name"],
    registry=REGISTRY,
)
PAGES = Counter(
    "seictl_shadow_pages_published_total",
    "Comparison pages stored and entered in the manifest.",
    ["chain_id", "pod_name"],
    registry=REGISTRY,
)
GAPS = Counter(
    "seictl_shadow_gap_blocks_total",
    "Heights that were passed over because they could not be read.",
    ["chain_id", "pod_name"],
    registry=REGISTRY,
)
