"""Stand-ins that answer what was recorded: CometBFT and EVM endpoints by (method, target, body), and a small S3.

The S3 keeps real objects (ranges, listings, multipart) and fails where the record says that it failed: each recorded
failure of a key is given back as often as it was recorded, and for ever when nothing else ever came.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import ipaddress
import json
import ssl
import xml.sax.saxutils as xml
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIST_PAGE = 1000


class CannedRpc:
    """Listens on every recorded endpoint; the answers of one question come in recorded order, the last one for ever."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str, str, str], list[Any]] = defaultdict(list)
        self._given: dict[tuple[str, str, str, str], int] = defaultdict(int)
        self._runners: list[web.ServerRunner] = []

    async def open(self, recorded: list[dict[str, Any]], certificate: Path) -> None:
        endpoints: dict[str, None] = {}
        for entry in recorded:
            if "skipped" in entry:
                continue
            endpoints[entry["endpoint"]] = None
            self._answers[self._key(entry["endpoint"], entry["method"], entry["target"], entry.get("body", ""))].append(
                entry["answer"]
            )
        for endpoint in endpoints:
            await self._listen(endpoint, certificate)

    async def _listen(self, endpoint: str, certificate: Path) -> None:
        host, _, port = endpoint.rpartition(":")

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            return await self._answer(endpoint, request)

        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        self._runners.append(runner)
        context = None
        if port == "443":
            make_certificate(certificate, host)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        await web.TCPSite(runner, host, int(port), ssl_context=context, reuse_address=True).start()
        if host == "127.0.0.1":
            # The recorder's endpoints answered to localhost, whatever it resolves to.
            await web.TCPSite(runner, "::1", int(port), ssl_context=context, reuse_address=True).start()

    async def _answer(self, endpoint: str, request: web.BaseRequest) -> web.StreamResponse:
        body = (await request.read()).decode()
        key = self._key(endpoint, request.method, request.path_qs, body)
        answers = self._answers.get(key)
        if not answers:
            return web.json_response(
                {"jsonrpc": "2.0", "id": -1, "error": {"code": -32601, "message": "not recorded"}}, status=404
            )
        answer = answers[min(self._given[key], len(answers) - 1)]
        self._given[key] += 1
        if isinstance(answer, str):
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        if delay := answer.get("delay_s"):
            await asyncio.sleep(delay)
        text = answer["body"]
        return web.Response(status=answer["status"], text=_with_id(text, body), content_type="application/json")

    @staticmethod
    def _key(endpoint: str, method: str, target: str, body: str) -> tuple[str, str, str, str]:
        try:
            call = json.loads(body) if body else None
        except ValueError:
            call = None
        if isinstance(call, dict):
            body = json.dumps([call.get("method"), call.get("params")], sort_keys=True)
        return endpoint, method, target, body

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()


def _with_id(text: str, body: str) -> str:
    """The recorded JSON-RPC answer under the id that was asked with."""
    try:
        asked, answer = json.loads(body), json.loads(text)
    except ValueError:
        return text
    if isinstance(asked, dict) and isinstance(answer, dict) and "id" in answer and answer["id"] != asked.get("id"):
        answer["id"] = asked.get("id")
        return json.dumps(answer)
    return text


def make_certificate(path: Path, address: str) -> None:
    """A self-signed certificate and its key for one address, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)


@dataclass
class Stored:
    body: bytes
    content_type: str = "application/octet-stream"
    checksum_sha256: str | None = None
    written: bool = True


@dataclass
class S3Stand:
    """One process's worth of S3: `objects` by `bucket/key`."""

    buckets: set[str] = field(default_factory=lambda: {"gen-bucket", "snap-bucket", "res-bucket"})
    objects: dict[str, Stored] = field(default_factory=dict)
    _failures: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    _for_ever: set[tuple[str, str]] = field(default_factory=set)
    _uploads: dict[str, tuple[str, str, dict[int, bytes]]] = field(default_factory=dict)
    _runner: web.AppRunner | None = None
    secret_refused: bool = False

    async def open(self, port: int, recorded: list[dict[str, Any]]) -> None:
        answers: dict[tuple[str, str], list[str]] = defaultdict(list)
        for entry in recorded:
            if "method" in entry:
                answers[(_kind(entry["method"]), f"{entry['bucket']}/{entry['key']}")].append(
                    str(entry.get("answer", "no answer"))
                )
        for place, given in answers.items():
            failed = [answer for answer in given if not answer.startswith("2")]
            if failed and failed[0].endswith("NoSuchBucket") and place[1].split("/")[0] not in self.buckets:
                continue
            self._failures[place] = list(failed)
            if len(failed) == len(given):
                self._for_ever.add(place)
        self._runner = web.AppRunner(self._application(), access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{bucket}", self._bucket)
        application.router.add_route("*", "/{bucket}/{key:.*}", self._object)
        return application

    async def _bucket(self, request: web.Request) -> web.StreamResponse:
        return await self._list(request, request.match_info["bucket"])

    async def _object(self, request: web.Request) -> web.StreamResponse:
        bucket, key = request.match_info["bucket"], unquote(request.match_info["key"])
        if not key:
            return await self._list(request, bucket)
        body = await request.read() if request.body_exists else b""
        body = _unchunked(body, request)
        failure = await self._failure(_kind(request.method), f"{bucket}/{key}", request)
        if failure is not None:
            return failure
        if bucket not in self.buckets:
            return _error(404, "NoSuchBucket")
        query = request.query
        if request.method == "POST" and "uploads" in query:
            upload = f"u{len(self._uploads) + 1}"
            self._uploads[upload] = (f"{bucket}/{key}", request.headers.get("content-type", ""), {})
            return _xml(f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{xml.escape(key)}</Key>"
                        f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")  # fmt: skip
        if request.method == "PUT" and "partNumber" in query:
            self._uploads[query["uploadId"]][2][int(query["partNumber"])] = body
            return web.Response(headers={"ETag": _etag(body)})
        if request.method == "POST" and "uploadId" in query:
            place, content_type, parts = self._uploads.pop(query["uploadId"])
            self.objects[place] = Stored(b"".join(parts[n] for n in sorted(parts)), content_type)
            return _xml(f'<CompleteMultipartUploadResult><Key>{xml.escape(key)}</Key><ETag>"x-1"</ETag>'
                        "</CompleteMultipartUploadResult>")  # fmt: skip
        if request.method == "DELETE":
            self._uploads.pop(query.get("uploadId", ""), None)
            if "uploadId" not in query:
                self.objects.pop(f"{bucket}/{key}", None)
            return web.Response(status=204)
        if request.method == "PUT":
            return self._put(request, f"{bucket}/{key}", body)
        return self._get(request, f"{bucket}/{key}")

    def _put(self, request: web.Request, place: str, body: bytes) -> web.StreamResponse:
        checksum = request.headers.get("x-amz-checksum-sha256")
        if checksum and checksum != base64.b64encode(hashlib.sha256(body).digest()).decode():
            return _error(400, "BadDigest")
        self.objects[place] = Stored(body, request.headers.get("content-type", ""), checksum)
        return web.Response(headers={"ETag": _etag(body)})

    def _get(self, request: web.Request, place: str) -> web.StreamResponse:
        stored = self.objects.get(place)
        if stored is None:
            return _error(404, "NoSuchKey")
        headers = {
            "ETag": _etag(stored.body),
            "Last-Modified": "Fri, 20 Nov 2026 23:00:00 GMT",
            "Accept-Ranges": "bytes",
        }
        body, status = stored.body, 200
        spec = request.headers.get("range", "")
        if spec.startswith("bytes="):
            first, _, last = spec[6:].partition("-")
            start = int(first) if first else max(len(body) - int(last), 0)
            end = min(int(last), len(body) - 1) if first and last else len(body) - 1
            if start >= len(body):
                return _error(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            body, status = body[start : end + 1], 206
        if request.method == "HEAD":
            headers["Content-Length"] = str(len(body))
            return web.Response(status=status, headers=headers, content_type=stored.content_type or None)
        return web.Response(status=status, body=body, headers=headers, content_type=stored.content_type or None)

    async def _list(self, request: web.Request, bucket: str) -> web.StreamResponse:
        failure = await self._failure("read", f"{bucket}/", request)
        if failure is not None:
            return failure
        if bucket not in self.buckets:
            return _error(404, "NoSuchBucket")
        prefix = request.query.get("prefix", "")
        after = request.query.get("continuation-token", request.query.get("start-after", ""))
        keys = sorted(place.split("/", 1)[1] for place in self.objects if place.startswith(f"{bucket}/{prefix}"))
        keys = [key for key in keys if key > after]
        page, rest = keys[:LIST_PAGE], keys[LIST_PAGE:]
        rows = "".join(
            f"<Contents><Key>{xml.escape(key)}</Key><LastModified>2026-11-20T23:00:00.000Z</LastModified>"
            f"<ETag>{xml.escape(_etag(self.objects[f'{bucket}/{key}'].body))}</ETag>"
            f"<Size>{len(self.objects[f'{bucket}/{key}'].body)}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{xml.escape(page[-1])}</NextContinuationToken>" if rest else ""
        return _xml(
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{xml.escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>{'true' if rest else 'false'}</IsTruncated>{token}{rows}</ListBucketResult>"
        )

    async def _failure(self, kind: str, place: str, request: web.Request) -> web.StreamResponse | None:
        if self.secret_refused:
            return _error(403, "SignatureDoesNotMatch")
        failures = self._failures.get((kind, place))
        if not failures:
            return None
        answer = failures[0] if (kind, place) in self._for_ever else failures.pop(0)
        if answer == "no answer":
            await asyncio.sleep(600)
        if answer == "connection closed":
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        status, _, code = answer.partition(" ")
        return _error(int(status), code)


def _kind(method: str) -> str:
    return "read" if method in ("GET", "HEAD") else "write"


def _unchunked(body: bytes, request: web.Request) -> bytes:
    """The payload of an `aws-chunked` body."""
    if "aws-chunked" not in request.headers.get("content-encoding", ""):
        return body
    out, position = b"", 0
    while position < len(body):
        end = body.index(b"\r\n", position)
        size = int(body[position:end].split(b";")[0], 16)
        if size == 0:
            break
        out += body[end + 2 : end + 2 + size]
        position = end + 4 + size
    return out


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _xml(text: str) -> web.Response:
    return web.Response(text=f'<?xml version="1.0" encoding="UTF-8"?>{text}', content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")
