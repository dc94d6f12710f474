"""How digest results look to people (`table`) and to programs (`json`)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from seiops.digest.command import DigestView, InspectView
from seiops.digest.context import Context
from seiops.digest.engine import Engine, Inspection, InspectQuery
from seiops.digest.model import Backend, Row, Totals
from seiops.digest.model import Progress as ScanProgress


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    SEIDB = "seidb"


@contextmanager
def digest_view(format_: Format, engine: Engine) -> Iterator[DigestView]:
    bar = ScanBar()
    try:
        yield JsonDigest(engine, bar) if format_ is Format.JSON else TableDigest(engine, bar)
    finally:
        bar.stop()


def inspect_view(format_: Format) -> InspectView:
    return JsonInspect() if format_ is Format.JSON else TableInspect()


class ScanBar:
    """Progress on stderr, where a terminal is there to see it: rows, rows a second, bytes a second, time left."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("opening", total=None, rate="")
        self._started = time.monotonic()
        self._shown = self._bar.console.is_terminal
        if self._shown:
            self._bar.start()

    def update(self, point: ScanProgress) -> None:
        elapsed = max(time.monotonic() - self._started, 0.001)
        rate = f"{point.rows / elapsed:,.0f} rows/s"
        if point.bytes_read is not None:
            rate += f", {point.bytes_read / elapsed / 1e6:,.0f} MB/s"
        self._bar.update(
            self._task,
            description=f"{point.source}: {point.rows:,} rows",
            completed=point.bytes_read or 0,
            total=point.bytes_total,
            rate=rate,
        )

    def stop(self) -> None:
        if self._shown:
            self._bar.stop()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started


class TableDigest:
    def __init__(self, engine: Engine, bar: ScanBar) -> None:
        self._console = wide_console()
        self._engine = engine
        self._bar = bar

    def start(self, context: Context) -> None:
        pass

    def found(self, row: Row) -> None:
        self._console.print(_row_text(row), soft_wrap=True)

    def progress(self, context: Context, point: ScanProgress) -> None:
        self._bar.update(point)

    def report(self, context: Context, totals: Totals) -> None:
        self._bar.stop()
        table = _digest_table("bucket", f"{context.backend} {context.mode} at {context.version}")
        for bucket, tally in totals.adjusted().items():
            table.add_row(bucket, f"{tally.count:,}", tally.hex)
        table.add_section()
        table.add_row("[bold]final", f"[bold]{totals.count:,}", f"[bold]{totals.final_hex}")
        self._console.print(table, soft_wrap=True)
        self._console.print(
            f"store {context.db_dir}\nengine {self._engine.name} {self._engine.version}, "
            f"{totals.input_rows + (totals.memiavl_rows if context.backend is Backend.COMPOSITE else 0):,} rows read "
            f"in {self._bar.elapsed:.1f} s",
            soft_wrap=True,
        )
        if context.requested_height not in (0, context.version):
            self._console.print(f"[bold red]opened at {context.version}, not at {context.requested_height}")
        if context.migration is not None:
            self._console.print(f"migration {context.migration.boundary}", markup=False, soft_wrap=True)


class JsonDigest:
    """One object on stdout; the members seidb's own `--json` has, and what we know beyond (docs/contracts/shadow.md 6.7.5)."""

    def __init__(self, engine: Engine, bar: ScanBar) -> None:
        self._engine = engine
        self._bar = bar
        self._found: list[dict[str, Any]] = []

    def start(self, context: Context) -> None:
        pass

    def found(self, row: Row) -> None:
        self._found.append(row_members(row))

    def progress(self, context: Context, point: ScanProgress) -> None:
        self._bar.update(point)

    def report(self, context: Context, totals: Totals) -> None:
        members: dict[str, Any] = {
            "backend": context.backend,
            "mode": context.mode,
            "db_dir": context.db_dir,
            "source": context.source,
            "normalization": context.normalization,
            "requested_height": context.requested_height,
            "version": context.version,
        }
        if context.migration is not None:
            members["migration_boundary"] = str(context.migration.boundary)
        members["marker_adjustments"] = [marker.decode() for marker in totals.omitted_markers]
        for bucket, tally in totals.adjusted().items():
            members[bucket] = {"count": tally.count, "digest": tally.hex}
        members["final"] = {"count": totals.count, "digest": totals.final_hex}
        members["input_rows"] = totals.input_rows
        if context.backend is Backend.COMPOSITE:
            members["memiavl_rows"] = totals.memiavl_rows
            members["consumed_unmigrated"] = totals.consumed_rows
        if self._found:
            members["found"] = self._found
        members["engine"] = self._engine.name
        members["engine_version"] = self._engine.version
        members["elapsed_seconds"] = round(self._bar.elapsed, 3)
        self._bar.stop()
        print(json.dumps(members))


class TableInspect:
    def __init__(self) -> None:
        self._console = wide_console()

    def row(self, row: Row, height_label: str | None) -> None:
        self._console.print(_row_text(row), soft_wrap=True)

    def inspection(
        self, backend: Backend, version: int, query: InspectQuery, outcome: Inspection, listed: tuple[int, int] | None
    ) -> None:
        title = f"{backend} {query.bucket} at {version}: {outcome.matched:,} rows match"
        if listed is not None:
            self._console.print(f"{title}, {listed[0]:,} listed")
            return
        table = _digest_table("shard", title)
        for shard, tally in sorted(outcome.shards.items()):
            table.add_row(shard.hex() or "(all)", f"{tally.count:,}", tally.hex)
        self._console.print(table, soft_wrap=True)


class JsonInspect:
    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def row(self, row: Row, height_label: str | None) -> None:
        self._rows.append(row_members(row))

    def inspection(
        self, backend: Backend, version: int, query: InspectQuery, outcome: Inspection, listed: tuple[int, int] | None
    ) -> None:
        members: dict[str, Any] = {
            "backend": backend,
            "version": version,
            "bucket": query.bucket,
            "key_offset": query.key_offset,
            "key_prefix": query.key_prefix.hex(),
            "matched": outcome.matched,
        }
        if listed is not None:
            members["entries"] = self._rows
        else:
            members["shards"] = [
                {"shard": shard.hex(), "count": tally.count, "digest": tally.hex}
                for shard, tally in sorted(outcome.shards.items())
            ]
        print(json.dumps(members))


TABLE_WIDTH = 100


def wide_console() -> Console:
    """A console wide enough for a digest beside its name and count, whatever the terminal."""
    console = Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH)
    return console


def _digest_table(first: str, title: str) -> Table:
    """Digests are compared by eye and by copy: they are never cut, however narrow the terminal."""
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("digest", no_wrap=True, min_width=64)
    return table


def row_members(row: Row) -> dict[str, Any]:
    members: dict[str, Any] = {"bucket": row.bucket, "key": row.key.hex(), "logical": row.payload.hex()}
    if row.height is not None:
        members["height"] = row.height
    return members


def _row_text(row: Row) -> str:
    height = "" if row.height is None else f" height={row.height}"
    return f"{row.bucket} key={row.key.hex()} logical={row.payload.hex()}{height}"


def show_status(members: dict[str, object], format_: Format) -> None:
    if format_ is Format.JSON:
        print(json.dumps(members))
        return
    table = Table("migration to FlatKV", "", show_header=False)
    complete = bool(members["migrate_evm_complete"])
    stage = "complete" if complete else "in progress" if members["boundary_present"] else "not started"
    table.add_row("EVM migration", stage)
    for name, value in members.items():
        table.add_row(name, str(value))
    wide_console().print(table, soft_wrap=True)
