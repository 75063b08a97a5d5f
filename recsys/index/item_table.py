"""What is known of items besides their embeddings: titles, and when the log saw them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.data.contract.file_names import data_files
from recsys.data.contract.files import column_names, read_table
from recsys.data.contract.given_tables import named_column
from recsys.data.contract.ids import as_ids, checked_ids, joined_ids, read_ids
from recsys.data.contract.schema import Column, TimelineKind
from recsys.data.contract.time_columns import FIRST_TIMESTAMP, LAST_TIMESTAMP
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import INDEX, RAW
from recsys.index.usable_items import FIRST_SEEN, LAST_SEEN, OPTIONAL_COLUMNS, POST_ID, TITLE

#: Users whose events are read at once.
_USERS_PER_STEP = 20_000


def describe_items(
    ids: pl.Series, dataset: PreparedDataset | None, as_of: int | None, file: str | None
) -> pl.DataFrame:
    """``post_id``, ``title``, ``first_seen`` and ``last_seen`` of items, null where unknown.

    Args:
        ids: raw ids.
        dataset: a data set whose log and item texts say something of them.
        as_of: ms; events from then on are not looked at. None looks at all.
        file: Parquet or CSV with ``item_id`` and any of the three columns (times in ms); what it
            says goes before what the data set says.

    Raises:
        DataError: a file cannot be read, or names an item twice; or the log's ids are numbers, and
            an item's is not written like one.
    """
    table = pl.DataFrame({POST_ID: checked_ids("the items", ids)})
    if dataset is not None:
        _refuse_names_for_numbers(table[POST_ID], dataset)
    if file is not None:
        table = _join(table, read_item_file(file, dataset))
    if dataset is not None:
        table = _join(table, _items_of_log(dataset, as_of))
    missing = [
        pl.lit(None, dtype).alias(name)
        for name, dtype in OPTIONAL_COLUMNS.items()
        if name not in table.columns
    ]
    return table.with_columns(missing).select(POST_ID, *OPTIONAL_COLUMNS)


def read_item_file(path: str, dataset: PreparedDataset | None = None) -> pl.DataFrame:
    """``post_id`` and those of title, first_seen and last_seen that a file has.

    Args:
        path: Parquet or CSV.
        dataset: whose log may call ``item_id`` otherwise.

    Raises:
        DataError: the file cannot be read, lacks ``item_id``, names an item twice, or has times in
            another unit than milliseconds.
    """
    tables = []
    manifest = None if dataset is None else dataset.manifest
    for file in data_files(Path(path), "posts"):
        present = column_names(file)
        item = named_column(present, Column.ITEM, manifest) or Column.ITEM
        columns = {name: dtype for name, dtype in OPTIONAL_COLUMNS.items() if name in present}
        ids = read_ids(file, item).alias(POST_ID)
        table = read_table(file, columns) if columns else pl.DataFrame()
        _check_times(file, table)
        tables.append(pl.DataFrame([ids, *table.get_columns()]))
    ids = joined_ids([table[POST_ID] for table in tables])
    table = pl.concat(tables, how="diagonal").with_columns(ids)
    repeated = table[POST_ID].is_duplicated()
    if repeated.any():
        raise DataError(
            f"Items that {path} names more than once: "
            f"{table[POST_ID].filter(repeated).n_unique()}, "
            f"{table[POST_ID].filter(repeated)[0]} among them; keep one row per item."
        )
    return table


def last_seen(dataset: PreparedDataset, as_of: int | None = None) -> NDArray[np.int64]:
    """[V] ms of the last event of each item index, of either timeline; −1 where there is none.

    Args:
        dataset: the prepared data set.
        as_of: ms; only events strictly before it. None takes all.
    """
    newest = np.full(dataset.manifest.vocabulary_sizes["item"], -1, np.int64)
    everything = np.iinfo(np.int64).max
    before = everything if as_of is None else as_of
    users = dataset.timelines.users()
    for start in range(0, len(users), _USERS_PER_STEP):
        some = users[start : start + _USERS_PER_STEP]
        for kind in TimelineKind:
            events = dataset.timelines.histories(some, np.full(len(some), before), kind, everything)
            np.maximum.at(newest, events["item"], events["timestamp"])
    return newest


def _refuse_names_for_numbers(ids: pl.Series, dataset: PreparedDataset) -> None:
    """Refuse ids such as ``007`` of items whose log has numbers: it can never hold them."""
    known = dataset.vocabulary("item").table.schema[RAW]
    if ids.dtype != pl.String() or known == pl.String():
        return
    names = ids.filter(as_ids(ids, known).is_null())
    if len(names):
        raise DataError(
            f"The items have the id {names[0]!r}, those of {dataset.path} are whole numbers "
            f"({str(known).lower()}) and matched as they are written: no item of it can have this "
            "one; correct it, or leave its row out."
        )


def _items_of_log(dataset: PreparedDataset, as_of: int | None) -> pl.DataFrame:
    table = dataset.vocabulary("item").table
    newest = pl.Series(last_seen(dataset, as_of))
    items = table.select(
        pl.col(RAW).alias(POST_ID),
        INDEX,
        pl.col(FIRST_SEEN),
        newest.gather(table[INDEX]).alias(LAST_SEEN),
    ).with_columns(pl.when(pl.col(LAST_SEEN) >= 0).then(LAST_SEEN).alias(LAST_SEEN))
    if TITLE in dataset.item_text.columns:
        items = items.join(dataset.item_text.select(INDEX, TITLE), on=INDEX, how="left")
    return items.drop(INDEX)


def _join(table: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """``table`` with what ``known`` says of its items where it says nothing itself."""
    ids = as_ids(known[POST_ID], table.schema[POST_ID])
    known = known.with_columns(ids).drop_nulls(POST_ID)
    joined = table.join(known, on=POST_ID, how="left", maintain_order="left", suffix="_known")
    both = [name for name in table.columns if f"{name}_known" in joined.columns]
    return joined.with_columns(
        pl.coalesce(name, f"{name}_known").alias(name) for name in both
    ).drop(f"{name}_known" for name in both)


def _check_times(file: Path, table: pl.DataFrame) -> None:
    """Refuse seconds: items of 1970 would all be too old."""
    for name in (FIRST_SEEN, LAST_SEEN):
        times = table[name] if name in table.columns else pl.Series(name, [], pl.Int64)
        wrong = times.filter(~times.is_between(FIRST_TIMESTAMP, LAST_TIMESTAMP - 1))
        if len(wrong):
            raise DataError(
                f"{file}, column {name}: {wrong[0]} is not in milliseconds since 1970 (UTC); "
                "multiply seconds by 1000, and leave empty what is not known."
            )
