"""Tables of Delta Lake and Iceberg as logs: one snapshot of a table, known by its id.

A Delta table is a folder with ``_delta_log`` in it, on the disk or at a URL; an Iceberg table is
named by its catalog, ``iceberg://<catalog>/<namespace>.<table>``, which PyIceberg finds by the
user's own settings. Read as the Parquet files that lie there, both would show rows that were
deleted; so a folder of either is never read as such.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.core.errors import DataError, InstallationError
from recsys.core.installation import extra_command
from recsys.core.location import TABLE_SCHEME, RemotePath
from recsys.data.contract.input_files import InputFile

if TYPE_CHECKING:
    from pyiceberg.table import Table

_DELTA_LOG = "_delta_log"
#: Of an Iceberg table, beside its data.
_ICEBERG_METADATA = "*.metadata.json"


@dataclass(frozen=True)
class TableSnapshot:
    """A table as it was at one moment; what is read of it does not change.

    Attributes:
        name: the path or URL of the table.
        table: its id, which no other table has.
        snapshot: the version of a Delta table, the snapshot id of an Iceberg table.
        modified: when the snapshot was made, ns since 1970.
        frame: its rows.
        former: the snapshots that it follows from.
    """

    name: str
    table: str
    snapshot: int
    modified: int
    frame: pl.LazyFrame = field(repr=False)
    former: frozenset[int] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name} (snapshot {self.snapshot})"

    def described(self) -> InputFile:
        """What a data set keeps of it; nothing of it is read."""
        digest = f"snapshot:{self.table}:{self.snapshot}"
        return InputFile(self.name.rpartition("/")[2], 0, self.modified, digest)

    def refuse_rewritten(self, known: Iterable[InputFile]) -> None:
        """Refuse to append it to what was read of the table at a moment it does not follow from.

        Raises:
            DataError: the table was rolled back or made anew, or is another one.
        """
        of_tables = [one.digest.split(":") for one in known if one.digest.startswith("snapshot:")]
        for _, table, snapshot in of_tables:
            if table == self.table and int(snapshot) in {*self.former, self.snapshot}:
                continue
            raise DataError(
                f"{self} does not follow from snapshot {snapshot} of table {table}, which the data "
                "set was prepared from: the table was rolled back or written anew, or is another "
                "one. Prepare the whole log again with overwrite=true."
            )


def with_snapshot(data: Any, snapshot: int | None = None) -> Any:
    """A log, as one snapshot where its path is that of a table; anything else as it is.

    Args:
        data: a path, a frame, or a snapshot.
        snapshot: the wanted one; None for the newest.

    Raises:
        DataError: there is no such table or snapshot, or no table where a snapshot is asked for.
        InstallationError: the extra is not installed.
    """
    if not isinstance(data, Path):
        return data
    if is_iceberg(data):
        return _iceberg(data, snapshot)
    if (data / _DELTA_LOG).is_dir():
        return _delta(data, snapshot)
    if (data / "metadata").is_dir() and any((data / "metadata").glob(_ICEBERG_METADATA)):
        raise DataError(
            f"{data} is the folder of an Iceberg table, in which deleted rows lie too; name the "
            f"table by its catalog: path={TABLE_SCHEME}://<catalog>/<namespace>.<table>."
        )
    if snapshot is not None:
        raise DataError(f"{data} is no table of Delta Lake or Iceberg: leave options.snapshot out.")
    return data


def is_iceberg(path: Path) -> bool:
    """Whether a path names a table of a catalog of Iceberg."""
    return isinstance(path, RemotePath) and path.parts[0] == f"{TABLE_SCHEME}:"


def deltalake_of(path: Path) -> Any:
    """The library of a Delta table.

    Raises:
        InstallationError: it is not installed.
    """
    try:
        import deltalake
    except ImportError as error:
        raise _not_installed(path, "deltalake") from error
    return deltalake


def catalog_of(path: Path) -> Any:
    """The catalog of an Iceberg table, by the user's own settings.

    Raises:
        InstallationError: PyIceberg is not installed.
    """
    try:
        from pyiceberg.catalog import load_catalog
    except ImportError as error:
        raise _not_installed(path, "pyiceberg") from error
    return load_catalog(path.parts[1])


def _delta(path: Path, wanted: int | None) -> TableSnapshot:
    deltalake = deltalake_of(path)
    options = storage_options(path)
    try:
        table = deltalake.DeltaTable(str(path.absolute()), wanted, options)
        frame = pl.scan_delta(table, storage_options=options)
        moment = max(one["timestamp"] for one in table.history(1))
    except (deltalake.exceptions.DeltaError, pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, wanted, error) from error
    version = table.version()
    uid, former = str(table.metadata().id), frozenset(range(version))
    return TableSnapshot(str(path), uid, version, moment * 10**6, frame, former)


def _iceberg(path: Path, wanted: int | None) -> TableSnapshot:
    try:
        from pyiceberg.exceptions import NoSuchTableError, RESTError
    except ImportError as error:
        raise _not_installed(path, "pyiceberg") from error
    try:
        table = catalog_of(path).load_table("/".join(path.parts[2:]))
    except (NoSuchTableError, RESTError, ValueError, OSError) as error:
        raise _unreadable(path, wanted, error) from error
    shown = table.current_snapshot() if wanted is None else table.snapshot_by_id(wanted)
    if shown is None:
        raise _unreadable(path, wanted, ValueError("there is no such snapshot"))
    frame = pl.scan_iceberg(table, snapshot_id=shown.snapshot_id)
    former = _ancestors(table, shown.parent_snapshot_id)
    name, uid = str(path), str(table.metadata.table_uuid)
    return TableSnapshot(name, uid, shown.snapshot_id, shown.timestamp_ms * 10**6, frame, former)


def _ancestors(table: Table, snapshot: int | None) -> frozenset[int]:
    found = set()
    while snapshot is not None and (one := table.snapshot_by_id(snapshot)) is not None:
        found.add(snapshot)
        snapshot = one.parent_snapshot_id
    return frozenset(found)


def storage_options(path: Path) -> dict[str, str] | None:
    """What is said of an S3-compatible store that is reached without TLS."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    if not isinstance(path, RemotePath) or not endpoint.startswith("http://"):
        return None
    return {"aws_endpoint_url": endpoint, "aws_allow_http": "true"}


def _unreadable(path: Path, wanted: int | None, error: Exception) -> DataError:
    what = "the table" if wanted is None else f"snapshot {wanted} of the table"
    said = " ".join((str(error).splitlines() or [type(error).__name__])[0].split())[:300]
    return DataError(
        f"{path}: {what} cannot be read ({said.rstrip('.')}); see docs/storage.md, Tables."
    )


def _not_installed(path: Path, package: str) -> InstallationError:
    return InstallationError(
        f"{path} is a table that {package} reads, which is not installed: run "
        f"{extra_command('tables')}."
    )
