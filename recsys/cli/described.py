"""A description of a data set in the place of the folder it is prepared into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys.core.composition import without_missing
from recsys.core.group_files import is_file_name, with_first_file
from recsys.core.overrides import without_quotes
from recsys.data.prepare.prepare import PrepareConfig

_KEY = "dataset"


def with_dataset(overrides: Sequence[str]) -> list[str]:
    """Settings whose ``dataset=mine.yaml``, or ``mine.yaml`` alone, became the folder it names.

    Raises:
        ConfigError: the description cannot be read or does not fit.
    """
    return [_with_folder(override) for override in with_first_file(overrides, _KEY)]


def _with_folder(override: str) -> str:
    key, _, value = override.partition("=")
    path = without_quotes(value)
    if key != _KEY or not is_file_name(path):
        return override
    described = without_missing(PrepareConfig.read_file(Path(path)))
    return f"{_KEY}={PrepareConfig(**described).out_folder}"
