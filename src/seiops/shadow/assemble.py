"""Puts a comparator together from a request: clients of both nodes, tracers, and how deep to look."""

from __future__ import annotations

import aiohttp

from seiops.seid.bulk import BulkReader
from seiops.seid.evm import EvmClient
from seiops.shadow.compare import Comparator
from seiops.shadow.request import Request, RequestError
from seiops.shadow.sides import Side
from seiops.shadow.touched import TraceError, watched
from seiops.shadow.tracing import Tracer

TRACE_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 30.0


def comparator(request: Request, session: aiohttp.ClientSession, first: int, after_snapshot: int = 0) -> Comparator:
    """Raises RequestError for endpoints and accounts that cannot be used; nothing is asked yet."""
    try:
        always = watched(request.watch_accounts)
    except TraceError as error:
        raise RequestError(f"result-export: watchAccounts: {error}") from error
    shadow = Side("shadow", BulkReader(request.rpc_endpoint, session))
    canonical = Side("canonical", BulkReader(request.canonical_rpc, session))
    tracers: tuple[Tracer, ...] = ()
    if request.state:
        shadow.evm = _dial("dialing shadow EVM RPC", request.shadow_evm_rpc, session)
        canonical.evm = _dial("dialing canonical EVM RPC", request.canonical_evm_rpc, session)
        tracers = tuple(_tracers(request, session))
    return Comparator(shadow, canonical, request.depth(first, after_snapshot), tracers, watched=always)


def _dial(what: str, url: str, session: aiohttp.ClientSession, timeout_s: float = READ_TIMEOUT_S) -> EvmClient:
    try:
        return EvmClient(url, session, timeout_s=timeout_s)
    except ValueError as error:
        raise RequestError(f"{what}: {error}") from error


def _tracers(request: Request, session: aiohttp.ClientSession) -> list[Tracer]:
    """The asked-for source first; the union with both sides' own traces finds what only one of them touched."""
    source = request.trace_rpc or request.canonical_evm_rpc
    what = f'building trace key source: dialing EVM RPC "{source}"'
    main = "shadow" if source == request.shadow_evm_rpc else "canonical"
    found = [Tracer(main, _dial(what, source, session, TRACE_TIMEOUT_S))]
    if request.trace_sides == "both":
        for side, url in (("canonical", request.canonical_evm_rpc), ("shadow", request.shadow_evm_rpc)):
            if url != source:
                found.append(Tracer(side, _dial(what, url, session, TRACE_TIMEOUT_S), optional=True))
    return found
