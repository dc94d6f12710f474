"""Where a migration from memiavl to FlatKV stands, as the store itself records it.

The boundary row is a cursor over (module, key); what lies at or left of it is read from FlatKV, the rest from memiavl
(docs/contracts/digest.md 1.9, 1.10).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from seiops.digest.errors import DigestError


class BoundaryStatus(IntEnum):
    NOT_STARTED = 0
    IN_PROGRESS = 1
    COMPLETE = 2


@dataclass(frozen=True, slots=True)
class MigrationBoundary:
    status: BoundaryStatus
    module: bytes = b""
    key: bytes = b""

    def __str__(self) -> str:
        if self.status is not BoundaryStatus.IN_PROGRESS:
            return f"MigrationBoundary{{status={self.status.name.lower()}}}"
        module = self.module.decode("utf-8", "replace")
        return f"MigrationBoundary{{status=in_progress, module={module}, key={self.key.hex()}}}"

    def is_migrated(self, module: bytes, key: bytes) -> bool:
        """True when (module, key) lies at or left of the cursor."""
        if self.status is not BoundaryStatus.IN_PROGRESS:
            return self.status is BoundaryStatus.COMPLETE
        if module == self.module:
            return key <= self.key
        return module <= self.module


NOT_STARTED = MigrationBoundary(BoundaryStatus.NOT_STARTED)
COMPLETE = MigrationBoundary(BoundaryStatus.COMPLETE)


@dataclass(frozen=True, slots=True)
class MigrationState:
    """What the marker rows of a FlatKV store say.

    `version_payload` and `boundary_payload` are the rows' payloads where present; `version` is 0 while no step finished.
    """

    boundary: MigrationBoundary = NOT_STARTED
    version: int = 0
    version_payload: bytes | None = None
    boundary_payload: bytes | None = None

    @property
    def version_known(self) -> bool:
        return self.version_payload is not None


def decode_boundary(data: bytes) -> MigrationBoundary:
    """Parse the serialized boundary; raises DigestError with upstream's texts."""
    if not data:
        raise DigestError("empty migration boundary data")
    status = data[0]
    if status in (BoundaryStatus.NOT_STARTED, BoundaryStatus.COMPLETE):
        if len(data) > 1:
            raise DigestError(f"unexpected trailing data for status {status}: {len(data) - 1} extra bytes")
        return NOT_STARTED if status == BoundaryStatus.NOT_STARTED else COMPLETE
    if status != BoundaryStatus.IN_PROGRESS:
        raise DigestError(f"invalid migration status: {status}")
    if len(data) < 5:
        raise DigestError(f"in-progress data too short: need at least 5 bytes, got {len(data)}")
    module_length = int.from_bytes(data[1:5], "big")
    if len(data) < 5 + module_length:
        raise DigestError(
            f"in-progress data too short for module name of length {module_length}: got {len(data)} bytes"
        )
    return MigrationBoundary(BoundaryStatus.IN_PROGRESS, data[5 : 5 + module_length], data[5 + module_length :])


def migration_state(version_payload: bytes | None, boundary_payload: bytes | None) -> MigrationState:
    """Combine the two marker payloads by the rule of docs/contracts/digest.md 1.10, step 1."""
    if version_payload is not None:
        if len(version_payload) != 8:
            raise DigestError(f"flatkv migration version length={len(version_payload)}, want 8")
        version = int.from_bytes(version_payload, "big")
        return MigrationState(COMPLETE, version, version_payload, boundary_payload)
    if boundary_payload is not None:
        return MigrationState(decode_boundary(boundary_payload), 0, None, boundary_payload)
    return MigrationState()
