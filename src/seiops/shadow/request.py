"""What a run is asked to do, checked as a whole before anything is read or written (docs/contracts/shadow.md 4.1).

Half-set comparison params once meant a silent plain export or a silent Layer 2 (D-11); here they are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from seiops.seid.comet import DEFAULT_ENDPOINT
from seiops.shadow.compare import Depth
from seiops.shadow.loop import Course
from seiops.shadow.receipts import ReceiptRules

EXPORT = "export"
COMPARE = "compare"
HASH_LOG_MODES = ("off", "first", "only")
PREFLIGHT_MODES = ("off", "warn", "strict")
TRACE_SIDES = ("both", "one")


class RequestError(ValueError):
    """A request that cannot be carried out; names the params and what to do."""


@dataclass(frozen=True, slots=True)
class Request:
    """One submission. Empty texts, zero heights and None mean not given; heights are inclusive.

    `watch_accounts_key` names the object of `bucket` that lists the watched accounts where they are not given themselves.
    """

    bucket: str
    region: str
    prefix: str = ""
    rpc_endpoint: str = DEFAULT_ENDPOINT
    canonical_rpc: str = ""
    migration: bool = False
    survey: bool = False
    shadow_evm_rpc: str = ""
    canonical_evm_rpc: str = ""
    trace_rpc: str = ""
    trace_sides: str = "both"
    start_height: int | None = None
    end_height: int = 0
    compare_gas: bool = False
    ignore_event_index: bool = True
    max_value_bytes: int = 0
    watch_accounts: tuple[str, ...] = ()
    watch_accounts_key: str = ""
    sweep_every: int = 1
    read_set_every: int = 0
    deep_receipts: bool = False
    gap_after_seconds: int = 0
    hash_log: str = "off"
    hash_log_dir: str = ""
    canonical_hash_log: str = ""
    preflight: str = "warn"
    shadow_metrics: str = ""
    canonical_metrics: str = ""
    flatkv_dir: str = ""

    @property
    def mode(self) -> str:
        return COMPARE if self.canonical_rpc else EXPORT

    @property
    def state(self) -> bool:
        """Whether Layer 2 runs."""
        return bool(self.shadow_evm_rpc and self.canonical_evm_rpc)

    @property
    def watches(self) -> bool:
        """Whether accounts are compared that no block has to touch."""
        return bool(self.watch_accounts or self.watch_accounts_key)

    def check(self) -> None:
        """Raises RequestError for params that contradict each other or mean nothing."""
        if not self.canonical_rpc:
            self._check_export()
        elif bool(self.shadow_evm_rpc) != bool(self.canonical_evm_rpc):
            raise RequestError("result-export: shadowEvmRpc and canonicalEvmRpc are needed both, or neither")
        elif self.trace_rpc and not self.state:
            raise RequestError("result-export: traceRpc needs shadowEvmRpc and canonicalEvmRpc")
        elif (self.watches or self.read_set_every) and not self.state:
            name = "watchAccounts" if self.watches else "readSetEvery"
            raise RequestError(f"result-export: {name} needs shadowEvmRpc and canonicalEvmRpc")
        elif self.hash_log != "off" and not self.canonical_hash_log:
            raise RequestError("result-export: hashLog needs canonicalHashLog, the URL of a published slice")
        if self.start_height is not None and self.start_height < 1:
            raise RequestError(f"result-export: startHeight is {self.start_height}; heights begin at 1")
        if self.end_height < 0 or (self.end_height and self.end_height < (self.start_height or 1)):
            raise RequestError(f"result-export: endHeight {self.end_height} is below the first height")
        for name, number, least in (("sweepEvery", self.sweep_every, 1), ("readSetEvery", self.read_set_every, 0)):
            if number < least:
                raise RequestError(f"result-export: {name} is {number}; the least is {least}")
        for name, value, allowed in (
            ("hashLog", self.hash_log, HASH_LOG_MODES),
            ("preflight", self.preflight, PREFLIGHT_MODES),
            ("traceSides", self.trace_sides, TRACE_SIDES),
        ):
            if value not in allowed:
                raise RequestError(f"result-export: {name} is {value!r}; use one of {', '.join(allowed)}")

    def _check_export(self) -> None:
        given = {
            "migrationMode": self.migration,
            "continueOnDivergence": self.survey,
            "shadowEvmRpc": self.shadow_evm_rpc,
            "canonicalEvmRpc": self.canonical_evm_rpc,
            "traceRpc": self.trace_rpc,
            "compareGas": self.compare_gas,
            "watchAccounts": self.watches,
            "readSetEvery": self.read_set_every,
            "deepReceipts": self.deep_receipts,
            "hashLog": self.hash_log != "off",
        }
        names = [name for name, value in given.items() if value]
        if names:
            raise RequestError(
                f"result-export: comparison-mode fields require CanonicalRPC: {', '.join(names)} given without canonicalRpc"
            )

    def depth(self, first: int, after_snapshot: int) -> Depth:
        rules = ReceiptRules(self.ignore_event_index, self.max_value_bytes, self.deep_receipts)
        return Depth(
            migration=self.migration,
            gas=self.compare_gas,
            first=first,
            after_snapshot=after_snapshot,
            read_set_every=self.read_set_every,
            sweep_every=self.sweep_every,
            rules=rules,
        )

    def course(self, start: int) -> Course:
        return Course(
            start=start,
            end=self.end_height,
            survey=self.survey,
            gap_after_s=self.gap_after_seconds,
            direction=self.preflight,
        )

    def published(self) -> dict[str, Any]:
        """The params as the manifest shows them: defaults left out, and credentials inside of URLs."""
        shown = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value not in (one.default, ()):
                shown[one.name] = list(value) if isinstance(value, tuple) else _without_credentials(value)
        return shown


def _without_credentials(value: Any) -> Any:
    if not isinstance(value, str) or "://" not in value or "@" not in value:
        return value
    scheme, _, rest = value.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
