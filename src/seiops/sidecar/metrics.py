"""The metric families of the sidecar, with the names, labels and help texts dashboards already use
(docs/contracts/sidecar.md 4).

Families of tasks are declared here as well, so that an exposition has the same shape whichever handlers were loaded.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

TASK_SUBMISSIONS = Counter(
    "seictl_task_submissions_total", "Total number of tasks submitted.", ["type"], registry=REGISTRY
)
TASK_FAILURES = Counter("seictl_task_failures_total", "Total number of tasks that failed.", ["type"], registry=REGISTRY)
TASK_PANICS = Counter(
    "seictl_task_panics_total",
    "Total number of task handler panics recovered by the engine.",
    ["type"],
    registry=REGISTRY,
)
TASK_SECONDS = Histogram(
    "seictl_task_execution_duration_seconds",
    "Wall-clock execution time of task handlers in seconds (measured inside the goroutine, not submission latency).",
    ["type", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
TASKS_RUNNING = Gauge("seictl_tasks_running", "Tasks whose handler is running now.", ["type"], registry=REGISTRY)
AUTHN_REJECTIONS = Counter(
    "seictl_sidecar_authn_rejections_total",
    "Count of 401 responses from the trusted-header middleware, by reason.",
    ["reason"],
    registry=REGISTRY,
)
UPLOAD_LAST_SUCCESS = Gauge(
    "seictl_snapshot_upload_last_run_success_timestamp_seconds",
    "Unix timestamp of the last snapshot-upload run that reached a clean terminal (uploaded or noop).",
    ["chain"],
    registry=REGISTRY,
)
UPLOAD_LAST_UPLOADED = Gauge(
    "seictl_snapshot_upload_last_uploaded_timestamp_seconds",
    "Unix timestamp of the last snapshot-upload run that uploaded an archive to S3.",
    ["chain"],
    registry=REGISTRY,
)
UPLOAD_LAST_HEIGHT = Gauge(
    "seictl_snapshot_upload_last_uploaded_height",
    "Snapshot height of the last archive uploaded to S3.",
    ["chain"],
    registry=REGISTRY,
)
UPLOAD_OUTCOMES = Counter(
    "seictl_snapshot_upload_outcome_total",
    "Count of snapshot-upload terminals by outcome (uploaded, noop, or error).",
    ["chain", "outcome"],
    registry=REGISTRY,
)
TX_BROADCASTS = Counter(
    "seictl_tx_broadcast_total",
    "Gov sign-tx broadcasts by task type and inclusion outcome.",
    ["type", "outcome"],
    registry=REGISTRY,
)
BLOCKS_COMPARED = Counter(
    "seictl_shadow_blocks_compared_total",
    "Total blocks compared between the shadow node and the canonical chain.",
    ["chain_id", "pod_name"],
    registry=REGISTRY,
)
DIVERGENCES = Counter(
    "seictl_shadow_divergences_total",
    "Blocks that did not match, by the deepest layer that says so; blocks that could not be decided are among them.",
    ["chain_id", "pod_name", "divergence_layer"],
    registry=REGISTRY,
)
