"""How far the EVM migration of a FlatKV store has come, for the preflight: read from the store, not from metrics."""

from __future__ import annotations

import asyncio

from seiops.shadow.preflight import MigrationFacts


async def migration_facts(directory: str) -> MigrationFacts:
    """Raises ValueError for a directory that is no readable FlatKV store."""
    return await asyncio.to_thread(_read, directory)


def _read(directory: str) -> MigrationFacts:
    # the digest's libraries are heavy, and only a configured preflight needs them
    from seiops.digest.arguments import DigestArguments
    from seiops.digest.command import migration_status
    from seiops.digest.engines import engine_named
    from seiops.digest.errors import DigestError

    try:
        height, state = migration_status(DigestArguments(db_dir=directory), engine_named("auto", [directory]))
    except DigestError as error:
        raise ValueError(str(error)) from error
    started = state.version_payload is not None or state.boundary_payload is not None
    return MigrationFacts(height, state.version >= 1 and state.boundary_payload is None, started)
