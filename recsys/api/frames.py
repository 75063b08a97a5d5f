"""Frames that a notebook gives, of polars or pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from recsys.core.errors import DataError

if TYPE_CHECKING:
    import pandas


def lazy_frame_of(
    given: pl.DataFrame | pl.LazyFrame | pandas.DataFrame, name: str
) -> pl.DataFrame | pl.LazyFrame:
    """A frame of polars, lazy where a lazy one is given.

    Args:
        given: a frame.
        name: what it is, for sentences: ``log``.

    Raises:
        DataError: it is no frame, or one of pandas that polars cannot hold.
    """
    if isinstance(given, (pl.DataFrame, pl.LazyFrame)):
        return given
    if type(given).__module__.partition(".")[0] == "pandas":
        try:
            return pl.from_pandas(given)
        except (pl.exceptions.PolarsError, pa.ArrowException, ValueError, TypeError) as error:
            raise DataError(
                f"the frame of pandas cannot be read ({str(error).splitlines()[0]}); give every "
                "column a name of its own and values of one type."
            ) from error
    raise DataError(
        f"the {name} is a {type(given).__name__}; give a path, or a frame of polars or pandas."
    )


def frame_of(given: pl.DataFrame | pl.LazyFrame | pandas.DataFrame, name: str) -> pl.DataFrame:
    """As ``lazy_frame_of``, all rows in memory."""
    frame = lazy_frame_of(given, name)
    return frame.collect() if isinstance(frame, pl.LazyFrame) else frame
