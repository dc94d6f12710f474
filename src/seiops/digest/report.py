"""A digest as seidb prints it, line by line (docs/contracts/digest.md 1.14)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TextIO

from seiops.digest.boundary import MigrationState
from seiops.digest.context import Context
from seiops.digest.engine import Inspection, InspectQuery
from seiops.digest.keys import BUCKETS, Bucket
from seiops.digest.model import Backend, OpenMode, Progress, Row, Tally, Totals

PROGRESS_STEP = 20_000_000
EVM_MIGRATED = 1
_LABELS = {Bucket.ACCOUNT: "account  ", Bucket.CODE: "code     ", Bucket.STORAGE: "storage  ", Bucket.MISC: "misc   "}


class SeidbReport:
    """Writes one run to `out` as it goes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._next_progress = PROGRESS_STEP
        self._held: list[tuple[Bucket, str]] = []
        self._composite = False

    def start(self, context: Context) -> None:
        self._composite = context.backend is Backend.COMPOSITE
        self._lines("EVM logical digest start", *context.lines(), "", f"Scan progress: {context.scan}")
        if context.note is not None:
            self._lines(context.note)

    def found(self, row: Row) -> None:
        line = (
            f"FOUND-HASH bucket={row.bucket} keyhex={row.key.hex().upper()} "
            f"logicalhex={row.payload.hex().upper()} rawhex={row.stored.hex().upper()}"
        )
        if self._composite and (row.bucket is Bucket.ACCOUNT or row.stored == row.payload):
            self._held.append((row.bucket, line))
        else:
            self._lines(line)

    def progress(self, context: Context, point: Progress) -> None:
        if point.rows < self._next_progress:
            return
        self._next_progress += PROGRESS_STEP
        self._lines(_progress_line(context, point))

    def report(self, context: Context, totals: Totals) -> None:
        self._trailer(context, totals)
        self._lines("EVM logical digest report", *context.lines(), "")
        for marker in totals.omitted_markers:
            self._lines(f"flatkv_marker_adjustment: omitted {marker.decode()} from misc bucket in final result", "")
        self._lines("Bucket digests (final digest inputs)", *bucket_lines(totals.adjusted()), "")
        self._lines(f"FINAL_DIGEST account+code+storage+misc count={totals.count} digest={totals.final_hex}")

    def _trailer(self, context: Context, totals: Totals) -> None:
        """A composite run ends its FlatKV scan, then its memiavl scan, then adds the merged accounts; rows found on the
        way stand where they were found."""
        lines = context.trailer(totals)
        from_memiavl = [line for bucket, line in self._held if bucket is not Bucket.ACCOUNT]
        accounts = [line for bucket, line in self._held if bucket is Bucket.ACCOUNT]
        self._lines(*lines[:1], *from_memiavl, *lines[1:], *accounts)

    def row(self, row: Row, height_label: str | None) -> None:
        """One listed row of an inspect run, with its height under `height_label` where one is given."""
        line = f"key={row.key.hex().upper()} logical={row.payload.hex().upper()}"
        self._lines(line if height_label is None else f"{line} {height_label}={row.height}")

    def inspection(
        self, backend: Backend, version: int, query: InspectQuery, outcome: Inspection, listed: tuple[int, int] | None
    ) -> None:
        """End of an inspect run; `listed` is (rows listed, limit) when rows were listed instead of grouped."""
        if backend is Backend.MEMIAVL:
            self._lines(f"  memiavl inspect total leaves={outcome.input_rows}")
        self._lines(
            f"version: {version}",
            f"inspect bucket={query.bucket} key_offset={query.key_offset} "
            f"key_prefix={query.key_prefix.hex().upper()} matched={outcome.matched}",
        )
        if listed is not None:
            self._lines(f"listed={listed[0]} list_limit={listed[1]}")
            return
        for shard, tally in sorted((key.hex(), tally) for key, tally in outcome.shards.items()):
            self._lines(f"shard={shard} count={tally.count} bucket_digest={tally.hex}")

    def status(self, version: int, state: MigrationState) -> None:
        """Outcome of `migrate-evm-status`."""
        print(json.dumps(migration_status(version, state), indent=2), file=self._out)

    def _lines(self, *lines: str) -> None:
        self._out.write("".join(line + "\n" for line in lines))
        self._out.flush()


def bucket_lines(tallies: Mapping[Bucket, Tally]) -> list[str]:
    return [f"{_LABELS[bucket]}count={tallies[bucket].count} bucket_digest={tallies[bucket].hex}" for bucket in BUCKETS]


def migration_status(version: int, state: MigrationState) -> dict[str, object]:
    """Members of seidb's status object, in its order; the hex members only where their rows exist."""
    status: dict[str, object] = {
        "version_at": version,
        "migration_version": state.version,
        "migrate_evm_complete": state.version >= EVM_MIGRATED,
        "boundary_present": state.boundary_payload is not None,
    }
    if state.boundary_payload is not None:
        status["boundary_hex"] = state.boundary_payload.hex()
    if state.version_payload is not None:
        status["version_raw_hex"] = state.version_payload.hex()
    return status


def _progress_line(context: Context, point: Progress) -> str:
    counts = " ".join(f"{bucket}={point.counts[bucket]}" for bucket in BUCKETS)
    without_accounts = " ".join(f"{bucket}={point.counts[bucket]}" for bucket in BUCKETS[1:])
    if context.backend is Backend.FLATKV:
        return f"  progress backend=flatkv input_physical_rows={point.rows} digested {counts}"
    buffered = f"account_buffered={point.buffered} "
    if context.backend is Backend.MEMIAVL:
        return (
            f"  progress backend=memiavl mode={context.mode} input_leaves={point.rows} digested "
            f"account=deferred_until_finalize {buffered if context.mode.startswith('semantic') else ''}{without_accounts}"
        )
    if point.source is Backend.FLATKV:
        return (
            f"  progress backend=composite source=flatkv input_physical_rows={point.rows} {buffered}{without_accounts}"
        )
    source = "memiavl-replay" if context.open_mode is OpenMode.REPLAY else "memiavl"
    return (
        f"  progress backend=composite source={source} input_leaves={point.rows} "
        f"consumed_unmigrated={point.consumed} {buffered}{without_accounts}"
    )
