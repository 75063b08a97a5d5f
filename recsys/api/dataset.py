"""Logs and prepared data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.api.frames import lazy_frame_of
from recsys.core.errors import ConfigError
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
    log: Path | str | pl.DataFrame | pl.LazyFrame | pandas.DataFrame | None = None,
    out: Path | str | None = None,
    *,
    description: Path | str | None = None,
    name: str | None = None,
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
    >>> dataset = recsys.prepare(description="mine.yaml")  # doctest: +SKIP

    Args:
        log: a Parquet or CSV file, a folder of them, or a frame, with the columns of docs/data.md;
            None for the ``path`` of the description.
        out: folder of the prepared data set; None for that of the description, or
            ``prepared/<name>``.
        description: a YAML file with these settings, as `recsys data infer` drafts one; what is
            given beside it goes before it.
        name: of the data set, part of every metric's protocol; None for that of the description,
            or ``log``.
        overwrite: replace a data set that was prepared in another way or from another log.
        **options: how the log is read: ``columns={"user_id": "member"}`` where names differ,
            ``actions``, ``tasks``, ``fit_until`` and so on (conf/data/log.yaml has them all).

    Raises:
        DataError: the log cannot be used, or the folder holds something else.
        ConfigError: options that cannot work.
    """
    is_file = isinstance(log, (Path, str))
    given = {"path": str(log) if is_file else None, "out": out and str(out), "name": name}
    settings = _described(description) | {key: one for key, one in given.items() if one is not None}
    settings["options"] = {**settings.get("options", {}), **options}
    config = PrepareConfig(**settings | ({"overwrite": True} if overwrite else {}))
    prepare_source(config, None if log is None or is_file else lazy_frame_of(log, "log"))
    return PreparedDataset.open(config.out_folder)


def infer(
    log: Path | str,
    out: Path | str,
    *,
    items: Path | str | None = None,
    users: Path | str | None = None,
    name: str | None = None,
) -> list[str]:
    """Look at a log and draft its description; as `recsys data infer`.

    >>> for sentence in recsys.infer("events.csv", "mine.yaml"):  # doctest: +SKIP
    ...     print(sentence)
    >>> dataset = recsys.prepare(description="mine.yaml")  # doctest: +SKIP

    Args:
        log: a Parquet, CSV or TSV file, or a folder of them.
        out: the description to write; the reasons of its lines stand beside them.
        items: the table of items.
        users: the table of users.
        name: of the data set; None for that of the description's file.

    Returns:
        What is odd in the log, in sentences.

    Raises:
        DataError: a file is missing or damaged.
        ConfigError: ``out`` is another file, or a draft that was edited.
    """
    from recsys.data.infer.infer import InferConfig  # Hydra, which few need
    from recsys.data.infer.infer import infer as infer_log

    settings = {"path": log, "out": out, "items": items, "users": users, "name": name}
    given = {key: str(one) for key, one in settings.items() if one is not None}
    return infer_log(InferConfig(**given)).draft.odd


def _described(description: Path | str | None) -> dict[str, Any]:
    """The settings of a description.

    Raises:
        ConfigError: it cannot be read, or has yet to be filled in.
    """
    if description is None:
        return {}
    from recsys.core.composition import missing_settings  # Hydra, which few need

    settings = PrepareConfig.read_file(Path(description))
    missing = missing_settings(settings)
    if missing:
        raise ConfigError(f"{description}: `{missing[0]}` is yet to be filled in; it is `???`.")
    return settings


def append(
    log: Path | str | pl.DataFrame | pl.LazyFrame | pandas.DataFrame,
    out: Path | str | None = None,
    *,
    description: Path | str | None = None,
    **options: Any,
) -> PreparedDataset:
    """Add the days after the last one to a prepared data set; as `recsys data append`.

    >>> dataset = recsys.append(new_day, "prepared/mine")  # doctest: +SKIP
    >>> dataset.manifest.generation  # doctest: +SKIP
    1

    Args:
        log: the new days, alone or with those that are prepared already.
        out: folder of the prepared data set; None for that of the description.
        description: the YAML file that it was prepared by; needed where that names a table of
            items or users.
        **options: how the log is read, if it is said again: the same as it was prepared with.

    Returns:
        The data set, as it was where nothing in the log is later.

    Raises:
        DataError: the log cannot be used, or ``out`` holds no data set that was prepared so.
        ConfigError: nothing says which data set.
    """
    is_file = isinstance(log, (Path, str))
    given = {"path": str(log) if is_file else None, "out": out and str(out)}
    settings = {} if description is None else AppendConfig.read_file(Path(description))
    settings |= {key: one for key, one in given.items() if one is not None}
    settings["options"] = {**settings.get("options", {}), **options}
    config = AppendConfig(**settings)
    append_source(config, None if isinstance(log, (Path, str)) else lazy_frame_of(log, "log"))
    return PreparedDataset.open(config.out_folder)
