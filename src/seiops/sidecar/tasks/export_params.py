"""The wire params of `result-export` (docs/contracts/shadow.md 4.1), those of upstream and ours."""

from __future__ import annotations

from seiops.seid.comet import DEFAULT_ENDPOINT
from seiops.shadow.pages import normal_prefix
from seiops.shadow.request import Request
from seiops.sidecar.task import Decoder, Params, TaskError


def parse(params: Params) -> Request:
    """Raises TaskError in the order and words of docs/contracts/shadow.md 4.1."""
    read = Decoder(params)
    start = read.integer("startHeight")
    accounts, accounts_key = _watched(params)
    request = Request(
        bucket=read.text("bucket"),
        region=read.text("region"),
        prefix=normal_prefix(read.text("prefix")),
        rpc_endpoint=read.text("rpcEndpoint") or DEFAULT_ENDPOINT,
        canonical_rpc=read.text("canonicalRpc"),
        migration=read.flag("migrationMode"),
        survey=read.flag("continueOnDivergence"),
        shadow_evm_rpc=read.text("shadowEvmRpc"),
        canonical_evm_rpc=read.text("canonicalEvmRpc"),
        trace_rpc=read.text("traceRpc"),
        trace_sides=read.text("traceSides") or "both",
        start_height=start or None,
        end_height=read.integer("endHeight"),
        compare_gas=read.flag("compareGas"),
        ignore_event_index=read.flag("ignoreEventIndex", True),
        max_value_bytes=read.integer("maxValueBytes"),
        watch_accounts=accounts,
        watch_accounts_key=accounts_key,
        sweep_every=read.integer("sweepEvery") or 1,
        read_set_every=read.integer("readSetEvery"),
        deep_receipts=read.flag("deepReceipts"),
        gap_after_seconds=read.integer("gapAfterSeconds"),
        hash_log=read.text("hashLog") or "off",
        hash_log_dir=read.text("hashLogDir"),
        canonical_hash_log=read.text("canonicalHashLog"),
        preflight=read.text("preflight") or "warn",
        shadow_metrics=read.text("shadowMetrics"),
        canonical_metrics=read.text("canonicalMetrics"),
        flatkv_dir=read.text("flatkvDir"),
    )
    if not request.bucket:
        raise TaskError("result-export: missing required param 'bucket'")
    if not request.region:
        raise TaskError("result-export: missing required param 'region'")
    return request


def _watched(params: Params) -> tuple[tuple[str, ...], str]:
    """`watchAccounts` is a list of addresses, or a text: the key of the object that holds them."""
    read = Decoder(params)
    if read.is_text("watchAccounts"):
        return (), read.text("watchAccounts")
    return tuple(read.texts("watchAccounts")), ""
