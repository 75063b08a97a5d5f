"""A sweep file: read, checked against wandb's schema, and against what `recsys train` takes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from recsys.core.errors import ConfigError
from recsys.runs.config import RunConfig
from recsys.studies.sweep.search import METHODS, ends, middle_values, violations
from recsys.systems.choice import compose_run

#: Where in ``command`` wandb puts the parameters, in the form that Hydra takes.
PARAMETERS = "${args_no_hyphens}"

_COMMAND = f"[recsys, train, key=value, …, {PARAMETERS}]"


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file asks for.

    Attributes:
        path: the file.
        content: as wandb reads it.
        settings: those all trials share, as after `recsys train`; where a trial's numbers go is
            not among them.
    """

    path: Path
    content: dict[str, Any]
    settings: tuple[str, ...]

    @property
    def name(self) -> str:
        """Part of the default folder."""
        return str(self.content.get("name", self.path.stem))

    @property
    def metric(self) -> str:
        """The metric of the choose split that is optimised."""
        return str(self.content["metric"]["name"])

    @property
    def highest(self) -> bool:
        """Whether its highest value is best, not the lowest."""
        return self.content["metric"].get("goal") == "maximize"

    @property
    def parameters(self) -> dict[str, Any]:
        """What is searched over, by name, and single values."""
        return dict(self.content["parameters"])

    @property
    def searched(self) -> list[str]:
        """Names of the parameters that differ between trials."""
        return [
            name
            for name, one in self.parameters.items()
            if "value" not in one and len(one.get("values", "several")) > 1
        ]

    def best(self, values: Sequence[float]) -> float:
        """The best of some values of the metric."""
        return max(values) if self.highest else min(values)


def read_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepFile:
    """Read a sweep file; ``overrides`` are settings of all trials that come after its own.

    Raises:
        ConfigError: it is no sweep of wandb's format, or none that `recsys` can run.
    """
    content = _read(path)
    problems = violations(content)
    if problems:
        raise ConfigError(f"{path} does not fit wandb's format of sweeps: {'; '.join(problems)}.")
    if content["method"] not in METHODS:
        raise ConfigError(
            f"{path}: method is {content['method']}; choose one of {', '.join(METHODS)}."
        )
    _check_metric(path, content)
    content["parameters"] = flat(content["parameters"])
    settings = {_key(word): word for word in (*_command_settings(path, content), *overrides)}
    file = SweepFile(path, content, tuple(settings.values()))
    _check_parameters(file, settings)
    return file


def flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Nested parameters by their whole names, as `recsys train` has them.

    >>> flat({"model": {"parameters": {"dimension": {"values": [8, 16]}}}, "seed": {"value": 1}})
    {'model.dimension': {'values': [8, 16]}, 'seed': {'value': 1}}
    """
    found: dict[str, Any] = {}
    for name, one in parameters.items():
        if "parameters" in one:
            found |= {f"{name}.{inner}": it for inner, it in flat(one["parameters"]).items()}
        else:
            found[name] = one
    return found


def words(parameters: Mapping[str, Any]) -> list[str]:
    """Parameters as overrides, in the form in which an agent of wandb gives them."""
    return [f"{name}={value}" for name, value in parameters.items()]


def shell_command(settings: Sequence[str], parameters: Mapping[str, Any]) -> str:
    """The training with these settings as a line for the shell."""
    return shlex.join(["recsys", "train", *settings, *words(parameters)])


def check_settings(file: SweepFile) -> RunConfig:
    """Compose the configuration of trials, so that what Hydra refuses is found before the first.

    Every listed value, and both ends of every distribution that has ends, is tried by itself, the
    other parameters at the first of theirs, or in the middle of their distribution.

    Returns:
        The configuration with the first value of every parameter.

    Raises:
        ConfigError: a setting, a parameter or a value does not fit.
    """
    configs = []
    for parameters in _trials_to_check(file):
        try:
            configs.append(compose_run([*file.settings, *words(parameters)]))
        except ConfigError as error:
            command = shell_command(file.settings, parameters)
            raise ConfigError(f"{file.path}: {error} The trial was `{command}`.") from error
    return configs[0]


def _trials_to_check(file: SweepFile) -> Iterator[dict[str, Any]]:
    middle = middle_values(file.parameters)
    listed = {name: one["values"] for name, one in file.parameters.items() if "values" in one}
    first = {**middle, **{name: values[0] for name, values in listed.items()}}
    yield first
    others = {name: values[1:] for name, values in listed.items()} | ends(file.parameters)
    for name, values in others.items():
        for value in values:
            yield {**first, name: value}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"there is no sweep file {path}; conf/sweep/ holds some.")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no sweep: method, metric, parameters and command.")
    return content


def _check_metric(path: Path, content: Mapping[str, Any]) -> None:
    name = content.get("metric", {}).get("name", "")
    if not name.startswith("val/"):
        raise ConfigError(
            f"{path}: metric.name is '{name}'; a sweep chooses by a metric of the choose split, "
            "val/…, and never reads the report split."
        )


def _command_settings(path: Path, content: Mapping[str, Any]) -> list[str]:
    """The ``key=value`` words of ``command`` without the folder and the loggers of agents."""
    command = [str(word) for word in content.get("command", [])]
    program = str(content.get("program", "recsys"))
    command = [program if word == "${program}" else word for word in command]
    if command[-1:] != [PARAMETERS] or "train" not in command:
        raise ConfigError(f"{path}: command must be of the form {_COMMAND}.")
    place = command.index("train")
    settings = command[place + 1 : -1]
    if Path(command[place - 1]).name != "recsys" or not all("=" in word for word in settings):
        raise ConfigError(f"{path}: command must be of the form {_COMMAND}.")
    return [word for word in settings if _key(word).split(".")[0] not in ("run_dir", "logger")]


def _check_parameters(file: SweepFile, settings: Mapping[str, str]) -> None:
    for name in file.parameters:
        if name in ("run_dir", "resume"):
            raise ConfigError(f"{file.path}: {name} cannot be swept, a trial has its own folder.")
        if name in settings:
            raise ConfigError(
                f"{file.path}: `{settings[name]}` is given for all trials, but {name} is also "
                "one of the parameters; leave one of them out."
            )


def _key(override: str) -> str:
    return override.split("=", 1)[0]
