"""`recsys index build`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recsys.artifacts.hsnn_tower import HsnnManifest
from recsys.cli.index_changes import print_change
from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.core.errors import ConfigError
from recsys.index.config import IndexBuildConfig
from recsys.index.maintain import build_index


def configure(overrides: Sequence[str]) -> IndexBuildConfig:
    """Compose conf/index_build.yaml."""
    return compose("index_build", IndexBuildConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Build the index and say what is in it."""
    config = configure(overrides)
    if config.run_dir is not None:
        _export(config.run_dir, config)
    print_change(build_index(config))
    message_console().print(f"Index: {config.out}")


def _export(run_dir: str, config: IndexBuildConfig) -> None:
    """Write the artifact of a run whose items are in a tree, as `recsys export` does it."""
    # what only a run needs takes seconds to import
    from recsys.cli.export import export
    from recsys.systems.base import ExportConfig
    from recsys.systems.runs import load_config

    if load_config(Path(run_dir)).system != HsnnManifest.system:
        raise ConfigError(
            f"{run_dir} has no tree, as a run of {HsnnManifest.system} has; export it and give "
            "embeddings=… of its items."
        )
    export(ExportConfig(run_dir=run_dir, checkpoint=config.checkpoint, dataset=config.dataset))
