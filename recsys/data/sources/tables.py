"""What is stated of items and users beside a log: columns of a table of theirs, or of the log.

A table that cannot be used is one sentence; a value that cannot is unknown, and how many there are
is printed once the table has been read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from recsys.core.bounds import Place, Settings
from recsys.core.console import message_console
from recsys.core.errors import ConfigError, DataError
from recsys.core.location import located
from recsys.data.contract.files import DEFAULT_CHUNK_ROWS
from recsys.data.contract.ids import as_ids
from recsys.data.contract.log_parts import LogData, LogPart, id_types, log_parts, name_of
from recsys.data.contract.schema import ID_COLUMNS, Column, Feature, FeatureKind, FeatureSide
from recsys.data.contract.table_snapshots import TableSnapshot, with_snapshot
from recsys.data.sources.table_columns import (
    ColumnKind,
    Unknown,
    as_categories,
    as_lists,
    as_numbers,
    as_texts,
    as_vectors,
)
from recsys.data.stores.side_table import IN_TABLE
from recsys.data.stores.vocabulary import FIRST_SEEN, INDEX, RAW

#: What the columns of an item that are no features are stored as.
TITLE, IMAGE, EMBEDDING = "title", "image", "embedding"

_IDS = {FeatureSide.USER: Column.USER, FeatureSide.ITEM: Column.ITEM}
_COMPACT_CHUNKS = 16


@dataclass(frozen=True)
class UserTableOptions(Settings):
    """What is known of users, and where it stands.

    Attributes:
        path: a Parquet or CSV file, or a folder of them; None where the columns are the log's own:
            the first known value of each user counts.
        id: column of the users' ids; None for the name that the log has for it.
        categorical: columns of categories.
        dense: columns of numbers.
        lists: columns of several categories a user: lists, or text separated by ``|``, by blanks in
            RecBole's files.
    """

    path: Place | None = None
    id: str | None = None
    categorical: list[str] = field(default_factory=list)
    dense: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ItemTableOptions(UserTableOptions):
    """What is known of items, and where it stands; see ``UserTableOptions``.

    Attributes:
        author: column of the ids of authors; topic likewise.
        title: column of the text that is shown with recommendations.
        texts: columns of further texts.
        embedding: column of lists of numbers, an embedding per item.
        image: column of links to pictures, shown in pages.
    """

    author: str | None = None
    topic: str | None = None
    title: str | None = None
    texts: list[str] = field(default_factory=list)
    embedding: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class _Stated:
    """A column: its name in the table, what it is stored as, and what it holds."""

    column: str
    name: str
    kind: ColumnKind


class StatedTable:
    """The table of items or of users of a log.

    Args:
        side: items or users.
        options: which columns, and where they stand.
        log: the log, whose rows have the columns where ``options`` names no file.
        log_id: what the log names the column of the side's ids.
        taken: names of features of others: a column of the same name is stored as ``item_<name>``
            or ``user_<name>``.
        chunk_rows: rows read at a time.

    Raises:
        ConfigError: a column is named for two things that exclude each other.
    """

    def __init__(
        self,
        side: FeatureSide,
        options: UserTableOptions,
        log: LogData,
        log_id: str,
        taken: Collection[str] = (),
        chunk_rows: int = DEFAULT_CHUNK_ROWS,
    ) -> None:
        self.side = side
        self.options = options
        self.setting = f"options.{side}s"
        self._id = options.id or log_id
        self._is_own = options.path is not None
        self._data = log if options.path is None else with_snapshot(located(options.path))
        self._chunk_rows = chunk_rows
        self._columns = self._stated(taken)

    @property
    def features(self) -> tuple[Feature, ...]:
        """Categories and numbers, cardinalities yet to be counted."""
        kinds = {
            ColumnKind.CATEGORIES: FeatureKind.CATEGORICAL,
            ColumnKind.NUMBERS: FeatureKind.DENSE,
        }
        return tuple(
            Feature(one.name, self.side, kinds[one.kind])
            for one in self._columns
            if one.kind in kinds
        )

    @property
    def stored_features(self) -> dict[str, str]:
        """What features and lists are stored as, and their columns."""
        kinds = (ColumnKind.CATEGORIES, ColumnKind.NUMBERS, ColumnKind.LISTS)
        return {one.name: one.column for one in self._columns if one.kind in kinds}

    @property
    def lists(self) -> tuple[str, ...]:
        """Columns of several categories each."""
        return self._names(ColumnKind.LISTS)

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of text, the title first."""
        return tuple(name for name in self._names(ColumnKind.TEXT) if name != IMAGE)

    @property
    def shown(self) -> tuple[str, ...]:
        """Columns that no model reads."""
        return tuple(name for name in self._names(ColumnKind.TEXT) if name == IMAGE)

    @property
    def own(self) -> Path | TableSnapshot | None:
        """The table's own file, folder or snapshot; None where it is part of the log."""
        data = self._data
        return data if self._is_own and isinstance(data, (Path, TableSnapshot)) else None

    def read(self) -> pl.DataFrame | None:
        """The id and every column but embeddings, or None where no column is named.

        A row per row of the table, in its order, but those without an id; of the log a row per id.

        Raises:
            DataError: the table cannot be read, lacks a column, or has one of another kind.
        """
        columns = [one for one in self._columns if one.kind is not ColumnKind.VECTORS]
        if not self._columns:
            return None
        unknown = Unknown()
        gathered: list[pl.DataFrame] = []
        for part, chunk in self._chunks(columns):
            frame = self._conform(part, chunk, columns, unknown)
            gathered.append(frame if self._is_own else self._first_known(frame))
            if not self._is_own and len(gathered) >= _COMPACT_CHUNKS:
                gathered = [self._first_known(pl.concat(gathered))]
        table = pl.concat(gathered) if gathered else None
        if table is None or table.is_empty():
            raise DataError(
                f"{self._where} holds no row with an id in {self._id}; give another file, or leave "
                f"{self.setting} out."
            )
        self._say(unknown, table)
        return table if self._is_own else self._first_known(table)

    def embeddings(self) -> Iterator[pl.DataFrame]:
        """The ids and ``embedding``, lists of one width, of rows that have one, piece by piece.

        Raises:
            DataError: as ``read``; or the lists are of different widths.
        """
        columns = [one for one in self._columns if one.kind is ColumnKind.VECTORS]
        if not columns:
            return
        unknown, width = Unknown(), 0
        for part, chunk in self._chunks(columns):
            frame = self._conform(part, chunk, columns, unknown).drop_nulls(EMBEDDING)
            if frame.is_empty():
                continue
            widths = frame[EMBEDDING].list.len()
            width = width or int(widths[0])
            other = frame.filter(widths != width)
            if not other.is_empty():
                row = other.row(0, named=True)
                raise DataError(
                    f"{part.where}, column {columns[0].column}: the embedding of "
                    f"{row[_IDS[self.side]]!r} has width {len(row[EMBEDDING])}, those before it "
                    f"{width}; all must have the same."
                )
            yield frame
        for sentence in unknown.sentences(self._where):
            message_console().print(sentence)

    def _stated(self, taken: Collection[str]) -> tuple[_Stated, ...]:
        """Every named column; refuses what would be stored under one name twice."""
        stated: list[_Stated] = []

        def add(column: str | None, name: str, kind: ColumnKind) -> None:
            if column is not None:
                stated.append(_Stated(column, name, kind))

        options = self.options
        if isinstance(options, ItemTableOptions):
            add(options.author, Column.AUTHOR, ColumnKind.ID)
            add(options.topic, Column.TOPIC, ColumnKind.ID)
            add(options.title, TITLE, ColumnKind.TEXT)
            add(options.image, IMAGE, ColumnKind.TEXT)
            add(options.embedding, EMBEDDING, ColumnKind.VECTORS)
        # a column called title that is not taken for the title has another name
        roles = {one.name: one.column for one in stated}

        def name_of(column: str, taken: Collection[str] = ()) -> str:
            others = {name for name, named in roles.items() if named != column}
            return self._name(column, {*taken, *others})

        if isinstance(options, ItemTableOptions):
            for column in options.texts:
                add(column, name_of(column), ColumnKind.TEXT)
        kinds = {
            ColumnKind.CATEGORIES: options.categorical,
            ColumnKind.NUMBERS: options.dense,
            ColumnKind.LISTS: options.lists,
        }
        for kind, columns in kinds.items():
            for column in columns:
                add(column, name_of(column, taken), kind)
        first: dict[str, str] = {}
        for one in stated:
            if one.name in first:
                raise ConfigError(
                    f"{self.setting}: the column {one.column} would be stored as {one.name}, and "
                    f"so would the column {first[one.name]}; name each column once, or give it "
                    "another name in the file."
                )
            first[one.name] = one.column
        return tuple(stated)

    def _name(self, column: str, taken: Collection[str] = ()) -> str:
        """What a column is stored as: by its own name, unless others have it."""
        others = {*taken, *ID_COLUMNS, RAW, INDEX, FIRST_SEEN, IN_TABLE}
        return f"{self.side}_{column}" if column in others else column

    def _names(self, kind: ColumnKind) -> tuple[str, ...]:
        return tuple(one.name for one in self._columns if one.kind is kind)

    @property
    def _where(self) -> str:
        return name_of(self._data)

    @cached_property
    def _parts(self) -> list[LogPart]:
        """The table's files; refuses a table without a column that is named."""
        parts = log_parts(self._data, self._chunk_rows, f"{self.setting}.path")
        for part in parts:
            if self._id not in part.types:
                raise self._absent(part, self._id, "id")
        for one in self._columns:
            if not any(one.column in part.types for part in parts):
                raise self._absent(parts[0], one.column, self._setting_of(one.column))
        return parts

    def _absent(self, part: LogPart, column: str, setting: str) -> DataError:
        return DataError(
            f"{part.where} has no column {column} (it has {', '.join(part.types)}); add it, or "
            f"give {self.setting}.{setting} the name of one that is there."
        )

    def _setting_of(self, column: str) -> str:
        """The key that names a column."""
        settings: dict[str, Any] = vars(self.options)
        return next(key for key, value in settings.items() if column == value or _in(column, value))

    @cached_property
    def _id_types(self) -> dict[str, pl.DataType]:
        ids = [one.column for one in self._columns if one.kind is ColumnKind.ID]
        return id_types(self._parts, dict.fromkeys([self._id, *ids]))

    def _chunks(self, columns: list[_Stated]) -> Iterator[tuple[LogPart, pl.DataFrame]]:
        wanted = list(dict.fromkeys([self._id, *(one.column for one in columns)]))
        for part in self._parts:
            for chunk in part.chunks([name for name in wanted if name in part.types]):
                yield part, chunk

    def _conform(
        self, part: LogPart, chunk: pl.DataFrame, columns: list[_Stated], unknown: Unknown
    ) -> pl.DataFrame:
        """A chunk's rows that have an id, its columns under our names and in our types."""
        ids = as_ids(_without_empty(chunk[self._id]), self._id_types[self._id])
        unknown.rows_without_id += ids.null_count()
        stated = [ids.alias(_IDS[self.side])]
        for one in columns:
            if one.column in chunk.columns:
                raw = chunk[one.column]
            else:  # another file has it
                raw = pl.repeat(None, chunk.height, eager=True).alias(one.column)
            stated.append(self._typed(part, one, raw, unknown).alias(one.name))
        return pl.DataFrame(stated).drop_nulls(_IDS[self.side])

    def _typed(self, part: LogPart, one: _Stated, raw: pl.Series, unknown: Unknown) -> pl.Series:
        if one.kind is ColumnKind.ID:
            return as_ids(_without_empty(raw), self._id_types[one.column])
        if one.kind is ColumnKind.NUMBERS:
            return as_numbers(part.where, raw, unknown)
        if one.kind is ColumnKind.VECTORS:
            return as_vectors(part.where, raw, unknown)
        if one.kind is ColumnKind.LISTS:
            return as_lists(part.where, raw, part.separator)
        if one.kind is ColumnKind.CATEGORIES:
            return as_categories(part.where, raw, one.column in part.spelt_out)
        return as_texts(part.where, raw)

    def _first_known(self, frame: pl.DataFrame) -> pl.DataFrame:
        """One row per id: what is known first of each column."""
        key = _IDS[self.side]
        names = [name for name in frame.columns if name != key]
        return frame.group_by(key, maintain_order=True).agg(
            pl.col(name).drop_nulls().first() for name in names
        )

    def _say(self, unknown: Unknown, table: pl.DataFrame) -> None:
        """Print what of the table is not used, and why."""
        console = message_console()
        for sentence in unknown.sentences(self._where):
            console.print(sentence)
        for one in self._columns:
            if one.name in table.columns and table[one.name].null_count() == table.height:
                console.print(f"{self._where}, column {one.column}: no value of it is known.")
        if self._is_own:
            used = {self._id, *(one.column for one in self._columns)}
            present = dict.fromkeys(name for part in self._parts for name in part.types)
            left = [name for name in present if name not in used]
            if left:
                console.print(
                    f"{self._where}: not used: {', '.join(left)}; {self.setting} says which columns"
                    " are."
                )


def _in(column: str, value: Any) -> bool:
    return isinstance(value, list) and column in value


def _without_empty(raw: pl.Series) -> pl.Series:
    """Ids with null where the text is empty."""
    if raw.dtype.is_integer() or raw.dtype == pl.Null():
        return raw
    text = raw.cast(pl.String)
    return text.to_frame().select(pl.when(pl.first() != "").then(pl.first())).to_series()
