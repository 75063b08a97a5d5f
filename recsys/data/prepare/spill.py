"""Rows set down on the disk, divided by user, so that all rows of a user can be read at once."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa

_PARTITION = "_partition"


class PartitionSpill:
    """Rows of many chunks in one Arrow file per partition of users; finished, it can be pickled.

    Args:
        folder: where the files go.
        key: the column whose hash decides on the partition.
        num_partitions: number of files; one partition at a time is read into memory.
    """

    def __init__(self, folder: Path, key: str, num_partitions: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder.absolute()  # polars takes a relative `~` for the home folder
        self.num_partitions = num_partitions
        self._key = key
        self._schema: pl.Schema | None = None
        self._written: set[int] = set()
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Set rows down, in their order; every chunk takes the types of the first."""
        if frame.is_empty():
            return
        if self._schema is None:
            self._schema = frame.schema
        partition = frame[self._key].hash(seed=0) % self.num_partitions
        frame = frame.select(
            pl.col(name).cast(dtype) for name, dtype in self._schema.items()
        ).with_columns(partition.alias(_PARTITION))
        for (number,), part in frame.partition_by(_PARTITION, as_dict=True).items():
            table = part.drop(_PARTITION).to_arrow()
            if number not in self._writers:
                self._written.add(number)
                path = str(self._path(number))
                self._writers[number] = pa.ipc.new_stream(path, table.schema)
            self._writers[number].write_table(table)

    def finish(self) -> None:
        """Close the files; they can be read from now on."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    @property
    def schema(self) -> pl.Schema | None:
        """The columns set down; None where there were no rows."""
        return self._schema

    def read(self, partition: int, columns: list[str] | None = None) -> pl.DataFrame | None:
        """All rows of a partition in the order they came; None where it has none."""
        if partition not in self._written:
            return None
        return pl.read_ipc_stream(self._path(partition), columns=columns)

    def remove(self, partition: int) -> None:
        """Free a partition's disk space."""
        if partition in self._written:
            self._path(partition).unlink(missing_ok=True)

    def _path(self, partition: int) -> Path:
        return self.folder / f"{partition:04d}.arrow"
