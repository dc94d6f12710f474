"""The one AWS call the controller makes: DescribeInstances, signed, paged, with the usual places for credentials.

An AWS library would be the largest thing in the image for one read-only request; the signature is forty lines and its
test vectors are AWS's own. Credentials come from environment variables, web identity (IRSA), the container endpoint
(EKS Pod Identity) or the instance metadata service, in that order, and are renewed before they expire.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

import aiohttp
import orjson

DEADLINE = 10.0
API_VERSION = "2016-11-15"
MOST_PAGES = 1000
RENEW_BEFORE = 300.0
METADATA = "http://169.254.169.254"
CONTAINER = "http://169.254.170.2"


class Ec2Error(Exception):
    """EC2 or the source of credentials did not answer, or refused."""


@dataclass(frozen=True, slots=True)
class Instance:
    """Hosts in order of preference: public name, public address, private name, private address (empty where unset)."""

    tags: Mapping[str, str]
    hosts: tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Credentials:
    key: str
    secret: str
    token: str = ""
    expires: float = float("inf")


class Ec2Client:
    """One for the process. Same questions asked at the same time share one answer."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._session: aiohttp.ClientSession | None = None
        self._credentials: Credentials | None = None
        self._lock = asyncio.Lock()
        self._asking: dict[tuple[str, ...], asyncio.Task[list[Instance]]] = {}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def instances(self, region: str, tags: Mapping[str, str]) -> list[Instance]:
        """Running instances of the region that carry all the tags, following pages. Raises Ec2Error."""
        question = (region, *(f"{name}={value}" for name, value in sorted(tags.items())))
        asking = self._asking.get(question)
        if asking is None:
            asking = asyncio.create_task(self._describe(region, tags))
            self._asking[question] = asking
            asking.add_done_callback(lambda _: self._asking.pop(question, None))
        return await asyncio.shield(asking)

    async def _describe(self, region: str, tags: Mapping[str, str]) -> list[Instance]:
        wanted = [("instance-state-name", "running"), *((f"tag:{name}", value) for name, value in sorted(tags.items()))]
        form = {"Action": "DescribeInstances", "Version": API_VERSION}
        for number, (name, value) in enumerate(wanted, 1):
            form |= {f"Filter.{number}.Name": name, f"Filter.{number}.Value.1": value}
        found: list[Instance] = []
        for _ in range(MOST_PAGES):
            page = await self._ask(region, form)
            found += [_instance(item) for item in page.iterfind("reservationSet/item/instancesSet/item")]
            following = page.findtext("nextToken") or ""
            if not following:
                return found
            form["NextToken"] = following
        raise Ec2Error(f"EC2 in {region} gave more than {MOST_PAGES} pages")

    async def _ask(self, region: str, form: Mapping[str, str]) -> ElementTree.Element:
        environ = self._environ
        url = (
            environ.get("AWS_ENDPOINT_URL_EC2")
            or environ.get("AWS_ENDPOINT_URL")
            or f"https://ec2.{region}.amazonaws.com"
        )
        body = urlencode(form, quote_via=quote).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        headers |= sign("POST", url, headers, body, await self._current(), region, "ec2", datetime.now(UTC))
        status, answer = await self._request("POST", url, headers, body)
        page = _xml(answer)
        if status == 200 and page is not None:
            return page
        code = page.findtext("Errors/Error/Code") if page is not None else None
        message = page.findtext("Errors/Error/Message") if page is not None else None
        raise Ec2Error(f"EC2 in {region} answered {status}: {code or 'no code'}: {message or 'no message'}")

    async def _current(self) -> Credentials:
        async with self._lock:
            if self._credentials is None or time.time() > self._credentials.expires - RENEW_BEFORE:
                self._credentials = await self._find_credentials()
            return self._credentials

    async def _find_credentials(self) -> Credentials:
        environ = self._environ
        if environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
            token = environ.get("AWS_SESSION_TOKEN", "")
            return Credentials(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], token)
        if environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and environ.get("AWS_ROLE_ARN"):
            return await self._web_identity()
        if environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") or environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
            return await self._container()
        return await self._metadata()

    async def _web_identity(self) -> Credentials:
        environ = self._environ
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
        default = f"https://sts.{region}.amazonaws.com" if region else "https://sts.amazonaws.com"
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": environ["AWS_ROLE_ARN"],
            "RoleSessionName": environ.get("AWS_ROLE_SESSION_NAME", "seiops-controller"),
            "WebIdentityToken": _read(environ["AWS_WEB_IDENTITY_TOKEN_FILE"]),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        url = environ.get("AWS_ENDPOINT_URL_STS") or default
        status, answer = await self._request("POST", url, headers, urlencode(form, quote_via=quote).encode())
        page = _xml(answer)
        given = page.find("{*}AssumeRoleWithWebIdentityResult/{*}Credentials") if page is not None else None
        if status != 200 or given is None:
            raise Ec2Error(f"STS answered {status} to AssumeRoleWithWebIdentity for {environ['AWS_ROLE_ARN']}")
        text = {
            name: given.findtext(f"{{*}}{name}") or "" for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")
        }
        expires = _moment(given.findtext("{*}Expiration"))
        return Credentials(text["AccessKeyId"], text["SecretAccessKey"], text["SessionToken"], expires)

    async def _container(self) -> Credentials:
        environ = self._environ
        url = environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        url = url or CONTAINER + environ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]
        token = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        if path := environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
            token = _read(path)
        return _given(*await self._request("GET", url, {"Authorization": token} if token else {}), url)

    async def _metadata(self) -> Credentials:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
        _, token = await self._request("PUT", f"{METADATA}/latest/api/token", headers)
        headers = {"X-aws-ec2-metadata-token": token.decode()}
        roles = f"{METADATA}/latest/meta-data/iam/security-credentials/"
        _, role = await self._request("GET", roles, headers)
        url = roles + role.decode().strip().splitlines()[0] if role.strip() else roles
        return _given(*await self._request("GET", url, headers), url)

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE, sock_connect=3.0))
        try:
            async with self._session.request(method, url, headers=headers, data=body) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Ec2Error(f"{url}: {error or type(error).__name__}") from error


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: Credentials,
    region: str,
    service: str,
    moment: datetime,
) -> dict[str, str]:
    """Headers to add so that AWS accepts the request (Signature Version 4). ``url`` has no query string."""
    parts = urlsplit(url)
    stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed |= {"host": parts.netloc, "x-amz-date": stamp}
    if credentials.token:
        signed["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            method,
            quote(parts.path or "/", safe="/-_.~"),
            "",
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    added = {
        "X-Amz-Date": stamp,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={credentials.key}/{scope}, SignedHeaders={names}, "
        f"Signature={signature}",
    }
    if credentials.token:
        added["X-Amz-Security-Token"] = credentials.token
    return added


def _instance(item: ElementTree.Element) -> Instance:
    tags = {tag.findtext("key") or "": tag.findtext("value") or "" for tag in item.iterfind("tagSet/item")}
    names = ("dnsName", "ipAddress", "privateDnsName", "privateIpAddress")
    public_name, public_address, private_name, private_address = (item.findtext(name) or "" for name in names)
    return Instance(tags, (public_name, public_address, private_name, private_address))


def _xml(answer: bytes) -> ElementTree.Element | None:
    """The answer without its default namespace; None if it is not XML."""
    try:
        root = ElementTree.fromstring(answer)
    except ElementTree.ParseError:
        return None
    for element in root.iter():
        if not element.tag.startswith("{https://sts"):
            element.tag = element.tag.rpartition("}")[2]
    return root


def _given(status: int, answer: bytes, url: str) -> Credentials:
    """Credentials in the JSON form of the container and instance endpoints."""
    try:
        given = orjson.loads(answer)
        key, secret, token = given["AccessKeyId"], given["SecretAccessKey"], given.get("Token", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Ec2Error(f"{url} answered {status} and gave no credentials") from None
    return Credentials(key, secret, token, _moment(given.get("Expiration")))


def _moment(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else float("inf")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Ec2Error(f"{path}: {error.strerror}") from error
