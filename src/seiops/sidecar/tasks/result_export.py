"""Exports block results, or compares this node with another one (docs/contracts/shadow.md 4).

What is compared and how lives in `seiops.shadow`; here params become a run, and its end becomes a task's result.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seiops.objectstore import Published, StoreError
from seiops.seid.bulk import BulkReader
from seiops.seid.comet import CometError
from seiops.shadow import assemble, pages, preflight, progress, watchlist
from seiops.shadow.compare import Comparator
from seiops.shadow.direction import ADVICE, CHECK
from seiops.shadow.export import Exporter, PageError
from seiops.shadow.hashlog import HashLogError
from seiops.shadow.hashlog_layer import HashLogLayer
from seiops.shadow.loop import OVERTAKEN, FlushError, Loop
from seiops.shadow.manifest import STOPPED, What, Writer, chain_of
from seiops.shadow.pages import Shelf
from seiops.shadow.pipeline import carried_through
from seiops.shadow.progress import ProgressError, RunKey, Start
from seiops.shadow.request import COMPARE, Request, RequestError
from seiops.shadow.traps import Plan
from seiops.shadow.verdicts import overall
from seiops.shadow.watchlist import WatchListError
from seiops.sidecar.task import Params, TaskContext, TaskError
from seiops.sidecar.tasks.buckets import open_bucket, store_failure
from seiops.sidecar.tasks.export_migration import migration_facts
from seiops.sidecar.tasks.export_params import parse
from seiops.sidecar.tasks.export_watch import NodeRequests, TaskWatcher

TASK = "result-export"
STOPPED_BUDGET_S = 5.0
_active: set[Path] = set()
"""Progress files in use: two tasks on one prefix would overwrite each other's pages."""


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    """Raises TaskError. The result says what was done and why it ended, also when nothing was."""
    request = parse(params)
    try:
        request.check()
        start = await ctx.blocking(
            progress.begin, ctx.home, RunKey(request.bucket, request.prefix, request.mode), asked=request.start_height
        )
    except (RequestError, ProgressError) as error:
        raise TaskError(str(error), retryable=False) from error
    if start.warning:
        ctx.log.warning(start.warning)
    place = ctx.home / start.progress.key.file_name
    if place in _active:
        raise TaskError(
            f"{TASK}: another task is writing s3://{request.bucket}/{request.prefix} already; stop it or use another prefix",
            retryable=True,
        )
    _active.add(place)
    try:
        if request.mode == COMPARE:
            return await _compare(ctx, request, start)
        return await _export(ctx, request, start)
    finally:
        _active.discard(place)


# --- plain export ---------------------------------------------------------------------------------------------------


async def _export(ctx: TaskContext, request: Request, start: Start) -> dict[str, Any]:
    reader = BulkReader(request.rpc_endpoint, ctx.http)
    outcome = _Outcome(start, request)
    try:
        latest = await reader.head()
    except CometError as error:
        ctx.log.info("RPC unavailable, will retry", extra={"attrs": {"err": str(error)}})
        return outcome.result(f"RPC unavailable: {error}")
    end = min(latest, request.end_height or latest)
    whole = not request.end_height
    if end - start.height + 1 < (pages.EXPORT_PAGE if whole else 1):
        return outcome.result(f"nothing to export: next height {start.height}, latest {latest}")
    shelf = _shelf(ctx, request, start)

    def on_page(published: Published, last: int) -> None:
        first = last - (last - start.height) % pages.EXPORT_PAGE
        attrs = {"start": first, "end": last, "bucket": request.bucket}
        ctx.log.info("exporting result page", extra={"attrs": attrs})
        done = last - start.height + 1
        total = end - start.height + 1
        ctx.progress({"phase": "exporting", "done": done, "total": total, "unit": "blocks", "lastHeight": last})

    try:
        done = await Exporter(reader, shelf, on_page).run(start.height, end, whole_pages=whole)
        await shelf.close(What("end", pages.now(), info={"reason": "caught up"}))
    except PageError as error:
        raise _failed(error.what, error.cause) from error
    except StoreError as error:
        raise store_failure(TASK, error) from error
    attrs = {"pages": done, "last-exported": shelf.progress.last, "latest-available": latest}
    ctx.log.info("export complete", extra={"attrs": attrs})
    return outcome.result("caught up", shelf)


# --- comparison -----------------------------------------------------------------------------------------------------


async def _compare(ctx: TaskContext, request: Request, start: Start) -> dict[str, Any]:
    shelf = _shelf(ctx, request, start)
    watching, listed = await _with_watch_list(request, shelf)
    try:
        comparator = assemble.comparator(
            watching, ctx.http, start.height, start.after_snapshot, partial(NodeRequests, ctx)
        )
    except RequestError as error:
        raise TaskError(str(error), retryable=False) from error
    ctx.log.info(
        "starting block comparison",
        extra={
            "attrs": {"start-height": start.height, "canonical-rpc": request.canonical_rpc, "bucket": request.bucket}
        },
    )
    checked = await _preflight(ctx, request, start, comparator)
    shelf.opening = What(
        "run",
        pages.now(),
        info={"params": request.published(), "startHeight": start.height, "task": ctx.task_id}
        | _origin(ctx)
        | listed
        | checked,
    )
    layer_h = _hash_logs(ctx, request)
    watcher = TaskWatcher(ctx, shelf, request.end_height)
    loop = Loop(
        comparator,
        shelf,
        request.course(start.height),
        comparator.shadow.comet.head,
        comparator.canonical.comet.head,
        watcher,
        ctx.log,
        settle=layer_h.settle if layer_h is not None else None,
        annotate=layer_h.annotate if layer_h is not None else None,
    )
    outcome = _Outcome(start, request, checks=checked.get("preflight", []), loop=loop)
    try:
        reason = await _run_to_its_end(loop, shelf)
        await shelf.close(What("end", pages.now(), counts=shelf.progress.counts, info=_end(reason, shelf, loop)))
    except FlushError as error:
        raise _failed(error.what, error.cause, outcome.result("a page could not be stored", shelf)) from error
    except HashLogError as error:
        raise TaskError(f"{TASK}: {error}", retryable=False) from error
    except StoreError as error:
        raise store_failure(TASK, error) from error
    if reason == OVERTAKEN:
        text = f"{TASK}: {CHECK}: the canonical node was not ahead any more after height {loop.overtaken_at}; {ADVICE}"
        raise TaskError(text, retryable=True, result=outcome.result(reason, shelf))
    return outcome.result(reason, shelf)


async def _with_watch_list(request: Request, shelf: Shelf) -> tuple[Request, dict[str, Any]]:
    """The request with the accounts of its watch list, and what the manifest says of that list. Raises TaskError."""
    if not request.watch_accounts_key:
        return request, {}
    try:
        found = await watchlist.read(shelf.store, request.watch_accounts_key)
    except StoreError as error:
        raise _failed("reading watchAccounts", error) from error
    except WatchListError as error:
        raise TaskError(f"{TASK}: watchAccounts: {error}", retryable=False) from error
    return replace(request, watch_accounts=found.accounts), {"watchAccounts": found.wire()}


def _end(reason: str, shelf: Shelf, loop: Loop) -> dict[str, Any]:
    own = shelf.progress
    found: dict[str, Any] = {"reason": reason, "verdict": overall(own.after_rechecks), "ownResults": loop.own_results}
    if loop.overtaken_at is not None:
        found["overtakenAt"] = loop.overtaken_at
    return found | ({"afterRechecks": own.after_rechecks} if own.rechecks else {})


async def _run_to_its_end(loop: Loop, shelf: Shelf) -> str:
    """Why the loop ended. A run that is stopped says so in its manifest: for a survey that is how it ends. Raises as the loop does."""
    try:
        return await loop.run()
    except asyncio.CancelledError:
        stopped = What("end", pages.now(), counts=shelf.progress.counts, info=_end(STOPPED, shelf, loop))
        with contextlib.suppress(StoreError):
            await carried_through(shelf.close(stopped), STOPPED_BUDGET_S)
        raise


def _hash_logs(ctx: TaskContext, request: Request) -> HashLogLayer | None:
    if request.hash_log == "off":
        return None
    folder = request.hash_log_dir or str(ctx.home / "data" / "hash.log")
    return HashLogLayer.open(request.hash_log, folder, request.canonical_hash_log, request.region, request.migration)


async def _preflight(ctx: TaskContext, request: Request, start: Start, comparator: Comparator) -> dict[str, Any]:
    """Members `preflight` and `nodes` of the manifest's first entry; empty where it is off. Raises TaskError if strict."""
    if request.preflight == "off":
        return {}
    plan = Plan(
        request,
        start.height,
        ctx.settings.chain_id,
        start.warning,
        lambda: _prefix_taken(request, start),
        migration_facts,
    )
    found = await preflight.run(plan, comparator, ctx.http)
    checks = [check.wire() for check in found.checks]
    for check in found.checks:
        if check.state == "failed":
            ctx.log.warning("preflight check failed", extra={"attrs": check.wire()})
    if request.preflight == "strict" and found.stopping:
        text = "; ".join(f"{check.name}: {check.finding}; {check.advice}" for check in found.stopping)
        raise TaskError(f"{TASK}: preflight: {text}", retryable=False, result={"preflight": checks})
    return {"preflight": checks, "nodes": found.nodes}


async def _prefix_taken(request: Request, start: Start) -> bool | None:
    """Whether anything is published under the prefix that is not this run's; None where it cannot be listed."""
    if start.progress.last is not None:
        return False
    store = open_bucket(request.bucket, request.region, role="S3 uploader")
    try:
        async for _ in store.list(request.prefix):
            return True
    except StoreError:
        return None
    return False


# --- shared ---------------------------------------------------------------------------------------------------------


def _shelf(ctx: TaskContext, request: Request, start: Start) -> Shelf:
    store = open_bucket(request.bucket, request.region, role="S3 uploader")
    own = start.progress
    if own.task_id != ctx.task_id or not own.manifest.run:
        own.task_id = ctx.task_id
        own.manifest = chain_of(ctx.task_id, ctx.run)
    writer = Writer(store, own.manifest, request.prefix)

    def on_saved_badly(error: OSError) -> None:
        ctx.log.warning("failed to persist export state", extra={"attrs": {"err": str(error)}})

    info = {"params": request.published(), "startHeight": start.height, **_origin(ctx)}
    opening = What("run", pages.now(), info=info)
    return Shelf(store, ctx.home, own, writer, on_saved_badly, opening)


def _origin(ctx: TaskContext) -> dict[str, Any]:
    """Which chain the evidence is of, and what wrote it."""
    return {"chain": ctx.settings.chain_id, "seiops": version("seiops")}


def _failed(what: str, cause: Exception, result: Mapping[str, Any] | None = None) -> TaskError:
    """The store's refusals keep their class and hint; everything else is the producer's and stays as it is."""
    kept = dict(result) if result is not None else None
    if not isinstance(cause, StoreError):
        return TaskError(f"{what}: {cause}", task=TASK, result=kept)
    inner = store_failure(TASK, cause)
    return TaskError(
        f"{what}: {inner}",
        retryable=inner.retryable,
        hint=inner.hint,
        cause=inner.cause,
        task=TASK,
        operation="S3",
        result=kept,
    )


class _Outcome:
    """The structured result: what was asked, what was done, why it ended (docs/contracts/shadow.md 9.3)."""

    def __init__(
        self,
        start: Start,
        request: Request,
        *,
        checks: list[dict[str, Any]] | None = None,
        loop: Loop | None = None,
    ) -> None:
        self._start = start
        self._request = request
        self._checks = checks
        self._loop = loop

    def result(self, reason: str, shelf: Shelf | None = None) -> dict[str, Any]:
        """JSON-ready; counts cover everything this run has published, restarts included."""
        own = self._start.progress
        found: dict[str, Any] = {"mode": self._request.mode, "startHeight": self._start.height}
        if self._request.end_height:
            found["endHeight"] = self._request.end_height
        found |= {"lastHeight": own.last, "pages": own.pages, "counts": own.counts, "reason": reason}
        if self._loop is not None:
            found["verdict"] = overall(own.after_rechecks)
            found["ownResults"] = self._loop.own_results
            if own.undecided:
                found["undecided"] = len(own.undecided)
            if own.rechecks:
                found |= {"rechecks": own.rechecks, "afterRechecks": own.after_rechecks}
            if self._loop.overtaken_at is not None:
                found["overtakenAt"] = self._loop.overtaken_at
            found["reports"] = self._loop.reports
            if self._loop.report_errors:
                found["reportErrors"] = self._loop.report_errors
        if self._checks is not None:
            found["preflight"] = self._checks
        if shelf is not None:
            found["manifest"] = shelf.writer.head.run
            found["published"] = shelf.published
        return found
