"""What a data set says of the items that are recommended: titles, columns to filter on, links."""

from __future__ import annotations

from functools import cached_property

import polars as pl

from recsys.core.errors import ConfigError
from recsys.data.contract.ids import as_ids
from recsys.data.contract.schema import Column, FeatureKind, FeatureSide
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import INDEX, RAW, Vocabulary
from recsys.index.catalogue import Catalogue
from recsys.index.usable_items import OPTIONAL_COLUMNS, POST_ID, TITLE

#: Ids that a log may have of an item, beside what is stated in a table of items.
_OF_LOG = {Column.AUTHOR.value: "author", Column.TOPIC.value: "topic"}

#: The column of links to pictures.
IMAGE = "image"


class ItemFacts:
    """Facts of items by their raw ids.

    Args:
        dataset: whose items they are.
        catalogue: of the items, some of which the data set may not know.
    """

    def __init__(self, dataset: PreparedDataset, catalogue: Catalogue) -> None:
        self._dataset = dataset
        self._catalogue = catalogue

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of the data set's items."""
        return self._dataset.vocabulary("item")

    @property
    def names(self) -> list[str]:
        """The columns there are."""
        known = [name for name in _OF_LOG if self._feature_place(name) is not None]
        return [*dict.fromkeys([*self._dataset.item_columns, TITLE, *known])]

    def column(self, name: str, ids: pl.Series) -> pl.Series:
        """A column's values of some items, null where they are unknown.

        Raises:
            ConfigError: there is no such column.
        """
        if name not in self.names:
            raise ConfigError(
                f"where={name}…: items have no column {name}; they have {', '.join(self.names)}."
            )
        indices = self.vocabulary.indices(ids)
        values = self._by_index(name)
        found = pl.DataFrame({INDEX: indices}).join(
            values, on=INDEX, how="left", maintain_order="left"
        )[name]
        if name != TITLE:
            return found
        known = self._catalogue.items.select(POST_ID, pl.col(TITLE).alias("given"))
        given = pl.DataFrame({POST_ID: as_ids(ids, known.schema[POST_ID])}).join(
            known, on=POST_ID, how="left", maintain_order="left"
        )["given"]
        both = pl.DataFrame([given, found.alias(name)])
        return both.select(pl.coalesce("given", name).alias(name)).to_series()

    def titles(self, ids: pl.Series) -> pl.Series:
        """The titles of some items, null where they have none."""
        return self.column(TITLE, ids)

    def images(self, ids: pl.Series) -> pl.Series:
        """Links to pictures of some items, null where there is none."""
        if IMAGE not in self.names:
            return pl.repeat(None, len(ids), dtype=pl.String, eager=True).alias(IMAGE)
        return self.column(IMAGE, ids).cast(pl.String)

    def raw(self, indices: pl.Series) -> pl.Series:
        """The raw id of each item index; of ids that share one, the first."""
        table = self.vocabulary.table.unique(INDEX, keep="first", maintain_order=True)
        return pl.DataFrame({INDEX: indices.cast(pl.Int32)}).join(
            table.select(INDEX, RAW), on=INDEX, how="left", maintain_order="left"
        )[RAW]

    def _by_index(self, name: str) -> pl.DataFrame:
        """``index`` and a column."""
        if name in self._dataset.item_columns:
            return self._dataset.item_table([name])
        if name == TITLE:
            return pl.DataFrame(schema={INDEX: pl.Int32(), TITLE: OPTIONAL_COLUMNS[TITLE]})
        place = self._feature_place(name)
        codes = pl.Series(self._dataset.item_features.categorical[:, place])
        of_code = self._dataset.vocabulary(_OF_LOG[name]).table
        of_code = of_code.unique(INDEX, keep="first", maintain_order=True)
        named = pl.DataFrame({INDEX: codes}).join(
            of_code.select(INDEX, RAW), on=INDEX, how="left", maintain_order="left"
        )[RAW]
        items = pl.Series(INDEX, range(len(codes)), pl.Int32)
        return pl.DataFrame([items, named.alias(name)])

    def _feature_place(self, name: str) -> int | None:
        """The place of an id among the categorical features of items, where the log has any."""
        if name not in _OF_LOG or self._dataset.manifest.vocabulary_sizes[_OF_LOG[name]] < 2:
            return None
        features = self._dataset.manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
        places = [place for place, one in enumerate(features) if one.name == name]
        return places[0] if places else None
