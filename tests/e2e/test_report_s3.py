"""Reports over what the real task published into a real S3 server, asked by URL and in the Go program's words."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from seidev.s3 import Bucket
from seiops.cli.main import app
from support.shadow_nodes import Node, receipt, results, serving
from support.sidecar_process import ended, sidecar, submit, until

BLOCKS = 250


def report(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments])


@pytest.mark.s3
async def test_reports_over_a_bucket(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    shadow, canonical = Node(latest=BLOCKS), Node(latest=BLOCKS, identity="other")
    shadow.plant("block_results", 120, results(120, [receipt(120, 0, gas_used="77"), receipt(120, 1)]))
    async with serving(shadow, canonical), sidecar(tmp_path / "home") as (url, _):
        params = {
            "bucket": s3.name, "region": "us-east-1", "prefix": "pair-7", "rpcEndpoint": shadow.comet_url,
            "canonicalRpc": canonical.comet_url, "migrationMode": True, "continueOnDivergence": True,
            "startHeight": 1, "endHeight": BLOCKS,
        }  # fmt: skip
        task = await until(url, await submit(url, params), ended)
        assert task["status"] == "completed", task.get("error")
    place = f"s3://{s3.name}/pair-7"

    listed = await asyncio.to_thread(report, "list", place, "--output", "json")
    assert listed.exit_code == 0, listed.output
    (run,) = json.loads(listed.stdout)["runs"]
    assert (run["run"], run["state"], run["chain"]) == (task["result"]["manifest"], "finished", "test-1")
    assert run["counts"] == task["result"]["counts"] == {"clean": 249, "diverged": 1}
    assert run["preflight"]

    summed = await asyncio.to_thread(report, "summary", place, "--json")
    assert summed.exit_code == 0, summed.output
    told = json.loads(summed.stdout)
    assert (told["verdict"], told["blocks"], told["pages"], told["sealsHeld"]) == ("diverged", BLOCKS, 3, 3)
    assert [one["height"] for one in told["divergentBlocks"]] == [120]
    assert told["divergentBlocks"][0]["samples"][0]["shadow"] == "77"

    recorded = await asyncio.to_thread(
        report, "list", "--region", "us-east-1", "--bucket", s3.name, "--prefix", "pair-7", "--json"
    )
    assert recorded.exit_code == 0, recorded.output
    assert [one["key"] for one in json.loads(recorded.stdout)["pages"]] == [
        f"pair-7/{first}-{min(first + 99, BLOCKS)}.compare.ndjson.gz" for first in (1, 101, 201)
    ]

    missing = await asyncio.to_thread(report, "list", "--region", "us-east-1", "--bucket", f"{s3.name}-none", "--json")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr.startswith(f"Error: listing s3://{s3.name}-none/shadow-results/: ")
    assert "does not exist" in missing.stderr

    absent = await asyncio.to_thread(
        report, "divergence", "--region", "us-east-1", "--bucket", s3.name, "--key", "nope.gz"
    )
    assert absent.exit_code == 1
    assert absent.stderr.startswith(f"Error: downloading s3://{s3.name}/nope.gz: ")
