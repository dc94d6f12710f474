"""What a store's refusal means to the person reading it, and whether trying again can help.

obstore hides S3's error codes: NoSuchBucket arrives as file-not-found, SlowDown as a generic error. The code still stands
in the text of the answer, so it is parsed here, in one place (docs/contracts/sidecar.md 6.4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

_CODE = re.compile(r"<Code>\s*([A-Za-z0-9_.]+)\s*</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_HEADLINE = re.compile(r"\n\s*\nDebug source:.*", re.DOTALL)
_NETWORK = (
    "tcp connect error",
    "dns error",
    "Connection refused",
    "ConnectError",
    "kind: Connect",
    "kind: ConnectionReset",
    "kind: BrokenPipe",
    "kind: Timeout",
    "operation timed out",
    "Network is unreachable",
)

HINT_BUCKET = "verify SEI_SNAPSHOT_BUCKET and SEI_SNAPSHOT_REGION environment variables"
HINT_KEY = "the snapshot or genesis file may not have been uploaded yet"
HINT_ACCESS = "check the pod's ServiceAccount IAM role has s3:GetObject permission on this bucket"
HINT_THROTTLED = "transient S3 throttling; the task will be retried"
HINT_NETWORK = "check VPC endpoints and DNS resolution for S3"


@dataclass(frozen=True, slots=True)
class Location:
    """Where an operation aimed at: scheme, bucket (or root), region and the full key inside the bucket."""

    scheme: str
    bucket: str
    region: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"


class StoreError(Exception):
    """An object store refused or could not be reached.

    `code` is the store's error code (`NoSuchKey`, `SlowDown`), `Network` when the store was not reached, or `Unknown`.
    `retryable` says whether the same call may succeed later. `str()` is the message without the hint.
    """

    def __init__(self, code: str, message: str, *, hint: str = "", retryable: bool = False, cause: str = "") -> None:
        """Keep every part separately: callers put them into task errors of their own shape."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable
        self.cause = cause


def headline(error: BaseException) -> str:
    """Return the first sentence of an obstore error, without its debugging dump."""
    return _HEADLINE.sub("", str(error)).strip()


def error_code(error: BaseException) -> str:
    """Return the store's error code, or `Network`, or `Unknown`."""
    text = str(error)
    if found := _CODE.search(text):
        return found.group(1)
    if isinstance(error, AlreadyExistsError | PreconditionError):
        return "PreconditionFailed"
    if isinstance(error, FileNotFoundError):
        return "NoSuchKey"
    if found := _STATUS.search(text):
        return HTTPStatus(int(found.group(1))).phrase.replace(" ", "")
    if isinstance(error, PermissionDeniedError | PermissionError | UnauthenticatedError):
        return "AccessDenied"
    if isinstance(error, BaseError) and any(mark in text for mark in _NETWORK):
        return "Network"
    return "Unknown"


def classify(error: BaseException, where: Location) -> StoreError:
    """Turn any failure of a store operation into a `StoreError` (docs/contracts/sidecar.md 6.4)."""
    if isinstance(error, StoreError):
        return error
    code = error_code(error)
    cause = headline(error)
    bucket = f"{where.scheme}://{where.bucket}"
    match code:
        case "NoSuchBucket":
            message, hint, retryable = (
                f'bucket "{where.bucket}" does not exist in region {where.region}',
                HINT_BUCKET,
                False,
            )
        case "NoSuchKey":
            message, hint, retryable = f'object "{where.key}" not found in {bucket}', HINT_KEY, False
        case "AccessDenied":
            message, hint, retryable = f"access denied to {where} in region {where.region}", HINT_ACCESS, False
        case "SlowDown" | "ServiceUnavailable":
            message, hint, retryable = f"S3 throttled request to {where}", HINT_THROTTLED, True
        case "Network":
            message, hint, retryable = f"network error accessing {where}", HINT_NETWORK, True
        case "Unknown":
            message, hint, retryable = f"unexpected error accessing {where}: {cause}", "", False
        case _:
            message, hint, retryable = f"S3 error {code} on {where}", "", False
    return StoreError(code, message, hint=hint, retryable=retryable, cause=cause)
