"""What a data set says of the items that are recommended: titles, columns to filter on, links."""

from __future__ import annotations

import difflib
from functools import cached_property

import polars as pl

from recsys.core.errors import ConfigError
from recsys.data.contract.ids import as_ids
from recsys.data.contract.schema import Column
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import INDEX, RAW, Vocabulary
from recsys.index.catalogue import Catalogue
from recsys.index.usable_items import POST_ID, TITLE

#: The column of links to pictures.
IMAGE = "image"

#: Columns that a table of items may call otherwise, by what its description calls them.
_ROLES = {TITLE: "title", Column.AUTHOR.value: "author", Column.TOPIC.value: "topic"}


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
        return [*dict.fromkeys([*self._dataset.item_columns, TITLE])]

    def column(self, name: str, ids: pl.Series) -> pl.Series:
        """A column's values of some items, null where they are unknown.

        Raises:
            ConfigError: there is no such column.
        """
        name = self._known(name)
        if name == TITLE:
            return self.titles(ids)
        return self._of(ids, self._dataset.item_table([name]), name)

    def _known(self, name: str) -> str:
        """A column there is: called so, or as the log's table of items calls it."""
        if name in self.names:
            return name
        described = (self._dataset.manifest.preparation.get("options") or {}).get("items") or {}
        of_table = {described.get(role): ours for ours, role in _ROLES.items()}
        own = {str(one): ours for one, ours in of_table.items() if one and ours in self.names}
        if name in own:
            return own[name]
        folded = {one.casefold(): one for one in (*self.names, *own)}
        near = difflib.get_close_matches(name.casefold(), folded, n=1)
        meant = "".join(f"; did you mean {folded[one]}?" for one in near)
        raise ConfigError(
            f"where={name}…: items have no column {name} (they have {', '.join(self.names)})"
            f"{meant or '; name one of these.'}"
        )

    def titles(self, ids: pl.Series) -> pl.Series:
        """The titles of some items, null where they have none: the catalogue's, or the log's."""
        items = self._catalogue.items.select(POST_ID, TITLE)
        named = pl.DataFrame({POST_ID: as_ids(ids, items.schema[POST_ID])})
        given = named.join(items, on=POST_ID, how="left", maintain_order="left")[TITLE]
        texts = self._dataset.item_text
        if TITLE not in texts.columns:
            return given
        known = self._of(ids, texts.select(INDEX, TITLE), TITLE)
        return given.zip_with(given.is_not_null(), known)

    def _of(self, ids: pl.Series, table: pl.DataFrame, name: str) -> pl.Series:
        """A column of a table by item index, of some items."""
        wanted = pl.DataFrame({INDEX: self.vocabulary.indices(ids)})
        return wanted.join(table, on=INDEX, how="left", maintain_order="left")[name]

    def images(self, ids: pl.Series) -> pl.Series:
        """Links to pictures of some items, null where there is none."""
        if IMAGE not in self._dataset.item_columns:
            return pl.repeat(None, len(ids), dtype=pl.String, eager=True).alias(IMAGE)
        return self.column(IMAGE, ids).cast(pl.String)

    def raw(self, indices: pl.Series) -> pl.Series:
        """The raw id of each item index; of ids that share one, the first."""
        table = self.vocabulary.table.unique(INDEX, keep="first", maintain_order=True)
        return pl.DataFrame({INDEX: indices.cast(pl.Int32)}).join(
            table.select(INDEX, RAW), on=INDEX, how="left", maintain_order="left"
        )[RAW]
