"""`seiops digest`: the full-keyspace digest of a store, and everything needed when two of them differ.

Without a subcommand it takes one digest with seidb's own flags. `--format seidb` hands the whole line to
`seiops.digest.seidb_cli`, which keeps seidb's parsing, texts and exit status; `table` and `json` are for people and
programs of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from seiops.cli import digest_localize
from seiops.cli import digest_options as options
from seiops.cli import digest_views as views
from seiops.digest import seidb_cli
from seiops.digest.arguments import DigestArguments
from seiops.digest.command import migration_status, run_digest, run_inspect
from seiops.digest.engine import Engine as DigestEngine
from seiops.digest.engines import with_engine
from seiops.digest.errors import DigestError
from seiops.digest.report import migration_status as status_members


def wants_seidb_format(argv: Sequence[str]) -> bool:
    pairs = zip(argv, [*argv[1:], ""], strict=True)
    return any(word == "--format=seidb" or (word == "--format" and value == "seidb") for word, value in pairs)


class DigestGroup(TyperGroup):
    """Leaves a command line in seidb's format to seidb's parser."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if wants_seidb_format(args):
            ctx.exit(seidb_cli.main(args))
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=DigestGroup,
    invoke_without_command=True,
    no_args_is_help=True,
    help="Digest the EVM state of a memiavl, FlatKV or mid-migration store, and find where two stores differ.",
)


@app.callback()
def digest(
    ctx: typer.Context,
    backend: options.Backend = "",
    db_dir: options.DbDir = "",
    flatkv_dir: options.FlatkvDir = "",
    memiavl_dir: options.MemiavlDir = "",
    height: options.Height = 0,
    memiavl_open_mode: options.OpenMode = "snapshot",
    memiavl_normalization: options.Normalization = "semantic",
    inspect_bucket: options.Bucket = "",
    key_offset: options.KeyOffset = 0,
    key_prefix: options.KeyPrefix = "",
    shard_next_bytes: options.ShardBytes = 0,
    list_: options.List = False,
    list_limit: options.ListLimit = 1000,
    details: options.Details = False,
    find_hash: options.FindHash = "",
    engine: options.Engine = "auto",
    threads: options.Threads = 1,
    verify: options.Verify = False,
    format_: options.Format = views.Format.TABLE,
) -> None:
    """Take one digest (or inspect one bucket, with --inspect-bucket)."""
    if ctx.invoked_subcommand is not None:
        return
    arguments = DigestArguments(
        backend, db_dir, flatkv_dir, memiavl_dir, height, memiavl_open_mode, memiavl_normalization, inspect_bucket,
        key_offset, key_prefix, shard_next_bytes, list_, list_limit, details, find_hash, engine, threads, verify,
    )  # fmt: skip
    if arguments.inspect_bucket:
        _inspect(arguments, format_)
    else:
        _digest(arguments, format_)


@app.command()
def inspect(
    bucket: Annotated[str, typer.Argument(help="account, code, storage or misc.")],
    backend: options.Backend = "",
    db_dir: options.DbDir = "",
    height: options.Height = 0,
    memiavl_normalization: options.Normalization = "semantic",
    key_offset: options.KeyOffset = 4,
    key_prefix: options.KeyPrefix = "",
    shard_next_bytes: options.ShardBytes = 0,
    list_: options.List = False,
    list_limit: options.ListLimit = 1000,
    details: options.Details = False,
    engine: options.Engine = "auto",
    format_: options.Format = views.Format.TABLE,
) -> None:
    """Group or list the rows of one bucket. Prefixes count from behind `evm/` unless --key-offset says otherwise."""
    arguments = DigestArguments(
        backend=backend, db_dir=db_dir, height=height, memiavl_normalization=memiavl_normalization,
        inspect_bucket=bucket, key_offset=key_offset, key_prefix=key_prefix, shard_next_bytes=shard_next_bytes,
        list=list_, list_limit=list_limit, details=details, engine=engine,
    )  # fmt: skip
    _inspect(arguments, format_)


@app.command("find-hash")
def find_hash_command(
    entry_hash: Annotated[str, typer.Argument(help="32-byte entry hash (hex): the XOR of two bucket digests.")],
    backend: options.Backend = "",
    db_dir: options.DbDir = "",
    flatkv_dir: options.FlatkvDir = "",
    memiavl_dir: options.MemiavlDir = "",
    height: options.Height = 0,
    memiavl_open_mode: options.OpenMode = "snapshot",
    memiavl_normalization: options.Normalization = "semantic",
    engine: options.Engine = "auto",
    format_: options.Format = views.Format.TABLE,
) -> None:
    """Find the row by which two bucket digests differ."""
    arguments = DigestArguments(
        backend=backend, db_dir=db_dir, flatkv_dir=flatkv_dir, memiavl_dir=memiavl_dir, height=height,
        memiavl_open_mode=memiavl_open_mode, memiavl_normalization=memiavl_normalization, find_hash=entry_hash,
        engine=engine,
    )  # fmt: skip
    _digest(arguments, format_)


@app.command()
def status(
    db_dir: options.DbDir = "",
    height: options.Height = 0,
    engine: options.Engine = "auto",
    format_: options.Format = views.Format.TABLE,
) -> None:
    """Tell how far a FlatKV store's migration is."""
    try:
        arguments = DigestArguments(db_dir=db_dir, height=height)
        version, state = with_engine(engine, [db_dir], partial(migration_status, arguments))
    except DigestError as error:
        fail(error)
    views.show_status(status_members(version, state), format_)


def _digest(arguments: DigestArguments, format_: views.Format) -> None:
    def run(engine: DigestEngine) -> None:
        with views.digest_view(format_, engine) as view:
            run_digest(arguments, engine, view)

    try:
        with_engine(arguments.engine, arguments.roots, run)
    except DigestError as error:
        fail(error)


def _inspect(arguments: DigestArguments, format_: views.Format) -> None:
    def run(engine: DigestEngine) -> None:
        run_inspect(arguments, engine, views.inspect_view(format_))

    try:
        with_engine(arguments.engine, arguments.roots, run)
    except DigestError as error:
        fail(error)


def fail(error: DigestError) -> NoReturn:
    """End the process with the error as its last line."""
    print(f"Error: {error}", file=sys.stderr)
    raise typer.Exit(1)


digest_localize.register(app)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="digest")
