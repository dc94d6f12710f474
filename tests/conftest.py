"""Fixtures that several rooms use: the real cluster, the real S3 server, and a fresh corner of each for every test."""

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from seidev.cluster import Access, Cluster
from seidev.s3 import Bucket, S3Server
from support import shared_cluster
from support.kubectl import Kubectl

_numbers = itertools.count(1)


def _run_directory(config: pytest.Config) -> Path:
    """Directory common to the workers of this run and to no other run."""
    given: dict[str, str] = getattr(config, "workerinput", {})
    owner = given.get("seiops_owner", str(os.getpid()))
    uid = os.getuid() if hasattr(os, "getuid") else 0
    return Path(os.environ.get("TMPDIR", "/tmp")) / f"seiops-tests-{uid}" / owner


def _is_main_process(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tells each xdist worker which process owns the run."""
    node.workerinput["seiops_owner"] = str(os.getpid())  # type: ignore[attr-defined]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _is_main_process(session.config):
        shared_cluster.stop(_run_directory(session.config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks a test by the servers it uses, so that `-m "not cluster"` leaves out all that need them."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if {"cluster", "own_cluster"} & set(names):
            item.add_marker("cluster")
        if "s3_server" in names:
            item.add_marker("s3")


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Access:
    """The run's API server, with the CRDs of deploy/crd installed. Shared: stay in the `namespace` given to the test."""
    directory = _run_directory(pytestconfig)
    return shared_cluster.access(directory, int(directory.name))


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A cluster of the module's own, for tests that restart the API server or change cluster-wide objects."""
    with Cluster() as cluster:
        cluster.access.install_crds()
        yield cluster


@pytest.fixture
def namespace(cluster: Access, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace, deleted afterwards without waiting for it."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:36].strip("-")
    name = f"t-{readable}-{os.getpid()}-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture
def kubectl(cluster: Access, namespace: str) -> Kubectl:
    """The real kubectl, with the test's namespace as its default."""

    return Kubectl(cluster, namespace)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Bucket:
    """A fresh, empty bucket on the real S3 server; `s3.env` is the environment for an AWS client."""
    return s3_server.make_bucket(f"test-{os.getpid()}-{next(_numbers)}")
