"""A file of the user's own in the place of a group's choice: ``data=mine.yaml``.

Which groups take one, their types say: a class of settings with ``read_file`` (:class:`FromFile`).
Hydra then has what the file says as one more choice of the group, so all else is as with
``data=log``: it goes before what an experiment chooses, and single settings go before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hydra.core.config_store import ConfigStore

from recsys.core.bounds import without_none
from recsys.core.errors import ConfigError
from recsys.core.overrides import setting_type, without_quotes

#: How the names of such files end.
SUFFIXES = (".yaml", ".yml")

#: Package of a group whose settings lie at the top, as in ``data@_global_=…``.
_AT_TOP = "_global_"


@runtime_checkable
class FromFile(Protocol):
    """A class of settings that a file of the user's own may give."""

    @classmethod
    def read_file(cls, path: Path) -> dict[str, Any]:
        """What the file says, checked.

        Raises:
            ConfigError: it cannot be read, or does not fit.
        """
        ...


def is_file_name(value: str) -> bool:
    """Whether the choice of a group is the name of a file."""
    return value.lower().endswith(SUFFIXES)


def with_group_files(overrides: Sequence[str], schema: type) -> list[str]:
    """Overrides of which those that name a file choose what it says.

    Raises:
        ConfigError: a file cannot be read or does not fit, or the group takes none.
    """
    return [_chosen(override, schema) for override in overrides]


def _chosen(override: str, schema: type) -> str:
    key, _, value = override.partition("=")
    path = without_quotes(value)
    group, _, package = key.partition("@")
    if not is_file_name(path) or "." in group:
        return override
    hint, _ = without_none(schema if package == _AT_TOP else setting_type(group, schema))
    if not (isinstance(hint, type) and isinstance(hint, FromFile)):
        return override
    content = hint.read_file(Path(path))
    name = f"file_{zlib.crc32(path.encode()):08x}"
    ConfigStore.instance().store(name, content, group)
    return f"{key}={name}"


def with_first_file(arguments: Sequence[str], group: str) -> list[str]:
    """Words of a command whose first may be a file, without ``<group>=`` before it.

    >>> with_first_file(["mine.yaml", "out=prepared/mine"], "data")
    ['data=mine.yaml', 'out=prepared/mine']

    Raises:
        ConfigError: a word that is no setting stands elsewhere.
    """
    words = [
        f"{group}={word}" if is_file_name(word) and _is_no_setting(word) else word
        for word in arguments
    ]
    given = [word for word in words if word.partition("=")[0] == group]
    if len(given) > 1:
        raise ConfigError(f"`{given[0]}` and `{given[1]}`: give one of the two.")
    return words


def _is_no_setting(word: str) -> bool:
    key = word.partition("=")[0]
    return "=" not in word or not key.replace(".", "").replace("_", "").isalnum()
