"""Metrics of shadow comparison beyond upstream's two (docs/contracts/shadow.md 8.1).

They are declared when the first comparison starts: the exposition of a node that compares nothing keeps its shape.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from seiops.sidecar.metrics import REGISTRY

INDETERMINATE = Counter(
    "seictl_shadow_indeterminate_total",
    "Blocks whose comparison could not be carried out, by the deepest layer concerned and why.",
    ["chain_id", "pod_name", "layer", "reason"],
    registry=REGISTRY,
)
HEIGHT = Gauge(
    "seictl_shadow_height",
    "Heights of a running comparison: the head of either node (shadow, canonical), and the last compared block.",
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
RPC_SECONDS = Histogram(
    "seictl_shadow_rpc_seconds",
    "Time of one request of a comparison to a node, errors included; method is batch where one request asks for several.",
    ["chain_id", "pod_name", "side", "method"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
RPC_ERRORS = Counter(
    "seictl_shadow_rpc_errors_total",
    "Reads of a comparison that a node did not answer with a result, every attempt counted, by what was wrong.",
    ["chain_id", "pod_name", "side", "method", "class"],
    registry=REGISTRY,
)
