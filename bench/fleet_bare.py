"""The yardstick: the writes that bring up a fleet, made with plain asyncio and nothing else.

Reads one JSON document from standard input (server, token, CA file, and for each node its list of requests in order),
makes them with a fixed number of workers, and prints wall and CPU seconds. Rendering is not part of it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time

import aiohttp

WORKERS = 16


async def main() -> None:
    given = json.load(sys.stdin)
    context = ssl.create_default_context(cafile=given["ca_file"])
    headers = {"Authorization": f"Bearer {given['token']}"}
    nodes = iter(given["nodes"])
    refused = 0
    began, cpu = time.perf_counter(), time.process_time()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=WORKERS), headers=headers
    ) as session:

        async def work() -> None:
            nonlocal refused
            for requests in nodes:
                for method, path, content_type, body in requests:
                    async with session.request(
                        method, given["server"] + path, data=body, headers={"Content-Type": content_type}
                    ) as answer:
                        await answer.read()
                        refused += answer.status >= 300

        await asyncio.gather(*(work() for _ in range(WORKERS)))
    print(
        json.dumps(
            {
                "wall": time.perf_counter() - began,
                "cpu": time.process_time() - cpu,
                "requests": sum(len(requests) for requests in given["nodes"]),
                "refused": refused,
            }
        )
    )


asyncio.run(main())
