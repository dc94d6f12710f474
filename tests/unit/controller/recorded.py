"""The packed recordings (tests/data/controller/README.md) as typed test cases."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import zstandard

from seiops.api.node import SeiNode
from seiops.api.status import Condition
from seiops.controller import appconfig
from seiops.controller.appconfig import AppConfig

DATA = Path(__file__).parents[2] / "data" / "controller" / "cases.json.zst"
SCRIPT = "<script>"


@cache
def pack() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(zstandard.ZstdDecompressor().decompress(DATA.read_bytes()))
    return loaded


def config(text: str) -> AppConfig:
    return appconfig.decode("/etc/sei-controller/config.yaml", text.encode())


@dataclass(frozen=True)
class Case:
    raw: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.raw["case"])

    @property
    def namespace(self) -> str:
        return self.name.split("/")[1]

    def first_config(self) -> AppConfig:
        """What the controller ran with when the case began, with the registry of the last change."""
        texts = self.raw["configs"]
        started = config(pack()["config"])
        return started.model_copy(update={"state_sync": config(texts[-1]).state_sync}) if texts else started

    def last_config(self) -> AppConfig:
        """What it ran with at the end; only flows that start it again see another one than at first."""
        restarted = "restart-new-images" in self.name
        return config(self.raw["configs"][-1]) if restarted else self.first_config()

    def node(self, name: str) -> SeiNode:
        """The node as last stored."""
        return decode(next(item for item in self.raw["nodes"] if item["metadata"]["name"] == name))

    def versions(self, name: str) -> list[SeiNode]:
        """The node in every form its users gave it, in order; [] for one that a network made."""
        nodes = [decode(item) for item in self.raw["versions"] if item["name"] == name and item["spec"] is not None]
        for node in nodes:
            node.metadata.namespace = self.namespace
        return nodes

    def created(self) -> list[dict[str, Any]]:
        created: list[dict[str, Any]] = self.raw["created"]
        return created


def cases() -> list[Case]:
    return [Case(raw) for raw in pack()["cases"]]


def decode(raw: dict[str, Any]) -> SeiNode:
    """A recorded node without its status; times were normalised away and are made up."""
    raw = json.loads(json.dumps(raw).replace('"<time>"', '"2024-01-01T00:00:00Z"'))
    stored = {"apiVersion": "sei.io/v1alpha1", "kind": "SeiNode", **raw}
    node = SeiNode.decode({key: value for key, value in stored.items() if key != "status"})
    if not node.metadata.uid:
        node.metadata.uid = f"<uid:SeiNode/{node.name}>"
    return node


def without_scripts(value: Any) -> Any:
    """The same object with its shell scripts replaced, as the pack has them."""
    if isinstance(value, list):
        return [without_scripts(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: without_scripts(item) for key, item in value.items()}
    if found.get("command", [None])[:2] == ["/bin/sh", "-c"]:
        found["command"] = ["/bin/sh", "-c", SCRIPT]
    if found.get("command") == ["/bin/bash", "-c"]:
        found["args"] = [SCRIPT]
    return found


def condition(kind: str, status: str, reason: str, message: str) -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message)
