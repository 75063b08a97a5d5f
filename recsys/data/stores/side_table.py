"""What is stated of users and of items, as it was stated: beside the features made of it.

Features are indices and standardised numbers, in which unknown and the mean are one. Whoever
filters by a price, shows a category or encodes anew when days are appended, reads it here.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.core.durable import replaced_file
from recsys.data.contract.parquet import write_frame
from recsys.data.contract.schema import FeatureSide
from recsys.data.stores.indexed_table import read_indexed

#: Whether a table had a row for an id: in the file, and no column of what is stated.
IN_TABLE = "in_table"


def side_table_path(features: Path, side: FeatureSide) -> Path:
    """Where the folder of features has the table of a side."""
    return features / f"{side}_table.parquet"


def write_side_table(features: Path, side: FeatureSide, table: pl.DataFrame) -> None:
    """Write what is stated of a side.

    Args:
        features: folder of the features of a data set that is being written.
        side: users or items.
        table: ``index``, the stated columns and, where they are of a table, ``in_table``; a row per
            id in the vocabulary's order.
    """
    with replaced_file(side_table_path(features, side)) as partial:
        write_frame(partial, table)


def ids_in_table(features: Path, side: FeatureSide) -> pl.Series:
    """Whether a table had a row for each id, in the vocabulary's order; empty where none is known.

    Raises:
        DataError: the file is damaged.
    """
    table = read_indexed(side_table_path(features, side))
    return table[IN_TABLE] if IN_TABLE in table.columns else pl.Series(IN_TABLE, [], pl.Boolean())


def read_side_table(features: Path, side: FeatureSide) -> pl.DataFrame:
    """``index`` and the stated columns, a row per id in the vocabulary's order; null where unknown.

    Of ids that share a hashed index each has a row. There is no column but ``index``, and no row,
    where nothing was stated.

    Raises:
        DataError: the file is damaged.
    """
    return read_indexed(side_table_path(features, side)).drop(IN_TABLE, strict=False)
