"""The controller cannot write its own trust root, neither directly nor through anything that runs in its namespace, and
everything it needs is granted where SeiNodes live."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from seidev.cluster import Access, Cluster
from support import deployed
from support.deployed import CONTROLLER_ACCOUNT, CONTROLLER_NAMESPACE

NODES = "sei-nodes"
ELSEWHERE = "somebody-else"
CONTROLLER = f"system:serviceaccount:{CONTROLLER_NAMESPACE}:{CONTROLLER_ACCOUNT}"
NODE_POD = f"system:serviceaccount:{NODES}:seid-node"
WRITES = ("create", "update", "patch", "delete", "deletecollection")


@pytest.fixture(scope="module")
def installed() -> Iterator[Access]:
    """A clean API server after `kubectl apply -k deploy/default` and one node namespace."""
    with Cluster(controllers=()) as cluster:
        access = cluster.access
        access.kubectl("apply", "-k", deployed.DEPLOY / "default")
        access.kubectl("apply", "-f", "-", stdin=deployed.node_namespace(access.kubectl_program, NODES))
        access.kubectl("create", "namespace", ELSEWHERE)
        access.kubectl("create", "configmap", "sei-controller-config", "-n", CONTROLLER_NAMESPACE)
        for namespace in (CONTROLLER_NAMESPACE, NODES, ELSEWHERE):
            access.kubectl("create", "secret", "generic", "keys", "-n", namespace)
        yield access


class Person:
    """Requests under an impersonated identity."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> int:
        """The HTTP status; writes are dry runs."""
        query = {} if method == "GET" else {"dryRun": "All", "fieldManager": "test"}
        data, headers = (None, {}) if body is None else (json.dumps(body), {"Content-Type": content_type})
        if "apply-patch" in content_type:
            query["force"] = "true"
        async with self._session.request(method, self._url + path, params=query, data=data, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def may(self, verb: str, group: str, resource: str, namespace: str, name: str = "") -> bool:
        resource, _, subresource = resource.partition("/")
        attributes = {
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        async with self._session.post(self._url + path, json=review) as answer:
            assert answer.status == 201
            return bool((await answer.json())["status"]["allowed"])


def session(access: Access, user: str) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {access.token()}", "Impersonate-User": user}
    connector = aiohttp.TCPConnector(ssl=access.ssl_context(), limit=8)
    return aiohttp.ClientSession(connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=60))


@pytest.fixture
async def controller(installed: Access) -> AsyncIterator[Person]:
    async with session(installed, CONTROLLER) as opened:
        yield Person(opened, installed.url)


@pytest.fixture
async def node_pod(installed: Access) -> AsyncIterator[Person]:
    async with session(installed, NODE_POD) as opened:
        yield Person(opened, installed.url)


def pod_template(name: str) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": "i",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "containers": [container],
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "restartPolicy": "Never",
        },
    }


def manifests() -> dict[str, tuple[str, dict[str, Any]]]:
    """One valid object of each kind by which a trust root could be written: path below the namespace, and the object."""
    pod = pod_template("p")
    stateful = pod_template("s")
    del stateful["spec"]["restartPolicy"]
    return {
        "ConfigMap": ("/api/v1", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}),
        "Pod": ("/api/v1", {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {"name": "x"}}),
        "Job": (
            "/apis/batch/v1",
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": "x"},
                "spec": {"template": pod_template("j")},
            },
        ),
        "StatefulSet": (
            "/apis/apps/v1",
            {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "metadata": {"name": "x"},
                "spec": {"selector": {"matchLabels": {"app": "s"}}, "serviceName": "x", "template": stateful},
            },
        ),
    }


PLURALS = {"ConfigMap": "configmaps", "Pod": "pods", "Job": "jobs", "StatefulSet": "statefulsets"}


def test_applying_again_changes_nothing(installed: Access) -> None:
    again = installed.kubectl("apply", "-k", deployed.DEPLOY / "default").stdout.splitlines()
    assert [line for line in again if not line.endswith(" unchanged")] == []
    assert len(again) > 10


@pytest.mark.parametrize("kind", PLURALS)
async def test_a_write_into_its_own_namespace_is_refused(controller: Person, kind: str) -> None:
    base, manifest = manifests()[kind]
    path = f"{base}/namespaces/{CONTROLLER_NAMESPACE}/{PLURALS[kind]}"
    apply = "application/apply-patch+yaml"
    assert await controller.request("POST", path, manifest) == 403
    assert await controller.request("PATCH", f"{path}/x", manifest, apply) == 403
    assert await controller.request("DELETE", f"{path}/x") == 403


async def test_the_trust_root_cannot_be_changed_where_it_exists(controller: Person) -> None:
    path = f"/api/v1/namespaces/{CONTROLLER_NAMESPACE}/configmaps/sei-controller-config"
    merge = "application/merge-patch+json"
    assert await controller.request("PATCH", path, {"data": {"config.yaml": "stateSync: {}"}}, merge) == 403
    assert await controller.request("DELETE", path) == 403


@pytest.mark.parametrize("namespace", [CONTROLLER_NAMESPACE, ELSEWHERE, NODES])
async def test_secrets_are_read_by_name_in_node_namespaces_only(controller: Person, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/secrets"
    assert await controller.request("GET", f"{path}/keys") == (200 if namespace == NODES else 403)
    assert await controller.request("GET", path) == 403


@pytest.mark.parametrize("kind", ["ConfigMap", "Job", "StatefulSet"])
async def test_the_same_write_is_allowed_in_a_node_namespace(controller: Person, kind: str) -> None:
    base, manifest = manifests()[kind]
    path = f"{base}/namespaces/{NODES}/{PLURALS[kind]}"
    assert await controller.request("POST", path, manifest) == 201


@pytest.mark.parametrize(
    ("group", "resource"),
    [("", "configmaps"), ("", "services"), ("apps", "statefulsets")],
)
async def test_server_side_apply_creates_in_a_node_namespace(controller: Person, group: str, resource: str) -> None:
    specs: dict[str, dict[str, Any]] = {
        "configmaps": {"apiVersion": "v1", "kind": "ConfigMap"},
        "services": {"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": "None", "selector": {"a": "b"}}},
        "statefulsets": manifests()["StatefulSet"][1],
    }
    manifest = {**specs[resource], "metadata": {"name": "new"}}
    base = f"/apis/{group}/v1" if group else "/api/v1"
    path = f"{base}/namespaces/{NODES}/{resource}/new"
    assert await controller.request("PATCH", path, manifest, "application/apply-patch+yaml") == 201


async def test_in_its_own_namespace_the_controller_writes_its_lease_and_events_and_nothing_else(
    installed: Access, controller: Person
) -> None:
    """Every resource and subresource the API server knows, every writing verb."""
    pairs = list(itertools.product(namespaced_resources(installed), WRITES))
    allowed = await asyncio.gather(
        *(controller.may(verb, group, resource, CONTROLLER_NAMESPACE) for (group, resource), verb in pairs)
    )
    found = {(resource, verb) for ((_, resource), verb), may in zip(pairs, allowed, strict=True) if may}
    assert found == {("leases", "create"), ("events", "create"), ("events", "patch")}
    lease = ("coordination.k8s.io", "leases", CONTROLLER_NAMESPACE)
    assert await controller.may("update", *lease, "bc1f5b0a.sei.io")
    assert not await controller.may("update", *lease, "another")


def namespaced_resources(access: Access) -> list[tuple[str, str]]:
    """(group, resource) of everything namespaced, subresources included."""
    names = access.kubectl("get", "--raw", "/apis").stdout
    versions = ["/api/v1"] + [
        f"/apis/{version['groupVersion']}" for group in json.loads(names)["groups"] for version in group["versions"]
    ]
    found = set()
    for version in versions:
        listed = json.loads(access.kubectl("get", "--raw", version).stdout)
        group = listed["groupVersion"].rpartition("/")[0]
        found |= {(group, resource["name"]) for resource in listed["resources"] if resource["namespaced"]}
    found |= {("", "pods/exec"), ("", "pods/ephemeralcontainers"), ("", "serviceaccounts/token")}
    return sorted(found)


# What reconciling a SeiNode, its plans, its bootstrap Job and its deletion asks of the API server.
NEEDED = [
    ("", "configmaps", "create patch"),
    ("", "services", "create patch delete"),
    ("", "persistentvolumeclaims", "create delete"),
    ("", "pods", "delete"),
    ("", "secrets", "get"),
    ("", "events", "create patch"),
    ("apps", "statefulsets", "create patch delete"),
    ("batch", "jobs", "create delete"),
    ("sei.io", "seinodes", "create update patch delete"),
    ("sei.io", "seinodes/status", "patch"),
    ("sei.io", "seinodes/finalizers", "update"),
    ("sei.io", "seinetworks", "patch"),
    ("sei.io", "seinetworks/status", "patch"),
    ("sei.io", "seinetworks/finalizers", "update"),
    ("sei.io", "seinodetasks/status", "patch"),
    ("sei.io", "seinodetaskworkflows", "patch"),
    ("sei.io", "seinodetaskworkflows/status", "patch"),
]
READ = [
    ("", "configmaps"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "services"),
    ("apps", "statefulsets"),
    ("batch", "jobs"),
    ("sei.io", "seinetworks"),
    ("sei.io", "seinodes"),
    ("sei.io", "seinodetasks"),
    ("sei.io", "seinodetaskworkflows"),
]


async def test_what_a_plan_needs_is_granted_in_node_namespaces_and_nowhere_else(controller: Person) -> None:
    for group, resource, verbs in NEEDED:
        for verb in verbs.split():
            assert await controller.may(verb, group, resource, NODES), f"{verb} {resource}"
            assert not await controller.may(verb, group, resource, ELSEWHERE), f"{verb} {resource}"


async def test_reading_is_granted_everywhere(controller: Person) -> None:
    for group, resource in READ:
        for verb in ("get", "list", "watch"):
            assert await controller.may(verb, group, resource, "")


async def test_the_controller_cannot_give_itself_more(controller: Person) -> None:
    """Rights that lead to other rights: roles, bindings, tokens, other identities, a shell in a running Pod."""
    group = "rbac.authorization.k8s.io"
    for namespace in (CONTROLLER_NAMESPACE, NODES, ""):
        for verb, api, resource in [
            ("create", group, "rolebindings"),
            ("update", group, "roles"),
            ("bind", group, "clusterroles"),
            ("escalate", group, "clusterroles"),
            ("create", group, "clusterrolebindings"),
            ("impersonate", "", "serviceaccounts"),
            ("create", "", "serviceaccounts/token"),
            ("create", "", "pods"),
            ("create", "", "pods/exec"),
            ("update", "", "pods/ephemeralcontainers"),
            ("create", "", "namespaces"),
            ("patch", "apiextensions.k8s.io", "customresourcedefinitions"),
        ]:
            assert not await controller.may(verb, api, resource, namespace), f"{verb} {resource} in {namespace!r}"


async def test_the_proxy_of_a_node_pod_can_ask_who_calls_and_what_they_may_do(
    installed: Access, node_pod: Person
) -> None:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "unknown"}}
    assert await node_pod.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review) == 201
    access = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": CONTROLLER, "resourceAttributes": {"verb": "get", "resource": "pods"}},
    }
    assert await node_pod.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", access) == 201
    async with session(installed, f"system:serviceaccount:{ELSEWHERE}:seid-node") as opened:
        stranger = Person(opened, installed.url)
        assert await stranger.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review) == 403


@pytest.mark.parametrize("verb", ["get", "create"])
async def test_the_proxy_lets_the_controller_call_sidecars_of_node_namespaces(controller: Person, verb: str) -> None:
    """What the proxy asks: the right on seinodetasks, under the SeiNode's name."""
    assert await controller.may(verb, "sei.io", "seinodetasks", NODES, "node-0")


async def test_sidecars_elsewhere_stay_closed_to_the_controllers_tasks(controller: Person) -> None:
    assert not await controller.may("create", "sei.io", "seinodetasks", ELSEWHERE, "node-0")


async def test_the_pods_own_identity_can_do_nothing_else(installed: Access, node_pod: Person) -> None:
    pairs = list(itertools.product(namespaced_resources(installed), ("get", "list", *WRITES)))
    allowed = await asyncio.gather(*(node_pod.may(verb, group, resource, NODES) for (group, resource), verb in pairs))
    assert [pair for pair, may in zip(pairs, allowed, strict=True) if may] == []


def test_two_node_namespaces_do_not_share_an_object(installed: Access) -> None:
    """Bindings for the whole cluster carry the namespace in their name, so a second one does not replace the first."""
    built = [
        {
            (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
            for item in deployed.objects(text)
        }
        for text in (deployed.node_namespace(installed.kubectl_program, name) for name in ("one", "two"))
    ]
    assert built[0] & built[1] == set()
