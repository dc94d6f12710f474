"""sei.io/v1alpha1: the four kinds as models, and the single source of the CRD YAML."""

from seiops.api.meta import API_VERSION, GROUP, VERSION, FieldProblem, UndecodableError, decode
from seiops.api.network import SeiNetwork
from seiops.api.node import SeiNode
from seiops.api.task import SeiNodeTask
from seiops.api.workflow import SeiNodeTaskWorkflow

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "FieldProblem",
    "SeiNetwork",
    "SeiNode",
    "SeiNodeTask",
    "SeiNodeTaskWorkflow",
    "UndecodableError",
    "decode",
]
