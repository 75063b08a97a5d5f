"""Features of users and of items: their ids, then what the source states, one row per index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.durable import replaced_file
from recsys.core.errors import DataError
from recsys.data.contract.ids import as_ids
from recsys.data.contract.schema import Column, Feature, FeatureKind, FeatureSide
from recsys.data.sources import Source
from recsys.data.stores.encoding import FeatureEncoding, side_arrays
from recsys.data.stores.item_text import write_item_text
from recsys.data.stores.vocabulary import INDEX, RAW, Vocabulary

#: The sides whose ids have feature rows, and the id columns among their features.
_SIDE_IDS = {
    FeatureSide.USER: (Column.USER,),
    FeatureSide.ITEM: (Column.ITEM, Column.AUTHOR, Column.TOPIC),
}


@dataclass(frozen=True, eq=False)
class SideFeatures:
    """What was written of one side.

    Attributes:
        features: in column order, ids first.
        categorical: [n, F] int32, one row per index.
    """

    features: list[Feature]
    categorical: NDArray[np.int32]


def write_side(
    folder: Path,
    side: FeatureSide,
    source: Source,
    stated: pl.DataFrame | None,
    vocabularies: Mapping[str, Vocabulary],
    encoding: FeatureEncoding,
    fit_end: int | None,
) -> SideFeatures:
    """Write the arrays of users or of items, and the texts of items.

    Args:
        folder: of the features.
        side: users or items.
        source: names the features and texts.
        stated: one row per id with the columns of these.
        vocabularies: of every id column.
        encoding: learns what is known before ``fit_end``; where that is None it stays, and rows
            lie in ``folder`` already: ids that these hold are kept.
        fit_end: end of the fit period, ms.

    Raises:
        DataError: the source names a feature it does not give.
    """
    vocabulary = vocabularies[_SIDE_IDS[side][0]]
    features = [feature for feature in source.features if feature.side == side]
    texts = source.texts if side is FeatureSide.ITEM else ()
    table = _with_stated(vocabulary.table, stated, _SIDE_IDS[side][0])
    for name in (*(feature.name for feature in features), *texts):
        if name not in table.columns:
            raise DataError(
                f"source {source.name} names the {side} feature {name} but gives "
                f"no such column for its {side}s."
            )
    if fit_end is not None:
        encoding.fit(features, [table.filter(pl.col("first_seen") < fit_end)])
    ids = [(_id_feature(_SIDE_IDS[side][0], side, vocabulary.size), table[INDEX])]
    for name in _SIDE_IDS[side][1:]:
        indices = vocabularies[name].indices(table[name])
        ids.append((_id_feature(name, side, vocabularies[name].size), indices))
    arrays = side_arrays(table, vocabulary.size, ids, features, encoding)
    folder.mkdir(exist_ok=True)
    if texts:
        write_item_text(folder, table.select(INDEX, *texts))
    if fit_end is None:
        former = np.load(folder / f"{side}_{FeatureKind.CATEGORICAL}.npy")
        _keep_known(arrays[FeatureKind.CATEGORICAL], former, len(ids))
    for kind, array in arrays.items():
        with replaced_file(folder / f"{side}_{kind}.npy") as partial, partial.open("wb") as file:
            np.save(file, array)
    written = [feature for feature, _ in ids]
    written += [with_cardinality(feature, encoding) for feature in features]
    return SideFeatures(written, arrays[FeatureKind.CATEGORICAL])


def with_cardinality(feature: Feature, encoding: FeatureEncoding) -> Feature:
    """A feature with the number of its indices, where it is categorical."""
    if feature.kind is FeatureKind.DENSE:
        return feature
    return replace(feature, cardinality=encoding.cardinality(feature.name))


def _with_stated(ids: pl.DataFrame, stated: pl.DataFrame | None, name: str) -> pl.DataFrame:
    """The rows of a vocabulary with what is stated of each id, the first of several."""
    if stated is None:
        return ids
    stated = stated.unique(name, keep="first", maintain_order=True)
    return ids.join(
        stated.with_columns(as_ids(stated[name], ids.schema[RAW])),
        left_on=RAW,
        right_on=name,
        how="left",
        maintain_order="left",
    )


def _keep_known(arrays: NDArray[np.int32], former: NDArray[np.int32], columns: int) -> None:
    """Let ids that were known before stay: added events say nothing about most items."""
    known = former[:, :columns]
    np.copyto(arrays[: len(former), :columns], known, where=known != 0)


def _id_feature(name: str, side: FeatureSide, size: int) -> Feature:
    return Feature(str(name), side, FeatureKind.CATEGORICAL, size)
