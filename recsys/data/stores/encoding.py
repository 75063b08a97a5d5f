"""Feature columns to arrays: categories to indices, numbers standardised.

Everything that is learned from the data (which categories there are, mean and standard deviation)
is learned from what is known by the end of the fit period.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.json_files import read_json, write_json
from recsys.data.contract.manifest import PREPARE_AGAIN
from recsys.data.contract.schema import Feature, FeatureKind

ENCODING_FILE = "encoding.json"

#: Values of a column of lists that become features; rarer ones are none.
MOST_LIST_VALUES = 64

_KIND = "encoding of features"
_ROWS_PER_STEP = 100_000
#: What is ordered by value: other digits, and thousands of them, are words.
_NUMBER = re.compile(r"-?[0-9]{1,18}")
#: Mean and standard deviation where there are no values.
_NO_NUMBERS = 0.0, 1.0


def list_feature(column: str, value: str) -> str:
    """The name of the dense feature that says whether a list has a value."""
    return f"{column}={value}"


@dataclass
class Moments:
    """Count, sum and sum of squares of a number, gathered chunk by chunk."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: pl.Series) -> None:
        """Take in values; nulls and what float32 cannot hold are left out."""
        numbers = values.cast(pl.Float64).drop_nulls()
        numbers = numbers.filter(numbers.cast(pl.Float32).is_finite())
        self.count += len(numbers)
        self.total += float(numbers.sum())
        self.squares += float((numbers * numbers).sum())

    def merge(self, other: Moments) -> None:
        """Take in what was gathered elsewhere."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares

    @property
    def mean_and_std(self) -> tuple[float, float]:
        """Mean and population standard deviation; 0 and 1 without values, 1 for a constant."""
        if self.count == 0:
            return _NO_NUMBERS
        mean = self.total / self.count
        variance = max(self.squares / self.count - mean * mean, 0.0)
        std = math.sqrt(variance)
        return mean, std if std > 1e-6 * max(1.0, abs(mean)) else 1.0


@dataclass
class SeenValues:
    """What frames hold of features: distinct values of categorical ones, moments of dense ones."""

    values: dict[str, set[str]]
    moments: dict[str, Moments]

    @classmethod
    def of(cls, features: Sequence[Feature]) -> SeenValues:
        """Nothing yet of some features."""
        categorical = [f.name for f in features if f.kind is FeatureKind.CATEGORICAL]
        dense = [f.name for f in features if f.kind is FeatureKind.DENSE]
        return cls({name: set() for name in categorical}, {name: Moments() for name in dense})

    def add(self, frame: pl.DataFrame) -> None:
        """Take in a frame that holds the features' columns."""
        for name, values in self.values.items():
            values.update(frame[name].unique().drop_nulls().cast(pl.String))
        for name, moments in self.moments.items():
            moments.add(frame[name])

    def merge(self, other: SeenValues) -> None:
        """Take in what was seen elsewhere."""
        for name, values in self.values.items():
            values |= other.values[name]
        for name, moments in self.moments.items():
            moments.merge(other.moments[name])


@dataclass
class FeatureEncoding:
    """How the features of a data set become arrays; written beside them.

    Attributes:
        categories: per categorical feature its values in the order of their indices, from 1.
        dense: per dense feature the mean and standard deviation it is standardised with.
        lists: per column of lists those of its values that are dense features of their own, named
            by ``list_feature``: 1 where the list has the value, 0 where it does not.
    """

    categories: dict[str, list[str]] = field(default_factory=dict)
    dense: dict[str, tuple[float, float]] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    def fit(self, features: Sequence[Feature], frames: Iterable[pl.DataFrame]) -> None:
        """Learn categories and moments from frames that hold the features' columns."""
        seen = SeenValues.of(features)
        for frame in frames:
            seen.add(frame)
        self.fit_seen(seen)

    def fit_seen(self, seen: SeenValues) -> None:
        """Learn categories and moments from what was seen of the features."""
        for name, values in seen.values.items():
            self.categories[name] = sorted(values, key=_natural_order)
        for name, moments in seen.moments.items():
            self.dense[name] = moments.mean_and_std

    def fit_list(self, column: pl.Series) -> None:
        """Learn the commonest values of a column of lists of text, and how common they are."""
        known = column.drop_nulls()
        counted = known.explode().drop_nulls().to_frame("value").group_by("value").len()
        commonest = counted.sort("len", "value", descending=[True, False]).head(MOST_LIST_VALUES)
        counts = dict(commonest.iter_rows())
        self.lists[column.name] = sorted(counts, key=_natural_order)
        for value, count in counts.items():
            moments = Moments(len(known), count, count)  # of ones and zeros
            self.dense[list_feature(column.name, value)] = moments.mean_and_std

    def encode_list(self, column: pl.Series) -> NDArray[np.float32]:
        """[n, values] which values each list has, standardised; 0, the mean, where not known."""
        values = self.lists[column.name]
        if not values:
            return np.zeros((len(column), 0), np.float32)
        place = {value: position for position, value in enumerate(values)}
        rows = pl.DataFrame({"row": pl.int_range(len(column), eager=True), "value": column})
        found = rows.explode("value").filter(pl.col("value").is_in(values))
        positions = found["value"].replace_strict(place, return_dtype=pl.Int64)
        numbers = np.zeros((len(column), len(values)), np.float32)
        numbers[found["row"].to_numpy(), positions.to_numpy()] = 1
        for position, value in enumerate(values):
            mean, std = self.dense[list_feature(column.name, value)]
            numbers[:, position] = (numbers[:, position] - mean) / std
        numbers[column.is_null().to_numpy()] = 0
        return numbers

    def cardinality(self, name: str) -> int:
        """The number of indices of a categorical feature, 0 for unknown included."""
        return len(self.categories[name]) + 1

    def says(self, feature: Feature) -> bool:
        """Whether the fit period has values of a feature."""
        if feature.kind is FeatureKind.CATEGORICAL:
            return bool(self.categories.get(feature.name))
        return tuple(self.dense[feature.name]) != _NO_NUMBERS

    def encode(self, column: pl.Series, feature: Feature) -> pl.Series:
        """Indices (int32, 0 for null and for what the fit period does not have), or numbers.

        Numbers are standardised float32; null and what float32 cannot hold become 0, the mean.
        """
        if feature.kind is FeatureKind.CATEGORICAL:
            values = self.categories[feature.name]
            return column.cast(pl.String).replace_strict(
                values, range(1, len(values) + 1), default=0, return_dtype=pl.Int32
            )
        mean, std = self.dense[feature.name]
        numbers = column.cast(pl.Float64)
        standardised = (numbers - mean) / std
        known = numbers.cast(pl.Float32).is_finite().fill_null(False)
        return (
            pl.select(pl.when(known).then(standardised).otherwise(0.0).cast(pl.Float32))
            .to_series()
            .alias(column.name)
        )

    def save(self, folder: Path) -> None:
        """Write ``encoding.json`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / ENCODING_FILE, _KIND, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> FeatureEncoding:
        """Read ``encoding.json`` from ``folder``.

        Raises:
            DataError: it is missing or damaged.
        """
        content = read_json(folder / ENCODING_FILE, _KIND, DataError, PREPARE_AGAIN)
        dense = {name: (mean, std) for name, (mean, std) in content["dense"].items()}
        return cls(content["categories"], dense, content.get("lists", {}))


def side_arrays(
    table: pl.DataFrame,
    size: int,
    ids: Sequence[tuple[Feature, pl.Series]],
    features: Sequence[Feature],
    encoding: FeatureEncoding,
    lists: Sequence[str] = (),
) -> dict[FeatureKind, NDArray]:
    """The arrays of one side, one row per index; ids without a row in ``table`` get zeros.

    Args:
        table: ``index`` and the columns of ``features`` and ``lists``, one row per known id.
        size: number of indices.
        ids: id features and their index for each row of ``table``, the first columns.
        features: the other features, in column order.
        encoding: learned from the fit period.
        lists: columns of lists, whose values are the last of the dense columns.

    Returns:
        ``categorical`` [size, F] int32 and ``dense`` [size, D] float32.
    """
    categorical = [f for f in features if f.kind is FeatureKind.CATEGORICAL]
    dense = [f for f in features if f.kind is FeatureKind.DENSE]
    num_dense = len(dense) + sum(len(encoding.lists[name]) for name in lists)
    rows = table["index"].to_numpy()
    indices = np.zeros((size, len(ids) + len(categorical)), np.int32)
    for position, (_, column) in enumerate(ids):
        indices[rows, position] = column.to_numpy()
    for position, feature in enumerate(categorical, start=len(ids)):
        indices[rows, position] = encoding.encode(table[feature.name], feature).to_numpy()
    numbers = np.zeros((size, num_dense), np.float32)
    for position, feature in enumerate(dense):
        numbers[rows, position] = encoding.encode(table[feature.name], feature).to_numpy()
    position = len(dense)
    for name in lists:
        columns = slice(position, position + len(encoding.lists[name]))
        for first in range(0, table.height, _ROWS_PER_STEP):  # a list becomes many numbers
            some = table[name].slice(first, _ROWS_PER_STEP)
            numbers[rows[first : first + _ROWS_PER_STEP], columns] = encoding.encode_list(some)
        position = columns.stop
    return {FeatureKind.CATEGORICAL: indices, FeatureKind.DENSE: numbers}


def _natural_order(value: str) -> tuple[bool, int, str]:
    """Numbers by value before words, so that 2 comes before 10."""
    is_number = _NUMBER.fullmatch(value) is not None
    return (False, int(value), value) if is_number else (True, 0, value)
