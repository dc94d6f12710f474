"""Types of the fixtures in conftest, importable by the tests of this folder."""

from collections.abc import Callable

from seiops.sidecar.task import TaskContext

ContextFactory = Callable[..., TaskContext]
"""`context(SEI_NAME="value")`: a context for one task run."""
