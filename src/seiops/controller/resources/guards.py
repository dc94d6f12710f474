"""Last checks on a rendered Pod: what must hold whatever the generators do (docs/contracts/controller-behaviour.md 5.6, 5.10).

A liveness probe on a gated seid kills a node that waits; a key outside its container is a key given away. Both would
come in through an innocent change to a template, so they are checked on the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from seiops.api.names import Role
from seiops.api.node import SeiNode
from seiops.controller.resources.errors import RenderError
from seiops.controller.resources.identity import operator_keyring, role, signing_key_secret

_LATE_PORTS = (26657, 9090)
"""seid's RPC and gRPC ports: closed while it waits, and for ever on a seed."""

PodSpec = dict[str, Any]


def check_probes(node: SeiNode, pod: PodSpec) -> None:
    """Raises RenderError if a probe could restart or never admit a seid that waits for its sidecar."""
    for container in pod["containers"]:
        if container["name"] != "seid":
            continue
        if "livenessProbe" in container:
            raise RenderError('gated seid container "seid" must not carry a liveness probe')
        if _probed_port(container, "startupProbe") in _LATE_PORTS:
            raise RenderError('gated seid container "seid" startup probe must not target seid\'s RPC/gRPC port')
        if role(node) is Role.SEED:
            _check_seed_probes(container)


def check_keyring_isolation(node: SeiNode, pod: PodSpec) -> None:
    """Raises RenderError if the operator's keyring or passphrase reaches a container that must not have it."""
    keyring = operator_keyring(node)
    if keyring is None:
        return
    allowed = {"sei-sidecar", "seid"} if keyring.seid_mount else {"sei-sidecar"}
    passphrase = keyring.passphrase_secret_ref.secret_name
    for container in _all_containers(pod):
        name = container["name"]
        if name in allowed:
            continue
        if any(mount["name"] == "operator-keyring" for mount in container.get("volumeMounts", [])):
            raise RenderError(
                f'SeiNode {node.namespace}/{node.name}: container "{name}" must not mount the operator keyring'
            )
        if passphrase in _secrets_in_environment(container):
            raise RenderError(
                f'SeiNode {node.namespace}/{node.name}: container "{name}" must not reference passphrase Secret "{passphrase}"'
            )


def check_bootstrap_has_no_credentials(node: SeiNode, pod: PodSpec) -> None:
    """Raises RenderError if the Job's Pod, which runs another image, could read a validator's signing credentials."""
    keyring = operator_keyring(node)
    guarded = {signing_key_secret(node)}
    if keyring is not None:
        guarded |= {keyring.secret_name, keyring.passphrase_secret_ref.secret_name}
    guarded.discard("")
    used = {volume["secret"].get("secretName", "") for volume in pod["volumes"] if "secret" in volume}
    for container in _all_containers(pod):
        used |= set(_secrets_in_environment(container))
    for secret in sorted(guarded & used):
        raise RenderError(f'bootstrap pod of SeiNode {node.namespace}/{node.name} must not reference Secret "{secret}"')


def _check_seed_probes(container: dict[str, Any]) -> None:
    for kind in ("readiness", "liveness", "startup"):
        if _probed_port(container, f"{kind}Probe") in _LATE_PORTS:
            raise RenderError(
                f'seed seid container "seid" {kind} probe must not target seid\'s RPC/gRPC port; seed mode binds neither'
            )


def _probed_port(container: dict[str, Any], probe: str) -> int | None:
    check = container.get(probe, {})
    for kind in ("httpGet", "tcpSocket", "grpc"):
        if kind in check:
            port: int = check[kind]["port"]
            return port
    return None


def _all_containers(pod: PodSpec) -> Iterator[dict[str, Any]]:
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def _secrets_in_environment(container: dict[str, Any]) -> Iterator[str]:
    for variable in container.get("env", []):
        name = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
        if name:
            yield name
    for source in container.get("envFrom", []):
        name = source.get("secretRef", {}).get("name")
        if name:
            yield name
