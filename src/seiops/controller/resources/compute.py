"""How much a node gets and where it runs, by role (docs/contracts/controller-behaviour.md 5.2, 5.5, 5.7)."""

from __future__ import annotations

from typing import Any

from seiops.api.names import Role
from seiops.api.node import ResourceRequirements, SeiNode
from seiops.controller import quantity
from seiops.controller.appconfig import DEFAULT_SEED_SIZE, AppConfig, RoleResources
from seiops.controller.resources.errors import RenderError
from seiops.controller.resources.identity import role

DEFAULTS: dict[Role, tuple[str, str]] = {
    Role.VALIDATOR: ("16", "128Gi"),
    Role.NODE: ("32", "256Gi"),
    Role.REPLAYER: ("32", "256Gi"),
    Role.ARCHIVE: ("64", "512Gi"),
    Role.SEED: ("1", "2Gi"),
}
"""CPU request and memory (request and limit) of seid."""

# Go's collector starts early enough to keep a seed under its small memory limit.
_SEED_HEAP_PERCENT = 87


def seid_resources(node: SeiNode, platform: AppConfig) -> dict[str, Any]:
    """`resources` of the seid container. No CPU limit: throttling a node makes it miss blocks."""
    cpu, memory = _seid_amounts(node, platform)
    return {"limits": {"memory": memory}, "requests": {"cpu": cpu, "memory": memory}}


def seed_heap_limit(node: SeiNode, platform: AppConfig) -> str:
    """Value of GOMEMLIMIT in bytes (`1868310773B`) for a seed, empty for every other role."""
    if role(node) is not Role.SEED:
        return ""
    _, memory = _seid_amounts(node, platform)
    heap = int(quantity.parse(memory).amount) * _SEED_HEAP_PERCENT // 100
    return f"{heap}B" if heap > 0 else ""


def sidecar_resources(node: SeiNode) -> dict[str, Any]:
    """`resources` of the sidecar container as the node asks for them, quantities in their stored form."""
    wanted = node.spec.sidecar.resources if node.spec.sidecar is not None else None
    return _requirements(wanted) if wanted is not None else {}


def node_pool(node: SeiNode, platform: AppConfig) -> str:
    """Pool the node's Pods run in. Raises RenderError for a seed without one: it must not land among full nodes."""
    scheduling = platform.scheduling
    pools = {
        Role.ARCHIVE: scheduling.nodepool_archive,
        Role.VALIDATOR: scheduling.nodepool_validator,
        Role.SEED: scheduling.nodepool_seed,
    }
    pool = pools.get(role(node), scheduling.nodepool_name)
    if role(node) is Role.SEED and not pool:
        raise RenderError("scheduling.nodepoolSeed is not configured in the app-config file")
    return pool


def storage(node: SeiNode, platform: AppConfig) -> tuple[str, str]:
    """StorageClass and size of the node's data volume; the size is also what an imported volume must hold.

    Raises RenderError if the configured size is no quantity.
    """
    settings = platform.storage
    if role(node) is Role.ARCHIVE:
        storage_class, size, key = settings.class_archive, settings.size_archive, "storage.sizeArchive"
    elif role(node) is Role.SEED:
        seed_size = settings.size_seed.strip() or DEFAULT_SEED_SIZE
        storage_class, size, key = settings.class_default, seed_size, "storage.sizeSeed"
    else:
        storage_class, size, key = settings.class_perf, settings.size_default, "storage.sizeDefault"
    return storage_class, _amount(size, key)


def _seid_amounts(node: SeiNode, platform: AppConfig) -> tuple[str, str]:
    name = role(node)
    default_cpu, default_memory = DEFAULTS[name]
    configured: RoleResources = getattr(platform.resources, name.value)
    cpu = _amount(configured.cpu_request.strip() or default_cpu, f"resources.{name.value}.cpuRequest")
    memory = _amount(configured.memory.strip() or default_memory, f"resources.{name.value}.memory")
    return cpu, memory


def _requirements(wanted: ResourceRequirements) -> dict[str, Any]:
    wire = wanted.wire()
    for kind in ("limits", "requests"):
        if kind in wire:
            path = f"spec.sidecar.resources.{kind}"
            wire[kind] = {name: _amount(amount, f"{path}.{name}") for name, amount in wire[kind].items()}
    return wire


def _amount(text: object, path: str) -> str:
    try:
        return quantity.canonical(text)
    except quantity.QuantityError as error:
        raise RenderError(f'{path}: invalid quantity "{text}": {error}') from None
