"""Moments in milliseconds since 1970 (UTC), and as a user writes and reads them."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import MILLISECONDS_PER_SECOND
from recsys.data.contract.time_columns import FIRST_TIMESTAMP, LAST_TIMESTAMP


def to_milliseconds(setting: str, text: str, zone: tzinfo = UTC) -> int:
    """The moment an ISO 8601 text names, in ms.

    Args:
        setting: the key that has this value, for the sentence.
        text: a date or a date and time; one without a zone is in ``zone``.
        zone: time zone.

    Raises:
        ConfigError: the text names no moment.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{setting}={text} is no moment; write it like 2024-05-01 or 2024-05-01T07:00:00."
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return round(moment.timestamp() * MILLISECONDS_PER_SECOND)


def parse_moment(setting: str, text: str) -> int:
    """The moment that a text names, in ms: ISO 8601 (UTC where it names no zone), or ms as digits.

    Up to eight digits are a date without hyphens: as ms they would be on the first day of 1970.

    Args:
        setting: the key that has this value, for the sentence.
        text: what the user wrote.

    Raises:
        ConfigError: it is neither, or a number of seconds.
    """
    if not text.lstrip("-").isdecimal() or len(text) <= len("20240501"):
        return to_milliseconds(setting, text)
    moment = int(text)
    in_seconds = FIRST_TIMESTAMP // MILLISECONDS_PER_SECOND <= moment < FIRST_TIMESTAMP
    if not FIRST_TIMESTAMP <= moment < LAST_TIMESTAMP:
        raise ConfigError(
            f"{setting}={text} is not in milliseconds since 1970 (UTC)"
            f"{', it looks like seconds' * in_seconds}; give milliseconds or a moment such as "
            "2022-05-09T00:00:00."
        )
    return moment


def as_of_moment(text: str | None, manifest: DatasetManifest) -> int:
    """The moment that ``as_of`` names, or the log's end, which moves when days are appended.

    Raises:
        ConfigError: the text names none.
    """
    return log_end(manifest) if text is None else parse_moment("as_of", text)


def log_end(manifest: DatasetManifest) -> int:
    """The first ms after the last event of a data set's log."""
    return manifest.counts["last_timestamp"] + 1


def moments_of(where: str, column: pl.Series) -> pl.Series:
    """A column of moments in ms, null where it is: datetimes, ms, or texts as ``parse_moment``.

    Raises:
        DataError: the column is of another kind.
        ConfigError: a value names no moment.
    """
    if column.dtype in (pl.Datetime, pl.Date):
        return column.cast(pl.Datetime("ms")).cast(pl.Int64)
    if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Null)):
        raise DataError(
            f"{where}, column {column.name}: moments are datetimes, whole ms since 1970 (UTC) or "
            f"ISO 8601 text, found {column.dtype}; convert the column."
        )
    given = column.cast(pl.String).unique().drop_nulls().to_list()
    known = {text: parse_moment(f"{where}, column {column.name}", text) for text in given}
    texts = column.cast(pl.String)
    return texts.replace_strict(known, default=None, return_dtype=pl.Int64)


def to_text(moment: int) -> str:
    """A moment in ms as ISO 8601 text, to the second, in UTC."""
    seconds = moment / MILLISECONDS_PER_SECOND
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
