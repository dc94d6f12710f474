"""The controller runtime: informers, work queue, leader election, events, over the client. It knows nothing about Sei."""

from seiops.kube.client import KubeClient, Listing, WatchEvent
from seiops.kube.client.credentials import ConfigError, Connection, connect, from_kubeconfig, in_cluster
from seiops.kube.client.errors import ApiError
from seiops.kube.client.resource import Key, Obj, Resource, key_of, owner_key, owner_reference

__all__ = [
    "ApiError",
    "ConfigError",
    "Connection",
    "Key",
    "KubeClient",
    "Listing",
    "Obj",
    "Resource",
    "WatchEvent",
    "connect",
    "from_kubeconfig",
    "in_cluster",
    "key_of",
    "owner_key",
    "owner_reference",
]
