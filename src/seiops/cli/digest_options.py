"""Flags that several `seiops digest` commands share, each spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seiops.cli import digest_views as views

Backend = Annotated[str, typer.Option("--backend", help="flatkv, memiavl or composite.")]
DbDir = Annotated[str, typer.Option("--db-dir", "-d", help="Root of the FlatKV or memiavl store.")]
FlatkvDir = Annotated[str, typer.Option("--flatkv-dir", help="composite: root of the FlatKV store.")]
MemiavlDir = Annotated[str, typer.Option("--memiavl-dir", help="composite: root of the memiavl store.")]
Height = Annotated[int, typer.Option("--height", help="Height to digest; 0 is the latest (memiavl: `current`).")]
OpenMode = Annotated[str, typer.Option("--memiavl-open-mode", help="snapshot or replay.")]
Normalization = Annotated[str, typer.Option("--memiavl-normalization", help="semantic or translator.")]
Engine = Annotated[str, typer.Option("--engine", help="auto, native or reference.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Worker threads of the native engine.")]
Verify = Annotated[bool, typer.Option("--verify", help="Recompute every hash the store holds, not only checksums.")]
Format = Annotated[views.Format, typer.Option("--format", help="How to show the result.")]
FindHash = Annotated[str, typer.Option("--find-hash", help="Print every row with this 32-byte entry hash (hex).")]
Bucket = Annotated[str, typer.Option("--inspect-bucket", help="account, code, storage or misc.")]
KeyOffset = Annotated[int, typer.Option("--key-offset", help="Byte of the physical key where the prefix begins.")]
KeyPrefix = Annotated[str, typer.Option("--key-prefix", help="Hex prefix of the key behind the offset.")]
ShardBytes = Annotated[int, typer.Option("--shard-next-bytes", help="Group by this many bytes behind the prefix.")]
List = Annotated[bool, typer.Option("--list", help="List rows instead of grouping them.")]
ListLimit = Annotated[int, typer.Option("--list-limit", help="Rows to list; 0 lists all.")]
Details = Annotated[bool, typer.Option("--details", help="With --list: the height of each row where it is known.")]
Store = Annotated[
    str,
    typer.Argument(metavar="STORE", help="[flatkv:|memiavl:]DIR[@HEIGHT], or composite:FLATKVDIR+MEMIAVLDIR@HEIGHT."),
]
DefaultHeight = Annotated[
    int, typer.Option("--height", help="Height where the store's name gives none; 0 is the latest.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; stdout without it.")]
