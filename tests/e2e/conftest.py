"""What several end-to-end tests stand on: the real S3 server behind a proxy that can fail."""

from collections.abc import AsyncIterator

import pytest

from seidev.s3 import Bucket
from support.fault_proxy import FaultProxy


@pytest.fixture
async def proxy(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultProxy]:
    """In front of the S3 server, and named in the environment as the endpoint."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    async with FaultProxy(s3.env["AWS_ENDPOINT_URL_S3"]).running() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.url)
        yield running
