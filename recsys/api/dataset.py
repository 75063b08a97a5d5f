"""Logs and prepared data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.api.frames import lazy_frame_of
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
    append: bool = False,
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
        append: add the events after the last one to an existing data set.
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
        append=append,
        options=options,
    )
    frame = None if isinstance(log, (Path, str)) else lazy_frame_of(log, "log")
    prepare_source(config, frame)
    return PreparedDataset.open(out)
