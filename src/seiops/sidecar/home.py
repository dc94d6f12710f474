"""Makes a home directory usable before the first task: its folders and a configuration file to patch.

Only what is missing is written (docs/contracts/sidecar.md 1.4).
"""

from __future__ import annotations

import os
from pathlib import Path

_BOOTSTRAP_CONFIG = """\
[base]
mode = "full"

[p2p]
persistent-peers = ""
laddr = "tcp://0.0.0.0:26656"

[statesync]
enable = false
trust-height = 0
trust-hash = ""
rpc-servers = ""

[consensus]
timeout-commit = "5s"

[mempool]
size = 5000
"""


def prepare(home: Path) -> None:
    """Creates `config/`, `data/` and a default `config/config.toml`. Raises OSError that names the path."""
    for name in ("config", "data"):
        (home / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    config = home / "config" / "config.toml"
    if config.exists():
        return
    temporary = config.with_name(f".tmp-{os.getpid()}")
    temporary.write_text(_BOOTSTRAP_CONFIG)
    temporary.chmod(0o644)
    temporary.replace(config)
