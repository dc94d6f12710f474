"""Packs what the unit tests need of a folder of recordings into `cases.json.zst`.

    python tests/data/controller/pack.py GOLDEN

Scripts inside Pod templates are left out: ours are texts of our own and are tested by running them.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
import zstandard

HERE = Path(__file__).parent
SCRIPT = "<script>"
APPLIED = {"statefulsets", "services", "configmaps"}
CREATED = {"persistentvolumeclaims", "jobs", "services"}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def without_scripts(value: Any) -> Any:
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


def writes(case: Path) -> list[dict[str, Any]]:
    """The last accepted body of each apply, and of each create, by object."""
    last: dict[tuple[str, ...], dict[str, Any]] = {}
    bodies: dict[int, dict[str, Any]] = {}
    for line in lines(case / "api.jsonl"):
        body = line.get("body")
        if not isinstance(body, dict):
            continue
        body = bodies[body["sameAs"]] if "sameAs" in body else body
        bodies[line["n"]] = body
        wanted = {"patch": APPLIED, "create": CREATED}.get(line["verb"], set())
        if line["resource"] in wanted and "subresource" not in line and line["code"] < 300:
            last[line["verb"], line["resource"], line["name"]] = without_scripts(body)
    return [{"verb": key[0], "body": body} for key, body in last.items()]


def plans(case: Path) -> list[dict[str, Any]]:
    """Every plan as it was first stored, with the status it was built from."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines(case / "status.jsonl"):
        status = line.get("status") or {}
        plan = status.get("plan")
        if line["kind"] == "SeiNode" and plan and (line["name"], plan["id"]) not in seen:
            seen[line["name"], plan["id"]] = {"node": line["name"], "generation": line["generation"], "status": status}
    return list(seen.values())


def submissions(case: Path) -> list[dict[str, str]]:
    """Each distinct body POSTed by a plan, byte for byte."""
    seen: dict[str, dict[str, str]] = {}
    for line in lines(case / "sidecar.jsonl"):
        if line["method"] == "POST" and line.get("raw") and "<task:plan-" in line["raw"]:
            seen.setdefault(line["raw"], {"node": line["node"], "raw": line["raw"]})
    return list(seen.values())


def documents(case: Path) -> list[dict[str, Any]]:
    text = (case / "input.yaml").read_text()
    return [document for document in yaml.safe_load_all(text) if document and document.get("kind") == "SeiNode"]


def versions(case: Path) -> list[dict[str, Any]]:
    """Every form the nodes were given by their users, in order: created, then patched."""
    found = [
        {"name": item["metadata"]["name"], "metadata": item["metadata"], "spec": item.get("spec")}
        for item in documents(case)
    ]
    latest = {version["name"]: version for version in found}
    for line in lines(case / "script.jsonl"):
        if line["do"] == "create" and line["manifest"]["kind"] == "SeiNode":
            latest[line["manifest"]["metadata"]["name"]] = version_of(line["manifest"])
        elif line["do"] == "patch" and line["object"].startswith("SeiNode/"):
            name = line["object"].removeprefix("SeiNode/")
            if name not in latest:
                continue
            latest[name] = version_of(merged(latest[name], line["body"]))
        else:
            continue
        found += [version for version in latest.values() if version not in found]
    return found


def version_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return {"name": manifest["metadata"]["name"], "metadata": manifest["metadata"], "spec": manifest.get("spec")}


def merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for key, item in patch.items():
        if item is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), item)
    return result


def pack(case: Path) -> dict[str, Any] | None:
    objects = json.loads((case / "objects.json").read_text())
    nodes = [item for item in objects.get("resources", []) if item["kind"] == "SeiNode"]
    if not nodes:
        return None
    for item in nodes + objects["created"]:
        item["metadata"].pop("managedFields", None)
    configs = [line["content"] for line in lines(case / "script.jsonl") if line["do"] == "config"]
    return {
        "case": f"{case.parent.name}/{case.name}",
        "configs": [text for text in configs if "scheduling:" in text],
        "versions": versions(case),
        "nodes": [{key: item[key] for key in ("metadata", "spec", "status") if key in item} for item in nodes],
        "created": without_scripts(objects["created"]),
        "writes": writes(case),
        "plans": plans(case),
        "submissions": submissions(case),
    }


def main(golden: Path) -> None:
    cases = [
        pack(path.parent) for folder in ("objects", "flows") for path in sorted(golden.glob(f"{folder}/*/objects.json"))
    ]
    startups = lines(golden / "flows/startup/cases.jsonl")
    registry = [
        {"content": content["content"], "condition": result["condition"], "resolved": result["resolved"]}
        for content, result in config_steps(lines(golden / "flows/statesync-config-error-texts/steps.jsonl"))
    ]
    packed = {
        "config": (golden / "objects/controller-config.yaml").read_text(),
        "metrics": metric_names((golden / "metrics/controller.txt").read_text()),
        "startups": startups,
        "registry": registry,
        "cases": [case for case in cases if case],
    }
    data = json.dumps(packed, separators=(",", ":"), sort_keys=True).encode()
    (HERE / "cases.json.zst").write_bytes(zstandard.ZstdCompressor(level=19).compress(data))
    print(f"{len(packed['cases'])} cases, {(HERE / 'cases.json.zst').stat().st_size} bytes")


def config_steps(steps: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each content of the config file with the result seen under it."""
    pairs, content = [], None
    for step in steps:
        if step["action"] == "config file":
            content = step
        elif step["action"] in ("config file removed", "a directory in its place"):
            content = None
        elif step["action"] == "result" and content is not None:
            pairs.append((content, {**step, "resolved": step.get("resolved")}))
    return pairs


def metric_names(text: str) -> list[dict[str, Any]]:
    """Type and label names of each family of ours."""
    families: dict[str, dict[str, Any]] = {}
    for name, kind in re.findall(r"^# TYPE (sei_controller_\S+) (\S+)$", text, re.MULTILINE):
        families[name] = {"name": name, "type": kind, "labels": [], "buckets": []}
    for sample, labels in re.findall(r"^(sei_controller_[a-z_]+)\{(.*)\} ", text, re.MULTILINE):
        family = families.get(sample) or families[re.sub(r"_(bucket|sum|count)$", "", sample)]
        named = dict(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', labels))
        bound = named.pop("le", None)
        family["labels"] = sorted(named)
        if bound is not None and bound not in family["buckets"]:
            family["buckets"].append(bound)
    return list(families.values())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
