"""A run of 100,000 blocks with planted divergences of every kind: what the picture in docs/reports.md shows, and a large test.

PYTHONPATH=tools:tests python -m support.planted_run DIRECTORY
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seiops.objectstore import open_store
from seiops.shadow.addresses import checksummed
from support.evidence import clean, gap, put_run, receipts_differ, state_differs, undecided

FIRST, BLOCKS = 79_200_001, 100_000
HOLE = range(FIRST + 20_000, FIRST + 20_500)
_WEIGHTS = (9, 5, 3, 2, 1, 1, 1, 1, 1)
_CHECKS = [
    {"check": "same-chain", "traps": "T1", "state": "held", "finding": "networks pacific-1 and pacific-1, expected pacific-1"},
    {"check": "two-engines", "traps": "T2 T23", "state": "not checked", "finding": "shadowMetrics and canonicalMetrics were not given",
     "advice": "give both metrics URLs"},
    {"check": "executors", "traps": "T27", "state": "failed", "finding": "block 79200400: one side has events in EVM receipts",
     "advice": "set giga_executor.enabled alike on both nodes"},
]  # fmt: skip


def line_of(draw: random.Random) -> Callable[[int], dict[str, Any]]:
    contracts = [checksummed(draw.randbytes(20)) for _ in _WEIGHTS]

    def word() -> str:
        return f"0x{draw.getrandbits(70):064x}"

    def broken(height: int) -> dict[str, Any]:
        address = draw.choices(contracts, _WEIGHTS)[0]
        keys = [
            ("storage", address, f"0x{draw.getrandbits(8):064x}", word(), word()) for _ in range(draw.randrange(1, 4))
        ]
        if draw.random() < 0.2:
            keys.append(("balance", address, "", str(10**18 + draw.randrange(999)), str(10**18)))
        return state_differs(height, *keys)

    def line(height: int) -> dict[str, Any]:
        place, chance = height - FIRST, draw.random()
        if 41_000 <= place < 41_260 and chance < 0.7:
            text = f"debug_traceBlockByNumber at height {height}: block number {height} is beyond max lookback of 10000"
            return undecided(height, "pruned", f"resolving touched accounts at height {height}: {text}")
        if 62_300 <= place < 66_000 and chance < 0.16:
            if chance < 0.10:
                return broken(height)
            more = [("data", "AAAA", "AAAB")] if chance < 0.12 else []
            return receipts_differ(height, ("gasUsed", str(draw.randrange(21_000, 90_000)), "21000"), *more)
        if 80_000 <= place < 80_800 and chance < 0.4:
            return receipts_differ(
                height, ("log", "[]", '[{"events":[]}]'), ("events", [], [{"type": "tx"}]), consensus=False
            )
        if 90_000 <= place < 90_007:
            return gap(height, f"querying shadow block at height {height}: no answer within 10 s")
        if chance < 0.0003:
            url = f"http://localhost:26657/block_results?height={height}"
            return undecided(
                height, "rpc", f'querying shadow block_results at height {height}: Get "{url}": connection refused'
            )
        return clean(height, layer1={"totalTxs": draw.randrange(90), "txCountMatch": True},
                     layer2={"accountsChecked": draw.randrange(9), "keysChecked": draw.randrange(120)})  # fmt: skip

    return line


async def publish(directory: Path) -> None:
    heights = [height for height in range(FIRST, FIRST + BLOCKS) if height not in HOLE]
    params = {"start_height": FIRST, "end_height": FIRST + BLOCKS - 1, "shadow_evm_rpc": "http://localhost:8545",
              "canonical_evm_rpc": "http://ahead:8545"}  # fmt: skip
    store = open_store(f"file://{directory}")
    await put_run(
        store,
        heights,
        line_of(random.Random(11)),
        run="4f6c1c1e-1b0a-4f53-9f5e-0a9f5a2f7f11",
        params=params,
        preflight=_CHECKS,
    )


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    asyncio.run(publish(directory))


if __name__ == "__main__":
    main()
