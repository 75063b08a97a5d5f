"""Which system a command is about: by its overrides, its experiment, or its run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from recsys.core.composition import as_written, compose
from recsys.core.errors import ConfigError
from recsys.core.overrides import SEARCH_PATH
from recsys.core.paths import conf_dir
from recsys.runs.config import RunConfig
from recsys.runs.files import CONFIG_FILE
from recsys.systems.base import System
from recsys.systems.registry import DEFAULT_SYSTEM, system_named

#: The group of conf/ that ``system=…`` chooses from, and the key of a run that holds the choice.
SYSTEM = "system"
EXPERIMENT = "experiment"


def compose_run(overrides: Sequence[str]) -> RunConfig:
    """The configuration of a new run, in the schema of the system it trains.

    Raises:
        ConfigError: an override does not fit, or there is no such system.
    """
    system = chosen_system(overrides)
    others = [override for override in overrides if not override.startswith(f"{SYSTEM}=")]
    try:
        config: RunConfig = compose("train", system.config, [f"{SYSTEM}={system.name}", *others])
    except ConfigError as error:
        given = any(override.startswith(f"{EXPERIMENT}=") for override in others)
        meant = chosen_system(others).name if given else system.name
        if meant == system.name:
            raise
        raise ConfigError(
            f"{error} The experiment is one of {meant}: leave `{SYSTEM}={system.name}` out, or "
            f"choose an experiment of {system.name}."
        ) from error
    return replace(config, system=system.name)  # an experiment of another one may have named that


def chosen_system(overrides: Sequence[str]) -> System[Any]:
    """The system that ``system=…`` names, or the file of ``experiment=…``, or the default."""
    given = dict(override.split("=", 1) for override in overrides if "=" in override)
    name = given.get(SYSTEM)
    if name is None and EXPERIMENT in given:
        name = _of_experiment(given[EXPERIMENT], _folders(given))
    return system_named(name or DEFAULT_SYSTEM)


def system_of_run(run_dir: Path | str) -> System[Any]:
    """The system of a run folder's configuration; the default where the file cannot be read.

    Whoever loads the file says what is wrong with it.
    """
    content = _read(Path(run_dir) / CONFIG_FILE, as_written)
    return system_named(str(content.get(SYSTEM, DEFAULT_SYSTEM)))


def _of_experiment(name: str, folders: Sequence[Path]) -> str | None:
    """``system`` of an experiment's file or of the experiment it is based on."""
    for folder in folders:
        path = folder / EXPERIMENT / f"{name}.yaml"
        if path.is_file():
            content = _read(path, OmegaConf.load)
            if SYSTEM in content:
                return str(content[SYSTEM])
            parents = [entry for entry in content.get("defaults", []) if isinstance(entry, str)]
            found = (_of_experiment(parent, folders) for parent in parents if parent != "_self_")
            return next((system for system in found if system is not None), None)
    return None


def _folders(given: dict[str, str]) -> list[Path]:
    """Where configuration is looked for: conf/ and the folders the user adds."""
    added = given.get(SEARCH_PATH.removesuffix("="), "").strip("[]")
    paths = (one.strip().removeprefix("file://") for one in added.split(",") if one.strip())
    return [conf_dir(), *map(Path, paths)]


def _read(path: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(read(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, ConfigError):
        return {}
    return content if isinstance(content, dict) else {}  # type: ignore[return-value]
