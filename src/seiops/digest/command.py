"""One digest, inspect or status run from checked flags to finished output, for any engine and any way of showing it."""

from __future__ import annotations

from contextlib import closing
from typing import Protocol

from seiops.digest import arguments as flags
from seiops.digest.arguments import DigestArguments
from seiops.digest.boundary import MigrationState
from seiops.digest.context import Context, composite_context, flatkv_context, memiavl_context
from seiops.digest.engine import (
    Engine,
    Inspection,
    InspectQuery,
    MemiavlStore,
    OpenOptions,
    ScanHooks,
)
from seiops.digest.errors import DigestError
from seiops.digest.keys import Bucket
from seiops.digest.model import Backend, Normalization, OpenMode, Progress, Row, Totals, Verification


class DigestView(Protocol):
    """Shows a digest run as it happens."""

    def start(self, context: Context) -> None: ...

    def found(self, row: Row) -> None: ...

    def progress(self, context: Context, point: Progress) -> None: ...

    def report(self, context: Context, totals: Totals) -> None: ...


class InspectView(Protocol):
    """Shows an inspect run as it happens."""

    def row(self, row: Row, height_label: str | None) -> None: ...

    def inspection(
        self, backend: Backend, version: int, query: InspectQuery, outcome: Inspection, listed: tuple[int, int] | None
    ) -> None: ...


def open_options(arguments: DigestArguments) -> OpenOptions:
    return OpenOptions(Verification.FULL if arguments.verify else Verification.CHEAP, max(1, arguments.threads))


def run_digest(arguments: DigestArguments, engine: Engine, view: DigestView) -> None:
    """Take one digest. Raises DigestError; what was shown before stays shown."""
    flags.check_db_dir(arguments)
    wanted = flags.find_hash(arguments)
    chosen = flags.backend(arguments)
    if chosen is Backend.FLATKV:
        _digest_flatkv(arguments, engine, view, wanted)
    elif chosen is Backend.MEMIAVL:
        _digest_memiavl(arguments, engine, view, wanted)
    else:
        _digest_composite(arguments, engine, view, wanted)


def _hooks(context: Context, view: DigestView, wanted: bytes | None) -> ScanHooks:
    return ScanHooks(wanted, view.found, lambda point: view.progress(context, point))


def _digest_flatkv(arguments: DigestArguments, engine: Engine, view: DigestView, wanted: bytes | None) -> None:
    with closing(engine.open_flatkv(arguments.db_dir, arguments.height, open_options(arguments))) as store:
        context = flatkv_context(arguments.db_dir, arguments.height, store.version)
        view.start(context)
        try:
            totals = store.digest(_hooks(context, view, wanted))
        except DigestError as error:
            raise _iterating("iterate", error) from error
        view.report(context, totals)


def _digest_memiavl(arguments: DigestArguments, engine: Engine, view: DigestView, wanted: bytes | None) -> None:
    mode = flags.open_mode(arguments)
    if mode is OpenMode.SNAPSHOT:
        flags.normalization(arguments)
    store = engine.open_memiavl(arguments.db_dir, arguments.height, mode, open_options(arguments))
    with closing(store):
        normalization = flags.normalization(arguments)
        context = memiavl_context(
            arguments.db_dir, arguments.height, store.version, store.tree_dir, mode, normalization
        )
        view.start(context)
        (totals,) = store.digest([normalization], _hooks(context, view, wanted))
        view.report(context, totals)


def _digest_composite(arguments: DigestArguments, engine: Engine, view: DigestView, wanted: bytes | None) -> None:
    options = open_options(arguments)
    with closing(engine.open_flatkv(arguments.flatkv_dir, arguments.height, options)) as flatkv:
        migration = flatkv.migration_state()
        mode = flags.open_mode(arguments)
        with closing(engine.open_memiavl(arguments.memiavl_dir, arguments.height, mode, options)) as memiavl:
            context = composite_context(
                arguments.flatkv_dir, arguments.memiavl_dir, arguments.height, flatkv.version, memiavl.version,
                memiavl.tree_dir, mode, migration,
            )  # fmt: skip
            view.start(context)
            totals = engine.composite(flatkv, memiavl).digest(_hooks(context, view, wanted))
            view.report(context, totals)


def _iterating(what: str, error: DigestError) -> DigestError:
    """Row errors reach the user bare; errors of the files below are said to have come up while iterating."""
    return error if str(error).startswith("deserialize ") else type(error)(f"{what}: {error}")


def run_inspect(arguments: DigestArguments, engine: Engine, view: InspectView) -> None:
    """Inspect one bucket. Raises DigestError."""
    flags.check_db_dir(arguments)
    backend, query, normalization = flags.inspect_query(arguments)
    listing = _Listing(arguments, backend, query, view) if arguments.list else None
    options = open_options(arguments)
    if backend is Backend.FLATKV:
        with closing(engine.open_flatkv(arguments.db_dir, arguments.height, options)) as flatkv:
            outcome = flatkv.inspect(query, listing.take if listing else None)
            version = flatkv.version
    else:
        memiavl = engine.open_memiavl(arguments.db_dir, arguments.height, OpenMode.SNAPSHOT, options)
        with closing(memiavl):
            outcome = _inspect_memiavl(memiavl, query, normalization, listing)
            version = memiavl.version
    listed = (listing.listed, arguments.list_limit) if listing else None
    view.inspection(backend, version, query, outcome, listed)


def _inspect_memiavl(
    store: MemiavlStore, query: InspectQuery, normalization: Normalization, listing: _Listing | None
) -> Inspection:
    if listing is None:
        return store.inspect(query, normalization, None)
    if listing.leaf_versions:
        return store.storage_details(query, listing.take)
    return store.inspect(query, normalization, listing.take)


class _Listing:
    """Passes the first rows on to the view; the rest is only counted."""

    def __init__(self, arguments: DigestArguments, backend: Backend, query: InspectQuery, view: InspectView) -> None:
        self.listed = 0
        self.leaf_versions = arguments.details and backend is Backend.MEMIAVL and query.bucket is Bucket.STORAGE
        self._limit = arguments.list_limit
        self._view = view
        self._label: str | None = None
        if arguments.details and backend is Backend.FLATKV:
            self._label = "block_height"
        elif self.leaf_versions:
            self._label = "leaf_version"

    def take(self, row: Row) -> None:
        if self._limit <= 0 or self.listed < self._limit:
            self.listed += 1
            self._view.row(row, self._label)


def migration_status(arguments: DigestArguments, engine: Engine) -> tuple[int, MigrationState]:
    """Opened version of a FlatKV store and how far its migration is."""
    flags.check_db_dir(arguments)
    with closing(engine.open_flatkv(arguments.db_dir, arguments.height, open_options(arguments))) as store:
        return store.version, store.migration_state()
