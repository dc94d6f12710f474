"""What the API server says to 240 and more requests once our CRDs are the ones installed: its answer is the schema's alone.

Compared are outcome, code, the object as answered (defaults and pruning applied), reason, message, causes and warnings.
Creates are dry runs; an update or patch first stores what the record calls `before`. No controller runs.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from replay.context import ReplayContext, read_jsonl
from replay.kubeapi import KINDS, USER
from replay.report import CaseResult
from seidev.cluster import Access, Cluster

# Fields of metadata that differ between two servers, or that a running controller added to the record.
VOLATILE = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "finalizers")
APPLY = "application/apply-patch+yaml"
Case = Mapping[str, Any]


class NotReplayableError(Exception):
    """The case asks for something this module does not know; the text says what."""


@dataclass(frozen=True)
class Answer:
    code: int
    body: dict[str, Any]
    warnings: Sequence[str]


class Admission:
    """Sends recorded requests to one namespace of one API server."""

    def __init__(self, access: Access, namespace: str) -> None:
        self._access = access
        self._namespace = namespace
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Admission:
        connector = aiohttp.TCPConnector(ssl=self._access.ssl_context())
        headers = {"Authorization": f"Bearer {self._access.token()}"}
        self._session = aiohttp.ClientSession(
            connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=60)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def first_difference(self, case: Case) -> str:
        """Empty when the answer is the recorded one."""
        stored = await self._store_before(case)
        answer = await self._send(case, stored)
        return first_difference(case, answer, self._namespace, stored)

    async def _store_before(self, case: Case) -> dict[str, Any]:
        if "before" not in case:
            return {}
        before = copy.deepcopy(case["before"])
        status = before.pop("status", None)
        before["metadata"].pop("generation", None)
        path = self._path(case, before["kind"])
        answer = await self._request("POST", path, self._here(before), {"fieldManager": USER})
        if answer.code == 201 and status is not None:
            name = before["metadata"]["name"]
            answer = await self._request(
                "PATCH",
                f"{path}/{name}/status",
                {"status": status},
                {"fieldManager": USER},
                "application/merge-patch+json",
            )
        if answer.code not in (200, 201):
            raise NotReplayableError(f"`before` could not be stored: {answer.code} {answer.body.get('message')}")
        return answer.body

    async def _send(self, case: Case, stored: dict[str, Any]) -> Answer:
        operation, manifest = case["operation"], self._here(case["manifest"])
        query = {"fieldManager": USER}
        if validation := case.get("fieldValidation"):
            query["fieldValidation"] = validation
        if operation == "create":
            return await self._request(
                "POST", self._path(case, case["manifest"]["kind"]), manifest, {**query, "dryRun": "All"}
            )
        if not stored:
            raise NotReplayableError(f"{operation} without `before`")
        path = f"{self._path(case, stored['kind'])}/{stored['metadata']['name']}"
        if operation == "update":
            manifest["metadata"].setdefault("resourceVersion", stored["metadata"]["resourceVersion"])
            return await self._request("PUT", path, manifest, query)
        if operation.split("/")[0] != "patch":
            raise NotReplayableError(f"operation {operation!r} is not known")
        if case["patchType"] == APPLY:
            query["force"] = "true"
        _, _, subresource = operation.partition("/")
        return await self._request("PATCH", f"{path}/{subresource}".rstrip("/"), manifest, query, case["patchType"])

    def _path(self, case: Case, kind: str) -> str:
        if kind not in KINDS:
            raise NotReplayableError(f"kind {kind!r} is not known")
        return KINDS[kind].path(self._namespace)

    def _here(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest in our namespace instead of the recorded one."""
        moved = copy.deepcopy(dict(manifest))
        if isinstance(moved.get("metadata"), dict) and "namespace" in moved["metadata"]:
            moved["metadata"]["namespace"] = self._namespace
        return moved

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        query: Mapping[str, str],
        content_type: str = "application/json",
    ) -> Answer:
        assert self._session is not None
        request = self._session.request(
            method, self._access.url + path, params=query, data=json.dumps(body), headers={"Content-Type": content_type}
        )
        async with request as answer:
            return Answer(answer.status, await answer.json(content_type=None), answer.headers.getall("Warning", []))


def first_difference(case: Case, answer: Answer, namespace: str, stored: Mapping[str, Any]) -> str:
    """The first thing in which an answer departs from the recorded one, in words; empty if nothing does."""
    if answer.code != case["code"]:
        return f"code {answer.code} ({answer.body.get('message', 'accepted')}), recorded {case['code']}"
    warnings = case.get("warnings", [])
    if list(answer.warnings) != warnings:
        return f"warnings {list(answer.warnings)}, recorded {warnings}"
    if case["outcome"] == "accepted":
        return _object_difference(case, answer.body, namespace, stored)
    return _refusal_difference(case, answer.body)


def _object_difference(case: Case, body: Mapping[str, Any], namespace: str, stored: Mapping[str, Any]) -> str:
    found, expected = copy.deepcopy(dict(body)), copy.deepcopy(dict(case["object"]))
    for key in VOLATILE:
        found["metadata"].pop(key, None)
        expected["metadata"].pop(key, None)
    if "status" not in case["operation"]:
        found.pop("status", None)
        expected.pop("status", None)
    expected["metadata"]["namespace"] = namespace
    if stored:
        # The record's object may have had a longer life than ours.
        lived = stored["metadata"]["generation"] - case["before"]["metadata"].get("generation", 1)
        expected["metadata"]["generation"] += lived
    return _where(found, expected, "object")


def _refusal_difference(case: Case, body: Mapping[str, Any]) -> str:
    if body.get("reason") != case["reason"]:
        return f"reason {body.get('reason')}, recorded {case['reason']}"
    causes = body.get("details", {}).get("causes", [])
    recorded = case.get("causes", [])
    if _counted(causes) != _counted(recorded):
        return f"causes {causes}, recorded {recorded}"
    if _without_order(body["message"], causes) != _without_order(case["message"], recorded):
        return f"message {body['message']!r}, recorded {case['message']!r}"
    return ""


def _counted(causes: Sequence[Mapping[str, str]]) -> Counter[tuple[tuple[str, str], ...]]:
    return Counter(tuple(sorted(cause.items())) for cause in causes)


def _without_order(message: str, causes: Sequence[Mapping[str, str]]) -> str:
    """The message with each cause taken out: the server walks a map, so the order of several causes is chance."""
    if len(causes) < 2:
        return message
    for cause in causes:
        message = message.replace(f"{cause.get('field', '')}: {cause.get('message', '')}", "*", 1)
    return message


def _where(found: Any, expected: Any, path: str) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted({*found, *expected}):
            if key not in found:
                return f"{path}.{key} is missing, recorded {expected[key]!r}"
            if key not in expected:
                return f"{path}.{key} is {found[key]!r}, recorded absent"
            if difference := _where(found[key], expected[key], f"{path}.{key}"):
                return difference
        return ""
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            if difference := _where(ours, theirs, f"{path}[{index}]"):
                return difference
        return ""
    return "" if found == expected and type(found) is type(expected) else f"{path} is {found!r}, recorded {expected!r}"


async def judged(admission: Admission, case: Case) -> CaseResult:
    """One case: passed, failed with its first difference, or skipped because it cannot be posed."""
    name = f"admission/{case['n']:03d}-{case['case']}"
    try:
        difference = await admission.first_difference(case)
    except NotReplayableError as error:
        return CaseResult(name, "skip", str(error))
    return CaseResult(name, "fail" if difference else "pass", difference)


async def run(context: ReplayContext) -> AsyncIterator[CaseResult]:
    """All recorded requests, against an API server of its own that holds the CRDs of deploy/crd."""
    cases = [
        case
        for case in read_jsonl(context.area_dir("admission") / "cases.jsonl")
        if context.wants(f"{case['n']:03d}-{case['case']}")
    ]
    if not cases:
        return
    with Cluster(controllers=()) as cluster:
        cluster.access.install_crds(context.root / "deploy" / "crd")
        cluster.access.kubectl("create", "namespace", "admission")
        async with Admission(cluster.access, "admission") as admission:
            for case in cases:
                yield await judged(admission, case)
