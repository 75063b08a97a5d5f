"""Copies of folders at URLs that have only the files which were asked for so far."""

from __future__ import annotations

from pathlib import Path

#: In such a copy: what the folder at the URL has.
NOTE = ".recsys_copy.json"


def is_partial(folder: Path) -> bool:
    """Whether a folder may lack files that lie at its URL."""
    return (folder / NOTE).is_file()


def fetch(folder: Path, prefix: str) -> None:
    """Have the files of a folder whose names begin so, where it is a copy that lacks them.

    Raises:
        DataError: one is not what was uploaded, or the store says no.
    """
    if is_partial(folder):
        from recsys.core.mirror import fetch_more  # which few need

        fetch_more(folder, lambda name: name.startswith(prefix))
