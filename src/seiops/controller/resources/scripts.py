"""Shell scripts of the node's containers.

They run in images we do not build, so they use what those have: a POSIX shell for seid-init, bash with its network
redirection for the rest, and no curl. The sentences they print are what operators grep for
(docs/contracts/controller-behaviour.md 5.3, 5.4, 5.10).
"""

from __future__ import annotations

import shlex

HOME = "/home/nonroot"
DATA = f"{HOME}/.sei"
"""seid's home: the data volume, mounted inside the container's home directory."""

_PROBE = r"""
sidecar_is_ready() {{
    exec 3<>/dev/tcp/localhost/{port}
    printf 'GET /v0/healthz HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
    IFS= read -r -t 10 status <&3
    [[ $status == *200* ]]
}}
until (sidecar_is_ready) 2>/dev/null; do
    sleep 5
done
"""


def seid_init(chain_id: str, keyring_backend: str = "", *, data: str = DATA) -> str:
    """First start: create seid's home once; a validator's keyring backend is set on every boot.

    `keyring_backend` is `file` or `test`, empty for nodes that sign nothing. A failing step ends the script with
    its exit code. The line in client.toml is replaced atomically, everything else in that file is left alone.
    """
    chain = shlex.quote(chain_id)
    script = f"""\
set -eu
data={shlex.quote(data)}
if [ -f "$data/config/genesis.json" ]; then
    echo 'data directory already initialized, skipping seid init'
else
    seid init {chain} --chain-id {chain} --home "$data" --overwrite
fi
mkdir -p "$data/tmp"
"""
    return script + (_set_keyring_backend(keyring_backend) if keyring_backend else "")


def _set_keyring_backend(backend: str) -> str:
    line = f'keyring-backend = "{backend}"'
    return f"""\
mkdir -p "$data/config"
client="$data/config/client.toml"
if grep -q '^keyring-backend[[:blank:]]*=' "$client" 2>/dev/null; then
    cp -p "$client" "$client.new"
    sed 's|^keyring-backend[[:blank:]]*=.*|{line}|' "$client" >"$client.new"
    mv "$client.new" "$client"
else
    if [ -s "$client" ] && [ -n "$(tail -c 1 "$client")" ]; then
        echo >>"$client"
    fi
    echo '{line}' >>"$client"
fi
"""


def start_seid(sidecar_port: int) -> str:
    """Hold seid back until the sidecar reports ready, then become seid, so that it gets the Pod's signals."""
    return (
        "echo 'waiting for sidecar to become ready...'"
        + _PROBE.format(port=sidecar_port)
        + "echo 'sidecar ready, starting seid'\n"
        + f"exec seid start --home {shlex.quote(DATA)}\n"
    )


def run_seid_to_height(sidecar_port: int, halt_height: int) -> str:
    """Bootstrap: run seid up to a height. Its exit code 130 means that it halted there, which is success."""
    return (
        "echo 'waiting for sidecar bootstrap tasks to complete...'"
        + _PROBE.format(port=sidecar_port)
        + f"""\
echo 'sidecar healthy, starting seid with halt-height {halt_height}'
seid start --home {shlex.quote(DATA)} --halt-height {halt_height}
code=$?
if [[ $code == 130 ]]; then
    echo 'seid halted at target height (exit 130), treating as success'
    exit 0
fi
exit "$code"
"""
    )


def start_exporter(listen_port: int) -> str:
    """Start the chain exporter once seid's gRPC port takes connections."""
    return f"""\
echo 'waiting for gRPC :9090 to be available...'
until (exec 3<>/dev/tcp/localhost/9090) 2>/dev/null; do
    sleep 5
done
echo 'gRPC available, starting cosmos-exporter'
exec /usr/local/bin/sei-cosmos-exporter \\
    --denom usei --denom-coefficient 1000000 --bech-prefix sei --listen-address :{listen_port}
"""
