"""`seiops digest tree`, `rows`, `diff` and `root`: from two digests that differ to the keys they differ in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import typer

from seiops.cli import digest_options as options
from seiops.cli.digest_views import Format, wide_console
from seiops.digest.arguments import DigestArguments, normalization
from seiops.digest.engine import Engine, OpenOptions, Shard
from seiops.digest.engines import with_engine
from seiops.digest.errors import DigestError
from seiops.digest.keys import Bucket
from seiops.digest.localize import (
    ROWS_FORMAT,
    KeyDifference,
    RowFile,
    SideTree,
    decode_tree,
    diff_rows,
    differing_shards,
    encode_tree,
    open_row_file,
    take_tree,
    write_rows,
)
from seiops.digest.memiavl.avl import root_hash
from seiops.digest.sources import OpenedSource, parse_source
from seiops.digest.treefile import is_url, read_document

SAME, FAILED, DIFFERENT = 0, 1, 2
P = ParamSpec("P")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Errors of a store or a file become one line and exit status 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (DigestError, OSError) as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(FAILED) from None

    return run


def register(app: typer.Typer) -> None:
    app.command()(tree)
    app.command()(rows)
    app.command()(diff)
    app.command()(root)


@guarded
def tree(
    store: options.Store,
    height: options.DefaultHeight = 0,
    memiavl_normalization: options.Normalization = "semantic",
    engine: options.Engine = "auto",
    threads: options.Threads = 1,
    output: options.Output = None,
) -> None:
    """Write a store's shard tree: digest and count of every shard, some kilobytes."""
    with _OpenedStore(store, height, memiavl_normalization, engine, threads) as (opened, chosen):
        content = encode_tree(take_tree(opened, chosen.name))
    text = json.dumps(content, separators=(",", ":")) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


@guarded
def rows(
    store: options.Store,
    shards: Annotated[
        str, typer.Option("--shards", help="What `seiops digest diff --format json` printed, or a tree (file or URL).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Row file to write; .gz compresses.")],
    height: options.DefaultHeight = 0,
    memiavl_normalization: options.Normalization = "semantic",
    engine: options.Engine = "auto",
    threads: options.Threads = 1,
) -> None:
    """Export the rows of some shards, for a diff with the same shards of another store."""
    wanted = _read_shards(shards)
    with _OpenedStore(store, height, memiavl_normalization, engine, threads) as (opened, _):
        count = write_rows(output, opened, wanted)
    print(f"{output}: {count:,} rows of {len(wanted):,} shards")


@guarded
def root(
    db_dir: Annotated[str, typer.Option("--db-dir", "-d", help="Root of the memiavl store.")],
    height: options.DefaultHeight = 0,
    tree: Annotated[str, typer.Option("--tree", help="Tree (module) whose root is wanted.")] = "evm",
) -> None:
    """Recompute a memiavl tree's root hash at a height: what the node committed there. Holds the tree in memory."""
    version, digest = root_hash(db_dir, height, tree)
    print(f"{tree} at {version}: {digest.hex()}")


@guarded
def diff(
    a: Annotated[str, typer.Argument(help="A tree (file or URL), a row file, or a store as for `tree`.")],
    b: Annotated[str, typer.Argument(help="The same of the other side.")],
    height: options.DefaultHeight = 0,
    limit: Annotated[int, typer.Option("--limit", help="Keys to print; 0 prints all.")] = 100,
    memiavl_normalization: options.Normalization = "semantic",
    engine: options.Engine = "auto",
    threads: options.Threads = 1,
    format_: options.Format = Format.TABLE,
) -> None:
    """Say where two sides differ. Exit 0 the same, 1 could not compare, 2 different.

    Trees name shards, buckets and counts; row files and stores name keys with both values.
    """
    sides = [_side(name, height, memiavl_normalization) for name in (a, b)]
    if all(isinstance(side, RowFile) for side in sides):
        one, other = (side for side in sides if isinstance(side, RowFile))
        if one.shards != other.shards:
            raise DigestError(f"{a} and {b} hold different shards; export both with the same --shards file")
        _finish_keys(list(diff_rows(one.rows(), other.rows())), limit, format_)
    elif any(isinstance(side, RowFile) for side in sides):
        raise DigestError("a row file can only be compared with a row file of the same shards")
    elif all(isinstance(side, SideTree) for side in sides):
        _finish_shards([side for side in sides if isinstance(side, SideTree)], format_)
    else:
        _diff_stores(a, b, sides, height, memiavl_normalization, engine, threads, limit, format_)


def _diff_stores(
    a: str, b: str, sides: list[Any], height: int, decoder: str, engine: str, threads: int, limit: int, format_: Format
) -> None:
    """A store against a store or a tree: two scans of each store, the second of the differing shards only."""
    trees: list[SideTree] = []
    for name, side in zip((a, b), sides, strict=True):
        if isinstance(side, SideTree):
            trees.append(side)
        else:
            with _OpenedStore(name, height, decoder, engine, threads) as (opened, chosen):
                trees.append(take_tree(opened, chosen.name))
    shards = differing_shards(trees[0].shards, trees[1].shards)
    if not shards or any(isinstance(side, SideTree) for side in sides):
        _finish_shards(trees, format_)
    with (
        _OpenedStore(a, height, decoder, engine, threads) as (one, _),
        _OpenedStore(b, height, decoder, engine, threads) as (other, _),
    ):
        _finish_keys(list(diff_rows(one.rows(shards), other.rows(shards))), limit, format_)


class _OpenedStore:
    """A store named on the command line, open, and the engine that opened it."""

    def __init__(self, name: str, height: int, decoder: str, engine: str, threads: int) -> None:
        source = parse_source(name, height, normalization(DigestArguments(memiavl_normalization=decoder)))

        def opened(chosen: Engine) -> tuple[OpenedSource, Engine]:
            return OpenedSource(source, chosen, OpenOptions(threads=threads)), chosen

        self._source, self._engine = with_engine(engine, source.root.split("+"), opened)

    def __enter__(self) -> tuple[OpenedSource, Engine]:
        return self._source, self._engine

    def __exit__(self, *_: object) -> None:
        self._source.__exit__()


def _side(name: str, height: int, decoder: str) -> Any:
    """A tree or row file where the name is a URL's or a file's, else None: a store to be opened later."""
    if is_url(name):
        return decode_tree(read_document(name) or {}, name)
    if not Path(name).is_file():
        parse_source(name, height, normalization(DigestArguments(memiavl_normalization=decoder)))
        return None
    content = read_document(name)
    if content is None or content.get("format") == ROWS_FORMAT:
        return open_row_file(Path(name))
    return decode_tree(content, name)


def _read_shards(name: str) -> list[Shard]:
    """Shards named by a diff's JSON, or all shards of a tree."""
    content = read_document(name)
    try:
        if content is None:
            raise ValueError("not a JSON object")
        if "shards" in content:
            return [Shard(Bucket(entry["bucket"]), int(entry["index"])) for entry in content["shards"]]
        return list(decode_tree(content, name).shards)
    except (KeyError, TypeError, ValueError) as error:
        raise DigestError(f"{name}: names no shards: {error!r}") from error


def _finish_shards(trees: list[SideTree], format_: Format) -> NoReturn:
    one, other = trees
    shards = differing_shards(one.shards, other.shards)
    buckets = [(bucket, one.buckets()[bucket], other.buckets()[bucket]) for bucket in Bucket]
    if format_ is Format.JSON:
        members = {
            "a": {"origin": one.origin, "version": one.version, "final": one.final},
            "b": {"origin": other.origin, "version": other.version, "final": other.final},
            "same": not shards,
            "buckets": [
                {"bucket": bucket, "same": mine == theirs, "a_count": mine.count, "b_count": theirs.count}
                for bucket, mine, theirs in buckets
            ],
            "shards": [{"bucket": shard.bucket, "index": shard.index} for shard in shards],
        }
        print(json.dumps(members))
    else:
        console = wide_console()
        console.print(
            f"a {one.origin} at {one.version}: {one.final}\nb {other.origin} at {other.version}: {other.final}"
        )
        for bucket, mine, theirs in buckets:
            inside = sum(1 for shard in shards if shard.bucket is bucket)
            shards_word = "shard" if inside == 1 else "shards"
            state = "same" if mine == theirs else f"[bold red]differs[/] in {inside:,} {shards_word}"
            console.print(f"{bucket:8} {mine.count:>14,} rows | {theirs.count:>14,} rows  {state}")
    raise typer.Exit(DIFFERENT if shards else SAME)


def _finish_keys(differences: list[KeyDifference], limit: int, format_: Format) -> NoReturn:
    shown = differences[: limit or None]
    if format_ is Format.JSON:
        members = {"same": not differences, "keys": len(differences), "differences": [one.members() for one in shown]}
        print(json.dumps(members))
    else:
        console = wide_console()
        for one in shown:
            console.print(_describe(one), soft_wrap=True, markup=False)
        more = f", {len(differences) - len(shown):,} not shown (--limit 0)" if len(shown) < len(differences) else ""
        console.print(f"{len(differences):,} keys differ{more}" if differences else "no key differs")
    raise typer.Exit(DIFFERENT if differences else SAME)


def _describe(one: KeyDifference) -> str:
    place = f" address 0x{one.address}" if one.address else f" key {one.key.hex()}"
    slot = f" slot 0x{one.slot}" if one.slot else ""
    return (
        f"{one.bucket}{place}{slot}\n  a {_value(one.one, one.one_height)}\n  b {_value(one.other, one.other_height)}"
    )


def _value(payload: bytes | None, height: int | None) -> str:
    if payload is None:
        return "absent"
    text = payload.hex() or "(empty)"
    return f"{text} (written at {height})" if height is not None else text
