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
  laddr = "tcp://0.0.0.0:26656"
  persistent-peers = ""

[statesync]
  enable = false
  rpc-servers = ""
  trust-hash = ""
  trust-height = 0

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
