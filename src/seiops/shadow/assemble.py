"""Puts a comparator together from a request: clients of both nodes, tracers, and how deep to look."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import aiohttp

from seiops.seid.bulk import BulkReader
from seiops.seid.evm import EvmClient
from seiops.seid.observing import Nobody, Observer
from seiops.shadow.compare import Comparator
from seiops.shadow.request import Request, RequestError
from seiops.shadow.sides import Side
from seiops.shadow.touched import TraceError, watched
from seiops.shadow.tracing import Tracer

TRACE_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 30.0


Observers = Callable[[str], Observer]
"""Who hears of the requests to a side: `shadow`, `canonical`, or `trace` for a tracer that is neither."""


def _nobody(side: str) -> Observer:
    return Nobody()


def comparator(
    request: Request,
    session: aiohttp.ClientSession,
    first: int,
    after_snapshot: int = 0,
    observers: Observers = _nobody,
) -> Comparator:
    """Raises RequestError for endpoints and accounts that cannot be used; nothing is asked yet."""
    try:
        always = watched(request.watch_accounts)
    except TraceError as error:
        raise RequestError(f"result-export: watchAccounts: {error}") from error
    shadow = Side("shadow", BulkReader(request.rpc_endpoint, session, observer=observers("shadow")))
    canonical = Side("canonical", BulkReader(request.canonical_rpc, session, observer=observers("canonical")))
    tracers: tuple[Tracer, ...] = ()
    if request.state:
        dial = partial(_dial, session)
        shadow.evm = dial("dialing shadow EVM RPC", request.shadow_evm_rpc, observers("shadow"))
        canonical.evm = dial("dialing canonical EVM RPC", request.canonical_evm_rpc, observers("canonical"))
        tracers = tuple(_tracers(request, session, observers))
    return Comparator(shadow, canonical, request.depth(first, after_snapshot), tracers, watched=always)


def _dial(
    session: aiohttp.ClientSession, what: str, url: str, observer: Observer, timeout_s: float = READ_TIMEOUT_S
) -> EvmClient:
    try:
        return EvmClient(url, session, timeout_s=timeout_s, observer=observer)
    except ValueError as error:
        raise RequestError(f"{what}: {error}") from error


def _tracers(request: Request, session: aiohttp.ClientSession, observers: Observers) -> list[Tracer]:
    """The asked-for source first; the union with both sides' own traces finds what only one of them touched."""
    source = request.trace_rpc or request.canonical_evm_rpc
    what = f'building trace key source: dialing EVM RPC "{source}"'
    main = "shadow" if source == request.shadow_evm_rpc else "canonical"
    heard = main if source in (request.shadow_evm_rpc, request.canonical_evm_rpc) else "trace"
    found = [Tracer(main, _dial(session, what, source, observers(heard), TRACE_TIMEOUT_S))]
    if request.trace_sides == "both":
        for side, url in (("canonical", request.canonical_evm_rpc), ("shadow", request.shadow_evm_rpc)):
            if url != source:
                client = _dial(session, what, url, observers(side), TRACE_TIMEOUT_S)
                found.append(Tracer(side, client, optional=True))
    return found
