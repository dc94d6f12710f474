"""The task types this sidecar offers, each in a module of its own that is imported when its first task arrives.

Importing every handler at start-up would cost more memory than the rest of the process (docs/contracts/sidecar.md 5).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from seiops.sidecar.task import Handler


@dataclass(frozen=True, slots=True)
class TaskType:
    """Where the handler of a wire type lives, and what may not run beside it.

    `heavy` types share the bound on concurrent heavy work. Types of one `exclusive` group run one at a time, in the
    order they were submitted, so that two writers of the same files never interleave.
    """

    module: str
    heavy: bool = False
    exclusive: str | None = None

    def handler(self) -> Handler:
        """The module's `run`. Raises ImportError when the module cannot be loaded."""
        run: Handler = importlib.import_module(f"{__name__}.{self.module}").run
        return run

    def available(self) -> bool:
        return find_spec(f"{__name__}.{self.module}") is not None


REGISTRY: dict[str, TaskType] = {
    "await-condition": TaskType("await_condition"),
    "config-apply": TaskType("config_apply", exclusive="config"),
    "config-patch": TaskType("config_patch", exclusive="config"),
    "config-reload": TaskType("config_reload", exclusive="config"),
    "config-validate": TaskType("config_validate"),
    "configure-genesis": TaskType("configure_genesis", exclusive="genesis"),
    "configure-state-sync": TaskType("configure_state_sync", exclusive="config"),
    "evm-logical-digest": TaskType("evm_logical_digest", heavy=True),
    "generate-identity": TaskType("generate_identity", exclusive="identity"),
    "hash-log-export": TaskType("hash_log_export"),
    "mark-not-ready": TaskType("mark_not_ready"),
    "mark-ready": TaskType("mark_ready"),
    "reset-data": TaskType("reset_data", exclusive="data"),
    "result-export": TaskType("result_export"),
    "restart-seid": TaskType("restart_seid"),
    "set-genesis-peers": TaskType("set_genesis_peers", exclusive="config"),
    "snapshot-restore": TaskType("snapshot_restore", heavy=True, exclusive="data"),
    "snapshot-upload": TaskType("snapshot_upload"),
    "snapshot-upload-once": TaskType("snapshot_upload_once"),
    "stop-seid": TaskType("stop_seid"),
}
"""Wire type to module. The wire strings are a one-way contract: never rename one."""


@cache
def find(task_type: str) -> TaskType | None:
    """The entry of a type this build can run, or None."""
    entry = REGISTRY.get(task_type)
    return entry if entry is not None and entry.available() else None
