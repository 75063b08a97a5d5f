"""Settings that name folders at URLs, for commands that read them from copies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from recsys.core.location import is_url
from recsys.core.mirror import local_folder
from recsys.data.stores.dataset import is_read_at_once

#: The setting that names a prepared data set; the others name runs, artifacts and indexes.
_DATASET = "dataset"


def with_local_folders(config: Any, *names: str) -> Any:
    """Settings in whose fields ``names`` folders at URLs became their copies.

    Of a prepared data set, what few jobs read is copied when it is asked for.
    """
    given = {name: getattr(config, name) for name in names}
    urls = {name: one for name, one in given.items() if one and is_url(one)}
    copies = {
        name: local_folder(url, is_read_at_once) if name == _DATASET else local_folder(url)
        for name, url in urls.items()
    }
    return replace(config, **{name: str(copy) for name, copy in copies.items()})
