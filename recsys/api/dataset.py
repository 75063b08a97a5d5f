"""Logs and prepared data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from recsys.core.errors import DataError
from recsys.data.prepare.append import AppendConfig
from recsys.data.prepare.append import append as append_source
from recsys.data.prepare.prepare import PrepareConfig
from recsys.data.prepare.prepare import prepare as prepare_source
from recsys.data.stores.dataset import PreparedDataset

if TYPE_CHECKING:
    import pandas


def open_dataset(path: Path | str) -> PreparedDataset:
    """Open what `recsys data prepare` or :func:`prepare` has written.

    >>> dataset = recsys.open_dataset("prepared/mine")  # doctest: +SKIP
    >>> dataset.manifest.counts["events"]  # doctest: +SKIP
    120345

    Args:
        path: the folder.

    Raises:
        DataError: it is no prepared data set.
    """
    return PreparedDataset.open(path)


def prepare(
    log: Path | str | pl.DataFrame | pl.LazyFrame | pandas.DataFrame,
    out: Path | str,
    *,
    name: str = "log",
    overwrite: bool = False,
    **options: Any,
) -> PreparedDataset:
    """Prepare an interaction log, or find it prepared already; as `recsys data prepare`.

    >>> log = pl.DataFrame(
    ...     {
    ...         "user_id": [1, 1, 2],
    ...         "item_id": [7, 8, 7],
    ...         "timestamp": [1_700_000_000_000, 1_700_000_060_000, 1_700_000_120_000],
    ...         "action_type": ["impression", "click", "impression"],
    ...     }
    ... )
    >>> dataset = recsys.prepare(log, "prepared/mine")  # doctest: +SKIP

    Args:
        log: a Parquet or CSV file, a folder of them, or a frame, with the columns of docs/data.md.
        out: folder of the prepared data set.
        name: of the data set, part of every metric's protocol.
        overwrite: replace a data set that was prepared in another way or from another log.
        **options: how the log is read: ``columns={"user_id": "member"}`` where names differ,
            ``actions``, ``tasks``, ``fit_until`` and so on (conf/data/log.yaml has them all).

    Raises:
        DataError: the log cannot be used, or the folder holds something else.
        ConfigError: options that cannot work.
    """
    config = PrepareConfig(
        path=str(log) if isinstance(log, (Path, str)) else None,
        out=str(out),
        name=name,
        overwrite=overwrite,
        options=options,
    )
    frame = None if isinstance(log, (Path, str)) else _frame(log)
    prepare_source(config, frame)
    return PreparedDataset.open(out)


def append(
    log: Path | str | pl.DataFrame | pl.LazyFrame | pandas.DataFrame,
    out: Path | str,
    **options: Any,
) -> PreparedDataset:
    """Add the days after the last one to a prepared data set; as `recsys data append`.

    >>> dataset = recsys.append(new_day, "prepared/mine")  # doctest: +SKIP
    >>> dataset.manifest.generation  # doctest: +SKIP
    1

    Args:
        log: the new days, alone or with those that are prepared already.
        out: folder of the prepared data set.
        **options: how the log is read, if it is said again: the same as it was prepared with.

    Returns:
        The data set, as it was where nothing in the log is later.

    Raises:
        DataError: the log cannot be used, or ``out`` holds no data set that was prepared so.
    """
    is_file = isinstance(log, (Path, str))
    config = AppendConfig(path=str(log) if is_file else None, out=str(out), options=options)
    append_source(config, None if isinstance(log, (Path, str)) else _frame(log))
    return PreparedDataset.open(out)


def _frame(log: pl.DataFrame | pl.LazyFrame | pandas.DataFrame) -> pl.DataFrame | pl.LazyFrame:
    if isinstance(log, (pl.DataFrame, pl.LazyFrame)):
        return log
    if type(log).__module__.partition(".")[0] == "pandas":
        try:
            return pl.from_pandas(log)
        except (pl.exceptions.PolarsError, pa.ArrowException, ValueError, TypeError) as error:
            raise DataError(
                f"the frame of pandas cannot be read ({str(error).splitlines()[0]}); give every "
                "column a name of its own and values of one type."
            ) from error
    raise DataError(
        f"the log is a {type(log).__name__}; give a path, or a frame of polars or pandas."
    )
