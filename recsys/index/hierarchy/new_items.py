"""Items that the log does not have yet, by what a table of the user's says of them.

Legend: n items, F and D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.contract.file_names import data_files
from recsys.data.contract.files import column_names
from recsys.data.contract.given_tables import named_column, needed_column
from recsys.data.contract.ids import joined_ids, read_ids
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Column, Feature, FeatureKind, FeatureSide
from recsys.data.sources.tables import TITLE, ItemTableOptions, StatedTable
from recsys.data.stores.dataset import FEATURES, PreparedDataset
from recsys.data.stores.encoding import FeatureEncoding, list_feature, side_arrays
from recsys.data.stores.vocabulary import INDEX

_SIDE = FeatureSide.ITEM
_IDS = (Column.ITEM, Column.AUTHOR, Column.TOPIC)


@dataclass(frozen=True, eq=False)
class GivenFeatures:
    """What a table says of items, as a data set has its features.

    Attributes:
        ids: [n] raw ids, each once.
        titles: [n] null where there is none.
        categorical: [n, F] int32, item, author and topic first; 0 where it is not known.
        dense: [n, D] float32, standardised; 0 where it is not known.
    """

    ids: pl.Series
    titles: pl.Series
    categorical: NDArray[np.int32]
    dense: NDArray[np.float32]


def read_given_features(path: str, dataset: PreparedDataset) -> GivenFeatures:
    """Read a table of items, whose columns are called as in that of the log.

    What it lacks is not known of its items; of an item that it names twice the first row counts.

    Args:
        path: Parquet or CSV.
        dataset: that has encoded the features of the log's items.

    Raises:
        DataError: the table cannot be read, has no column of ids, or a column of another kind.
    """
    encoding = FeatureEncoding.load(dataset.path / FEATURES)
    features = [one for kind in FeatureKind for one in dataset.manifest.select(_SIDE, kind)]
    names = {one.name for one in features}
    lists = [
        name
        for name, values in encoding.lists.items()
        if any(list_feature(name, value) in names for value in values)
    ]
    of_lists = {list_feature(name, value) for name in lists for value in encoding.lists[name]}
    stated = [one for one in features if one.name not in {*_IDS, *of_lists}]
    table = _read(path, dataset.manifest, stated, lists)
    absent = [
        pl.lit(None, pl.List(pl.String) if name in lists else pl.String()).alias(name)
        for name in (*_IDS, TITLE, *(one.name for one in stated), *lists)
        if name not in table.columns
    ]
    table = table.with_columns(*absent, pl.int_range(pl.len(), dtype=pl.Int32).alias(INDEX))
    ids = [
        (
            Feature(name, _SIDE, FeatureKind.CATEGORICAL),
            dataset.vocabulary(name.removesuffix("_id")).indices(table[name]),
        )
        for name in _IDS
    ]
    arrays = side_arrays(table, len(table), ids, stated, encoding, lists)
    return GivenFeatures(
        table[Column.ITEM],
        table[TITLE].cast(pl.String),
        arrays[FeatureKind.CATEGORICAL],
        arrays[FeatureKind.DENSE],
    )


def _read(
    path: str, manifest: DatasetManifest, stated: Sequence[Feature], lists: Sequence[str]
) -> pl.DataFrame:
    """The table's columns under the names of the features; those that it has."""
    files = data_files(Path(path), "posts")
    present = list(dict.fromkeys(name for file in files for name in column_names(file)))
    described: dict[str, Any] = manifest.preparation.get("options", {}).get("items") or {}

    def role(name: str, column: str) -> str | None:
        own = described.get(name)
        return own if own in present else named_column(present, column, manifest)

    prefix = f"{_SIDE}_"  # of a column that is called as something else's is
    columns = {
        name: next((one for one in (name, name.removeprefix(prefix)) if one in present), None)
        for name in (*(one.name for one in stated), *lists)
    }
    renamed = {column for name, column in columns.items() if column not in (None, name)}

    def of(names: Sequence[str]) -> list[str]:
        return [column for name in names if (column := columns[name]) is not None]

    item = needed_column(path, present, Column.ITEM, manifest)
    kinds = {kind: [one.name for one in stated if one.kind is kind] for kind in FeatureKind}
    options = ItemTableOptions(
        path=path,
        id=item,
        author=role("author", Column.AUTHOR),
        topic=role("topic", Column.TOPIC),
        title=role("title", TITLE),
        categorical=of(kinds[FeatureKind.CATEGORICAL]),
        dense=of(kinds[FeatureKind.DENSE]),
        lists=of(lists),
    )
    table = StatedTable(_SIDE, options, Path(path), item, {str(one) for one in renamed}).read()
    if table is None:  # it says who they are, and nothing of them
        ids = joined_ids([read_ids(file, item) for file in files])
        table = pl.DataFrame({Column.ITEM: ids}).drop_nulls()
    return table.unique(Column.ITEM, keep="first", maintain_order=True)
