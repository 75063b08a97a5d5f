"""The tail of a log: its last events as they were, for whose impressions labels may still come.

A later action counts for an impression within the attribution window, so when days are appended
the rows of the tail's impressions are derived again from the tail and what has come. It holds raw
ids, hence `recsys data delete` rewrites it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.core.checksums import FileMark
from recsys.core.durable import sync_folder
from recsys.core.errors import DataError
from recsys.data.contract.manifest import PREPARE_AGAIN, DatasetManifest
from recsys.data.contract.parquet import open_parquet, parquet_writer
from recsys.data.contract.schema import Column
from recsys.data.stores.dataset import TAIL, PreparedDataset

_SUFFIX = ".parquet"
_CHUNK_ROWS = 500_000


class TailWriter:
    """Writes a tail beside those that are there; the data set's manifest names the one that holds.

    Args:
        folder: of the data set.

    Attributes:
        path: the new file, made when the first frame comes.
    """

    def __init__(self, folder: Path) -> None:
        last = max((int(path.stem) for path in _tails(folder)), default=0)
        self.path = folder / TAIL / f"{last + 1:06d}{_SUFFIX}"
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()

    def add(self, events: pl.DataFrame) -> None:
        """Add events; every frame takes the columns and types of the first."""
        table = events.to_arrow()
        if self._writer is None:
            self.path.parent.mkdir(exist_ok=True)
            self._writer = parquet_writer(self.path, table.schema)
        self._writer.write_table(table.select(self._writer.schema.names).cast(self._writer.schema))


def remove_other_tails(folder: Path, kept: Path) -> None:
    """Remove the tails of a data set but one."""
    for path in _tails(folder):
        if path != kept:
            path.unlink()


def read_tail(folder: Path, manifest: DatasetManifest) -> Iterator[pl.DataFrame]:
    """The events of a data set's tail in chunks; none where there is no tail.

    Raises:
        DataError: the file is damaged.
    """
    for path in _named(folder, manifest):
        try:
            with open_parquet(path) as file:
                for batch in file.iter_batches(_CHUNK_ROWS):
                    frame = pl.from_arrow(batch)
                    assert isinstance(frame, pl.DataFrame)
                    yield frame
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged ({error}); {PREPARE_AGAIN}") from error


def delete_from_tail(dataset: PreparedDataset, user: int | str) -> None:
    """Take a user, of the raw id ``user``, out of the tail of a data set that is locked.

    Interrupted, the tail is as before or without the user.
    """
    folder, manifest = dataset.path, dataset.manifest
    for named in _named(folder, manifest):
        remove_other_tails(folder, named)  # of a deletion that was interrupted
    is_user = pl.col(Column.USER) == user
    if not any(chunk.filter(is_user).height for chunk in read_tail(folder, manifest)):
        return
    with TailWriter(folder) as writer:
        for chunk in read_tail(folder, manifest):
            writer.add(chunk.filter(~is_user))
    sync_folder(folder / TAIL)
    former = {str(path.relative_to(folder)) for path in _named(folder, manifest)}
    files = {name: mark for name, mark in manifest.files.items() if name not in former}
    files[str(writer.path.relative_to(folder))] = FileMark.of(writer.path)
    replace(manifest, files=files).save(folder)
    remove_other_tails(folder, writer.path)


def _tails(folder: Path) -> list[Path]:
    return sorted((folder / TAIL).glob(f"*{_SUFFIX}"))


def _named(folder: Path, manifest: DatasetManifest) -> list[Path]:
    """The tail that holds; none where there is none."""
    return [folder / name for name in manifest.files if Path(name).parts[0] == TAIL]
