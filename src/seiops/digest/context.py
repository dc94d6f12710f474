"""What a digest run says about itself before and after the numbers: the lines seidb prints and scripts grep for.

Texts are wire (docs/contracts/digest.md 1.14).
"""

from __future__ import annotations

from dataclasses import dataclass

from seiops.digest.boundary import BoundaryStatus, MigrationState
from seiops.digest.files import clean_path
from seiops.digest.model import Backend, Normalization, OpenMode, Totals

_DEFERRED = (
    "Note: account rows are merged by the translator at finalize, so progress shows account=deferred_until_finalize."
)

_NORMALIZATION_TEXT = {
    (OpenMode.SNAPSHOT, Normalization.SEMANTIC): (
        "independent semantic decoder for raw memiavl EVM keys; does not call flatkv.ImportTranslator"
    ),
    (OpenMode.SNAPSHOT, Normalization.TRANSLATOR): (
        "memiavl leaves translated with flatkv.ImportTranslator, then reduced to logical payload"
    ),
    (OpenMode.REPLAY, Normalization.SEMANTIC): (
        "independent semantic decoder for replayed memiavl EVM keys; does not call flatkv.ImportTranslator"
    ),
    (OpenMode.REPLAY, Normalization.TRANSLATOR): (
        "replayed memiavl leaves translated with flatkv.ImportTranslator, then reduced to logical payload"
    ),
}

_SCAN_TEXT = {
    (OpenMode.SNAPSHOT, Normalization.SEMANTIC): (
        "memiavl input_leaves -> independently decoded EVM logical bucket counts",
        "Note: semantic mode does not call flatkv.ImportTranslator; account rows are merged locally at finalize.",
    ),
    (OpenMode.SNAPSHOT, Normalization.TRANSLATOR): (
        "memiavl input_leaves -> translated flatkv logical bucket counts",
        _DEFERRED,
    ),
    (OpenMode.REPLAY, Normalization.SEMANTIC): (
        "replayed memiavl iterator -> independently decoded EVM logical bucket counts",
        "Note: semantic replay mode walks the in-memory/mmap tree, not the snapshot kvs file.",
    ),
    (OpenMode.REPLAY, Normalization.TRANSLATOR): (
        "replayed memiavl iterator -> translated flatkv logical bucket counts",
        _DEFERRED,
    ),
}


@dataclass(frozen=True, slots=True)
class Context:
    """Self-description of one run. `scan` and `note` introduce the progress lines, `migration` is known to composite runs."""

    backend: Backend
    mode: str
    db_dir: str
    source: str
    requested_height: int
    version: int
    normalization: str
    scan: str
    note: str | None = None
    open_mode: OpenMode = OpenMode.SNAPSHOT
    migration: MigrationState | None = None

    def lines(self) -> list[str]:
        return [
            f"backend: {self.backend}",
            f"mode: {self.mode}",
            f"db_dir: {self.db_dir}",
            f"source: {self.source}",
            f"requested_height: {self.requested_height}",
            f"version: {self.version}",
            f"normalization: {self.normalization}",
        ]

    def trailer(self, totals: Totals) -> list[str]:
        """Lines between the scan and the report; bucket counts here are the unadjusted ones."""
        replayed = "memiavl-replay" if self.open_mode is OpenMode.REPLAY else "memiavl"
        if self.backend is Backend.MEMIAVL:
            counts = " ".join(f"{bucket}={tally.count}" for bucket, tally in totals.tallies.items())
            return [
                f"  finalize backend=memiavl mode={self.mode} {counts}",
                f"  {replayed} total leaves={totals.input_rows}",
            ]
        if self.backend is Backend.FLATKV:
            return []
        lines = [f"  composite flatkv rows={totals.input_rows}"]
        if self.migration is None or self.migration.boundary.status is not BoundaryStatus.COMPLETE:
            lines.append(
                f"  composite {replayed} leaves={totals.memiavl_rows} consumed_unmigrated={totals.consumed_rows}"
            )
        return lines


def flatkv_context(db_dir: str, height: int, version: int) -> Context:
    return Context(
        backend=Backend.FLATKV,
        mode="native",
        db_dir=db_dir,
        source="isolated FlatKV clone opened from snapshot + changelog WAL replay",
        requested_height=height,
        version=version,
        normalization="native FlatKV physical keyspace; values reduced to height-independent logical payload",
        scan="flatkv input_physical_rows -> normalized logical bucket counts",
    )


def memiavl_context(
    db_dir: str, height: int, version: int, tree_dir: str, mode: OpenMode, normalization: Normalization
) -> Context:
    replayed = mode is OpenMode.REPLAY
    scan, note = _SCAN_TEXT[mode, normalization]
    return Context(
        backend=Backend.MEMIAVL,
        mode=f"{normalization}-replay" if replayed else str(normalization),
        db_dir=db_dir,
        source="read-only memiavl DB opened from snapshot + changelog replay"
        if replayed
        else f"{tree_dir} (snapshot/current only; no memiavl WAL replay)",
        requested_height=height,
        version=version,
        normalization=_NORMALIZATION_TEXT[mode, normalization],
        scan=scan,
        note=note,
        open_mode=mode,
    )


def composite_context(
    flatkv_dir: str,
    memiavl_dir: str,
    height: int,
    version: int,
    memiavl_version: int,
    tree_dir: str,
    mode: OpenMode,
    migration: MigrationState,
) -> Context:
    replayed = mode is OpenMode.REPLAY
    side = f"memiavl read-only replay dir={memiavl_dir}" if replayed else f"memiavl snapshot={clean_path(tree_dir)}"
    known = "true" if migration.version_known else "false"
    return Context(
        backend=Backend.COMPOSITE,
        mode="migrate_evm",
        db_dir=f"flatkv={flatkv_dir} memiavl={memiavl_dir}",
        source=f"flatkv clone version={version} + {side}",
        requested_height=height,
        version=version,
        normalization=(
            f"flatkv rows plus {'replayed ' if replayed else ''}memiavl rows not migrated by "
            f"boundary={migration.boundary} version_known={known} migration_version={migration.version} "
            f"memiavl_version={memiavl_version}"
        ),
        scan="composite migrate_evm logical view -> flatkv rows plus memiavl rows to the right of boundary",
        open_mode=mode,
        migration=migration,
    )
