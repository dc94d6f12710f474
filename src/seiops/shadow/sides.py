"""The two nodes of a comparison and how patiently they are read.

One transient failure is no verdict (docs/contracts/shadow.md 3.1, D-8): what failed is read again, alone, a few times
with growing pauses, before anything is called indeterminate. Lasting refusals (pruned, unknown method) are not repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from seiops.seid.bulk import BulkReader, HeightNotReadyError, HeightPrunedError, Want
from seiops.seid.comet import CometError
from seiops.seid.evm import Call, EvmClient, EvmError

Ask = TypeVar("Ask")
Fault = TypeVar("Fault", CometError, EvmError)


@dataclass(frozen=True, slots=True)
class Patience:
    """Pauses in seconds between the attempts at one read; their number bounds the attempts."""

    pauses: tuple[float, ...] = (0.25, 1.0)

    async def until_read(
        self, asks: Sequence[Ask], read: Callable[[Sequence[Ask]], Awaitable[list[bytes | Fault]]]
    ) -> list[bytes | Fault]:
        """The answers in order; those that failed and may succeed are read again, alone, after each pause."""
        found = await read(asks)
        for pause in self.pauses:
            failed = [index for index, answer in enumerate(found) if isinstance(answer, Exception) and _again(answer)]
            if not failed:
                break
            await asyncio.sleep(pause)
            for index, answer in zip(failed, await read([asks[index] for index in failed]), strict=True):
                found[index] = answer
        return found


def _again(error: Exception) -> bool:
    if isinstance(error, EvmError):
        return error.retryable
    return not isinstance(error, HeightNotReadyError | HeightPrunedError)


@dataclass(slots=True)
class Side:
    """One node: `name` is `shadow` or `canonical`. `evm` is None where state is not compared."""

    name: str
    comet: BulkReader
    evm: EvmClient | None = None


async def read_blocks(side: Side, wants: Sequence[Want], patience: Patience) -> list[bytes | CometError]:
    """Bare results in order, with an error in the place of each read that kept failing."""
    return await patience.until_read(wants, side.comet.read)


async def read_state(client: EvmClient, calls: Sequence[Call], patience: Patience) -> list[bytes | EvmError]:
    """Raw results in order, with an error in the place of each call that kept failing."""
    return await patience.until_read(calls, client.batch)
