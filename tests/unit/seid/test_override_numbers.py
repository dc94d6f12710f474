"""Numbers of overrides, read as Go's scanner reads them: what it answers to these texts was taken from it."""

from pathlib import Path

import pytest

from seiops.seid.overrides import OverrideError, apply_overrides
from seiops.seid.reading import ReadError, read_config
from seiops.seid.schema import load_schema

SCHEMA = load_schema("v0.0.21")
INT = "mempool.size"
FLOAT = "storage.state_commit.memiavl.snapshot_prefetch_threshold"
DURATION = "consensus.timeout_commit" if "consensus.timeout_commit" in SCHEMA.fields else "evm.read_timeout"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        (INT, "\u00a012", 12),
        (INT, "\u3000 7x", 7),
        (INT, "\r5", 5),
        (FLOAT, "1_0", 10.0),
        (FLOAT, "0x_1p4", 16.0),
        (FLOAT, "\u20031.5s", 1.5),
        (FLOAT, "2p3", 16.0),
        (FLOAT, "1p99999", float("inf")),
    ],
)
def test_what_is_read(key: str, text: str, value: float) -> None:
    values = {}
    apply_overrides(SCHEMA, values, {key: text})
    assert values == {key: value}


@pytest.mark.parametrize(
    ("key", "text", "reason"),
    [
        (INT, "\u2003", "EOF"),
        (INT, "\u00a0\n5", "unexpected newline"),
        (INT, "\r\n5", "unexpected newline"),
        (FLOAT, "_1", 'strconv.ParseFloat: parsing "_1": invalid syntax'),
        (FLOAT, "1_", 'strconv.ParseFloat: parsing "1_": invalid syntax'),
        (FLOAT, "n5", 'strconv.ParseFloat: parsing "n5": invalid syntax'),
        (FLOAT, "ix", 'strconv.ParseFloat: parsing "i": invalid syntax'),
        (FLOAT, "1p", 'strconv.Atoi: parsing "1p": invalid syntax'),
        (FLOAT, "1e400", 'strconv.ParseFloat: parsing "1e400": value out of range'),
        (DURATION, "9223372036854775809", 'time: invalid duration "9223372036854775809"'),
        (DURATION, "9223372036854775809x", 'time: invalid duration "9223372036854775809x"'),
    ],
)
def test_what_is_refused(key: str, text: str, reason: str) -> None:
    with pytest.raises(OverrideError) as failure:
        apply_overrides(SCHEMA, {}, {key: text})
    assert str(failure.value).endswith(f": {reason}")


@pytest.mark.parametrize(
    ("text", "value"), [("1_0.5", 10.5), ("0x1p3", 8.0), ("-Infinity", float("-inf")), ("1e-400", 0.0)]
)
def test_quoted_floats_in_files(text: str, value: float, tmp_path: Path) -> None:
    assert quoted_float(text, tmp_path) == value


@pytest.mark.parametrize("text", ["1e309", "+nan", "\u0663", "0x1", " 1"])
def test_quoted_floats_that_are_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="snapshot-prefetch-threshold"):
        quoted_float(text, tmp_path)


def quoted_float(text: str, folder: Path) -> object:
    (folder / "config.toml").write_text("")
    (folder / "app.toml").write_text(f'[state-commit]\nsc-snapshot-prefetch-threshold = "{text}"\n')
    return read_config(SCHEMA, folder)[FLOAT]
