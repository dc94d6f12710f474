"""`seiops syncers check` as a pull-request check: 0 fine, 1 could not check, 2 findings."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from seidev.chain import Recording, Window
from support.chains import CHAIN, HEAD, Forked, node, recordings, serving
from support.command import Finished, seiops


@pytest.fixture(scope="module")
def pair() -> tuple[Recording, Recording]:
    return recordings()


def config(directory: Path, syncers: Any) -> Path:
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump({"stateSync": {"syncers": syncers}}))
    return file


async def check(*arguments: str | Path, **environment: str) -> Finished:
    return await seiops("syncers", "check", *arguments, "--longest-age=0", "--deadline=2", environment=environment)


async def test_a_good_list_passes(pair: tuple[Recording, Recording], tmp_path: Path) -> None:
    async with serving(node(pair[0]), node(pair[1])) as addresses:
        file = config(tmp_path, {CHAIN: addresses})
        table = await check(file)
        found = await check(file, "-o", "json")
        by_environment = await check("--chain", CHAIN, "-o", "json", SEI_CONTROLLER_CONFIG=str(file))
    assert table.status == 0, table.err + table.out
    assert all(address in table.out for address in addresses) and "no findings" in table.out
    assert found.status == 0
    document = found.json()
    assert document["fine"] is True
    assert [endpoint["usable"] for endpoint in document["chains"][0]["endpoints"]] == [True, True]
    assert by_environment.status == 0


async def test_findings_end_with_2(pair: tuple[Recording, Recording], tmp_path: Path) -> None:
    async with serving(node(pair[0]), Forked(pair[1], Window(421, HEAD))) as addresses:
        done = await check(config(tmp_path, {CHAIN: addresses}), "-o", "json")
    assert done.status == 2
    problems = {finding["problem"] for item in done.json()["chains"][0]["endpoints"] for finding in item["findings"]}
    assert problems == {"HashDisagrees"}


async def test_a_list_with_a_bad_item_is_a_finding_and_the_others_are_asked(
    pair: tuple[Recording, Recording], tmp_path: Path
) -> None:
    async with serving(node(pair[0]), node(pair[1])) as addresses:
        file = config(tmp_path, {CHAIN: [*addresses, "https://rpc.example"], "good-1": []})
        done = await check(file, "--chain", CHAIN, "-o", "json")
    (chain,) = done.json()["chains"]
    assert done.status == 2
    assert [finding["problem"] for finding in chain["findings"]] == ["Malformed"]
    assert f"stateSync.syncers.{CHAIN}[2]" in chain["findings"][0]["detail"]
    assert [endpoint["usable"] for endpoint in chain["endpoints"]] == [True, True]


async def test_one_chain_too_few_does_not_hide_another(pair: tuple[Recording, Recording], tmp_path: Path) -> None:
    async with serving(node(pair[0]), node(pair[1])) as addresses:
        done = await check(config(tmp_path, {CHAIN: addresses, "lonely-1": ["127.0.0.1:1"]}), "-o", "json")
    assert done.status == 2
    assert {chain["chainId"]: chain["fine"] for chain in done.json()["chains"]} == {CHAIN: True, "lonely-1": False}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("stateSync: [1]", "stateSync is a list, expected a map"),
        ("stateSync: {", "not YAML|error converting YAML"),
        ("scheduling: {}", "lists no syncers"),
        ("stateSync: {syncers: {a-1: [x:1, y:1]}}", "not one endpoint answered"),
    ],
)
async def test_what_could_not_be_checked_ends_with_1(content: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    done = await check(file)
    assert done.status == 1, done.out + done.err
    assert any(text in done.err for text in expected.split("|")), done.err


async def test_a_chain_that_is_not_listed_and_a_file_that_is_not_there_end_with_1(tmp_path: Path) -> None:
    unknown = await check(config(tmp_path, {"a-1": ["x:1"]}), "--chain", "b-1")
    assert unknown.status == 1 and "b-1; chains it lists: a-1" in unknown.err
    missing = await check(tmp_path / "none.yaml")
    assert missing.status == 1 and "No such file" in missing.err
