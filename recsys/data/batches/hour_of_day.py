"""The hour of the day, which follows from the moment of a row where the log does not say it."""

from __future__ import annotations

import polars as pl

from recsys.data.batches.context import context_frame
from recsys.data.batches.given_rows import GivenRows
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import FeatureSide
from recsys.data.sources.log_rows import HOUR_OF_DAY, hour_of_day

#: The log itself, whose hour of the day is that of the request in UTC.
_LOG = "log"
_MOMENT = "moment"


def follows(manifest: DatasetManifest) -> bool:
    """Whether the hour of the day is a context feature that follows from a moment."""
    context = [one.name for one in manifest.features if one.side is FeatureSide.CONTEXT]
    return manifest.source == _LOG and HOUR_OF_DAY.name in context


def with_hour(rows: GivenRows, manifest: DatasetManifest) -> GivenRows:
    """Rows with the hour of the day among their context, unless it is given.

    Raises:
        ConfigError: the context cannot be.
    """
    context = context_frame(rows.context, len(rows))
    if not follows(manifest) or HOUR_OF_DAY.name in context.columns:
        return rows
    if context.width and len(context) != len(rows):
        return rows  # which is refused where it is read
    hour = pl.DataFrame({_MOMENT: rows.moment}).select(hour_of_day(pl.col(_MOMENT)))
    context = context.hstack(hour) if context.width else hour
    return GivenRows(rows.user, rows.item, rows.moment, context)
