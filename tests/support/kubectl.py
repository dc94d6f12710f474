"""The real kubectl, bound to one test's namespace."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from seidev.cluster import Access


@dataclass(frozen=True)
class Kubectl:
    access: Access
    namespace: str

    def __call__(
        self, *arguments: str | Path, stdin: str | None = None, identity: str = "admin", check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Runs it; with `check`, a failure raises ToolError with kubectl's own words."""
        return self.access.kubectl(*arguments, stdin=stdin, identity=identity, namespace=self.namespace, check=check)
