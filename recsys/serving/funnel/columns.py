"""Columns of a data set's users and items, as a funnel calls them.

Legend: U users, V items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import FeatureKind, FeatureSide
from recsys.data.stores.dataset import FEATURES, PreparedDataset
from recsys.data.stores.encoding import FeatureEncoding
from recsys.data.stores.vocabulary import INDEX
from recsys.serving.funnel.knowledge import NONE

Integers = NDArray[np.int64]


class Columns:
    """Categories and numbers, by the name of their feature, or ``user_`` or ``item_`` before it.

    Args:
        dataset: whose users and items.
        group: column of the users by which they are told apart; None for one group of all.

    Attributes:
        grouped_by: ``group``.
        group: [U] the users' groups, from 1; 0 where it is unknown.
        groups: their names by number.

    Raises:
        ConfigError: users have no such column.
    """

    def __init__(self, dataset: PreparedDataset, group: str | None) -> None:
        self._dataset, self.grouped_by = dataset, group
        self._encoding = FeatureEncoding.load(dataset.path / FEATURES)
        self.group: Integers = np.zeros(dataset.manifest.vocabulary_sizes["user"], np.int64)
        self.groups: tuple[str, ...] = ("all",)
        if group is not None:
            name, self.group = self._categorical(FeatureSide.USER, group)
            self.groups = ("unknown", *self._encoding.categories[name])

    def of_items(self, name: str) -> Integers:
        """[V] indices of a categorical feature, from 1; 0 where it is unknown.

        The one by which users are told apart has the numbers of their groups.

        Raises:
            ConfigError: there is none.
        """
        found, indices = self._categorical(FeatureSide.ITEM, name)
        if name != self.grouped_by:
            return indices
        numbers = {category: number for number, category in enumerate(self.groups)}
        own = self._encoding.categories[found]
        # what no user is has a number that is nobody's
        mapped = [numbers.get(one, len(numbers) + place) for place, one in enumerate(own)]
        return np.array([NONE, *mapped])[indices]

    def number(self, name: str) -> NDArray[np.float32]:
        """[V] a number of the items as it is stated; NaN where it is unknown.

        Raises:
            ConfigError: there is none.
        """
        features = self._dataset.manifest.select(FeatureSide.ITEM, FeatureKind.DENSE)
        names = [one.name for one in features if one.name in self._dataset.item_columns]
        found = _named(FeatureSide.ITEM, name, names, "number")
        table = self._dataset.item_table([found])
        size = self._dataset.manifest.vocabulary_sizes["item"]
        values = np.full(size, np.nan, np.float32)
        values[table[INDEX].to_numpy()] = table[found].to_numpy()
        return values

    def _categorical(self, side: FeatureSide, name: str) -> tuple[str, Integers]:
        features = self._dataset.manifest.select(side, FeatureKind.CATEGORICAL)
        names = [one.name for one in features]
        coded = [one for one in names if one in self._encoding.categories]
        found = _named(side, name, coded, "column")
        dataset = self._dataset
        arrays = dataset.item_features if side is FeatureSide.ITEM else dataset.user_features
        return found, arrays.categorical[:, names.index(found)].astype(np.int64)


def _named(side: FeatureSide, name: str, names: Sequence[str], what: str) -> str:
    for one in (name, f"{side}_{name}"):
        if one in names:
            return one
    there, mend = list(names), ""
    if side is FeatureSide.USER:
        mend = "; group: null takes all users as one"
    elif what == "column":
        there = ["author", "topic", *names]
    raise ConfigError(
        f"funnel: the {side}s of the data set have no {what} {name}; they have "
        f"{', '.join(there) or 'none'}{mend}."
    )
