"""A log written to a new table of Delta Lake or Iceberg, in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import parquet

from recsys.core.errors import ConfigError, DataError
from recsys.core.location import located
from recsys.data.contract.table_snapshots import (
    catalog_of,
    deltalake_of,
    is_iceberg,
    storage_options,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_new_table(place: str) -> None:
    """Refuse a table that is there, before what is to be written is made.

    Args:
        place: a folder or its URL for a Delta table, ``iceberg://<catalog>/<namespace>.<table>``.

    Raises:
        ConfigError: the table is there.
        DataError: its catalog or store cannot be reached.
        InstallationError: the extra is not installed.
    """
    path = located(place)
    if is_iceberg(path):
        try:
            taken = catalog_of(path).table_exists(_identifier(path))
        except Exception as error:  # of the catalog's own kinds
            raise _unwritten(path, error) from error
    else:
        deltalake_of(path)
        taken = path.exists() and (not path.is_dir() or any(path.glob("*")))
        taken = taken or (path / "_delta_log").is_dir()
    if taken:
        raise ConfigError(
            f"{path} is there already: a log is written to a new table, and nothing is added to or "
            "removed from one; give another name."
        )


def write_table(place: str, parts: Sequence[Path]) -> int:
    """Write Parquet files of one schema as a new table, which appears whole or not at all.

    Args:
        place: as of :func:`check_new_table`.
        parts: the files, one of which is in memory at a time.

    Returns:
        The snapshot: the version of a Delta table, the snapshot id of an Iceberg table.

    Raises:
        DataError: the catalog or store says no.
    """
    path = located(place)
    try:
        return _iceberg(path, parts) if is_iceberg(path) else _delta(path, parts)
    except Exception as error:  # of the libraries' own kinds
        raise _unwritten(path, error) from error


def _delta(path: Path, parts: Sequence[Path]) -> int:
    deltalake = deltalake_of(path)
    name, options = str(path.absolute()), storage_options(path)
    schema = parquet.read_schema(parts[0])

    def batches() -> Iterator[pa.RecordBatch]:
        for part in parts:
            yield from parquet.read_table(part).to_batches()

    rows = pa.RecordBatchReader.from_batches(schema, batches())
    deltalake.write_deltalake(name, rows, mode="error", storage_options=options)
    return int(deltalake.DeltaTable(name, storage_options=options).version())


def _iceberg(path: Path, parts: Sequence[Path]) -> int:
    catalog, name = catalog_of(path), _identifier(path)
    with catalog.create_table_transaction(name, parquet.read_schema(parts[0])) as transaction:
        for part in parts:
            transaction.append(parquet.read_table(part))
    return int(catalog.load_table(name).current_snapshot().snapshot_id)


def _identifier(path: Path) -> str:
    return "/".join(path.parts[2:])


def _unwritten(path: Path, error: Exception) -> DataError:
    said = " ".join((str(error).splitlines() or [type(error).__name__])[0].split())[:300]
    return DataError(
        f"{path}: the table cannot be written ({said.rstrip('.')}); see docs/storage.md, Tables."
    )
