"""The sidecar answers as its own OpenAPI description says, whatever it is asked (schemathesis over a real process)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from seiops.sidecar.tasks import REGISTRY

DOCUMENT = Path(__file__).parents[2] / "docs" / "contracts" / "sidecar-openapi.json"
CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
# Probes and node-id answer 5xx by design on a node that is not ready and has no key.
EXPECTED_5XX = {"/v0/healthz", "/v0/startupz", "/v0/node-id"}

# What may run on the machine of a test: nothing that looks for a process to stop, nothing that goes out.
HARMLESS = {"config-apply", "config-patch", "config-reload", "config-validate", "mark-not-ready", "mark-ready"}

schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text()))


@schema.hook
def map_body(context, body):
    if isinstance(body, dict) and body.get("type") in {*REGISTRY} - HARMLESS:
        return {**body, "type": "config-validate"}
    return body


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory):
    home = tmp_path_factory.mktemp("sidecar")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "SEI_HOME": str(home),
        "SEI_SIDECAR_PORT": str(port),
        "SEI_SIDECAR_RPC_URL": "http://127.0.0.1:9",
        "SEI_LOG_LEVEL": "error",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "contract",
        "AWS_SECRET_ACCESS_KEY": "contract",
        **dict.fromkeys(("SEI_CHAIN_ID", "SEI_GENESIS_BUCKET", "SEI_GENESIS_REGION", "SEI_SNAPSHOT_BUCKET",
                         "SEI_SNAPSHOT_REGION"), "x"),
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "seiops.sidecar", "serve"], env=environment)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1000):
            try:
                urllib.request.urlopen(f"{base}/v0/livez", timeout=5).read()
                break
            except OSError:
                assert process.poll() is None, "the sidecar ended at its start"
                time.sleep(0.02)
        yield base
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_described(case, sidecar):
    response = case.call(base_url=sidecar, timeout=30)
    checks = CHECKS if case.path in EXPECTED_5XX else [*CHECKS, not_a_server_error]
    case.validate_response(response, checks=checks)


def test_the_served_description_is_the_checked_in_one(sidecar):
    served = json.loads(urllib.request.urlopen(f"{sidecar}/v0/openapi.json", timeout=5).read())
    assert served == json.loads(DOCUMENT.read_text())
