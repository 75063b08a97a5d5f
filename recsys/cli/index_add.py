"""`recsys index add`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.cli.index_changes import print_change
from recsys.core.composition import compose
from recsys.index.config import IndexAddConfig
from recsys.index.maintain import add_items


def configure(overrides: Sequence[str]) -> IndexAddConfig:
    """Compose conf/index_add.yaml."""
    return compose("index_add", IndexAddConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Add the items and say what became of them."""
    print_change(add_items(configure(overrides)))
