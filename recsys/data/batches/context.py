"""Context features of given rows: raw values as the columns of a batch.

Legend: R rows, F and D features.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import Column, FeatureKind, FeatureSide
from recsys.data.stores.dataset import FEATURES, PreparedDataset
from recsys.data.stores.encoding import FeatureEncoding

#: Raw values by feature: one for all rows, or a frame with a row per row.
Context = Mapping[str, object] | pl.DataFrame | None


def context_arrays(
    dataset: PreparedDataset, context: Context, rows: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Indices [R, F] and standardised numbers [R, D], in the order of the manifest's features.

    What is not given, null, or was not seen in the fit period is unknown: index 0, or the mean.

    Args:
        dataset: whose encoding learned the categories and means.
        context: for example ``{"surface": "feed", "hour_of_day": 20}``.
        rows: R.

    Raises:
        ConfigError: a name that is no context feature, a value that is no text or number, or a
            frame with another number of rows.
    """
    manifest = dataset.manifest
    features = {kind: manifest.select(FeatureSide.CONTEXT, kind) for kind in FeatureKind}
    categorical = np.zeros((rows, len(features[FeatureKind.CATEGORICAL])), np.int32)
    dense = np.zeros((rows, len(features[FeatureKind.DENSE])), np.float32)
    frame = context_frame(context, rows)
    if frame.width:
        known = [feature.name for some in features.values() for feature in some]
        if unknown := [name for name in frame.columns if name not in known]:
            raise ConfigError(
                f"context has {', '.join(unknown)}, which is no context feature of "
                f"{manifest.name}; it has {', '.join(known) or 'none'}."
            )
        if len(frame) != rows:
            raise ConfigError(f"context has {len(frame)} rows for {rows} items; give one for each.")
        encoding = FeatureEncoding.load(dataset.path / FEATURES)
        for kind, array in ((FeatureKind.CATEGORICAL, categorical), (FeatureKind.DENSE, dense)):
            for position, feature in enumerate(features[kind]):
                if feature.name in frame.columns:
                    column = frame[feature.name]
                    if kind is FeatureKind.CATEGORICAL and column.dtype.is_float():
                        column = column.cast(pl.Int64, strict=False)  # 20.0 is the category 20
                    if kind is FeatureKind.DENSE:
                        column = _numbers(column)
                    array[:, position] = encoding.encode(column, feature).to_numpy()
    return categorical, dense


def _numbers(column: pl.Series) -> pl.Series:
    """A column of a dense feature, as in rows of a log: durations by their logarithm.

    Raises:
        ConfigError: a value is no number, or a duration below 0.
    """
    numbers = column.cast(pl.Float64, strict=False)
    is_wrong, expected = numbers.is_null() & column.is_not_null(), "a number"
    if column.name == Column.VIDEO_DURATION:
        is_wrong, expected = is_wrong | (numbers < 0).fill_null(False), "seconds, 0 or more"
    if is_wrong.any():
        raise ConfigError(
            f"context has {column.name}={column.filter(is_wrong)[0]!r}; give {expected}, or leave "
            "the value out where it is not known."
        )
    return numbers.log1p() if column.name == Column.VIDEO_DURATION else numbers


def context_frame(context: Context, rows: int) -> pl.DataFrame:
    """Raw values as a frame with a row per row, or without columns.

    Raises:
        ConfigError: a value is no text or number.
    """
    if isinstance(context, pl.DataFrame):
        return context
    values = {} if context is None else context
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"context is {values!r}; give values by name, {{'surface': 'feed'}}, or a frame."
        )
    for name, value in values.items():
        if not isinstance(value, str | int | float | None):
            raise ConfigError(
                f"context has {name}={value!r}; give one text or number that holds for all items."
            )
    return pl.DataFrame(
        {name: pl.Series([value]).new_from_index(0, rows) for name, value in values.items()}
    )
