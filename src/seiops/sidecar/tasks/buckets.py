"""How tasks reach the node's buckets, and how a store's refusal becomes a task's failure (docs/contracts/sidecar.md 6)."""

from __future__ import annotations

from seiops.objectstore import Store, StoreError, open_store
from seiops.sidecar.task import TaskError


def open_bucket(name: str, region: str, *, role: str) -> Store:
    """A bucket by its name (S3) or by a URL of any supported kind; `role` names the client in the error."""
    try:
        return open_store(name if "://" in name else f"s3://{name}", region=region)
    except ValueError as error:
        raise TaskError(f"building {role}: {error}", retryable=False) from error


def store_failure(task: str, error: StoreError) -> TaskError:
    """The classified form: `<task>: S3: <message> [hint: <hint>]`."""
    return TaskError.structured(
        task, "S3", error.message, retryable=error.retryable, hint=error.hint or None, cause=error.cause or None
    )
