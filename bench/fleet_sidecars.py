"""All sidecars of a fleet in one process: every task is done at once. Speaks just enough HTTP/1.1 for the controller.

`slow` in a node's name delays each answer by 100 ms; `hung` means accepted and never answered. Prints its address when it
listens. `GET /counts` from any host tells how often each route was asked.

    python bench/fleet_sidecars.py ADDRESS
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from hashlib import sha256

PORT = 8443
DELAY = 0.1

_ready: set[bytes] = set()
_counts: Counter[str] = Counter()


def answer(method: bytes, path: bytes, node: bytes, body: bytes) -> tuple[int, bytes]:
    _counts[f"{method.decode()} {'/'.join(path.decode().split('/')[:3])}"] += 1
    if path == b"/counts":
        return 200, json.dumps(_counts).encode()
    if path == b"/v0/healthz":
        return (200 if node in _ready else 503), b""
    if path == b"/v0/node-id":
        return 200, b'{"nodeId":"%s"}' % sha256(node).hexdigest()[:40].encode()
    if method == b"POST":
        if b'"mark-ready"' in body:
            _ready.add(node)
        start = body.index(b'"id":"') + 6
        return 201, b'{"id":"%s"}' % body[start : start + 36]
    return 200, b'{"id":"%s","type":"t","status":"completed"}' % path.rsplit(b"/", 1)[-1]


class Sidecar(asyncio.Protocol):
    """One connection. Requests of the controller are small and not pipelined."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, rest = self._seen.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        length = int(headers.get(b"content-length", b"0"))
        if len(rest) < length:
            return
        self._seen = rest[length:]
        method, path, _ = lines[0].split(b" ", 2)
        node = headers[b"host"].split(b".", 1)[0]
        if b"hung" in node:
            return
        status, body = answer(method, path, node, rest[:length])
        text = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            status,
            len(body),
            body,
        )
        if b"slow" in node:
            asyncio.get_running_loop().call_later(DELAY, self._transport.write, text)
        else:
            self._transport.write(text)


async def main(address: str) -> None:
    server = await asyncio.get_running_loop().create_server(Sidecar, address, PORT, backlog=4096)
    print(address, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
