"""The digest command line: seidb's parsing, our tables and JSON, and finding the keys in which two stores differ."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seiops.cli.main import app
from seiops.digest.arguments import DigestArguments, parse_flags
from seiops.digest.errors import DigestError
from seiops.digest.seidb_cli import main as seidb
from support.digest_recorded import Unpacker

FINAL_8 = "7E77CDDEAE9A6DE065190772A446CD1060DF3030908936A4FBD0545982E6F6AC"


def run(*arguments: str) -> tuple[int, str]:
    outcome = CliRunner().invoke(app, ["digest", *arguments])
    return outcome.exit_code, outcome.stdout


@pytest.fixture
def tiny(unpacked: Unpacker) -> Path:
    return unpacked("tiny")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["-d", "x"], {"db_dir": "x"}),
        (["-dx"], {"db_dir": "x"}),
        (["-d=x"], {"db_dir": "x"}),
        (["--db-dir=x", "positional", "--height", "0x10"], {"db_dir": "x", "height": 16}),
        (["--height=-5", "--list", "--details=false"], {"height": -5, "list": True, "details": False}),
        (["--height=010", "--", "--nope"], {"height": 8}),
    ],
)
def test_flags_are_parsed_as_seidb_parses_them(argv: list[str], expected: dict[str, object]) -> None:
    found = parse_flags(argv)
    assert {name: getattr(found, name) for name in expected} == expected
    rest = [name for name in DigestArguments.__dataclass_fields__ if name not in expected]
    assert all(getattr(found, name) == getattr(DigestArguments(), name) for name in rest)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["--db_dir", "x"], "unknown flag: --db_dir"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["--height"], "flag needs an argument: --height"),
        (["-d"], "flag needs an argument: 'd' in -d"),
        (
            ["--height", "x"],
            'invalid argument "x" for "--height" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            [f"--height={2**63}"],
            f'invalid argument "{2**63}" for "--height" flag: strconv.ParseInt: parsing "{2**63}": value out of range',
        ),
        (
            ["--list=maybe"],
            'invalid argument "maybe" for "--list" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
    ],
)
def test_flags_seidb_cannot_parse_end_as_with_seidb(argv: list[str], expected: str) -> None:
    with pytest.raises(DigestError) as refused:
        parse_flags(argv)
    assert str(refused.value) == expected
    out, err = io.StringIO(), io.StringIO()
    assert seidb(argv, out, err) == 1
    assert out.getvalue() == expected + "\n"
    assert err.getvalue().startswith(f"Error: {expected}\n")


def test_table_and_json_show_the_same_digest(tiny: Path) -> None:
    arguments = ("--backend", "flatkv", "--db-dir", str(tiny / "FLATDIR"), "--height", "8")
    status, table = run(*arguments)
    assert status == 0
    assert FINAL_8 in table
    status, text = run(*arguments, "--format", "json")
    members = json.loads(text)
    assert (status, members["final"], members["version"]) == (0, {"count": 77, "digest": FINAL_8}, 8)


def test_an_error_is_one_line_and_status_one(tiny: Path) -> None:
    outcome = CliRunner().invoke(app, ["digest", "--backend", "flatkv", "--db-dir", str(tiny / "MEMDIR")])
    assert outcome.exit_code == 1
    assert "not a FlatKV snapshot" in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1


def test_inspect_find_hash_status_and_root(tiny: Path) -> None:
    memiavl = ("--backend", "memiavl", "--db-dir", str(tiny / "MEMDIR"), "--height", "6")
    status, text = run("inspect", "code", *memiavl, "--list", "--format", "json")
    entries = json.loads(text)["entries"]
    assert (status, len(entries)) == (0, 3)
    wanted = "1a8df643406f4f40ce083ff58a9fa1ca44f6e04ab9cf0b02dfd0bb541b7906a7"
    status, text = run("find-hash", wanted, *memiavl, "--format", "json")
    assert [found["bucket"] for found in json.loads(text)["found"]] == ["code"]
    assert json.loads(run("status", "--db-dir", str(tiny / "FLATDIR"), "--format", "json")[1])["version_at"] == 8
    status, text = run("root", "--db-dir", str(tiny / "MEMDIR"), "--height", "6")
    assert (status, text.startswith("evm at 6: ")) == (0, True)


def test_stores_of_one_state_have_equal_trees(tiny: Path) -> None:
    status, text = run("diff", f"memiavl:{tiny}/MEMDIR@8", f"{tiny}/FLATDIR@8", "--format", "json")
    assert (status, json.loads(text)["same"]) == (0, True)


def test_differing_keys_are_named_with_both_values_and_heights(tiny: Path) -> None:
    status, text = run("diff", f"{tiny}/MEMDIR@7", f"{tiny}/FLATDIR@8", "--format", "json")
    found = json.loads(text)
    assert (status, found["keys"]) == (2, 5)
    nonce = next(one for one in found["differences"] if one["bucket"] == "account" and one["a"])
    assert (nonce["a_height"], nonce["b_height"]) == (1, 8)
    assert nonce["a"] != nonce["b"]


def test_trees_and_row_files_find_the_same_keys_on_two_machines(tiny: Path, tmp_path: Path) -> None:
    sides = {"a": f"{tiny}/MEMDIR@7", "b": f"{tiny}/FLATDIR@8"}
    for name, store in sides.items():
        assert run("tree", store, "--output", str(tmp_path / f"{name}.json"))[0] == 0
    status, text = run("diff", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--format", "json")
    assert status == 2
    (tmp_path / "shards.json").write_text(text)
    for name, store in sides.items():
        shards, target = str(tmp_path / "shards.json"), str(tmp_path / f"{name}.rows.gz")
        assert run("rows", store, "--shards", shards, "--output", target)[0] == 0
    status, text = run("diff", str(tmp_path / "a.rows.gz"), str(tmp_path / "b.rows.gz"), "--format", "json")
    remote = json.loads(text)
    here = json.loads(run("diff", *sides.values(), "--format", "json")[1])
    assert (status, remote) == (2, here)


def test_a_damaged_tree_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    run("tree", f"{tiny}/MEMDIR@7", "--output", str(path))
    content = json.loads(path.read_text())
    content["buckets"]["storage"]["shards"].pop()
    path.write_text(json.dumps(content))
    outcome = CliRunner().invoke(app, ["digest", "diff", str(path), str(path)])
    assert outcome.exit_code == 1
    assert "do not add up" in outcome.stderr


def test_a_directory_that_is_no_store_is_named(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["digest", "diff", str(tmp_path), str(tmp_path)])
    assert outcome.exit_code == 1
    assert f"{tmp_path}: no memiavl or FlatKV store" in outcome.stderr
