"""The configuration of a run, with what nobody has chosen fitted to its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.runs.config import RunConfig
from recsys.systems.choice import EXPERIMENT, SYSTEM, compose_run
from recsys.systems.registry import system_named
from recsys.systems.sizing import Sized


def fitted_to_data(config: RunConfig, overrides: Sequence[str]) -> tuple[RunConfig, list[Sized]]:
    """A run's configuration, and which of its settings follow from the data's size.

    What the user or an experiment gives stays; so does what a chosen file of conf/ changes. The
    data set is prepared first where it is not there.

    Args:
        config: what ``overrides`` compose to.
        overrides: as given.

    Raises:
        RecsysError: the data set cannot be prepared.
    """
    keys = {override.partition("=")[0] for override in overrides}
    if config.resume or EXPERIMENT in keys or not config.settings_by_size:
        return config, []
    system = system_named(config.system)
    usual = compose_run([f"{SYSTEM}={config.system}"])
    dataset, _ = open_or_prepare(config.data)

    def is_given(key: str) -> bool:
        return key in keys or _value(config, key) != _value(usual, key)

    wanted = system.sized(
        config, dataset, lambda key: _value(config, key) if is_given(key) else None
    )
    sized = [one for one in wanted if not is_given(one.key)]
    return compose_run([*(one.override for one in sized), *overrides]), sized


def _value(config: RunConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
