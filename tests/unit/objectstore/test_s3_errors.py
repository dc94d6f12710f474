"""What a refusing S3 endpoint turns into. A small server of ours answers over a real socket, since no real server refuses on demand."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from obstore.exceptions import GenericError

from seiops.objectstore import Location, StoreError, classify, open_store, publish_gzip
from seiops.objectstore.store import PART_SIZE


class Endpoint:
    """Answers object requests with `refusal` (status, code); keeps the requests it saw."""

    def __init__(self) -> None:
        self.refusal: tuple[int, str] | None = None
        self.requests: list[tuple[str, str]] = []
        self.hang_up = False

    async def handle(self, request: web.Request) -> web.Response:
        await request.read()
        self.requests.append((request.method, request.path_qs))
        if request.method == "POST" and "uploads" in request.query:
            return web.Response(
                text="<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
            )
        if request.method == "DELETE":
            return web.Response(status=204)
        if self.hang_up and request.transport is not None:
            request.transport.close()
        if self.refusal is not None:
            status, code = self.refusal
            body = f"<Error><Code>{code}</Code><Message>refused</Message></Error>" if code else ""
            return web.Response(status=status, text=body)
        return web.Response(
            headers={"ETag": '"e"'},
            text="<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>",
        )


@pytest.fixture
async def endpoint(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Endpoint]:
    state = Endpoint()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", state.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    yield state
    await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "code", "message", "retryable"),
    [
        (404, "NoSuchBucket", 'bucket "b" does not exist in region eu-central-1', False),
        (404, "NoSuchKey", 'object "p/k" not found in s3://b', False),
        (403, "AccessDenied", "access denied to s3://b/p/k in region eu-central-1", False),
        (503, "SlowDown", "S3 throttled request to s3://b/p/k", True),
        (503, "ServiceUnavailable", "S3 throttled request to s3://b/p/k", True),
        (500, "InternalError", "S3 error InternalError on s3://b/p/k", False),
        (403, "SignatureDoesNotMatch", "S3 error SignatureDoesNotMatch on s3://b/p/k", False),
        (502, "", "S3 error BadGateway on s3://b/p/k", False),
    ],
)
async def test_codes_are_classified(endpoint: Endpoint, status: int, code: str, message: str, retryable: bool) -> None:
    endpoint.refusal = (status, code)
    store = open_store("s3://b/p", region="eu-central-1")
    for call in (store.get("k"), store.put("k", b"x")):
        with pytest.raises(StoreError) as caught:
            await call
        assert (caught.value.message, caught.value.retryable) == (message, retryable)


async def test_a_server_that_hangs_up_is_no_network_error(endpoint: Endpoint) -> None:
    endpoint.hang_up = True
    with pytest.raises(StoreError, match="unexpected error accessing s3://b/k: ") as caught:
        await open_store("s3://b", region="eu-central-1").get("k")
    assert "Debug source" not in caught.value.message


async def test_nothing_listening_is_a_network_error(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match="network error accessing s3://b/k") as caught:
        await open_store("s3://b", region="eu-central-1").get("k")
    assert caught.value.retryable


async def test_a_refusal_in_mid_stream_is_the_stores_and_the_upload_is_aborted(endpoint: Endpoint) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield os.urandom(PART_SIZE // 2)

    endpoint.refusal = (503, "SlowDown")
    with pytest.raises(StoreError, match="throttled") as caught:
        await publish_gzip(open_store("s3://b", region="r"), "k", chunks())
    assert caught.value.retryable
    assert ("DELETE", "/b/k?uploadId=u") in endpoint.requests
    assert ("POST", "/b/k?uploadId=u") not in endpoint.requests


async def test_a_failing_producer_aborts_the_upload(endpoint: Endpoint) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield os.urandom(PART_SIZE // 2)
        raise LookupError("rpc")

    with pytest.raises(LookupError):
        await publish_gzip(open_store("s3://b", region="r"), "k", chunks())
    assert ("DELETE", "/b/k?uploadId=u") in endpoint.requests
    assert ("POST", "/b/k?uploadId=u") not in endpoint.requests


@pytest.mark.parametrize("kind", ["ConnectionReset", "BrokenPipe", "Timeout"])
def test_a_connection_lost_while_sending_is_a_network_error(kind: str) -> None:
    # which of them a sender sees depends on how far it had come
    lost = GenericError(f"Generic S3 error: error sending request\n\nDebug source:\nOs {{ kind: {kind} }}")
    error = classify(lost, Location("s3", "b", "r", "k"))
    assert (error.code, error.retryable) == ("Network", True)
