"""Raw ids: 64-bit whole numbers or text, kept and matched as they are written.

A number is written in one way: ``7``. ``007``, ``+7``, ``7.0`` and ``-0`` are names, and other ids
than 7 and 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.files import read_chunks

_NUMBERS = (pl.Int64(), pl.UInt64())
_TEXTS = (pl.String, pl.Categorical, pl.Enum)


class IdType:
    """The type that keeps every id of a column as it is written, over all chunks it comes in.

    Whole numbers are int64, or uint64 where one is too large for that; text where any id is no
    whole number, or where no 64 bits hold them all. A column without any id may become either
    and is int64.
    """

    def __init__(self) -> None:
        self._is_text = False
        self._least = 0
        self._most = 0

    @property
    def dtype(self) -> pl.DataType:
        """``Int64``, ``UInt64`` or ``String``."""
        if not self._is_text:
            if self._least >= -(2**63) and self._most < 2**63:
                return pl.Int64()
            if self._least >= 0 and self._most < 2**64:
                return pl.UInt64()
        return pl.String()

    def add(self, ids: pl.Series, spelt_out: bool = False) -> None:
        """Take in a chunk.

        Args:
            ids: of whole numbers, text or nulls.
            spelt_out: numbers come as text too, as in a CSV file; otherwise text is text.
        """
        numbers = [ids]
        if not ids.dtype.is_integer():
            numbers = [as_ids(ids, dtype) for dtype in _NUMBERS] if spelt_out else []
        is_name = ids.is_not_null()
        for number in numbers:
            is_name &= number.is_null()
            if number.null_count() < len(number):
                self._least = min(self._least, int(number.min()))  # type: ignore[arg-type]
                self._most = max(self._most, int(number.max()))  # type: ignore[arg-type]
        self._is_text |= bool(is_name.any())


def as_ids(ids: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Ids in the type that others have, to be matched with them.

    Args:
        ids: of whole numbers, text or nulls.
        dtype: ``Int64``, ``UInt64`` or ``String``.

    Returns:
        The same ids, null where none of that type is written like it.
    """
    if ids.dtype == dtype:
        return ids
    typed = ids.cast(dtype, strict=False)
    if ids.dtype.is_integer() or dtype == pl.String():
        return typed
    written = ids.cast(pl.String)
    same = typed.cast(pl.String) == written
    return typed if same.all() else pl.select(pl.when(same).then(typed)).to_series().alias(ids.name)


def checked_ids(where: str, column: pl.Series) -> pl.Series:
    """A column of ids as int64, uint64 or text.

    Args:
        where: the file or setting it comes from, for the sentence.
        column: as it was read.

    Raises:
        DataError: it is neither of whole numbers nor of text: a number with a fraction has more
            than one way to be written, and large ones lose their last digits.
    """
    refuse_other_types(where, column.name, column.dtype)
    kind = IdType()
    kind.add(column)
    return column.cast(kind.dtype)


def refuse_other_types(where: str, name: str, dtype: pl.DataType) -> None:
    """Refuse a column that cannot hold ids.

    Raises:
        DataError: as ``checked_ids``.
    """
    if not (dtype.is_integer() or dtype in _TEXTS or dtype == pl.Null()):
        raise DataError(
            f"{where}, column {name}: ids are whole numbers or text, found {dtype}; convert the "
            "column."
        )


def is_text(dtype: pl.DataType) -> bool:
    """Whether a column of this type holds text."""
    return dtype in _TEXTS


def may_exceed_int64(dtype: pl.DataType) -> bool:
    """Whether whole numbers of this type may be too large for int64."""
    return dtype in (pl.UInt64, pl.Int128, pl.UInt128)


def joined_ids(parts: Sequence[pl.Series]) -> pl.Series:
    """Ids of several tables behind each other, in the one type that keeps them all.

    Args:
        parts: results of ``checked_ids``, at least one.
    """
    kind = IdType()
    for part in parts:
        kind.add(part)
    return pl.concat([as_ids(part, kind.dtype) for part in parts])


def read_ids(path: Path, column: str) -> pl.Series:
    """A file's column of ids, to be matched with others by ``as_ids``: those of CSV are text.

    Raises:
        DataError: the file cannot be read, or the column holds no ids.
    """
    parts = [checked_ids(str(path), chunk[column]) for chunk in read_chunks(path, [column])]
    return joined_ids(parts) if parts else pl.Series(column, [], pl.String())
