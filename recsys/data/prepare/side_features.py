"""Features of users and of items: their ids, then what the source states, one row per index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.console import message_console
from recsys.core.durable import replaced_file
from recsys.core.errors import DataError
from recsys.data.contract.schema import Column, Feature, FeatureKind, FeatureSide
from recsys.data.prepare.stated import StatedColumns
from recsys.data.sources import Source
from recsys.data.stores.encoding import FeatureEncoding, list_feature, side_arrays
from recsys.data.stores.item_text import write_item_text
from recsys.data.stores.side_table import IN_TABLE, ids_in_table, read_side_table, write_side_table
from recsys.data.stores.vocabulary import FIRST_SEEN, INDEX, RAW, Vocabulary

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
        counts: what became of the rows of the source's table, by name; none where it has none.
    """

    features: list[Feature]
    categorical: NDArray[np.int32]
    counts: dict[str, int]


def write_side(
    folder: Path,
    side: FeatureSide,
    source: Source,
    stated: pl.DataFrame | None,
    attributes: pl.DataFrame | None,
    vocabularies: Mapping[str, Vocabulary],
    encoding: FeatureEncoding,
    fit_end: int | None,
) -> SideFeatures:
    """Write the arrays of users or of items, what they were made of, and the texts of items.

    Args:
        folder: of the features.
        side: users or items.
        source: names the features, lists and texts.
        stated: the source's table with the columns of these; of repeated ids the first row counts.
        attributes: authors and topics of items.
        vocabularies: of every id column.
        encoding: learns what is known before ``fit_end``; where that is None it stays, and rows
            lie in ``folder`` already: what they say stays where nothing new is known.
        fit_end: end of the fit period, ms.

    Raises:
        DataError: the source names a feature it does not give, or gives a table of other ids.
    """
    id_name, *further_ids = _SIDE_IDS[side]
    vocabulary = vocabularies[id_name]
    features = [feature for feature in source.features if feature.side == side]
    lists = source.lists.get(side, ())
    texts, shown = (source.texts, source.shown) if side is FeatureSide.ITEM else ((), ())
    tables = [table for table in (attributes, stated) if table is not None]
    columns = StatedColumns(vocabulary, tables, id_name)
    is_table, has_row = stated is not None and side not in source.first_known, []
    counts: dict[str, int] = {}
    if stated is not None and is_table:
        before = _had_row(folder, side, vocabulary)
        has_row = [columns.has_row(-1).alias(IN_TABLE) | before]
        counts = _counted(columns, stated, vocabulary.table[RAW], side, before, fit_end is None)
    former = read_side_table(folder, side)
    names = list(dict.fromkeys([*(feature.name for feature in features), *lists, *shown]))
    for name in (*names, *texts):
        if name not in columns and name not in former.columns:
            raise DataError(
                f"source {source.name} names the {side} feature {name} but gives "
                f"no such column for its {side}s."
            )
    table = vocabulary.table.select(INDEX, FIRST_SEEN).with_columns(
        _known_before(columns, former, name, vocabulary.table.height, not is_table)
        for name in names
    )
    if fit_end is not None:
        fit = table.filter(pl.col(FIRST_SEEN) < fit_end)
        encoding.fit(features, [fit])
        for name in lists:
            encoding.fit_list(fit[name])
            if not encoding.lists[name]:
                message_console().print(
                    f"The column {name} of {side}s becomes no feature: none of its lists has a "
                    "value that is known by the end of the fit period."
                )
    ids = [(_id_feature(id_name, side, vocabulary.size), table[INDEX])]
    for name in further_ids:
        indices = vocabularies[name].indices(columns.column(name))
        ids.append((_id_feature(name, side, vocabularies[name].size), indices))
    arrays = side_arrays(table, vocabulary.size, ids, features, encoding, lists)
    folder.mkdir(exist_ok=True)
    if names or has_row:
        write_side_table(folder, side, table.drop(FIRST_SEEN).with_columns(has_row))
    del table
    if texts:
        known = [columns.column(name) for name in texts]
        write_item_text(folder, pl.DataFrame([vocabulary.table[INDEX], *known]), not is_table)
    if fit_end is None:
        array = np.load(folder / f"{side}_{FeatureKind.CATEGORICAL}.npy")
        restated = {}
        if stated is not None and is_table:
            restated = _restated(stated, vocabulary, id_name, further_ids)
        _keep_known(arrays[FeatureKind.CATEGORICAL], array, (id_name, *further_ids), restated)
    for kind, array in arrays.items():
        with replaced_file(folder / f"{side}_{kind}.npy") as partial, partial.open("wb") as file:
            np.save(file, array)
    written = [feature for feature, _ in ids]
    written += [with_cardinality(feature, encoding) for feature in features]
    for name in lists:
        written += [
            Feature(list_feature(name, value), side, FeatureKind.DENSE)
            for value in encoding.lists[name]
        ]
    return SideFeatures(written, arrays[FeatureKind.CATEGORICAL], counts)


def _counted(
    columns: StatedColumns,
    stated: pl.DataFrame,
    ids: pl.Series,
    side: FeatureSide,
    before: pl.Series,
    may_miss: bool,
) -> dict[str, int]:
    """What became of the rows of a source's table, the last of ``columns``, by name of the count.

    Rows of tables of ``before`` count for ids that this one has no row for.

    Raises:
        DataError: it has none of the log's ids, and may not.
    """
    counts = columns.counts(-1)
    if counts.ids_without_row == len(ids) and len(ids) and stated.height and not may_miss:
        raise DataError(
            f"none of the {stated.height:,} ids of the table of {side}s (such as "
            f"{stated[_SIDE_IDS[side][0]][0]!r}) is in the log (which has {ids[0]!r}); ids are "
            "matched as they are written: name the column that holds them, or write them as in "
            "the log."
        )
    only_before = int((before & ~columns.has_row(-1)).sum())
    return {
        f"{side}_table_rows": counts.rows + only_before,
        f"{side}_table_repeated": counts.repeated,
        f"{side}_table_not_in_log": counts.not_in_log,
        f"{side}s_not_in_table": counts.ids_without_row - only_before,
    }


def with_cardinality(feature: Feature, encoding: FeatureEncoding) -> Feature:
    """A feature with the number of its indices, where it is categorical."""
    if feature.kind is FeatureKind.DENSE:
        return feature
    return replace(feature, cardinality=encoding.cardinality(feature.name))


def _known_before(
    columns: StatedColumns, former: pl.DataFrame, name: str, height: int, former_first: bool
) -> pl.Series:
    """A stated column, and where it says nothing what was stated of an id before.

    Args:
        columns: what is stated now.
        former: what was stated of the first ids of the vocabulary.
        name: of the column.
        height: number of ids.
        former_first: what was stated before stays wherever it says something.
    """
    if name not in former.columns:
        return columns.column(name)
    before = former[name].extend_constant(None, height - former.height)
    if name not in columns:
        return before
    now = columns.column(name).cast(before.dtype)
    values = (before, now) if former_first else (now, before)
    return pl.select(pl.coalesce(*values).alias(name)).to_series()


def _had_row(folder: Path, side: FeatureSide, vocabulary: Vocabulary) -> pl.Series:
    """Whether a table of before had a row for each id of the vocabulary, which may have grown."""
    known = ids_in_table(folder, side)
    return known.extend_constant(False, vocabulary.table.height - len(known))


def _restated(
    stated: pl.DataFrame, vocabulary: Vocabulary, id_name: str, names: Sequence[str]
) -> dict[str, NDArray[np.int32]]:
    """The indices whose further ids a table states, by their column."""
    columns = StatedColumns(vocabulary, [stated], id_name)
    return {
        name: vocabulary.table[INDEX].filter(columns.column(name).is_not_null()).to_numpy()
        for name in names
        if name in columns
    }


def _keep_known(
    arrays: NDArray[np.int32],
    former: NDArray[np.int32],
    names: Sequence[str],
    restated: Mapping[str, NDArray[np.int32]],
) -> None:
    """Let ids that were known before stay: added events say nothing about most items.

    Args:
        arrays: what is known now, [n, at least the names].
        former: what was known before of the first indices.
        names: the first columns of both.
        restated: indices that a table says something else of.
    """
    for position, name in enumerate(names):
        now, known = arrays[: len(former), position], former[:, position]
        stays = known != 0
        if name in restated:
            said = restated[name][restated[name] < len(former)]
            stays[said] &= now[said] == 0
        np.copyto(now, known, where=stays)


def _id_feature(name: str, side: FeatureSide, size: int) -> Feature:
    return Feature(str(name), side, FeatureKind.CATEGORICAL, size)
