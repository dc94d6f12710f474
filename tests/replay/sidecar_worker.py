"""One lane of the sidecar replay, inside its namespaces: takes its share of the recorded cases and runs them in turn."""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from replay import sidecar_cli, sidecar_config, sidecar_db, sidecar_http, sidecar_process, sidecar_tasks
from replay.differences import DifferenceBook
from replay.report import CaseResult
from replay.sidecar_world import World

SLOW_SECONDS = 20.0


@dataclass
class Unit:
    """Cases that belong together: one process, or several that build on each other."""

    name: str
    run: Callable[[], Awaitable[None]]
    seconds: float


def units(world: World) -> Iterator[Unit]:
    for module in (sidecar_tasks, sidecar_http, sidecar_config, sidecar_db, sidecar_process, sidecar_cli):
        for name, run, seconds in module.units(world):
            yield Unit(name, run, seconds)


def share(found: list[Unit], lane: str) -> list[Unit]:
    """The units of lane `KIND:n/of`: slow or quick ones, balanced by how long they took when recorded."""
    kind, _, place = lane.partition(":")
    index, lanes = (int(part) for part in place.split("/"))
    wanted = [unit for unit in found if (unit.seconds > SLOW_SECONDS) == (kind == "slow")]
    loads = [0.0] * lanes
    mine: list[Unit] = []
    for unit in sorted(wanted, key=lambda unit: -unit.seconds):
        lightest = loads.index(min(loads))
        loads[lightest] += unit.seconds + 1.0
        if lightest == index:
            mine.append(unit)
    return mine


async def main(golden: Path, scratch: Path, lane: str, pattern: str) -> None:
    _loopback_up()
    socket.sethostname("golden-host")
    book = DifferenceBook.load()

    def emit(result: CaseResult) -> None:
        print(json.dumps(asdict(result)), flush=True)

    world = World(golden, scratch, pattern, book, emit)
    for unit in share(list(units(world)), lane):
        try:
            await unit.run()
        except Exception as error:  # one broken case must not hide the others
            traceback.print_exc()
            emit(CaseResult(f"sidecar/{unit.name}", "fail", f"the harness broke: {type(error).__name__}: {error}"))


def _loopback_up() -> None:
    """`ip link set lo up` without the program: a fresh network namespace starts with it down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(control, 0x8913, request))[1]
        fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", flags | 0x1))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
