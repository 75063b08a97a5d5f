"""Columns of an owner's file in their types, rows that do not fit marked with the reason."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.data.contract.files import cast_or_refuse
from recsys.data.contract.rejected import Misfits


def typed_columns(path: Path, chunk: pl.DataFrame, types: dict[str, pl.DataType]) -> pl.DataFrame:
    """The columns of ``types``, and ``rejection_reason`` and ``rejection_detail``.

    Args:
        path: the file, for the sentence.
        chunk: rows of it.
        types: what its columns should be.

    Raises:
        DataError: more than half of a column's values do not fit its type.
    """
    misfits = Misfits(chunk.height)
    columns = []
    for name, dtype in types.items():
        columns.append(cast_or_refuse(str(path), chunk[name], dtype))
        misfits.note(name, chunk[name], columns[-1])
    return pl.DataFrame([*columns, *misfits.columns])
