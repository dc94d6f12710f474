"""The controller runtime: client, informers, work queue, leader election, events. It knows nothing about Sei."""

from seiops.kube.client import KubeClient, Listing, WatchEvent
from seiops.kube.credentials import ConfigError, Connection, connect, from_kubeconfig, in_cluster
from seiops.kube.errors import ApiError
from seiops.kube.resource import Key, Obj, Registry, Resource, core_registry, key_of, owner_key, owner_reference

__all__ = [
    "ApiError",
    "ConfigError",
    "Connection",
    "Key",
    "KubeClient",
    "Listing",
    "Obj",
    "Registry",
    "Resource",
    "WatchEvent",
    "connect",
    "core_registry",
    "from_kubeconfig",
    "in_cluster",
    "key_of",
    "owner_key",
    "owner_reference",
]
