"""Columns of a table of items or users in the form they are stored in; null is not known."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections import Counter
from enum import StrEnum
from typing import Any

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.file_names import LIST_SEPARATOR
from recsys.data.contract.files import cast_or_refuse
from recsys.data.contract.ids import is_text

#: Text that may be a list as Python and JSON write it.
BRACKETS = r"(?s)^\s*\[.*\]\s*$"
#: A list of quoted texts between blanks, as NumPy writes it: to Python they are one text.
_SPACED = re.compile(r"""\[\s*(?:'[^']*'|"[^"]*")(?:\s+(?:'[^']*'|"[^"]*"))+\s*\]""")
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")

#: Numbers as text that are whole, and texts that stand for numbers which are none.
_WHOLE_TEXT = r"^-?(?:0|[1-9][0-9]*)\.0+$"
_NOT_FINITE_TEXT = r"^(?:nan|NaN|NAN|[+-]?(?:inf|Inf|INF|Infinity))$"
_TRUTHS = {"true": "1", "false": "0"}


class ColumnKind(StrEnum):
    """What a column holds."""

    ID = "ids"
    TEXT = "text"
    CATEGORIES = "categories"
    NUMBERS = "numbers"
    LISTS = "lists"
    VECTORS = "embeddings"


class Unknown:
    """Counts values that are there and cannot be used, by column and reason.

    Attributes:
        rows_without_id: rows left out, since nobody can tell whose they are.
    """

    def __init__(self) -> None:
        self.rows_without_id = 0
        self._values: Counter[tuple[str, str]] = Counter()
        self._example: dict[tuple[str, str], str] = {}

    def note(self, column: str, reason: str, values: pl.Series) -> None:
        """Count values that are taken for unknown."""
        if len(values):
            self._values[column, reason] += len(values)
            self._example.setdefault((column, reason), str(values[0])[:40])

    def sentences(self, where: str) -> list[str]:
        """What to tell the user, nothing where everything could be used.

        Args:
            where: the table.
        """
        said = [
            f"{where}, column {column}: {count:,} values {reason}, such as "
            f"{self._example[column, reason]!r}, count as unknown."
            for (column, reason), count in self._values.items()
        ]
        if self.rows_without_id:
            said.insert(0, f"{where}: {self.rows_without_id:,} rows without an id are left out.")
        return said


def as_texts(where: str, raw: pl.Series) -> pl.Series:
    """Text as it is written; what is empty is not known. Lists of words are one text.

    Raises:
        DataError: the column holds no text.
    """
    if raw.dtype == pl.List(pl.String):
        raw = raw.list.join(" ", ignore_nulls=True)
    return _without_blank(_to_text(where, raw, "text"))


def as_categories(where: str, raw: pl.Series, spelt_out: bool = False) -> pl.Series:
    """Categories as text; what is empty, NaN or infinite is not known. 3 and 3.0 are one.

    Args:
        where: the table.
        raw: text or numbers.
        spelt_out: numbers come as text, as in a CSV file; otherwise text is text.

    Raises:
        DataError: the column holds several values a row, or something else that is no category.
    """
    if raw.dtype.is_float():
        known = raw.to_frame().select(pl.when(pl.first().is_finite()).then(pl.first())).to_series()
        whole = known.cast(pl.Int64, strict=False)
        frame = pl.DataFrame({"number": known, "whole": whole})
        number = pl.col("number").cast(pl.String)
        is_whole = pl.col("number") == pl.col("whole")
        return frame.select(
            pl.when(is_whole).then(pl.col("whole").cast(pl.String)).otherwise(number)
        ).to_series()
    text = _without_blank(_to_text(where, raw, "one category a row (name lists under lists:)"))
    if not spelt_out:
        return text
    value = pl.first()
    is_whole_text = value.str.contains(_WHOLE_TEXT)
    whole_text = value.str.replace(r"\.0+$", "").replace("-0", "0")
    is_known = ~value.str.strip_chars().str.contains(_NOT_FINITE_TEXT)
    said = pl.when(is_whole_text).then(whole_text).otherwise(value)
    return text.to_frame().select(pl.when(is_known).then(said).alias(raw.name)).to_series()


def as_numbers(where: str, raw: pl.Series, unknown: Unknown) -> pl.Series:
    """Float64, true and false as 1 and 0; null where a value is no number, NaN or infinite.

    Raises:
        DataError: more than half of the values are no numbers.
    """
    if raw.dtype == pl.Boolean():
        return raw.cast(pl.Float64)
    given = raw
    if is_text(raw.dtype):
        given = _without_blank(raw.cast(pl.String).str.strip_chars())
        truths = given.str.to_lowercase().replace_strict(
            _TRUTHS, default=None, return_dtype=pl.String
        )
        given = truths.fill_null(given).alias(raw.name)
    numbers = cast_or_refuse(where, given, pl.Float64())
    unknown.note(raw.name, "that are no numbers", given.filter(_lost(given, numbers)))
    finite = numbers.is_finite()
    unknown.note(raw.name, "that are infinite", numbers.filter(numbers.is_infinite()))
    return numbers.to_frame().select(pl.when(finite).then(pl.first())).to_series()


def as_lists(where: str, raw: pl.Series, separator: str = LIST_SEPARATOR) -> pl.Series:
    """Lists of text, each value once; an empty list where there is none, null where not known.

    Args:
        where: the table.
        raw: lists, or text that is separated, or a list as Python and JSON write it.
        separator: of such text.

    Raises:
        DataError: the column holds neither.
    """
    if isinstance(raw.dtype, pl.Array):
        raw = raw.arr.to_list()
    if isinstance(raw.dtype, pl.List):
        if raw.dtype.inner.is_nested():
            raise _other_kind(where, raw, "lists of names")
        lists = raw.cast(pl.List(pl.String))
    else:
        text = _without_blank(_to_text(where, raw, f"lists, or text separated by {separator!r}"))
        lists = text.str.split(separator)
        bracketed = text.filter(text.str.contains(BRACKETS).fill_null(False)).unique()
        if len(bracketed):
            parsed = [_parsed_list(where, raw.name, one, separator) for one in bracketed]
            written = pl.DataFrame(
                {"text": bracketed, "parsed": pl.Series(parsed, dtype=pl.List(pl.String))}
            )
            lists = (
                pl.DataFrame({"text": text, "lists": lists})
                .join(written, on="text", how="left", maintain_order="left")
                .select(pl.coalesce("parsed", "lists").alias(raw.name))
                .to_series()
            )
    cleaned = pl.element().str.strip_chars()
    return lists.list.eval(cleaned.filter(cleaned != "").unique(maintain_order=True))


def as_vectors(where: str, raw: pl.Series, unknown: Unknown) -> pl.Series:
    """Lists of float32 as they are; null where there is none or a text is no list of numbers.

    Raises:
        DataError: the column holds no lists of numbers.
    """
    expected = "lists of numbers, or text such as `0.1 0.2`"
    if isinstance(raw.dtype, pl.Array):
        raw = raw.arr.to_list()
    if isinstance(raw.dtype, pl.List):
        if not (raw.dtype.inner.is_numeric() or raw.dtype.inner == pl.Null()):
            raise _other_kind(where, raw, expected)
        lists = raw.cast(pl.List(pl.Float32))
    else:
        text = _without_blank(_to_text(where, raw, expected))
        words = text.str.replace_all(r"[\[\](){},;|\s]+", " ").str.strip_chars().str.split(" ")
        lists = words.list.eval(pl.element().cast(pl.Float32, strict=False))
        bad = lists.list.eval(pl.element().is_null()).list.any().fill_null(False)
        if 2 * int(bad.sum()) > len(text) - text.null_count():
            raise _other_kind(where, text.filter(bad), expected)
        unknown.note(raw.name, "that are no lists of numbers", text.filter(bad))
        lists = lists.set(bad, None)
    return lists.to_frame().select(pl.when(pl.first().list.len() > 0).then(pl.first())).to_series()


def _parsed_list(where: str, column: str, text: str, separator: str) -> list[str]:
    """The values of a list as Python, JSON or NumPy write it, or of words in brackets.

    Raises:
        DataError: it is a list of something else than names or numbers.
    """
    text = text.strip()
    if _SPACED.fullmatch(text):
        return [first or second for first, second in _QUOTED.findall(text)]
    inner = text[1:-1]
    for parse in (json.loads, _python_literal):
        try:
            values = parse(text)
            names = [str(value) for value in values if not _is_unknown(value)]
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if any(isinstance(value, dict | list | tuple | set) for value in values):
            raise _other_kind(where, pl.Series(column, [text]), "lists of names")
        return names
    if "[" in inner or "]" in inner:  # several words, the first and the last in brackets
        return text.split(separator)
    words = inner.split("," if "," in inner else separator)
    return [word.strip(" '\"") for word in words]


def _python_literal(text: str) -> Any:
    with warnings.catch_warnings():  # of backslashes: the text is no program
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _to_text(where: str, raw: pl.Series, expected: str) -> pl.Series:
    if raw.dtype.is_nested() or raw.dtype in (pl.Binary(), pl.Object()):
        raise _other_kind(where, raw, expected)
    return raw.cast(pl.String)


def _other_kind(where: str, raw: pl.Series, expected: str) -> DataError:
    example = raw.drop_nulls().head(1).to_list()
    such = f" such as {str(example[0])[:40]!r}" if example else ""
    return DataError(
        f"{where}, column {raw.name}: expected {expected}, found {raw.dtype}{such}; convert the "
        "column."
    )


def _without_blank(text: pl.Series) -> pl.Series:
    """Text with null where there is nothing but white space."""
    if text.dtype != pl.String():
        return text
    is_said = pl.first().str.strip_chars() != ""
    return text.to_frame().select(pl.when(is_said).then(pl.first())).to_series()


def _lost(raw: pl.Series, typed: pl.Series) -> pl.Series:
    return typed.is_null() & raw.is_not_null()
