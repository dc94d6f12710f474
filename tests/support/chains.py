"""Recorded nodes on real sockets, as witnesses that behave and as witnesses that do not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from seidev.chain import Answer, ChainServer, Recording, Replay, Window

DATA = Path(__file__).resolve().parents[1] / "data" / "chain"
CHAIN = "seiops-local-1"
TRUST = 423
"""A height whose block, commit and validators are recorded."""
HEAD = TRUST + 2000


class Forked(Replay):
    """A node on a fork: the block id at one height is another's."""

    def comet_get(self, path: str) -> Answer:
        answer = super().comet_get(path)
        if f"height={TRUST}" not in path:
            return answer
        ours = block_hash(self.recording, TRUST).encode()
        return Answer(answer.status, answer.headers, answer.body.replace(ours, b"F" * 64))


class Renamed(Replay):
    """A node of another chain."""

    def comet_get(self, path: str) -> Answer:
        answer = super().comet_get(path)
        return Answer(answer.status, answer.headers, answer.body.replace(CHAIN.encode(), b"other-chain-1"))


class NoValidators(Replay):
    def comet_get(self, path: str) -> Answer:
        return super().comet_get("/validators?height=999999" if path.startswith("/validators") else path)


def block_hash(recording: Recording, height: int) -> str:
    body = recording.comet[f"/block?height={height}"].body
    return body.split(b'"hash":"', 1)[1][:64].decode()


def recordings() -> tuple[Recording, Recording]:
    """Two nodes of one chain."""
    return Recording.load(DATA / "rpc-memiavl.jsonl.zst"), Recording.load(DATA / "rpc-flatkv.jsonl.zst")


def node(recording: Recording, *, base: int = 421, head: int = HEAD, catching_up: bool = False) -> Replay:
    return Replay(recording, Window(base, head, catching_up))


@asynccontextmanager
async def serving(*nodes: Replay) -> AsyncIterator[list[str]]:
    """`host:port` of each, in order."""
    servers = [ChainServer(replay) for replay in nodes]
    try:
        for server in servers:
            await server.start()
        yield [server.comet_url.removeprefix("http://") for server in servers]
    finally:
        for server in servers:
            await server.stop()
