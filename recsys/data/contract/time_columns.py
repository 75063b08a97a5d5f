"""Times of a log, whatever their unit, as whole milliseconds since 1970 (UTC)."""

from __future__ import annotations

from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.ids import is_text

#: Milliseconds since 1970 lie here (1973 to 2286); seconds of any plausible year lie below.
FIRST_TIMESTAMP = 100_000_000_000
LAST_TIMESTAMP = 10_000_000_000_000

ISO = "iso"
#: Per unit how many make a millisecond.
_PER_MILLISECOND = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}
UNITS = (*_PER_MILLISECOND, ISO)
_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

#: 2024-05-01, 2024-05-01T07:00, 2024-05-01 07:00:00.123456, each with Z, UTC, +02:00, +0200 or +02.
_ISO_TEXT = (
    r"^\s*(?<day>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<minute>\d{2}:\d{2})(?::(?<second>\d{2})(?<fraction>[.,]\d+)?)?"
    r"\s*(?<zone>[Zz]|UTC|GMT|[+-](?:0\d|1[0-4]):?(?:[0-5]\d)?)?)?\s*$"
)


@dataclass(frozen=True)
class TimeFormat:
    """How a log writes times.

    Attributes:
        unit: of numbers since 1970 (UTC): ``s``, ``ms``, ``us`` or ``ns``; or ``iso`` for texts.
            Datetimes of Parquet need none.
        zone: of texts and datetimes that name none, as in the IANA data base.
    """

    unit: str = "ms"
    zone: str = "UTC"

    def __post_init__(self) -> None:
        """Refuse a zone that is not known.

        Raises:
            ConfigError: it is not.
        """
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"options.time_zone={self.zone} is no known time zone; write it like UTC or "
                "Europe/Berlin."
            ) from error

    @property
    def described(self) -> str:
        """What a value that fits is, for sentences."""
        return "a moment as in ISO 8601" if self.unit == ISO else "a number"

    def milliseconds(self, where: str, column: pl.Series) -> pl.Series:
        """A column of times as int64, null where a value is no time.

        Args:
            where: the file, for the sentence.
            column: numbers, text or datetimes.

        Raises:
            DataError: more than half of the values are no times, or those of another unit.
        """
        if column.dtype.is_temporal():
            return self._of_datetimes(where, column)
        if is_text(column.dtype) and self.unit == ISO:
            times = _of_texts(column.cast(pl.String), self.zone)
        elif is_text(column.dtype) or column.dtype.is_numeric():
            times = pl.repeat(None, len(column), dtype=pl.Int64, eager=True)
            if self.unit != ISO:
                times = _of_numbers(column, _PER_MILLISECOND[self.unit])
        else:
            times = pl.repeat(None, len(column), dtype=pl.Int64, eager=True)
        times = times.alias(column.name)
        self._refuse_another_unit(where, column, times)
        return times

    def _of_datetimes(self, where: str, column: pl.Series) -> pl.Series:
        if column.dtype in (pl.Time, pl.Duration):
            raise DataError(
                f"{where}, column {column.name}: found {column.dtype} values, which name no day; "
                "expected datetimes, or milliseconds since 1970 (UTC): add the day to them."
            )
        moments = column.cast(pl.Datetime("ms", getattr(column.dtype, "time_zone", None)))
        if moments.dtype.time_zone is None:  # type: ignore[attr-defined]
            moments = _in_zone(moments, self.zone)
        return moments.dt.epoch("ms").alias(column.name)

    def _refuse_another_unit(self, where: str, raw: pl.Series, times: pl.Series) -> None:
        """Refuse a column most of whose values are no times of the unit."""
        given = raw.len() - raw.null_count()
        is_usable = times.is_between(FIRST_TIMESTAMP, LAST_TIMESTAMP - 1)
        if 2 * int(is_usable.sum()) >= given:
            return
        example = raw.filter(~is_usable.fill_null(False) & raw.is_not_null())[0]
        place = f"{where}, column {raw.name}"
        unit = _likely_unit(raw)
        expected = "texts as in ISO 8601"
        if self.unit != ISO:
            expected = f"{_WORDS[self.unit]} since 1970 (UTC)"
        if unit is not None and unit != self.unit:
            what = f"{_WORDS[unit]}" if unit != ISO else "texts as in ISO 8601"
            raise DataError(
                f"{place}: values such as {example!s} look like {what}; expected {expected}: "
                f"set options.time_unit={unit}."
            )
        if 2 * times.null_count() > raw.len() + raw.null_count():
            number = "a whole number of " if self.unit != ISO else ""
            raise DataError(
                f"{place}: expected {number}{expected}, found {raw.dtype} values such as "
                f"{example!r}; convert the column, or say what it holds: options.time_unit="
                f"{', '.join(UNITS[:-1])} or {UNITS[-1]}."
            )


def _of_numbers(column: pl.Series, per_millisecond: float) -> pl.Series:
    """Numbers, or numbers as text, to ms; the nearest one where they have fractions."""
    whole = column.cast(pl.Int64, strict=False) if not column.dtype.is_float() else None
    if whole is None or whole.null_count() > column.null_count():
        numbers = column.cast(pl.Float64, strict=False)
        far = numbers.abs() >= 2.0**62  # NaN and what no whole number holds is no time
        numbers = pl.select(pl.when(~far & numbers.is_not_nan()).then(numbers)).to_series()
        rounded = (numbers / per_millisecond).round().cast(pl.Int64, strict=False)
        if whole is None:
            return rounded
    else:
        rounded = None
    if per_millisecond < 1:
        exact = whole.clip(-(2**53), 2**53) * round(1 / per_millisecond)
    else:
        exact = whole // int(per_millisecond)
    return exact if rounded is None else exact.fill_null(rounded)


def _of_texts(column: pl.Series, zone: str) -> pl.Series:
    """ISO 8601 texts to ms, null where one is none."""
    parts = column.str.extract_groups(_ISO_TEXT).struct.unnest()
    text = pl.format(
        "{} {}:{}",
        "day",
        pl.col("minute").fill_null("00:00"),
        pl.col("second").fill_null("00"),
    )
    fraction = pl.col("fraction").str.slice(1, 3).str.pad_end(3, "0").cast(pl.Int64)
    digits = pl.col("zone").str.replace(":", "").str.pad_end(5, "0")
    offset = digits.str.slice(1, 2).cast(pl.Int64, strict=False) * 60
    offset += digits.str.slice(3, 2).cast(pl.Int64, strict=False)
    offset = pl.when(digits.str.starts_with("-")).then(-offset).otherwise(offset)
    named = parts.select(
        text.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ms", strict=False).alias("local"),
        fraction.fill_null(0).alias("fraction"),
        # Z, UTC and GMT have no digits where an offset has them
        pl.when(pl.col("zone").is_not_null()).then(offset.fill_null(0)).alias("offset"),
    )
    in_zone = _in_zone(named["local"], zone).dt.epoch("ms")
    written = named["local"].dt.epoch("ms") - named["offset"] * 60_000
    chosen = pl.select(pl.when(named["offset"].is_null()).then(in_zone).otherwise(written))
    return chosen.to_series() + named["fraction"]


def _in_zone(moments: pl.Series, zone: str) -> pl.Series:
    """Local times as moments: the earlier of two with one name, none where the clock has none."""
    return moments.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")


def _likely_unit(raw: pl.Series) -> str | None:
    """The unit in which most values are moments between 1973 and 2286; None where there is none."""
    given = raw.drop_nulls()
    for unit in UNITS:
        if unit == ISO:
            if not is_text(raw.dtype):
                continue
            times = _of_texts(given.cast(pl.String), "UTC")
        else:
            times = _of_numbers(given, _PER_MILLISECOND[unit])
        if 2 * int(times.is_between(FIRST_TIMESTAMP, LAST_TIMESTAMP - 1).sum()) > len(given):
            return unit
    return None
