"""Where data sets are looked for."""

from __future__ import annotations

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "RECSYS_DATA_DIR"
DEFAULT_FOLDER = "data"


def find_data_dir(data_dir: str | None, relative: str) -> Path:
    """The folder of a data set: under ``data_dir``, else ``RECSYS_DATA_DIR``, else ``./data``.

    Args:
        data_dir: what the user configured as ``data_dir=``, if anything.
        relative: path of the data set below it; an absolute path stands for itself.

    Returns:
        The path, whether it exists or not: only the source knows what to say when it does not.
    """
    root = data_dir or os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_FOLDER
    return Path(root) / relative


def find_path(data_dir: str | None, path: str) -> Path:
    """A file or folder the user names: as found, else below the folder of data sets.

    Args:
        data_dir: see :func:`find_data_dir`.
        path: as the user wrote it.
    """
    return Path(path) if Path(path).exists() else find_data_dir(data_dir, path)
