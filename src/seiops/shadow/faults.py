"""Why a read failed, in the few words that records, verdicts and metrics share (docs/contracts/shadow.md 9.1)."""

from __future__ import annotations

from seiops.seid.bulk import HeightNotReadyError, HeightPrunedError
from seiops.seid.evm import EvmError

_BUSY = "concurrency limit"


def is_busy(error: object) -> bool:
    """A tracer that runs as many traces as it may."""
    return isinstance(error, EvmError) and _BUSY in str(error)


def why(error: Exception) -> str:
    """`not-ready`, `pruned`, `trace-limit`, `timeout`, or `rpc` for everything else."""
    text = str(error)
    if isinstance(error, HeightNotReadyError) or (isinstance(error, EvmError) and error.not_ready):
        return "not-ready"
    if isinstance(error, HeightPrunedError) or "pruned" in text or "max lookback" in text:
        return "pruned"
    if is_busy(error) or "execution timeout" in text:
        return "trace-limit"
    return "timeout" if "no answer within" in text else "rpc"
