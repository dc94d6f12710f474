"""The recorded FlatKV node with changes, as a broken migration would make them: each layer's own kind of divergence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson

from seidev.chain import Answer, Recording

CHAIN = Path(__file__).resolve().parents[1] / "data" / "chain"
NEW_ACCOUNT = "0x" + "77" * 20


class Tampered:
    """The FlatKV recording with changes; `results` and `trace` take a function of the decoded answer."""

    def __init__(self) -> None:
        self.recording = Recording.load(CHAIN / "rpc-flatkv.jsonl.zst")

    def results(self, height: int, change: Any) -> None:
        path = f"/block_results?height={height}"
        answer = self.recording.comet[path]
        document = json.loads(answer.body)
        change(document)
        self.recording.comet[path] = Answer(answer.status, answer.headers, orjson.dumps(document))

    def state(self, method: str, height: int, value: str) -> None:
        """Changes the first recorded read of this kind at a height."""
        for (name, params), _ in self.recording.evm.items():
            if name == method and f'"{hex(height)}"'.encode() in params:
                self.recording.evm[name, params] = b'"result":' + json.dumps(value).encode()
                return
        raise AssertionError(f"no {method} recorded at {height}")

    def trace_more(self, height: int) -> None:
        """The shadow's own trace names an account that the canonical one does not."""
        for (name, params), reply in self.recording.evm.items():
            if name == "debug_traceBlockByNumber" and f'"{hex(height)}"'.encode() in params and b"prestate" in params:
                traces = json.loads(reply.removeprefix(b'"result":'))
                traces[0]["result"]["post"][NEW_ACCOUNT] = {"nonce": 1}
                self.recording.evm[name, params] = b'"result":' + json.dumps(traces).encode()
                return
        raise AssertionError(f"no trace recorded at {height}")
