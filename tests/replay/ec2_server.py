"""The EC2 Query API as far as the recordings need it: DescribeInstances, paged, or a refusal."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from aiohttp import web

_REGION = re.compile(r"Credential=[^/]+/\d{8}/([^/]+)/")


class Ec2Server:
    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.url = ""
        self.reset()
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def reset(self) -> None:
        """As it is when a case begins."""
        self.state = {"mode": "ok", "instances": {}, "page": 1000}

    def change(self, step: dict[str, Any]) -> None:
        """A script's `ec2` step: fields that are not given stay as they are."""
        self.state.update({name: value for name, value in step.items() if name not in ("do", "n", "line")})

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        form = parse_qs((await request.read()).decode())
        if self.state["mode"] == "deny":
            return _refusal(self.state.get("status", 403), self.state.get("code", ""), self.state.get("message", ""))
        found = _REGION.search(request.headers.get("Authorization", ""))
        instances = self.state["instances"].get(found.group(1) if found else "", [])
        start = int(form.get("NextToken", ["0"])[0])
        page = instances[start : start + self.state["page"]]
        rest = start + len(page)
        return _xml(200, _reservations(page, str(rest) if rest < len(instances) else None))


def _reservations(instances: list[dict[str, Any]], next_token: str | None) -> str:
    items = "".join(
        f"<item><reservationId>r-{instance['id']}</reservationId><instancesSet>{_instance(instance)}</instancesSet></item>"
        for instance in instances
    )
    token = f"<nextToken>{next_token}</nextToken>" if next_token else ""
    namespace = "http://ec2.amazonaws.com/doc/2016-11-15/"
    return (
        f'<DescribeInstancesResponse xmlns="{namespace}"><requestId>r</requestId>'
        f"<reservationSet>{items}</reservationSet>{token}</DescribeInstancesResponse>"
    )


def _instance(instance: dict[str, Any]) -> str:
    fields = {
        "instanceId": "id",
        "dnsName": "publicDns",
        "ipAddress": "publicIp",
        "privateDnsName": "privateDns",
        "privateIpAddress": "privateIp",
    }
    texts = "".join(f"<{tag}>{escape(instance[name])}</{tag}>" for tag, name in fields.items() if instance.get(name))
    tags = "".join(
        f"<item><key>{escape(key)}</key><value>{escape(value)}</value></item>"
        for key, value in instance.get("tags", {}).items()
    )
    state = "<instanceState><code>16</code><name>running</name></instanceState>"
    return f"<item>{texts}{state}<tagSet>{tags}</tagSet></item>"


def _refusal(status: int, code: str, message: str) -> web.Response:
    error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    return _xml(status, f"<Response><Errors>{error}</Errors><RequestID>r</RequestID></Response>")


def _xml(status: int, body: str) -> web.Response:
    return web.Response(status=status, text=f'<?xml version="1.0" encoding="UTF-8"?>\n{body}', content_type="text/xml")
