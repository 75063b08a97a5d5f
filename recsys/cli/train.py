"""`recsys train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from recsys.core.composition import load, merge
from recsys.core.console import message_console
from recsys.core.errors import ConfigError
from recsys.core.paths import conf_dir
from recsys.distributed.processes import is_first_rank
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.runs.config import RunConfig
from recsys.runs.load import check_run_folder
from recsys.runs.remote import local_config
from recsys.systems.choice import SYSTEM, compose_run, system_of_run
from recsys.systems.registry import system_named
from recsys.systems.runs import checkpoint_of, load_config, train
from recsys.systems.sized_run import fitted_to_data
from recsys.systems.sizing import sized_table


@dataclass(frozen=True)
class _Resumed:
    """The settings that say whether a run is gone on with, and which; as in ``RunConfig``."""

    resume: bool = False
    run_dir: str | None = None


def configure(overrides: Sequence[str]) -> RunConfig:
    """Compose the configuration of a run; a run that is resumed keeps its own configuration.

    Raises:
        RecsysError: an override does not fit, or the run to resume is not there.
    """
    keys = [field.name for field in fields(_Resumed)]
    given = [override for override in overrides if override.partition("=")[0] in keys]
    chosen = merge(_Resumed, given)
    if not chosen.resume or chosen.run_dir is None:
        return compose_run(overrides)
    path = local_config(chosen.run_dir)
    check_run_folder(path.parent)
    for override in overrides:
        key = override.partition("=")[0]
        if key != SYSTEM and (conf_dir() / key).is_dir():
            raise ConfigError(
                f"`{override}` chooses a file of conf/, but a resumed run takes its "
                f"configuration from {path}; leave it out, and give single settings to change."
            )
    system = system_of_run(path.parent)
    for override in overrides:
        if override.partition("=")[0] == SYSTEM and override != f"{SYSTEM}={system.name}":
            raise ConfigError(f"{path.parent} is a run of {system.name}; leave {override} out.")
    return load(path, system.config, overrides)


def run(overrides: Sequence[str]) -> None:
    """Train, and say how good the best checkpoint is and where the run folder lies."""
    config, sized = fitted_to_data(configure(overrides), overrides)
    console = message_console()
    if sized and is_first_rank():
        console.print(sized_table(sized))
    run_dir = train(config)
    if not is_first_rank():
        return
    console.print(best_line(run_dir))
    console.print(f"Run folder: {run_dir if config.run_dir is None else config.run_dir}")


def best_line(run_dir: Path) -> str:
    """The monitored metric at the best checkpoint of a finished run, its step, and the last one."""
    config = load_config(run_dir)
    metric = system_named(config.system).monitor_of(config).metric
    value = read_metrics_file(run_dir).get(metric, {}).get("value")
    best, last = (checkpoint_of(run_dir, which).step for which in ("best", "last"))
    ended = ", where trainer.max_steps ended the run" if last == config.trainer.max_steps else ""
    shown = "not defined" if value is None else f"{value:.4f}"
    return f"Best {metric}: {shown} at step {best:,} of {last:,}{ended}"
