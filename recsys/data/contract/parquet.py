"""Parquet files opened by the very name they have.

polars takes ``*``, ``?`` and ``[ ]`` in a path for a pattern and ``~`` for the home folder, Arrow
takes what stands before a colon for a protocol. To us a path is a name; everything that reads or
writes Parquet by a path goes through here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(path: Path) -> pl.DataFrame:
    """A whole file.

    Raises:
        FileNotFoundError: there is none.
        polars.exceptions.PolarsError: it is damaged.
    """
    return pl.read_parquet(_by_name(path), glob=False)


def scan_parquet(paths: Iterable[Path]) -> pl.LazyFrame:
    """Files of one schema, one after the other; read when the frame is collected."""
    return pl.scan_parquet([_by_name(path) for path in paths], glob=False)


def read_metadata(path: Path) -> dict[str, str]:
    """What was noted in a file beside its columns; raises as ``read_parquet``."""
    return pl.read_parquet_metadata(_by_name(path))


def read_schema(path: Path) -> dict[str, pl.DataType]:
    """Names and types of a file's columns; raises as ``read_parquet``."""
    return dict(scan_parquet([path]).collect_schema())


def open_parquet(path: Path) -> pq.ParquetFile:
    """A file to be read piece by piece, checksums of its pages compared where it has them.

    Raises:
        OSError: there is none.
        pyarrow.ArrowException: it is damaged.
    """
    file = pq.ParquetFile(_opened(path), page_checksum_verification=True)
    groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
    if sum(group.num_rows for group in groups) != file.metadata.num_rows:
        file.close()
        raise pa.ArrowInvalid("its parts have another number of rows than the whole")
    return file


def parquet_writer(path: Path, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    """A file to be written table by table, with checksums; ``options`` are those of ``pyarrow``."""
    return pq.ParquetWriter(_by_name(path), schema, write_page_checksum=True, **options)


def write_parquet(path: Path, table: pa.Table, **options: Any) -> None:
    """Write an Arrow table, with checksums; ``options`` are those of ``pyarrow``."""
    pq.write_table(table, _by_name(path), write_page_checksum=True, **options)


def write_frame(path: Path, frame: pl.DataFrame, metadata: dict[str, str] | None = None) -> None:
    """Write a frame of polars, and ``metadata`` beside its columns."""
    frame.write_parquet(_by_name(path), metadata=metadata)


def _by_name(path: Path) -> str:
    return str(path.absolute())


def _opened(path: Path) -> Any:
    """What Arrow opens: a name, or what lies at a URL, in which alone two slashes follow."""
    name = _by_name(path)
    return path.open("rb") if "://" in name else name
