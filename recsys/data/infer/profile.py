"""What the values of a column look like, in a sample of its table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.ids import is_text
from recsys.data.contract.log_parts import LogPart
from recsys.data.contract.time_columns import (
    FIRST_TIMESTAMP,
    LAST_TIMESTAMP,
    UNITS,
    TimeFormat,
)
from recsys.data.infer.names import ItemRole, likeness, plain
from recsys.data.sources.table_columns import BRACKETS

#: Rows of a sample, over all files of a table, and files that it is taken from.
SAMPLE_ROWS = 100_000
SAMPLE_FILES = 16

#: A column is of a kind where this share of its values is.
_MOST = 0.95
#: Lists of numbers of this width and more are embeddings, shorter ones lists of names.
_LEAST_WIDTH = 4

_LINK = r"^\s*https?://\S+\s*$"
_PICTURE = r"(?i)\.(jpe?g|png|gif|webp|avif|bmp|svg)(\?\S*)?\s*$"
_WHOLE = r"^[+-]?\d+$"
#: 4,1; and what is not one of thousands.
_WITH_COMMA = r"^\s*[+-]?\d+(,\d+)?\s*$"
_FRACTION = r"^\s*[+-]?(\d+,(\d{1,2}|\d{4,})|\d{4,},\d+|0,\d+)\s*$"
_NUMBERS_IN_BRACKETS = r"^\s*[\[(]?\s*-?[\d.eE+-]+([\s,;]+-?[\d.eE+-]+)*\s*[\])]?\s*$"


class Kind(StrEnum):
    """What the values of a column are."""

    WHOLE = "whole numbers"
    NUMBER = "numbers"
    FLAG = "true or false"
    TEXT = "text"
    TIME = "times"
    LINK = "links"
    LIST = "lists"
    VECTOR = "lists of numbers"
    EMPTY = "nothing"
    OTHER = "something else"


@dataclass(frozen=True)
class Profile:
    """A column in a sample of its table.

    Attributes:
        name: of the column, as in the file.
        kind: of its values.
        rows: of the sample.
        known: rows with a value that is neither null nor blank.
        distinct: different values among them.
        unit: of times: ``s``, ``ms``, ``us``, ``ns`` or ``iso``; None where datetimes need none.
        words: mean number of words of a text.
        pictures: share of links that end as a picture's name does.
        least: the smallest number; None where there are none.
        median: of the numbers.
        most: the largest number.
        is_row_number: the values number the rows.
        with_commas: texts are numbers with decimal commas: ``4,1``.
        values: the commonest different values, as text, at most 50.
    """

    name: str
    kind: Kind
    rows: int
    known: int
    distinct: int
    unit: str | None = None
    words: float = 0.0
    pictures: float = 0.0
    least: float | None = None
    median: float | None = None
    most: float | None = None
    is_row_number: bool = False
    with_commas: bool = False
    values: tuple[str, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether it says the same of all rows, or nothing."""
        return self.distinct <= 1

    @property
    def is_id(self) -> bool:
        """Whether its values can be ids; some have a ``|`` in them, as lists do."""
        is_text = self.kind in (Kind.TEXT, Kind.LIST) and 0 < self.words < 3
        return self.kind is Kind.WHOLE or is_text

    @property
    def distinct_share(self) -> float:
        """Different values per row that has one."""
        return self.distinct / max(1, self.known)


def sample_of(parts: Sequence[LogPart], rows: int = SAMPLE_ROWS) -> pl.DataFrame:
    """First rows of some of a table's files, evenly spread; what a file lacks is null.

    Args:
        parts: of the table.
        rows: at most, in all.
    """
    step = max(1, len(parts) // SAMPLE_FILES)
    chosen = parts[::step]
    names = list(dict.fromkeys(name for part in parts for name in part.types))
    share = max(1, rows // len(chosen))
    frames = [_head(part, share) for part in chosen]
    frame = pl.concat(frames, how="diagonal_relaxed")
    absent = [pl.lit(None).alias(name) for name in names if name not in frame.columns]
    return frame.with_columns(absent).select(names)


def profiles_of(sample: pl.DataFrame, parts: Sequence[LogPart] = ()) -> dict[str, Profile]:
    """The profile of each column of a sample, by its name.

    Args:
        sample: rows of a table.
        parts: of the table, which say how it writes lists.
    """
    spaced = any(part.separator.isspace() for part in parts)
    return {column.name: profile_of(column, spaced) for column in sample.iter_columns()}


def profile_of(column: pl.Series, spaced: bool = False) -> Profile:
    """What a column's values look like.

    Args:
        column: of a sample.
        spaced: blanks separate the values of a list, where texts of few different words are such.
    """
    known = _known(column)
    if known.is_empty():
        return Profile(column.name, Kind.EMPTY, len(column), 0, 0)
    values: tuple[str, ...] = ()
    if column.dtype.is_nested() or column.dtype in (pl.Binary(), pl.Object(), pl.Duration):
        distinct = known.hash().n_unique()
    else:
        counts = known.cast(pl.String).alias("value").value_counts(sort=True)
        distinct, values = counts.height, tuple(counts["value"].head(50).to_list())
    seen = _of_text(known, spaced) if is_text(column.dtype) else _of_values(known)
    least, median, most = _range(known) if seen.kind in (Kind.WHOLE, Kind.NUMBER) else _NO_RANGE
    return Profile(
        column.name,
        seen.kind,
        len(column),
        len(known),
        distinct,
        seen.unit,
        seen.words,
        seen.pictures,
        least,
        median,
        most,
        is_row_number=seen.kind is Kind.WHOLE and _numbers_rows(known),
        with_commas=seen.kind is Kind.TEXT and _have_commas(known),
        values=values,
    )


def _head(part: LogPart, rows: int) -> pl.DataFrame:
    frames: list[pl.DataFrame] = []
    height = 0
    for chunk in part.chunks(list(part.types)):
        frames.append(chunk)
        height += chunk.height
        if height >= rows:
            break
    empty = pl.DataFrame(schema=part.types)
    return pl.concat(frames, how="vertical_relaxed").head(rows) if frames else empty


def _known(column: pl.Series) -> pl.Series:
    known = column.drop_nulls()
    if column.dtype.is_float():
        return known.drop_nans()
    if is_text(column.dtype):
        text = known.cast(pl.String)
        return text.filter(text.str.strip_chars() != "")
    return known


@dataclass(frozen=True)
class _Seen:
    """A kind, and what is said of it alone; see ``Profile``."""

    kind: Kind
    unit: str | None = None
    words: float = 0.0
    pictures: float = 0.0


def _of_values(known: pl.Series) -> _Seen:
    """The kind of values that a file types."""
    dtype = known.dtype
    if isinstance(dtype, (pl.List, pl.Array)):
        lists = known.arr.to_list() if isinstance(dtype, pl.Array) else known
        inner = lists.dtype.inner  # type: ignore[attr-defined]
        widths = lists.list.len()
        is_vector = inner.is_float() or (inner.is_numeric() and widths.n_unique() == 1)
        if is_vector and (widths >= _LEAST_WIDTH).any():
            return _Seen(Kind.VECTOR)
        return _Seen(Kind.OTHER if inner.is_nested() else Kind.LIST)
    if dtype == pl.Boolean():
        return _Seen(Kind.FLAG)
    if dtype.is_temporal():
        is_moment = dtype not in (pl.Time, pl.Duration)
        return _Seen(Kind.TIME if is_moment else Kind.OTHER)
    if dtype.is_numeric():
        return _of_numbers(known)
    return _Seen(Kind.OTHER)


def _of_text(known: pl.Series, spaced: bool) -> _Seen:
    """The kind of values that are written as text."""
    if _numbers(known).null_count() <= (1 - _MOST) * len(known):
        return _of_numbers(known)
    unit = _unit(known)
    if unit is not None:
        return _Seen(Kind.TIME, unit)
    if _share(known, _LINK) >= _MOST:
        return _Seen(Kind.LINK, pictures=_share(known, _PICTURE))
    words = float(known.str.count_matches(r"\S+").mean() or 0)  # type: ignore[arg-type]
    if _share(known, _NUMBERS_IN_BRACKETS) >= _MOST and words >= _LEAST_WIDTH:
        return _Seen(Kind.VECTOR)
    if _share(known, BRACKETS) >= _MOST:
        return _Seen(Kind.LIST)
    if _share(known, r"\|") > 0.1 and _share(known, r"\s\|\s") < _MOST and words < 12:
        return _Seen(Kind.LIST, words=words)
    several = spaced and words > 1.2 and not likeness(known.name, ItemRole.TITLE)
    if several and _few_words(known):
        return _Seen(Kind.LIST, words=words)
    return _Seen(Kind.TEXT, words=words)


def _of_numbers(known: pl.Series) -> _Seen:
    """Whole numbers, others, or moments since 1970 where the name does not say otherwise."""
    text = is_text(known.dtype)
    whole = known.dtype.is_integer() or (text and _share(known, _WHOLE) >= _MOST)
    kind = Kind.WHOLE if whole else Kind.NUMBER
    unit = _unit(known)
    return _Seen(kind) if unit is None else _Seen(Kind.TIME, unit)


def _unit(known: pl.Series) -> str | None:
    """The unit in which at least half of the values are moments; None where there is none.

    Large numbers are ids where the name says so.
    """
    if plain(known.name).endswith("id"):
        return None
    for unit in UNITS:
        try:
            moments = TimeFormat(unit).milliseconds("", known)
        except DataError:
            continue
        if 2 * int(moments.is_between(FIRST_TIMESTAMP, LAST_TIMESTAMP - 1).sum()) >= len(known):
            return unit
    return None


def _few_words(known: pl.Series) -> bool:
    """Whether texts are made of a few words that come again and again, as genres are."""
    words = known.str.strip_chars().str.split(" ").explode()
    return words.n_unique() <= len(words) // 4


def _numbers(known: pl.Series) -> pl.Series:
    if is_text(known.dtype):
        known = known.cast(pl.String).str.strip_chars()
    numbers = known.cast(pl.Float64, strict=False)
    return numbers.to_frame().select(pl.when(pl.first().is_finite()).then(pl.first())).to_series()


_NO_RANGE = (None, None, None)


def _range(known: pl.Series) -> tuple[float | None, float | None, float | None]:
    """The least, the median and the largest of numbers."""
    numbers = _numbers(known).drop_nulls().sort()
    if numbers.is_empty():
        return _NO_RANGE
    return float(numbers[0]), float(numbers[len(numbers) // 2]), float(numbers[-1])


def _numbers_rows(known: pl.Series) -> bool:
    """Whether whole numbers go up by one from row to row."""
    numbers = known.cast(pl.Int64, strict=False)
    return len(numbers) > 1 and bool((numbers.diff().drop_nulls() == 1).all())


def _have_commas(known: pl.Series) -> bool:
    """Whether texts are numbers with a comma for a point, not one between thousands."""
    numbers, fractions = _share(known, _WITH_COMMA), _share(known, _FRACTION)
    return numbers >= _MOST and fractions > 0


def with_commas(profiles: Iterable[Profile]) -> tuple[tuple[str, str], ...]:
    """Columns of numbers with decimal commas, each with a value."""
    found = ((one.name, one.values) for one in profiles if one.with_commas)
    return tuple((name, next((v for v in values if "," in v), values[0])) for name, values in found)


def _share(known: pl.Series, pattern: str) -> float:
    return float(known.cast(pl.String).str.contains(pattern).mean() or 0)  # type: ignore[arg-type]
