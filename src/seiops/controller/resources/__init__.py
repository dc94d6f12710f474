"""Every Kubernetes object of a node, as pure functions from the node and the configuration to plain JSON dicts.

A fleet can be taken over because these equal, field for field, what runs already; so they are generators without
I/O, tested against recordings. All raise RenderError when no safe object exists. Objects for server-side apply:
`statefulset`, `service`, `proxy_config`; for create: `data_pvc`, `bootstrap_job`, `bootstrap_service`.
"""

from seiops.controller.resources.bootstrap import bootstrap_job, bootstrap_service
from seiops.controller.resources.compute import storage
from seiops.controller.resources.containers import sidecar_image
from seiops.controller.resources.errors import RenderError
from seiops.controller.resources.identity import claim_name, labels, mode, role, snapshot
from seiops.controller.resources.objects import data_pvc, proxy_config, service, statefulset

__all__ = [
    "RenderError",
    "bootstrap_job",
    "bootstrap_service",
    "claim_name",
    "data_pvc",
    "labels",
    "mode",
    "proxy_config",
    "role",
    "service",
    "sidecar_image",
    "snapshot",
    "statefulset",
    "storage",
]
