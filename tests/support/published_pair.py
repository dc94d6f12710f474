"""The real comparison over the recorded pair of nodes, one of them tampered with, published as a task publishes it."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from seidev.chain import ChainServer, Recording, Replay, Window
from seiops.objectstore import open_store
from seiops.shadow import assemble, pages, preflight
from seiops.shadow.loop import Course
from seiops.shadow.manifest import What
from seiops.shadow.request import Request
from seiops.shadow.traps import Plan
from support.shadow_nodes import Heard, loop_for, shelf_in
from support.tampered_chain import CHAIN, Tampered

FIRST, LAST = 421, 450


def planted() -> Tampered:
    """Gas at 425, data at 430, descriptive fields at 436, a balance at 440, a storage slot at 444."""
    node = Tampered()
    node.results(425, lambda document: document["txs_results"][0].update(gas_used="21546"))
    node.results(430, lambda document: document["txs_results"][0].update(data="AAAA"))
    node.results(436, lambda document: [receipt.update(log="[]") for receipt in document["txs_results"]])
    node.state("eth_getBalance", 440, "0x1234")
    node.state("eth_getStorageAt", 444, "0x" + "00" * 31 + "63")
    return node


async def publish(home: Path, *, survey: bool = True, tampered: Tampered | None = None) -> str:
    """Runs it and returns the URL of the published folder; without `survey` the run ends at the first divergence."""
    window = Window(FIRST, LAST + 1)
    node = (tampered or planted()).recording
    canonical = Recording.load(CHAIN / "rpc-memiavl.jsonl.zst")
    async with (
        ChainServer(Replay(node, window)) as ours,
        ChainServer(Replay(canonical, window)) as theirs,
        aiohttp.ClientSession() as http,
    ):
        request = Request("b", "r", rpc_endpoint=ours.comet_url, canonical_rpc=theirs.comet_url, migration=True, survey=survey,
                          shadow_evm_rpc=ours.evm_url, canonical_evm_rpc=theirs.evm_url, start_height=FIRST, end_height=LAST)  # fmt: skip
        comparator = assemble.comparator(request, http, FIRST)
        found = await preflight.run(Plan(request, FIRST, "seiops-local-1"), comparator, http)
        shelf = shelf_in(home, open_store(f"file://{home}"))
        checks = {"preflight": [check.wire() for check in found.checks], "nodes": found.nodes}
        told = {"params": request.published(), "startHeight": FIRST, **checks}
        shelf.opening = What("run", pages.now(), info=told)

        class _Head:
            latest = LAST + 1

        reason = await loop_for(comparator, shelf, _Head(), Heard(), Course(FIRST, end=LAST, survey=survey)).run()  # type: ignore[arg-type]
        await shelf.close(What("end", pages.now(), counts=shelf.progress.counts, info={"reason": reason}))
    return f"{home}/run"
