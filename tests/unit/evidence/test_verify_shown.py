"""What is written below a prefix may come from anybody: it is shown as text and never steers the terminal or ends in a trace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seiops.cli.main import app
from seiops.evidence.statement import verdict_of
from seiops.objectstore import open_store
from seiops.shadow.manifest import ChainHead, What, Writer, encode
from support.evidence import AT, clean, put_page


def run(*words: object) -> tuple[int, str]:
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    assert outcome.exception is None or isinstance(outcome.exception, SystemExit), outcome.exception
    return outcome.exit_code, outcome.output


@pytest.mark.parametrize("name", ["\\[", "[b]x[", "a b%41", "ключ"])
def test_names_from_outside_are_text(tmp_path: Path, name: str) -> None:
    async def publish() -> None:
        store = open_store(f"file://{tmp_path}")
        writer = Writer(store, ChainHead("run-1"))
        await put_page(store, "", [clean(1)], writer)

    asyncio.run(publish())
    (tmp_path / "manifest" / "run-1").rename(tmp_path / "manifest" / name)
    status, output = run("verify", tmp_path)
    assert status == 2
    assert "chain-broken" in output


def test_what_entries_say_steers_no_terminal(tmp_path: Path) -> None:
    async def publish() -> None:
        writer = Writer(open_store(f"file://{tmp_path}"), ChainHead("run-1"))
        entry = await writer.append(What("end", AT, info={"reason": "\x1b[2J[/b]"}))
        entry.run = "\x1b[2Jfine[/red]"
        (tmp_path / "manifest/run-1/00000001.json").write_bytes(encode(entry))

    asyncio.run(publish())
    status, output = run("verify", tmp_path)
    assert status == 2
    assert "chain-broken" in output
    assert "\x1b[2J" not in output


@pytest.mark.parametrize("key", ["../outside.gz", "/etc/passwd", "a//b.gz", "", ".", "x\x00y", "manifest/../z"])
def test_entries_that_name_no_object_below_the_prefix_are_findings(tmp_path: Path, key: str) -> None:
    (tmp_path / "outside.gz").write_bytes(b"secret")
    place = tmp_path / "run"

    async def publish() -> None:
        writer = Writer(open_store(f"file://{place}"), ChainHead("run-1"))
        entry = await writer.append(What("page", AT))
        entry.key, entry.sha256 = key, "0" * 64
        (place / "manifest/run-1/00000001.json").write_bytes(encode(entry))

    place.mkdir()
    asyncio.run(publish())
    status, output = run("verify", place)
    assert status == 2
    assert "object-missing" in output or "entry-contradicts" in output


@pytest.mark.parametrize("seal", ["1-100.compare.ndjson.gz=xyz", "no-seal", "=" + "0" * 64])
def test_seals_that_are_none_are_refused(tmp_path: Path, seal: str) -> None:
    status, output = run("verify", tmp_path, "--seal", seal)
    assert status == 1
    assert "write KEY=SHA256" in output


@pytest.mark.parametrize(
    "words", [("verify", "--bogus"), ("verify", "a", "b"), ("attest",), ("verify", "x", "--output", "xml")]
)
def test_a_question_asked_wrongly_is_no_finding(words: tuple[str, ...]) -> None:
    assert run(*words)[0] == 1


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        (["exported"], "exported"),
        (["exported", "clean"], "clean"),
        (["match"], "clean"),
        (["clean", "mismatch"], "mismatch"),
        (["clean", "diverged", "gap"], "diverged"),
    ],
)
def test_a_statement_says_clean_only_of_what_was_compared(verdicts: list[str], verdict: str) -> None:
    assert verdict_of(verdicts) == verdict
