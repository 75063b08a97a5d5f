"""A prepared data set and items that came after it, as one.

Legend: V items of the data set, n new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.data.contract.manifest import FIT_VOCABULARY, DatasetManifest
from recsys.data.contract.schema import Column, Feature, FeatureKind, FeatureSide
from recsys.data.stores.dataset import FEATURES, FeatureArrays, PreparedDataset
from recsys.data.stores.encoding import FeatureEncoding, list_feature, side_arrays
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.data.stores.vocabulary import FIRST_SEEN, INDEX, RAW, IdMode, Vocabulary

ITEM = "item"
_IDS = (Column.ITEM, Column.AUTHOR, Column.TOPIC)


class GrownDataset(PreparedDataset):
    """A data set with further items: in every array behind its own ones, in the order given.

    They are to a model what items are that were first seen after its fit period: ids that it does
    not know, with features that it does, encoded as those of the data set's own items.

    Args:
        path: the prepared data set.
        manifest: what it holds.
        newest: as of ``PreparedDataset``.
        items: ``item_id``, ``first_seen`` (ms) and any of the columns that are stated of its items;
            None for none. Ids that the data set has are left out.

    Attributes:
        given_items: the items as they are given.
        given: [n] the index of each, whether it is the data set's own or new.

    Raises:
        DataError: items lack a column, or the data set has hashed ids of items.
    """

    def __init__(
        self,
        path: Path,
        manifest: DatasetManifest,
        newest: DatasetManifest | None = None,
        items: pl.DataFrame | None = None,
    ) -> None:
        super().__init__(path, manifest, newest)
        self.given_items = items
        self._grown: Vocabulary | None = None
        self.given = np.empty(0, np.int64)
        if items is not None and items.height:
            self._grow(items)

    @property
    def own_items(self) -> int:
        """Indices of items that the data set has itself, the unknown 0 among them."""
        return self.manifest.vocabulary_sizes[ITEM] if self._grown is None else self._stored.size

    def vocabulary(self, name: str) -> Vocabulary:
        """The ids and indices of a column; of items those that came later as well."""
        if name == ITEM:
            return self._grown or self._stored
        return super().vocabulary(name)

    @cached_property
    def stated(self) -> dict[str, pl.DataType]:
        """Type of what is stated of items, by column; ids of authors and topics are text."""
        schema = self.item_table().schema
        ids = dict.fromkeys((Column.AUTHOR.value, Column.TOPIC.value), pl.String())
        return {name: ids.get(name, kind) for name, kind in schema.items() if name != INDEX}

    def restated(self, former: GrownDataset) -> NDArray[np.int64]:
        """Indices of items of which this says otherwise than a former one with fewer items."""
        if self.given_items is None or former.given_items is None:
            return np.empty(0, np.int64)
        before = former.given_items
        same = self.given_items.head(before.height).hash_rows() == before.hash_rows()
        index = self.given[: before.height][~same.to_numpy()]
        return index[index >= self.own_items]

    def refuse_hashed(self) -> None:
        """Refuse a data set behind whose items no others come.

        Raises:
            DataError: its ids of items are hashed.
        """
        if self._stored.mode is IdMode.HASHED:
            raise DataError(
                f"{self.path} has hashed ids of items, behind which no others come; items are "
                "known once days are appended."
            )

    @cached_property
    def item_features(self) -> FeatureArrays:
        """Features of items, by item index."""
        if self._grown is None:
            return super().item_features
        stored = self._stored.size
        own = PreparedDataset(self.path, _with_items(self.newest, stored)).item_features
        select = self.manifest.select
        categorical = select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
        dense = select(FeatureSide.ITEM, FeatureKind.DENSE)
        encoding = FeatureEncoding.load(self.path / FEATURES)
        names = {feature.name for feature in dense}
        lists = [
            column
            for column, values in encoding.lists.items()
            if any(list_feature(column, value) in names for value in values)
        ]
        of_lists = {list_feature(name, value) for name in lists for value in encoding.lists[name]}
        stated = [one for one in categorical if one.name not in _IDS]
        stated += [one for one in dense if one.name not in of_lists]
        table = self._stated([*(one.name for one in stated), *lists])
        arrays = side_arrays(
            table.with_columns(pl.col(INDEX) - stored),
            table.height,
            self._ids(categorical),
            stated,
            encoding,
            lists,
        )
        return FeatureArrays(
            np.concatenate([own.categorical, arrays[FeatureKind.CATEGORICAL]]),
            np.concatenate([own.dense, arrays[FeatureKind.DENSE]]),
        )

    @cached_property
    def item_text(self) -> pl.DataFrame:
        """Texts of items, as of the data set."""
        own = super().item_text
        names = [name for name in own.columns if name != INDEX]
        if self._grown is None or not names:
            return own
        texts = self._stated(names).filter(pl.any_horizontal(pl.col(names).is_not_null()))
        return pl.concat([own, texts.select(own.columns).cast(own.schema)])

    @cached_property
    def _item_table(self) -> pl.DataFrame:
        own = super()._item_table
        names = [name for name in own.columns if name != INDEX]
        if self._grown is None or not names:
            return own
        return pl.concat([own, self._stated(names).select(own.columns).cast(own.schema)])

    @cached_property
    def _stored(self) -> Vocabulary:
        """Of the items that the data set has itself."""
        return super().vocabulary(ITEM)

    def _grow(self, items: pl.DataFrame) -> None:
        refuse_without_moments(items)
        self.refuse_hashed()
        seen = items.select(pl.col(Column.ITEM).alias(RAW), FIRST_SEEN)
        self._grown = self._stored.grow(seen.unique(RAW, keep="first", maintain_order=True))
        self.given = self._grown.indices(seen[RAW]).cast(pl.Int64).to_numpy()
        self.manifest = _with_items(self.manifest, self._grown.size)
        self.newest = _with_items(self.newest, self._grown.size)

    def _stated(self, names: list[str]) -> pl.DataFrame:
        """``index`` and columns of the new items; null where they do not say."""
        assert self._grown is not None and self.given_items is not None
        fresh = self._grown.table.slice(self._stored.table.height)
        there = [name for name in names if name in self.given_items.columns]
        given = self.given_items.select(
            pl.col(Column.ITEM).cast(fresh.schema[RAW]).alias(RAW), *there
        ).unique(RAW, keep="first", maintain_order=True)
        table = fresh.select(RAW, INDEX).join(given, on=RAW, how="left", maintain_order="left")
        absent = [pl.lit(None).alias(name) for name in names if name not in there]
        return table.with_columns(absent).select(INDEX, *names)

    def _ids(self, features: Sequence[Feature]) -> list[tuple[Feature, pl.Series]]:
        """Id features and their indices for the new items."""
        found = []
        for feature in features:
            if feature.name == Column.ITEM:
                found.append((feature, self._stated([])[INDEX]))
            elif feature.name in _IDS:
                of = self.vocabulary(feature.name.removesuffix("_id"))
                found.append((feature, of.indices(self._stated([feature.name])[feature.name])))
        return found

    def _described_by(self, manifest: DatasetManifest) -> Self:
        return type(self)(self.path, manifest, self.newest, self.given_items)

    def __reduce__(self) -> tuple[object, tuple[Any, ...]]:
        """Open the data set again in the process that unpickles it."""
        return type(self), (self.path, self.manifest, self.newest, self.given_items)


def refuse_without_moments(items: pl.DataFrame) -> None:
    """Refuse items that do not say which they are and when they came.

    Raises:
        DataError: a column is not there.
    """
    for name in (Column.ITEM, FIRST_SEEN):
        if name not in items.columns:
            raise DataError(
                f"new items lack the column {name}; they have {', '.join(items.columns)}, and "
                f"need {Column.ITEM} and {FIRST_SEEN} (ms)."
            )


def _with_items(manifest: DatasetManifest, size: int) -> DatasetManifest:
    """A manifest with so many indices of items, of which models know no more than before."""
    fit = {FIT_VOCABULARY + ITEM: FitVocabulary.of(manifest).sizes[ITEM]}
    return replace(
        manifest,
        counts={**manifest.counts, **fit},
        vocabulary_sizes={**manifest.vocabulary_sizes, ITEM: size},
    )
