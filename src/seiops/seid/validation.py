"""The rules a configuration must satisfy, in the order findings are reported.

Rules V01 to V49 are those of docs/contracts/seid-config.json (`validation_rules`). What follows them comes from running
nodes: settings that seid accepts and then ignores (docs/contracts/seid-config.md 17a).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from seiops.seid.quoting import quoted
from seiops.seid.schema import CURRENT_VERSION, MODES, Schema, Value

ERROR = "ERROR"
WARNING = "WARNING"

PRUNING = ("default", "nothing", "everything", "custom")
WRITE_MODES = (
    "memiavl_only",
    "migrate_evm",
    "evm_migrated",
    "migrate_all_but_bank",
    "all_migrated_but_bank",
    "migrate_bank",
    "flatkv_only",
    "test_only_dual_write",
    "cosmos_only",
    "dual_write",
    "split_write",
)
READ_MODES = ("cosmos_only", "evm_first", "split_read")
LOG_FORMATS = ("plain", "text", "json")

WRITE_MODE = "storage.state_commit.write_mode"
AUTO_WRITE_MODE = "storage.state_commit.write_mode_enable_auto"

_RPC_LIMITS = (
    "max_open_connections",
    "max_subscription_clients",
    "max_subscriptions_per_client",
    "timeout_broadcast_tx_commit",
    "max_body_bytes",
    "max_header_bytes",
)
_P2P_LIMITS = ("flush_throttle_timeout", "max_packet_msg_payload_size", "send_rate", "recv_rate")
_CONSENSUS_LIMITS = (
    "unsafe_propose_timeout_override",
    "unsafe_commit_timeout_override",
    "create_empty_blocks_interval",
    "peer_gossip_sleep_duration",
    "double_sign_check_height",
)
_MEMPOOL_LIMITS = ("size", "max_txs_bytes", "cache_size", "max_tx_bytes", "ttl_duration", "ttl_num_blocks")


@dataclass(frozen=True, slots=True)
class Finding:
    severity: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"[{self.severity}] {self.field}: {self.message}"

    def wire(self) -> dict[str, str]:
        return {"severity": self.severity, "field": self.field, "message": self.message}


def validate(schema: Schema, values: dict[str, Value], ceiling: int = CURRENT_VERSION) -> list[Finding]:
    """All findings, in rule order; `ceiling` is the highest schema version allowed."""
    known: dict[str, Any] = values
    rules = (
        _identity(known, ceiling),
        _network(schema, known),
        _limits("consensus", _CONSENSUS_LIMITS, known),
        _mempool(known),
        _state_sync(known),
        _storage(known),
        _evm(known),
        _rest(known),
        _effective(schema, known),
    )
    return [finding for rule in rules for finding in rule]


def errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == ERROR]


def _error(field: str, message: str) -> Finding:
    return Finding(ERROR, field, message)


def _limits(section: str, names: tuple[str, ...], values: dict[str, Any]) -> Iterator[Finding]:
    for name in names:
        if values[f"{section}.{name}"] < 0:
            yield _error(f"{section}.{name}", "must be >= 0")


def unknown_mode(mode: str) -> str:
    return f"unknown mode {quoted(mode)}; valid modes: {', '.join(MODES)}"


def _identity(values: dict[str, Any], ceiling: int) -> Iterator[Finding]:
    """V01 to V06."""
    mode, version = values["mode"], values["version"]
    if not mode:
        yield _error("mode", "mode must be set")
    elif mode not in MODES:
        yield _error("mode", unknown_mode(mode))
    if version < 1:
        yield _error("version", "config version must be >= 1")
    elif version > ceiling:
        yield _error(
            "version",
            f"config version {version} is newer than supported version {ceiling}; upgrade or run `seictl config migrate`",
        )
    if not values["chain.min_gas_prices"]:
        yield _error("chain.min_gas_prices", "min_gas_prices must be set")
    if values["chain.concurrency_workers"] < -1:
        yield _error("chain.concurrency_workers", "concurrency_workers must be >= -1")


def _network(schema: Schema, values: dict[str, Any]) -> Iterator[Finding]:
    """V07 to V16, and the rule of v0.0.24 that a seed gossips addresses."""
    yield from _limits("network.rpc", _RPC_LIMITS, values)
    yield from _limits("network.p2p", _P2P_LIMITS, values)
    if schema.profile != "v0.0.21" and values["mode"] == "seed" and not values["network.p2p.pex"]:
        yield _error("network.p2p.pex", "pex must be on for a seed: exchanging peers is all a seed does")


def _mempool(values: dict[str, Any]) -> Iterator[Finding]:
    """V22 to V28. Not a number passes, as upstream."""
    yield from _limits("mempool", _MEMPOOL_LIMITS, values)
    threshold = values["mempool.drop_utilisation_threshold"]
    if threshold < 0 or threshold > 1.0:
        yield _error("mempool.drop_utilisation_threshold", "must be between 0.0 and 1.0")


def _state_sync(values: dict[str, Any]) -> Iterator[Finding]:
    """V29 to V35, only when state sync is on."""
    if not values["state_sync.enable"]:
        return
    if not values["state_sync.use_p2p"] and len(values["state_sync.rpc_servers"] or []) < 2:
        yield _error("state_sync.rpc_servers", "at least two RPC servers are required when not using P2P")
    for name in ("trust_period", "trust_height"):
        if values[f"state_sync.{name}"] <= 0:
            yield _error(f"state_sync.{name}", "must be > 0 when state sync is enabled")
    trust_hash = values["state_sync.trust_hash"]
    if not trust_hash:
        yield _error("state_sync.trust_hash", "must be set when state sync is enabled")
    elif reason := not_hex(trust_hash):
        yield _error("state_sync.trust_hash", f"invalid hex: {reason}")
    if values["state_sync.fetchers"] <= 0:
        yield _error("state_sync.fetchers", "must be > 0")
    if values["state_sync.backfill_blocks"] < 0:
        yield _error("state_sync.backfill_blocks", "must be >= 0")


def not_hex(text: str) -> str | None:
    """Why a text is not hexadecimal, or None."""
    bad = re.search(r"[^0-9a-fA-F]", text)
    if bad:
        return f"encoding/hex: invalid byte: U+{ord(bad.group()):04X} {_rune(bad.group())}"
    return "encoding/hex: odd length hex string" if len(text) % 2 else None


def _rune(char: str) -> str:
    return f"'{char}'" if char.isprintable() else f"'\\x{ord(char):02x}'"


def _storage(values: dict[str, Any]) -> Iterator[Finding]:
    """V36 to V42."""
    pruning = values["storage.pruning"]
    if pruning not in PRUNING:
        yield _error("storage.pruning", f"unknown pruning strategy {quoted(pruning)}; valid: {', '.join(PRUNING)}")
    yield from _one_of(WRITE_MODE, WRITE_MODES, values)
    if values[WRITE_MODE] == "test_only_dual_write":
        yield Finding(WARNING, WRITE_MODE, "test_only_dual_write must not be used in production")
    yield from _one_of("storage.state_commit.read_mode", READ_MODES, values)
    yield from _one_of("storage.state_store.write_mode", WRITE_MODES, values)
    yield from _one_of("storage.state_store.read_mode", READ_MODES, values)
    backend = values["storage.state_store.backend"]
    if backend not in ("", "pebbledb", "rocksdb"):
        message = f"unusual backend {quoted(backend)}; expected pebbledb or rocksdb"
        yield Finding(WARNING, "storage.state_store.backend", message)


def _one_of(key: str, allowed: tuple[str, ...], values: dict[str, Any]) -> Iterator[Finding]:
    value = values[key]
    if value and value not in allowed:
        yield _error(key, f"invalid {key.rpartition('.')[2]}: {quoted(value)}")


def _evm(values: dict[str, Any]) -> Iterator[Finding]:
    """V43 to V45."""
    for server, name in (("http", "HTTP"), ("ws", "WS")):
        if values[f"evm.{server}_enabled"] and values[f"evm.{server}_port"] <= 0:
            yield _error(f"evm.{server}_port", f"must be > 0 when {name} is enabled")
    if values["mode"] == "validator" and (values["evm.http_enabled"] or values["evm.ws_enabled"]):
        message = "EVM RPC is enabled on a validator node; this is unusual and may increase attack surface"
        yield Finding(WARNING, "evm", message)


def _rest(values: dict[str, Any]) -> Iterator[Finding]:
    """V46 to V49."""
    yield from _limits("metrics", ("max_open_connections",), values)
    log_format = values["logging.format"]
    if not log_format:
        yield _error("logging.format", "format must be set (plain, text, or json)")
    elif log_format not in LOG_FORMATS:
        yield _error("logging.format", f"unknown format {quoted(log_format)}; valid: plain, text, json")
    if values["storage.pruning"] == "everything" and values["storage.snapshot_interval"] > 0:
        yield _error("storage", "cannot enable snapshots with 'everything' pruning strategy")


def _effective(schema: Schema, values: dict[str, Any]) -> Iterator[Finding]:
    """A write mode that seid would silently ignore: the automatic mode wins unless it is switched off."""
    if not schema.pins_write_mode or not values[WRITE_MODE]:
        return
    mode, automatic = values[WRITE_MODE], values[AUTO_WRITE_MODE]
    if automatic is True:
        yield _error(
            WRITE_MODE,
            f"write_mode {quoted(mode)} has no effect while write_mode_enable_auto is true; "
            "set it to false or leave write_mode blank",
        )
    elif automatic is None:
        yield Finding(
            WARNING,
            WRITE_MODE,
            f"write_mode {quoted(mode)} has no effect: seid runs in automatic mode unless "
            "sc-write-mode-enable-auto is false",
        )
