"""`seiops report`: what comparisons published, read and told: runs, blocks that differ, the verdict of a run.

Asked in the words of the Go program (`--env`, `--bucket`, `--json`) it answers as that did (docs/contracts/shadow.md 7);
asked by a URL, `list` and `divergence` tell more, and `summary` tells whether the proof holds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import orjson
import typer

from seiops.cli.clusters import CommandError, guarded

if TYPE_CHECKING:
    from rich.console import RenderableType

    from seiops.evidence.catalog import Stock, Watch
    from seiops.evidence.collect import Filters
    from seiops.evidence.oneblock import BlockView
    from seiops.evidence.summary import Summary
    from seiops.objectstore import Store

T = TypeVar("T")
DEFAULT_PREFIX = "shadow-results/"
DEFAULT_REGION = "eu-central-1"
WIDTH = 140
_SUFFIXES = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json", ".txt": "table"}

Url = Annotated[
    str, typer.Argument(metavar="[URL]", help="s3://bucket/prefix, gs://, az://, file:///dir, or a local directory.")
]
Environment = Annotated[str, typer.Option("--env", help="Instead of a URL: the bucket is ENV-sei-shadow-results.")]
Bucket = Annotated[
    str, typer.Option("--bucket", help="Instead of a URL: the bucket. Environment: SEI_RESULT_EXPORT_BUCKET.")
]
Prefix = Annotated[
    str,
    typer.Option("--prefix", help="With --env or --bucket. Environment: SEI_RESULT_EXPORT_PREFIX; shadow-results/."),
]
Region = Annotated[str, typer.Option("--region", help="Region of the bucket. Environment: SEI_RESULT_EXPORT_REGION.")]
Json = Annotated[bool, typer.Option("--json", help="The JSON that scripts around the Go program read.")]


class Form(StrEnum):
    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


Output = Annotated[
    Form | None,
    typer.Option("--output", help="Form of the report; by default what the name after -o says, else table."),
]
File = Annotated[
    str, typer.Option("-o", "--out", metavar="FILE", help="Write to this file, whole or not at all; - is stdout.")
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Read what comparisons published: runs, divergences, verdicts.")

    @group.callback(invoke_without_command=True)
    def help_alone(context: typer.Context) -> None:
        # Not no_args_is_help, which exits 2: the Go program's command answers with its help and 0 (shadow.md 7).
        if context.invoked_subcommand is None:
            print(context.get_help())

    @group.command("list")
    def runs(
        url: Url = "", env: Environment = "", bucket: Bucket = "", prefix: Prefix = "", region: Region = "",
        as_json: Json = False, output: Output = None, file: File = "",
    ) -> None:  # fmt: skip
        """List the runs below a prefix; with --env or --bucket their objects, as the Go program does."""

        def work() -> None:
            place = _place(url, env, bucket, prefix, region)
            if as_json or (place.by_flags and output is None and not file):
                _objects(place, as_json=as_json)
            else:
                _list(place, _Target.of(output, file))

        guarded(work)

    @group.command("divergence")
    def divergence(
        url: Url = "", env: Environment = "", bucket: Bucket = "", prefix: Prefix = "", region: Region = "",
        key: Annotated[str, typer.Option("--key", help="One report object, by its key in the bucket.")] = "",
        height: Annotated[int | None, typer.Option("--height", help="One block, with both sides.")] = None,
        first: Annotated[int, typer.Option("--from", min=0, help="Lowest height of a list.")] = 0,
        last: Annotated[int, typer.Option("--to", min=0, help="Highest height of a list; 0 is no limit.")] = 0,
        layer: Annotated[list[str] | None, typer.Option("--layer", help="0, 1, 2 or H (may be repeated).")] = None,
        kind: Annotated[list[str] | None, typer.Option("--kind", help="gasUsed, storage, ... (may be repeated).")] = None,
        contract: Annotated[list[str] | None, typer.Option("--contract", help="Address or a part of one (may be repeated).")] = None,
        verdict: Annotated[list[str] | None, typer.Option("--verdict", help="diverged, indeterminate, gap, vacuous, clean or all.")] = None,
        as_json: Json = False, output: Output = None, file: File = "",
    ) -> None:  # fmt: skip
        """List the blocks that differ, or show one with both sides: --height, or --key for a report object."""

        def work() -> None:
            if key and height is not None:
                raise CommandError("--key and --height are mutually exclusive")
            place = _place(url, env, bucket, prefix, region, keep_prefix=bool(key))
            form = Form.JSON if as_json else output
            if height is None and not (key or place.key):
                if place.by_flags and not (first or last or layer or kind or contract or verdict or output):
                    raise CommandError("one of --key or --height is required")
                _divergences(place, _filters(first, last, layer, kind, contract, verdict), _Target.of(form, file))
                return
            if form is None and place.by_flags and not file:
                form = Form.MARKDOWN
            _one(place, key, height, _Target.of(form, file), whole=as_json)

        guarded(work)

    @group.command("summary")
    def summary(
        url: Url = "", env: Environment = "", bucket: Bucket = "", prefix: Prefix = "", region: Region = "",
        as_json: Json = False, output: Output = None, file: File = "",
    ) -> None:  # fmt: skip
        """Tell the verdict of a run in numbers: what differs, what is open, and what to do next."""

        def work() -> None:
            place = _place(url, env, bucket, prefix, region)
            _summary(place, _Target.of(Form.JSON if as_json else output, file))

        guarded(work)

    app.add_typer(group, name="report")


# --- where ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """`by_flags`: named as the Go program's users name it. `key`: the URL names one object. `shown` names it in output."""

    store: Store
    shown: str
    by_flags: bool
    key: str = ""


def _place(url: str, env: str, bucket: str, prefix: str, region: str, *, keep_prefix: bool = False) -> _Place:
    """Raises CommandError. Of a bucket from the environment and an explicit --env the latter counts (D-25)."""
    from seiops.objectstore import open_store

    if url:
        if env or bucket or prefix:
            raise CommandError("name the place by a URL, or by --env or --bucket and --prefix, not both")
        folder, _, name = url.rpartition("/")
        object_named = name.endswith(".report.json.gz")
        return _Place(
            _opened(folder if object_named else url, region or None), url, False, name if object_named else ""
        )
    if env and bucket:
        raise CommandError("--env and --bucket are mutually exclusive")
    chosen = f"{env}-sei-shadow-results" if env else bucket or os.environ.get("SEI_RESULT_EXPORT_BUCKET", "")
    if not chosen:
        raise CommandError("one of --env or --bucket is required, or a URL such as s3://bucket/prefix")
    below = prefix or os.environ.get("SEI_RESULT_EXPORT_PREFIX", "") or DEFAULT_PREFIX
    below = "" if keep_prefix else below if below.endswith("/") else below + "/"
    where = region or os.environ.get("SEI_RESULT_EXPORT_REGION", "") or DEFAULT_REGION
    if "://" in chosen:
        # the task takes a URL for a bucket, too
        return _Place(_opened(chosen.rstrip("/") + "/" + below, where), f"{chosen.rstrip('/')}/{below}", True)
    return _Place(open_store(f"s3://{chosen}/{below}", region=where), f"s3://{chosen}/{below}", True)


def _opened(url: str, region: str | None) -> Store:
    from seiops.objectstore import open_store

    path = url.removeprefix("file://")
    if (url.startswith("file://") or "://" not in url) and not Path(path).is_dir():
        raise CommandError(f"{url}: no such directory")
    try:
        return open_store(url, region=region)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the store refuses is one line; everything else is a bug and shows itself."""
    from seiops.evidence.oneblock import BlockError
    from seiops.objectstore import StoreError

    try:
        return asyncio.run(work())
    except (StoreError, BlockError) as error:
        raise CommandError(str(error)) from None


@contextmanager
def _bar(label: str) -> Iterator[Watch]:
    """A progress bar on a terminal, silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


# --- how --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Target:
    """The form of the report and the file it goes to; no file is stdout."""

    form: Form
    file: str = ""

    @classmethod
    def of(cls, form: Form | None, file: str) -> _Target:
        if file in list(Form):
            raise CommandError(f"-o names a file; for the form write --output {file}")
        file = "" if file == "-" else file
        chosen = form or Form(_SUFFIXES.get(Path(file).suffix.lower(), "table"))
        if chosen is Form.HTML and not file and sys.stdout.isatty():
            raise CommandError("a page is for a browser: write it to a file, for example -o report.html")
        return cls(chosen, file)

    def write(self, makers: dict[Form, Callable[[], str | RenderableType]]) -> None:
        made = makers[self.form]()
        shown = made if isinstance(made, str) else self._printed(made)
        if shown is None:
            return
        if self.file:
            _put_file(Path(self.file), shown)
            print(f"wrote {self.file}", file=sys.stderr)
        else:
            sys.stdout.write(shown)
            sys.stdout.flush()

    def _printed(self, shown: RenderableType) -> str | None:
        """None once it is on stdout, with colours where that is a terminal."""
        from rich.console import Console

        from seiops.evidence.render.terminal import text_of

        console = Console(highlight=False)
        if console.is_terminal and not self.file:
            console.print(shown)
            return None
        return text_of(shown, Console(highlight=False, color_system=None, width=max(console.width, WIDTH)))


def _put_file(path: Path, text: str) -> None:
    """Whole or not at all."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}-", delete=False, encoding="utf-8"
        ) as file:
            temporary = Path(file.name)
            try:
                file.write(text)
                file.flush()
                umask = os.umask(0)
                os.umask(umask)
                temporary.chmod(0o666 & ~umask)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None


def _json(document: Any) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"


# --- list -------------------------------------------------------------------------------------------------------------


def _objects(place: _Place, *, as_json: bool) -> None:
    """Pages and reports by their names, in the recorded shape (7.3)."""
    from seiops.evidence.listing import listing, listing_lines

    found = _run(lambda: listing(place.store))
    if as_json:
        sys.stdout.write(_json(found.wire()))
        return
    sys.stderr.write(f"{found.headline}\n\n")
    if not (found.pages or found.reports):
        sys.stderr.write("no data found\n")
        return
    sys.stdout.writelines(f"{line}\n" for line in listing_lines(found))


def _list(place: _Place, target: _Target) -> None:
    from seiops.evidence.catalog import read_runs, take_stock
    from seiops.evidence.render import machine, markdown

    async def read(watch: Watch) -> list[Stock]:
        stocks = await take_stock(place.store)
        for stock in stocks:
            await read_runs(place.store, stock, watch)
        return stocks

    with _bar("reading manifests") as watch:
        runs = [run for stock in _run(lambda: read(watch)) for run in stock.runs]

    def terminal() -> RenderableType:
        from seiops.evidence.render import terminal

        return terminal.runs(runs) if runs else f"nothing was published below {place.shown}\n"

    def page() -> str:
        from seiops.evidence.render.smallpages import runs_page

        return runs_page(place.shown, runs)

    target.write({
        Form.TABLE: terminal,
        Form.JSON: lambda: _json({"format": machine.FORMAT, "place": place.shown, "runs": [machine.run_wire(run) for run in runs]}),
        Form.MARKDOWN: lambda: "\n".join([f"# Runs below {markdown.cell(place.shown)}", "", *markdown.runs(runs)]) + "\n",
        Form.HTML: page,
    })  # fmt: skip


# --- divergence -------------------------------------------------------------------------------------------------------


def _filters(
    first: int,
    last: int,
    layers: list[str] | None,
    kinds: list[str] | None,
    contracts: list[str] | None,
    verdicts: list[str] | None,
) -> Filters:
    """Raises CommandError that names the flag."""
    from seiops.evidence.blocks import LAYERS, SEVERITY
    from seiops.evidence.collect import Filters

    if last and last < first:
        raise CommandError(f"--from {first} is above --to {last}")
    chosen = tuple(one.upper() for one in layers or ())
    for one in chosen:
        if one not in LAYERS:
            raise CommandError(f"--layer {one}: use one of {', '.join(LAYERS)}")
    known = SEVERITY[1:]
    wanted = tuple(verdicts or ("diverged",))
    wanted = known if "all" in wanted else wanted
    for one in wanted:
        if one not in known:
            raise CommandError(f"--verdict {one}: use one of {', '.join(known)} or all")
    return Filters(first, last, chosen, _folded(kinds), _folded(contracts), wanted)


def _folded(texts: list[str] | None) -> tuple[str, ...]:
    return tuple(text.casefold() for text in texts or ())


def _divergences(place: _Place, filters: Filters, target: _Target) -> None:
    from seiops.evidence.catalog import read_runs
    from seiops.evidence.collect import matching
    from seiops.evidence.render import machine, markdown
    from seiops.evidence.render.text import printable
    from seiops.evidence.summary import Summary

    async def read(watch: Watch) -> Summary:
        stock = await _only(place)
        await read_runs(place.store, stock, watch)
        found = Summary(place.store.url(stock.name), stock.runs)
        await matching(place.store, stock, filters, found, watch)
        return found

    with _bar("reading manifests, then pages") as watch:
        found = _run(lambda: read(watch))
    for problem in found.problems:
        print(f"warning: {printable(problem)}", file=sys.stderr)
    left = found.blocks - len(found.listed())
    if left > 0:
        print(
            f"warning: {left} more blocks pass the filters than are listed; narrow them with --from and --to",
            file=sys.stderr,
        )

    def terminal() -> RenderableType:
        from seiops.evidence.render import terminal

        return terminal.blocks(found)

    def page() -> str:
        from seiops.evidence.render.smallpages import blocks_page

        return blocks_page(
            found, f"Blocks that are {' or '.join(filters.verdicts)} and pass the filters of the command."
        )

    def document() -> str:
        listed = [machine.block_wire(one) for one in found.listed()]
        members = {"blocks": listed, "blocksInAll": found.blocks, "problems": found.problems}
        return _json({"format": machine.FORMAT, "place": found.place} | members)

    target.write(
        {Form.TABLE: terminal, Form.JSON: document, Form.MARKDOWN: lambda: markdown.blocks(found), Form.HTML: page}
    )


def _one(place: _Place, key: str, height: int | None, target: _Target, *, whole: bool) -> None:
    from seiops.evidence import oneblock
    from seiops.evidence.catalog import take_stock
    from seiops.evidence.render import machine, markdown

    async def read() -> BlockView:
        if key or place.key:
            report = await oneblock.load_report(place.store, key or place.key)
            return oneblock.of_report(report, place.store.url(), [])
        assert height is not None
        return await oneblock.load(place.store, await take_stock(place.store), height)

    view = _run(read)

    def terminal() -> RenderableType:
        from seiops.evidence.render import terminal

        return terminal.block(view)

    def page() -> str:
        from seiops.evidence.render.smallpages import block_page

        return block_page(view)

    def document() -> str:
        return view.document().decode() if whole else _json(machine.view_wire(view))

    target.write(
        {Form.TABLE: terminal, Form.JSON: document, Form.MARKDOWN: lambda: markdown.block(view), Form.HTML: page}
    )


async def _only(place: _Place) -> Stock:
    """The one folder below the place that holds comparisons or digests. Raises CommandError that names them all."""
    from seiops.evidence.catalog import take_stock
    from seiops.evidence.reader import Kind

    stocks = [
        stock
        for stock in await take_stock(place.store)
        if stock.of(Kind.COMPARE) or stock.of(Kind.DIGEST) or stock.folder.runs
    ]
    compared = [stock for stock in stocks if stock.of(Kind.COMPARE)] or stocks
    if not compared:
        raise CommandError(f"nothing was published below {place.shown}")
    if len(compared) > 1:
        names = ", ".join(place.store.url(stock.name) for stock in compared[:10])
        raise CommandError(f"comparisons were published in several places below {place.shown}; name one of {names}")
    return compared[0]


# --- summary ----------------------------------------------------------------------------------------------------------


def _summary(place: _Place, target: _Target) -> None:
    from seiops.evidence.catalog import read_runs
    from seiops.evidence.collect import gather
    from seiops.evidence.render import machine, markdown

    async def read(watch: Watch) -> Summary:
        stock = await _only(place)
        await read_runs(place.store, stock, watch)
        return await gather(place.store, stock, watch)

    with _bar("reading manifests, then pages") as watch:
        found = _run(lambda: read(watch))

    def terminal() -> RenderableType:
        from seiops.evidence.render import terminal

        return terminal.summary(found)

    def page() -> str:
        from seiops.evidence.render.webpage import summary_page

        return summary_page(found)

    target.write({
        Form.TABLE: terminal,
        Form.JSON: lambda: _json(machine.summary_wire(found)),
        Form.MARKDOWN: lambda: markdown.summary(found),
        Form.HTML: page,
    })  # fmt: skip
