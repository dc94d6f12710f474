"""The wire to the API server: requests, watches, credentials, the names of kinds. Everything above it is the runtime."""

from seiops.kube.client.credentials import ConfigError, Connection, connect, from_kubeconfig, in_cluster
from seiops.kube.client.errors import ApiError
from seiops.kube.client.requests import KubeClient, Listing, WatchEvent
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
