"""Vocabularies: raw ids to dense indices, in order of first appearance in time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.checksums import FileMark
from recsys.core.durable import replaced_file
from recsys.core.errors import DataError
from recsys.core.hashing import splitmix64
from recsys.data.contract.ids import as_ids
from recsys.data.contract.manifest import PREPARE_AGAIN
from recsys.data.contract.parquet import read_metadata, read_parquet, scan_parquet, write_frame

RAW = "raw"
INDEX = "index"
FIRST_SEEN = "first_seen"  # ms
#: Later than every moment, and far enough from the end of int64 to be subtracted from.
NEVER = np.iinfo(np.int64).max // 2
UNKNOWN_INDEX = 0

VOCABULARIES = "vocabulary"

_COMPACT_FACTOR = 2
_COMPACT_ROWS = 2_000_000


def vocabulary_path(folder: Path, name: str) -> Path:
    """Where a prepared data set, or an exported tower, has the vocabulary of an id column.

    Args:
        folder: of the data set or the artifact.
        name: ``user``, ``item``, ``author`` or ``topic``.
    """
    return folder / VOCABULARIES / f"{name}.parquet"


class IdMode(StrEnum):
    """How raw ids become indices.

    ``dictionary``: one index per id; the raw id stays known, tables grow with the log.
    ``hashed``: an index in a fixed number of buckets; ids may collide, which is counted, and the
    vocabulary file shows which do.
    """

    DICTIONARY = "dictionary"
    HASHED = "hashed"


class FirstSeen:
    """Collects the distinct ids of a column and when each was first seen; memory by distinct id.

    Nulls are left out: they are the unknown id.
    """

    def __init__(self) -> None:
        self._table: pl.DataFrame | None = None
        self._pending: list[pl.DataFrame] = []
        self._pending_rows = 0

    def add(self, ids: pl.Series, timestamps: pl.Series) -> None:
        """Take in a chunk: ``ids`` and the moment of each in ms."""
        chunk = (
            pl.DataFrame({RAW: ids, FIRST_SEEN: timestamps})
            .drop_nulls(RAW)
            .group_by(RAW)
            .agg(pl.col(FIRST_SEEN).min())
        )
        if chunk.is_empty():
            return
        self._pending.append(chunk)
        self._pending_rows += chunk.height
        known = 0 if self._table is None else self._table.height
        if self._pending_rows > max(_COMPACT_FACTOR * known, _COMPACT_ROWS):
            self._compact()

    def table(self) -> pl.DataFrame:
        """``raw`` and ``first_seen``, ordered by first appearance and, within it, by raw id."""
        self._compact()
        if self._table is None:
            return pl.DataFrame(schema={RAW: pl.Int64(), FIRST_SEEN: pl.Int64()})
        return self._table.sort(FIRST_SEEN, RAW)

    def chunks(self) -> Iterator[tuple[pl.Series, pl.Series]]:
        """What :meth:`add` takes: ids and moments that say all that was seen."""
        self._compact()
        if self._table is not None:
            yield self._table[RAW], self._table[FIRST_SEEN]

    @property
    def is_empty(self) -> bool:
        """Whether no id was seen."""
        return self._table is None and not self._pending

    def retype(self, dtype: pl.DataType) -> None:
        """Have the ids in another type, which holds them all as they are written."""
        self._compact()
        if self._table is not None:
            self._table = self._table.with_columns(as_ids(self._table[RAW], dtype))

    def _compact(self) -> None:
        parts = self._pending if self._table is None else [self._table, *self._pending]
        if self._pending:
            self._table = pl.concat(parts).group_by(RAW).agg(pl.col(FIRST_SEEN).min())
        self._pending, self._pending_rows = [], 0


@dataclass(frozen=True)
class Vocabulary:
    """The indices of one id column; 0 stands for every id that is not in it.

    Attributes:
        table: ``raw``, ``index`` (int32) and ``first_seen``, one row per id in order of arrival.
        mode: dictionary or hashed.
        buckets: number of indices of a hashed vocabulary, the unknown id included; 0 otherwise.
    """

    table: pl.DataFrame
    mode: IdMode = IdMode.DICTIONARY
    buckets: int = 0

    @classmethod
    def build(
        cls, seen: pl.DataFrame, mode: IdMode = IdMode.DICTIONARY, buckets: int = 0
    ) -> Vocabulary:
        """A vocabulary of the ids in ``seen``, the output of ``FirstSeen.table``."""
        empty = seen.clear().with_columns(pl.lit(0, pl.Int32).alias(INDEX))
        return cls(empty.select(RAW, INDEX, FIRST_SEEN), mode, buckets).grow(seen)

    def first_seen(self, size: int) -> NDArray[np.int64]:
        """[size] the moment each index was first seen, ms; :data:`NEVER` for one that was not."""
        first = np.full(size, NEVER)
        indices, moments = self.table[INDEX].to_numpy(), self.table[FIRST_SEEN].to_numpy()
        np.minimum.at(first, indices, moments)
        return first

    @property
    def size(self) -> int:
        """The number of indices, the unknown id included."""
        return self.buckets if self.mode is IdMode.HASHED else self.table.height + 1

    def up_to(self, index: int) -> Vocabulary:
        """Without the ids from an index on: they are unknown to who was not trained on them."""
        return replace(self, table=self.table.filter(pl.col(INDEX) < index))

    @property
    def collisions(self) -> int:
        """How many ids share an index with an id that came before them."""
        return self.table.height - self.table[INDEX].n_unique()

    def known_before(self, moment: int) -> int:
        """The first index whose id was not seen before ``moment`` (ms); the size if there is none.

        Indices below it have a trained row if training ends at ``moment``. Hashed indices have no
        order in time, so there it is the size.
        """
        if self.mode is IdMode.HASHED:
            return self.size
        late = self.table.filter(pl.col(FIRST_SEEN) >= moment)
        return self.size if late.is_empty() else int(late[INDEX][0])

    def indices(self, ids: pl.Series) -> pl.Series:
        """The index of each id, int32; 0 for null and for ids that are not in the vocabulary.

        Ids are matched as they are written: where the log's are numbers, ``"7"`` is 7 and
        ``"007"`` is no id of it.
        """
        frame = pl.DataFrame({RAW: as_ids(ids, self.table.schema[RAW])})
        joined = frame.join(
            self.table.select(RAW, INDEX), on=RAW, how="left", maintain_order="left"
        )
        return joined[INDEX].fill_null(UNKNOWN_INDEX).alias(ids.name)

    def indices_of(self, ids: Sequence[int | str]) -> NDArray[np.int64]:
        """[n] the index of each raw id, given as number or text; as ``indices`` finds it."""
        given = pl.Series(RAW, [str(one) for one in ids], pl.String())
        found: NDArray[np.int64] = self.indices(given).cast(pl.Int64).to_numpy()
        return found

    def grow(self, seen: pl.DataFrame) -> Vocabulary:
        """Take in new ids behind the existing ones, whose indices never change.

        Args:
            seen: the output of ``FirstSeen.table``; ids that are known already are left out.
        """
        if self.table.is_empty():
            fresh, raw_type = seen, seen.schema[RAW]
        else:
            raw_type = self.table.schema[RAW]
            fresh = seen.with_columns(pl.col(RAW).cast(raw_type)).join(
                self.table, on=RAW, how="anti", maintain_order="left"
            )
        if self.mode is IdMode.HASHED:
            indices = _bucket_of(fresh[RAW], self.buckets)
        else:
            first = self.table.height + 1
            indices = pl.Series(np.arange(first, first + fresh.height, dtype=np.int32))
        fresh = fresh.with_columns(indices.alias(INDEX)).select(RAW, INDEX, FIRST_SEEN)
        known = self.table.with_columns(pl.col(RAW).cast(raw_type))
        return Vocabulary(pl.concat([known, fresh]), self.mode, self.buckets)

    def save(self, path: Path) -> None:
        """Write the vocabulary as Parquet, in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"mode": str(self.mode), "buckets": str(self.buckets)}
        with replaced_file(path) as partial:
            write_frame(partial, self.table, metadata)

    @classmethod
    def load(cls, path: Path, mark: FileMark | None = None) -> Vocabulary:
        """Read a vocabulary that ``save`` wrote.

        It decides who is who, so all of it is compared with its checksum.

        Args:
            path: the file.
            mark: of the file as it was written; None where somebody has compared it already.

        Raises:
            DataError: the file is missing or damaged.
        """
        if mark is not None and (problem := mark.problem(path)):
            raise DataError(f"{path} {problem}; {PREPARE_AGAIN}")
        try:
            metadata = read_metadata(path)
            table = read_parquet(path)
            return cls(table, IdMode(metadata["mode"]), int(metadata["buckets"]))
        except (pl.exceptions.PolarsError, FileNotFoundError, LookupError, ValueError) as error:
            raise DataError(
                f"{path} is missing or damaged ({str(error).splitlines()[0]}); {PREPARE_AGAIN}"
            ) from error


def read_known(path: Path, ids: pl.Series) -> Vocabulary:
    """A vocabulary that ``save`` wrote, of which only some ids are read into memory.

    Args:
        path: the file.
        ids: those that will be asked for, of any type.
    """
    table = scan_parquet([path])
    wanted = as_ids(ids, table.collect_schema()[RAW]).unique().alias(RAW).to_frame().lazy()
    return Vocabulary(table.join(wanted, on=RAW, how="semi").collect(engine="streaming"))


def stable_hash(values: pl.Series) -> NDArray[np.uint64]:
    """A 63-bit hash of each id, the same on every machine and in every release.

    Integers go through the finaliser of SplitMix64, strings through BLAKE2b.
    """
    if values.dtype == pl.String():
        unique, positions = np.unique(values.to_numpy(), return_inverse=True)
        hashed = np.fromiter(
            (
                int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
                for text in unique
            ),
            dtype=np.uint64,
            count=len(unique),
        )[positions]
    else:
        hashed = splitmix64(values.to_numpy().astype(np.uint64))
    return hashed >> np.uint64(1)


def _bucket_of(ids: pl.Series, buckets: int) -> pl.Series:
    """The bucket of each id, 1 to ``buckets`` - 1: index 0 stays the unknown id's."""
    return pl.Series((stable_hash(ids) % np.uint64(buckets - 1)).astype(np.int32) + 1)
