"""The description of a data set: a YAML file of the user's own that says how it is prepared.

It has the shape of the files of conf/data/ and is chosen as they are, ``data=mine.yaml``. It may
come from somebody else, so nothing in it is resolved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys.core.composition import load_part, without_missing
from recsys.core.errors import ConfigError
from recsys.data.sources import complete_options

_OPTIONS = "options"

#: Where a description names what is read: a relative path is one from the description's folder.
PATHS = (("path",), (_OPTIONS, "items", "path"), (_OPTIONS, "users", "path"))


def read_description(path: Path, schema: type) -> dict[str, Any]:
    """What a description says, with paths from the folder it lies in.

    A path that leads to nothing from there stays as it is: it is looked for as one that is typed;
    ``out`` is one of that folder in any case, so that a description means one data set.

    Args:
        path: the description.
        schema: of its settings, with a field ``source`` and the source's ``options``.

    Raises:
        ConfigError: it cannot be read, has a key that is not known, or a value that is not meant.
    """
    content = load_part(path, schema)
    given = without_missing(content.get(_OPTIONS) or {})
    source = content.get("source", getattr(schema, "source", None))
    try:
        complete_options(str(source), given)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if isinstance(content.get("out"), str):
        content["out"] = str((path.parent / content["out"]).absolute())
    for keys in PATHS:
        place = _parent(content, keys)
        name = place.get(keys[-1])
        if isinstance(name, str) and (path.parent / name).exists():
            place[keys[-1]] = str((path.parent / name).absolute())
    return content


def _parent(content: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The dictionary that the last of ``keys`` is looked up in; an empty one where it is absent."""
    place: Any = content
    for key in keys[:-1]:
        place = place.get(key) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else {}
