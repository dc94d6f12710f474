"""Derives the schema the sidecar loads at run time from the contract people read.

`docs/contracts/seid-config.json` is a third of a megabyte of prose, history and vectors. The sidecar needs the keys,
types, places and defaults only, so this module distils them into `src/seiops/seid/schema.json`; a test checks that the
two agree. Run `python -m seidev.config_schema` after editing the contract.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ROOT / "docs" / "contracts" / "seid-config.json"
SCHEMA = ROOT / "src" / "seiops" / "seid" / "schema.json"

MODES = ("validator", "full", "seed", "archive")
FIRST_PROFILE = "v0.0.21"
CURRENT_PROFILE = "v0.0.25"

AUTO_WRITE_MODE: dict[str, Any] = {
    "key": "storage.state_commit.write_mode_enable_auto",
    "type": "bool",
    "bits": None,
    "nullable": True,
    "toml": [{"file": "app.toml", "table": "state-commit", "key": "sc-write-mode-enable-auto"}],
    "default": dict.fromkeys(("base", *MODES)),
}
"""The key seid obeys and the library of that release does not know (docs/contracts/seid-config.md 17a)."""

PLACED_AFTER = {
    "storage.state_store.evm_ss_split": ("app.toml", "state-store", "ss-enable"),
    "storage.state_commit.write_mode_enable_auto": ("app.toml", "state-commit", "sc-write-mode"),
}
OMITTED_WHEN_ZERO = (
    "storage.state_commit.write_mode",
    "storage.state_commit.read_mode",
    "storage.state_store.write_mode",
    "storage.state_store.read_mode",
    "storage.state_store.evm_ss_split",
)


def distil(contract: dict[str, Any]) -> dict[str, Any]:
    """The run-time schema: `fields` (one entry a key), `layout` (order on disk), `constants`, `profiles`."""
    fields = [_field(entry, since=None) for entry in contract["fields"]]
    later = {entry["key"]: entry for entry in contract["later_fields"]}
    fields.append(_field(later["storage.state_store.evm_ss_split"], since=CURRENT_PROFILE))
    fields.append(_field(AUTO_WRITE_MODE, since=CURRENT_PROFILE))
    return {
        "fields": sorted(fields, key=lambda entry: str(entry["key"])),
        "layout": {name: _layout(name, file) for name, file in contract["file_layout"].items()},
        "constants": [
            [entry["file"], entry["table"], entry["key"], entry["value"]] for entry in contract["legacy_constants"]
        ],
        "profile_defaults": {CURRENT_PROFILE: contract["profile_v0_0_25_defaults"]},
        "migrations": [
            {name: step[name] for name in ("from", "to", "description", "value_renames")}
            for step in contract["migrations"]
        ],
        "chains": {
            chain: {name: entry[name] for name in ("genesis_bytes", "genesis_sha256", "genesis_time", "rpc")}
            for chain, entry in contract["embedded_chains"].items()
        },
    }


def _field(entry: dict[str, Any], *, since: str | None) -> dict[str, Any]:
    places = [place for place in entry["toml"] if place.get("read", True) not in (False, "fallback")]
    mirrors = [place for place in entry["toml"] if place not in places]
    out: dict[str, Any] = {"key": entry["key"], "type": entry["type"], "default": _defaults(entry["default"])}
    out["places"] = [[place["file"], place["table"], place["key"]] for place in places + mirrors]
    if entry["bits"] is not None and entry["type"] in ("int", "uint"):
        out["bits"] = entry["bits"]
    if entry["nullable"]:
        out["nullable"] = True
    if entry.get("hot_reload"):
        out["hot_reload"] = True
    if entry["key"] in OMITTED_WHEN_ZERO:
        out["omitted_when_zero_since"] = CURRENT_PROFILE
    if since is not None:
        out["since"] = since
    return out


def _defaults(by_mode: dict[str, Any]) -> dict[str, Any]:
    """The base value, and the modes whose value differs from it."""
    base = by_mode["base"]
    return {"base": base} | {mode: by_mode[mode] for mode in MODES if by_mode[mode] != base}


def _layout(file: str, entry: dict[str, Any]) -> list[list[Any]]:
    tables: list[list[Any]] = [[None, list(entry["root_keys"])]]
    tables += [[table["table"], list(table["keys"])] for table in entry["tables"]]
    added = {item["key"]: item["toml"][0] for item in (AUTO_WRITE_MODE,)}
    added["storage.state_store.evm_ss_split"] = {"key": "evm-ss-split"}
    for key, (in_file, table, after) in PLACED_AFTER.items():
        if in_file != file:
            continue
        keys = next(names for name, names in tables if name == table)
        keys.insert(keys.index(after) + 1, added[key]["key"])
    return tables


def render(schema: dict[str, Any]) -> str:
    """One line a field, so that a change of the contract shows as a readable difference."""
    lines = []
    for name, value in schema.items():
        if isinstance(value, list):
            body = ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in value)
            lines.append(f" {json.dumps(name)}: [\n{body}\n ]")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    SCHEMA.write_text(render(distil(json.loads(CONTRACT.read_text()))))
    print(f"wrote {SCHEMA.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
