"""`recsys index remove`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.cli.index_changes import print_change
from recsys.core.composition import compose
from recsys.index.config import IndexRemoveConfig
from recsys.index.maintain import remove_items


def configure(overrides: Sequence[str]) -> IndexRemoveConfig:
    """Compose conf/index_remove.yaml."""
    return compose("index_remove", IndexRemoveConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Remove the items and say how many there were."""
    print_change(remove_items(configure(overrides)))
