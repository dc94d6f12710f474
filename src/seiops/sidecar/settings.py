"""The sidecar's environment, read and checked once, before anything is opened or started (docs/contracts/sidecar.md 1.2).

A typo must stop the process while it has done nothing yet: no store opened, no stale task run.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from seiops.seid.durations import parse_duration
from seiops.seid.quoting import quoted

DEFAULT_HOME = "/sei"
DEFAULT_PORT = "7777"
REQUIRED = (
    "SEI_CHAIN_ID",
    "SEI_GENESIS_BUCKET",
    "SEI_GENESIS_REGION",
    "SEI_SNAPSHOT_BUCKET",
    "SEI_SNAPSHOT_REGION",
)
KEYRING_BACKENDS = ("test", "file", "os")
UNAUTHENTICATED = ""
TRUSTED_HEADER = "trusted-header"


class SettingsError(Exception):
    """The environment cannot be used; the text is what the operator sees."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The validated environment. Durations in seconds, sizes in bytes; an empty `authn_mode` is unauthenticated.

    bind_host: None selects by auth mode (all interfaces, or 127.0.0.1 in trusted-header mode).
    rpc_url, evm_rpc_url: the co-located seid, without a trailing slash.
    """

    home: Path
    port: int
    chain_id: str
    genesis_bucket: str
    genesis_region: str
    snapshot_bucket: str
    snapshot_region: str
    pod_name: str
    upload_interval: float
    upload_timeout: float
    authn_mode: str
    keyring_backend: str
    keyring_dir: Path
    keyring_passphrase: str = field(default="", repr=False)
    bind_host: str | None = None
    rpc_url: str = "http://localhost:26657"
    evm_rpc_url: str = "http://localhost:8545"
    require_distinct_witnesses: bool = False
    digest_engine: str = ""
    config_profile: str = ""
    seidb_allow: tuple[str, ...] = ()
    max_body_bytes: int = 8 * 1024 * 1024
    max_running_tasks: int = 1000
    max_heavy_tasks: int = 1
    keep_tasks: int = 20_000
    keep_tasks_seconds: float = 30 * 86_400

    @property
    def bind_label(self) -> str:
        """The bind address as the start line shows it."""
        if self.bind_host is not None:
            return f"{self.bind_host}:{self.port}"
        return f"127.0.0.1:{self.port}" if self.authn_mode == TRUSTED_HEADER else f":{self.port}"


def load(environment: MutableMapping[str, str], *, home: str | None, port: str | None) -> Settings:
    """Reads the environment; flags win over variables. Removes the keyring passphrase from `environment` on every path.

    Raises SettingsError for the first unusable value, in the documented order.
    """
    passphrase = environment.pop("SEI_KEYRING_PASSPHRASE", "")
    for name in REQUIRED:
        if not environment.get(name):
            raise SettingsError(f"required environment variable {name} is not set")
    interval = _duration(environment, "SEI_SNAPSHOT_UPLOAD_INTERVAL", default_hours=168)
    timeout = _duration(environment, "SEI_SNAPSHOT_UPLOAD_TIMEOUT", default_hours=2)
    home_dir = _home(home if home is not None else environment.get("SEI_HOME"))
    backend = _keyring_backend(environment, passphrase)
    return Settings(
        home=home_dir,
        port=_port(port or environment.get("SEI_SIDECAR_PORT") or DEFAULT_PORT),
        chain_id=environment["SEI_CHAIN_ID"],
        genesis_bucket=environment["SEI_GENESIS_BUCKET"],
        genesis_region=environment["SEI_GENESIS_REGION"],
        snapshot_bucket=environment["SEI_SNAPSHOT_BUCKET"],
        snapshot_region=environment["SEI_SNAPSHOT_REGION"],
        pod_name=environment.get("HOSTNAME") or socket.gethostname() or "unknown",
        upload_interval=interval,
        upload_timeout=timeout,
        authn_mode=_authn_mode(environment.get("SEI_SIDECAR_AUTHN_MODE", "")),
        keyring_backend=backend,
        keyring_dir=Path(environment.get("SEI_KEYRING_DIR") or home_dir / "keyring-file"),
        keyring_passphrase=passphrase,
        bind_host=environment.get("SEI_SIDECAR_BIND_HOST") or None,
        rpc_url=(environment.get("SEI_SIDECAR_RPC_URL") or "http://localhost:26657").rstrip("/"),
        evm_rpc_url=(environment.get("SEI_SIDECAR_EVM_RPC_URL") or "http://localhost:8545").rstrip("/"),
        require_distinct_witnesses=_flag(environment, "SEI_SIDECAR_REQUIRE_DISTINCT_WITNESSES"),
        digest_engine=_choice(environment, "SEI_SIDECAR_DIGEST_ENGINE", ("", "seidb", "native", "both")),
        config_profile=_config_profile(environment.get("SEI_SIDECAR_CONFIG_PROFILE", "")),
        seidb_allow=tuple(path for path in environment.get("SEI_SIDECAR_SEIDB_ALLOW", "").split(":") if path),
        max_body_bytes=_count(environment, "SEI_SIDECAR_MAX_BODY_BYTES", 8 * 1024 * 1024),
        max_running_tasks=_count(environment, "SEI_SIDECAR_MAX_RUNNING_TASKS", 1000),
        max_heavy_tasks=_count(environment, "SEI_SIDECAR_MAX_HEAVY_TASKS", 1),
        keep_tasks=_count(environment, "SEI_SIDECAR_KEEP_TASKS", 20_000),
        keep_tasks_seconds=_duration(environment, "SEI_SIDECAR_KEEP_TASKS_FOR", default_hours=30 * 24),
    )


def _home(raw: str | None) -> Path:
    text = (raw or "").strip()
    return Path(os.path.normpath(text)).absolute() if text else Path(DEFAULT_HOME)


def _port(raw: str) -> int:
    if ":" in raw:
        raise SettingsError(f"server error: listen tcp: address :{raw}: too many colons in address")
    if not re.fullmatch(r"[+-]?[0-9]+", raw):
        raise SettingsError(f"server error: listen tcp: lookup tcp/{raw}: unknown port")
    digits = raw.lstrip("+-").lstrip("0")
    if len(digits) > 5 or int(digits or "0") > 65535 or (digits and raw.startswith("-")):
        raise SettingsError(f"server error: listen tcp: address {raw}: invalid port")
    return int(digits or "0")


def _duration(environment: Mapping[str, str], name: str, *, default_hours: int) -> float:
    raw = environment.get(name, "")
    if not raw:
        return float(default_hours * 3600)
    try:
        nanoseconds = parse_duration(raw)
    except ValueError as error:
        raise SettingsError(f"invalid {name} {quoted(raw)}: {error}") from None
    return nanoseconds / 1e9 if nanoseconds > 0 else float(default_hours * 3600)


def _keyring_backend(environment: Mapping[str, str], passphrase: str) -> str:
    backend = environment.get("SEI_KEYRING_BACKEND", "")
    if backend and backend not in KEYRING_BACKENDS:
        raise SettingsError(
            f"unsupported SEI_KEYRING_BACKEND {quoted(backend)} (allowed: {'|'.join(KEYRING_BACKENDS)})"
        )
    if backend == "file" and not passphrase:
        raise SettingsError("SEI_KEYRING_PASSPHRASE required when SEI_KEYRING_BACKEND=file")
    return backend


def _authn_mode(raw: str) -> str:
    mode = raw.strip().lower()
    if mode in (UNAUTHENTICATED, "unauthenticated"):
        return UNAUTHENTICATED
    if mode == TRUSTED_HEADER:
        return TRUSTED_HEADER
    raise SettingsError(
        f'SEI_SIDECAR_AUTHN_MODE={quoted(mode)} is not recognized (allowed: "", "unauthenticated", "trusted-header")'
    )


def _config_profile(raw: str) -> str:
    """A release level of the configuration library; empty takes the default one."""
    if raw:
        from seiops.seid.schema import PROFILES

        if raw not in PROFILES:
            raise SettingsError(f"invalid SEI_SIDECAR_CONFIG_PROFILE {quoted(raw)}: use one of {', '.join(PROFILES)}")
    return raw


def _flag(environment: Mapping[str, str], name: str) -> bool:
    raw = environment.get(name, "").strip().lower()
    if raw in ("", "0", "false", "no", "off"):
        return False
    if raw in ("1", "true", "yes", "on"):
        return True
    raise SettingsError(f"invalid {name} {quoted(raw)}: use true or false")


def _choice(environment: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    raw = environment.get(name, "")
    if raw not in allowed:
        raise SettingsError(
            f"invalid {name} {quoted(raw)}: use one of {', '.join(value for value in allowed if value)}"
        )
    return raw


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    raw = environment.get(name, "")
    if not raw:
        return default
    if not (raw.isascii() and raw.isdigit() and int(raw) > 0):
        raise SettingsError(f"invalid {name} {quoted(raw)}: use a whole number above zero")
    return int(raw)
