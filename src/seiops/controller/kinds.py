"""The sei.io kinds as the API server addresses them."""

from seiops.api import GROUP, VERSION
from seiops.kube import Resource

SEI_NODES = Resource(GROUP, VERSION, "seinodes", "SeiNode")
SEI_NETWORKS = Resource(GROUP, VERSION, "seinetworks", "SeiNetwork")
SEI_NODE_TASKS = Resource(GROUP, VERSION, "seinodetasks", "SeiNodeTask")
SEI_NODE_TASK_WORKFLOWS = Resource(GROUP, VERSION, "seinodetaskworkflows", "SeiNodeTaskWorkflow")

SEI_KINDS = (SEI_NODES, SEI_NETWORKS, SEI_NODE_TASKS, SEI_NODE_TASK_WORKFLOWS)
