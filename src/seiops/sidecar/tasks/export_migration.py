"""How far the EVM migration of a FlatKV store has come, for the preflight: read from the store, not from metrics."""

from __future__ import annotations

import asyncio
from contextlib import closing

from seiops.shadow.traps import MigrationFacts


async def migration_facts(directory: str) -> MigrationFacts:
    """Raises ValueError for a directory that is no readable FlatKV store."""
    return await asyncio.to_thread(_read, directory)


class _FirstRowError(Exception):
    """Raised by the first row of a bucket: the rest of the scan is of no interest."""


def _read(directory: str) -> MigrationFacts:
    # the digest's libraries are heavy, and only a configured preflight needs them
    from seiops.digest.engine import FlatkvStore, InspectQuery, OpenOptions
    from seiops.digest.engines import engine_named
    from seiops.digest.errors import DigestError
    from seiops.digest.keys import Bucket
    from seiops.digest.model import Row

    def holds(store: FlatkvStore, bucket: Bucket) -> bool:
        def seen(row: Row) -> None:
            raise _FirstRowError

        try:
            store.inspect(InspectQuery(bucket), seen)
        except _FirstRowError:
            return True
        return False

    try:
        with closing(engine_named("auto", [directory]).open_flatkv(directory, 0, OpenOptions())) as store:
            state = store.migration_state()
            started = state.version_payload is not None or state.boundary_payload is not None
            empty = not started and not any(holds(store, bucket) for bucket in Bucket)
            complete = state.version >= 1 and state.boundary_payload is None
            return MigrationFacts(store.version, complete, started, empty)
    except DigestError as error:
        raise ValueError(str(error)) from error
