"""What a simulated log is made of on the disk, and how its parts are written."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.folders import FolderKind
from recsys.core.json_files import read_json, write_json
from recsys.data.content.item_embeddings import ITEM_EMBEDDINGS_FILE
from recsys.data.contract.parquet import write_parquet
from recsys.data.contract.schema import Column

SIMULATION_FILE = "simulation.json"
_KIND = "description of a simulated log"
ITEMS_FILE = "items.parquet"
USERS_FILE = "users.parquet"
LOG_FOLDER = "log"
REQUESTS_FOLDER = "requests"
PARTS = "part-*.parquet"

SIMULATION = FolderKind(
    "a simulated log",
    SIMULATION_FILE,
    ("config", "split_bounds", "counts", "best"),
    (
        ITEMS_FILE,
        USERS_FILE,
        ITEM_EMBEDDINGS_FILE,
        f"{LOG_FOLDER}/{PARTS}",
        f"{REQUESTS_FOLDER}/{PARTS}",
    ),
)

#: A file holds about this many impressions.
IMPRESSIONS_PER_PART = 2_000_000
COMPRESSION = {"compression": "zstd", "compression_level": 1}

#: Columns with few values. Dictionaries of the others (items, probabilities) only cost time.
DICTIONARY_COLUMNS: tuple[str, ...] = (
    Column.USER,
    Column.AUTHOR,
    Column.TOPIC,
    Column.MEDIA_TYPE,
    Column.SURFACE,
    Column.ACTION_TYPE,
)


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write ``simulation.json``."""
    write_json(folder / SIMULATION_FILE, _KIND, description)


def read_description(folder: Path) -> dict[str, Any]:
    """``simulation.json``.

    Raises:
        DataError: it is missing or damaged.
    """
    mend = "simulate the log again with `recsys data simulate`."
    return read_json(folder / SIMULATION_FILE, _KIND, DataError, mend)


def coded(codes: NDArray[np.int8], names: tuple[str, ...]) -> pa.DictionaryArray:
    """A string column stored as codes."""
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names))


class PartWriter:
    """Collects tables of the log and of request rows, and starts a new part when one is full.

    Args:
        out: the folder; ``log/`` and, of request rows, ``requests/`` are made in it.
        impressions_per_part: when a part is full.
    """

    def __init__(self, out: Path, impressions_per_part: int) -> None:
        self._out, self._impressions_per_part = out, impressions_per_part
        self._part, self._in_part = 0, 0
        self._waiting: dict[str, list[pa.Table]] = {LOG_FOLDER: [], REQUESTS_FOLDER: []}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_part()

    def add(self, events: list[pa.Table], rows: pa.Table | None, impressions: int) -> None:
        """Add tables of events, with so many impressions, and one of request rows, if any."""
        self._waiting[LOG_FOLDER] += events
        self._waiting[REQUESTS_FOLDER] += [] if rows is None else [rows]
        self._in_part += impressions
        if self._in_part >= self._impressions_per_part:
            self._close_part()

    def _close_part(self) -> None:
        for name, tables in self._waiting.items():
            if tables:
                (self._out / name).mkdir(exist_ok=True)
                path = self._out / name / f"part-{self._part:05d}.parquet"
                table = pa.concat_tables(tables)
                few = [name for name in DICTIONARY_COLUMNS if name in table.column_names]
                # Without the Arrow schema, coded columns are read as the strings they stand for.
                write_parquet(path, table, use_dictionary=few, store_schema=False, **COMPRESSION)
                tables.clear()
        self._part, self._in_part = self._part + 1, 0
