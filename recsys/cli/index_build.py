"""`recsys index build`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.cli.index_report import print_change
from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.index.maintain import IndexBuildConfig, build_index


def configure(overrides: Sequence[str]) -> IndexBuildConfig:
    """Compose conf/index_build.yaml."""
    return compose("index_build", IndexBuildConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Build the index and say what is in it."""
    config = configure(overrides)
    print_change(build_index(config))
    message_console().print(f"Index: {config.out}")
