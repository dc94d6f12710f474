"""What a kubelet makes of a Pod's spec before anything runs: directories for its volumes, an environment, a command.

There are no mount namespaces here. Each volume is a directory of its own, and a path inside a mount is translated to the
path inside that directory, in environment values and arguments alike.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seiops.kube import ApiError, KubeClient, Obj
from seiops.kube.client.resource import CONFIG_MAPS, SECRETS


class NotYetError(Exception):
    """Something the Pod refers to does not exist yet; a kubelet would wait for it, and so do we."""


@dataclass(frozen=True)
class Volumes:
    """Directories of a Pod's volumes by volume name."""

    directories: Mapping[str, Path]

    def translator(self, container: Obj) -> "Translator":
        mounts = {
            mount["mountPath"].rstrip("/"): self.directories[mount["name"]] / mount.get("subPath", "")
            for mount in container.get("volumeMounts", ())
            if mount["name"] in self.directories
        }
        return Translator(dict(sorted(mounts.items(), key=lambda item: len(item[0]), reverse=True)))


@dataclass(frozen=True)
class Translator:
    """Paths of one container to paths of this machine; `mounts` has the longest mount path first."""

    mounts: Mapping[str, Path]

    def __call__(self, text: str) -> str:
        for mount, directory in self.mounts.items():
            if text == mount or text.startswith(f"{mount}/"):
                return str(directory) + text[len(mount) :]
        return text


async def make_volumes(client: KubeClient, pod: Obj, *, pod_dir: Path, claims_dir: Path) -> Volumes:
    """Creates them all. Claims outlive the Pod, everything else is made anew. Raises NotYetError."""
    namespace = pod["metadata"]["namespace"]
    directories: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes", ()):
        if "persistentVolumeClaim" in volume:
            directory = claims_dir / namespace / volume["persistentVolumeClaim"]["claimName"]
        else:
            directory = pod_dir / "volumes" / volume["name"]
        directory.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            await _write_config_map(client, namespace, volume["configMap"], directory)
        elif "secret" in volume:
            await _write_secret(client, namespace, volume["secret"], directory)
        directories[volume["name"]] = directory
    return Volumes(directories)


async def _write_config_map(client: KubeClient, namespace: str, source: Obj, directory: Path) -> None:
    found = await _read(client, CONFIG_MAPS, namespace, source["name"], optional=bool(source.get("optional")))
    data = {name: text.encode() for name, text in found.get("data", {}).items()}
    data |= {name: base64.b64decode(text) for name, text in found.get("binaryData", {}).items()}
    _write_files(directory, data, source.get("items"), 0o644)


async def _write_secret(client: KubeClient, namespace: str, source: Obj, directory: Path) -> None:
    found = await _read(client, SECRETS, namespace, source["secretName"], optional=bool(source.get("optional")))
    data = {name: base64.b64decode(text) for name, text in found.get("data", {}).items()}
    _write_files(directory, data, source.get("items"), source.get("defaultMode", 0o644))


def _write_files(directory: Path, data: Mapping[str, bytes], items: list[Obj] | None, mode: int) -> None:
    wanted = {item["path"]: item["key"] for item in items} if items else {name: name for name in data}
    for path, key in wanted.items():
        if key not in data:
            raise NotYetError(f"references non-existent key {key!r}")
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(data[key])
        file.chmod(mode)


async def _read(client: KubeClient, resource: Any, namespace: str, name: str, *, optional: bool = False) -> Obj:
    try:
        return await client.get(resource, name, namespace)
    except ApiError as error:
        if not error.not_found:
            raise
        if optional:
            return {}
        raise NotYetError(f"{resource.kind} {name!r} not found") from error


async def environment(client: KubeClient, pod: Obj, container: Obj, translate: Translator) -> dict[str, str]:
    """The container's own variables, references resolved and paths translated. Raises NotYetError."""
    namespace = pod["metadata"]["namespace"]
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= await _env_from(client, namespace, source)
    for entry in container.get("env", ()):
        if "valueFrom" in entry:
            found[entry["name"]] = await _value_from(client, pod, entry["valueFrom"])
        else:
            found[entry["name"]] = _expand(entry.get("value", ""), found)
    return {name: translate(value) for name, value in found.items()}


def _expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` of a variable defined before; `$$(NAME)` stays as `$(NAME)`."""

    def one(match: "re.Match[str]") -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        return known.get(match[1], match[0])

    return re.sub(r"\$?\$\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\)", one, text)


async def _env_from(client: KubeClient, namespace: str, source: Obj) -> dict[str, str]:
    prefix = source.get("prefix", "")
    if "configMapRef" in source:
        found = await _read(client, CONFIG_MAPS, namespace, source["configMapRef"]["name"])
        return {prefix + name: text for name, text in found.get("data", {}).items()}
    found = await _read(client, SECRETS, namespace, source["secretRef"]["name"])
    return {prefix + name: base64.b64decode(text).decode() for name, text in found.get("data", {}).items()}


async def _value_from(client: KubeClient, pod: Obj, source: Obj) -> str:
    namespace = pod["metadata"]["namespace"]
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    for member, resource in (("secretKeyRef", SECRETS), ("configMapKeyRef", CONFIG_MAPS)):
        if member in source:
            reference = source[member]
            found = await _read(client, resource, namespace, reference["name"])
            if reference["key"] not in found.get("data", {}):
                raise NotYetError(f"couldn't find key {reference['key']} in {resource.kind} {reference['name']!r}")
            text: str = found["data"][reference["key"]]
            return base64.b64decode(text).decode() if resource is SECRETS else text
    return ""


def field_value(pod: Obj, path: str) -> str:
    """The downward API: a field of the Pod, or one label or annotation of it; empty where there is none."""
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        return str(pod["metadata"].get(keyed[1], {}).get(keyed[2], ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)
