"""What a prepared data set is told from others by: its description and its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from recsys.core.errors import ConfigError
from recsys.data.contract.input_files import InputFile
from recsys.data.contract.manifest import GROWN_FROM, DatasetManifest
from recsys.data.sources import complete_options
from recsys.data.stores.vocabulary import IdMode

_SOURCE, OPTIONS = "source", "options"


def describe(
    source: str, name: str, ids: str, hash_buckets: int, options: dict[str, Any]
) -> dict[str, Any]:
    """How a data set is prepared, every option spelt out; part of its manifest.

    Args:
        source: the adapter.
        name: of the data set.
        ids: an ``IdMode``.
        hash_buckets: indices per id column; it says nothing where ids are not hashed.
        options: of the source.
    """
    return {
        _SOURCE: source,
        "name": name,
        "ids": ids,
        "hash_buckets": hash_buckets if ids == IdMode.HASHED else 0,
        OPTIONS: complete_options(source, dict(options)),
    }


def fingerprint(description: Mapping[str, Any], files: Sequence[InputFile]) -> str:
    """A hash of a description and of every input file's name and content."""
    contents = [(file.name, file.digest) for file in files]
    content = json.dumps([description, contents], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def grown_fingerprint(former: DatasetManifest, files: Sequence[InputFile]) -> str:
    """The fingerprint of a data set that was appended to.

    Args:
        former: as it was before.
        files: what was added.
    """
    return fingerprint({GROWN_FROM: former.fingerprint}, files)


def differences(manifest: DatasetManifest, description: Mapping[str, Any], place: str) -> list[str]:
    """What is described otherwise than when a data set was prepared, key by key.

    Args:
        manifest: of the data set.
        description: of :func:`describe`, or some keys of it.
        place: where settings stand in the command: ``data.`` of a training.

    Returns:
        ``options.attribution_hours is 1.0, it was 24.0`` and so on.
    """
    former = dict(manifest.preparation)
    with suppress(ConfigError, KeyError):  # of a release with other options: they differ
        former[OPTIONS] = complete_options(former[_SOURCE], former[OPTIONS])
    return list(_differences(_plain(former), _plain(description), place))


def _differences(former: Mapping[str, Any], now: Mapping[str, Any], place: str) -> Iterator[str]:
    for key, value in now.items():
        before = former.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            # a name that stands for itself is left out on both sides
            names = dict.fromkeys([*value, *before])
            whole = {name: value.get(name) for name in names}
            yield from _differences(before, whole, f"{place}{key}.")
        elif before != value:
            yield f"{place}{key} is {_shown(value)}, it was {_shown(before)}"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON would give it back."""
    plain: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return plain
