"""What a launcher runs: a verb with its settings, checked before anything is queued."""

from __future__ import annotations

import difflib
import importlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from recsys.cli.train import configure as configure_training
from recsys.core.errors import ConfigError
from recsys.core.location import is_url
from recsys.core.overrides import SEARCH_PATH, split_list
from recsys.core.secrets import mask_words
from recsys.distributed.config import SINGLE, TORCHREC
from recsys.recurring.config import RecurConfig
from recsys.runs.config import RunConfig
from recsys.runs.folder import CONFIG_FILE, RUNS

TRAIN = "train"
#: A cycle of a recurring training.
RECUR = "recur"
#: Verbs whose work several processes divide, on CPUs.
DIVIDED = ("evaluate", "score")
#: The check of the nodes.
PREFLIGHT = "preflight"
#: Verbs of `recsys` that a launcher starts; the others run in one process.
VERBS = (TRAIN, *DIVIDED, PREFLIGHT, "export", "publish", RECUR)
#: Modules of `recsys.cli` with another name than the verb.
_MODULES = {RECUR: "recur_run"}
#: From this likeness on a word is taken for a mistyped one.
_NEAR = 0.8


@dataclass(frozen=True)
class World:
    """The processes of a job.

    Attributes:
        nodes: machines.
        processes_per_node: processes on each.
        gpus: whether each process has a GPU; None where the launcher does not know.
    """

    nodes: int = 1
    processes_per_node: int = 1
    gpus: bool | None = None

    @property
    def processes(self) -> int:
        """Processes on all machines."""
        return self.nodes * self.processes_per_node

    @property
    def settings(self) -> tuple[str, str]:
        """What tells a training so."""
        return (
            f"trainer.num_nodes={self.nodes}",
            f"trainer.devices={self.processes_per_node}",
        )


@dataclass(frozen=True)
class LaunchTask:
    """A verb with the settings of one run: a job, or a task of an array.

    Attributes:
        run_dir: the run folder it is about, or that of generations; its ranks' logs lie there.
        settings: all settings of the verb.
        resume: settings to go on by, where a training has begun in ``run_dir``; None where the
            settings hold whatever is there.
    """

    run_dir: Path
    settings: tuple[str, ...]
    resume: tuple[str, ...] | None = None


def verb_and_overrides(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The verb before the settings, ``train`` where there is none, and the settings.

    Raises:
        ConfigError: a verb that a launcher does not start.
    """
    if not arguments or "=" in arguments[0]:
        return TRAIN, list(arguments)
    if arguments[0] not in VERBS:
        raise ConfigError(
            f"`{arguments[0]}` is neither of the form key=value nor a verb that can be launched; "
            f"those are {', '.join(VERBS)}."
        )
    return arguments[0], list(arguments[1:])


def refuse_secrets(overrides: Sequence[str]) -> None:
    """A script lies in the run folder, and its settings in the log: passwords do not.

    Raises:
        ConfigError: a setting has one.
    """
    for override, masked in zip(overrides, mask_words(overrides), strict=True):
        if override != masked:
            key = override.partition("=")[0]
            raise ConfigError(
                f"`{masked}` would be written into the script with its secret; put that into an "
                f"environment variable of the job and name it: '{key}=…${{oc.env:VARIABLE}}…'."
            )


def separate(overrides: Sequence[str], own: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings of the launcher, whose first words are ``own``, and those of the verb.

    Folders with further configuration are told to both.

    Raises:
        ConfigError: a first word that is nearly one of the launcher's; no verb has such a key.
    """
    for override in overrides:
        word = _first_word(override)
        near = difflib.get_close_matches(word, own, n=1, cutoff=_NEAR)
        if near and word not in own:
            raise ConfigError(
                f"unknown key `{word}` (given as `{override}`); did you mean `{near[0]}`?"
            )
    mine = [o for o in overrides if _first_word(o) in own or o.startswith(SEARCH_PATH)]
    others = [o for o in overrides if _first_word(o) not in own]
    return mine, others


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """One list of settings per combination of ``key=a,b``, as Hydra sweeps them; the last fastest.

    >>> expand(["seed=1,2", "name=x"])
    [['seed=1', 'name=x'], ['seed=2', 'name=x']]
    """
    return [list(choice) for choice in itertools.product(*map(_choices, overrides))]


def plan_trainings(
    overrides: Sequence[str], world: World, stamp: str
) -> tuple[str, list[LaunchTask]]:
    """The name of a training and its runs, one for each combination of settings.

    Args:
        overrides: of `recsys train`.
        world: the processes of each run.
        stamp: name for the folder of the runs where none is given.

    Raises:
        RecsysError: settings that do not fit, or a run folder that several runs would share or
            that holds a run already.
    """
    _refuse_counts(overrides, ("trainer.devices", "trainer.num_nodes"))
    combinations = expand(overrides)
    tasks: list[LaunchTask] = []
    name = ""
    for index, settings in enumerate(combinations):
        config = configure_training(settings)
        name = config.name
        folder = RUNS / name / stamp
        run_dir = folder / str(index) if len(combinations) > 1 else folder
        tasks.append(_training(settings, config, world, _on_a_disk(config.run_dir or run_dir)))
    _refuse_shared([task.run_dir for task in tasks])
    return name, tasks


def plan_verb(verb: str, overrides: Sequence[str], world: World) -> tuple[str, list[LaunchTask]]:
    """The name of a job with another verb than ``train``, and one task per combination.

    Args:
        verb: of `recsys`.
        overrides: of the verb.
        world: the processes that divide the work of each task.

    Raises:
        RecsysError: settings that do not fit.
    """
    if verb in DIVIDED:
        _refuse_counts(overrides, ("processes",))
    count = (f"processes={world.processes}",) if world.processes > 1 else ()
    tasks = []
    for settings in expand(overrides):
        tasks.append(LaunchTask(_folder(configured(verb, settings)), (*settings, *count)))
    if verb == RECUR and len({task.run_dir for task in tasks}) < len(tasks):
        raise ConfigError(
            f"Several cycles cannot run in {tasks[0].run_dir} at once; submit one for each, or "
            "give path= of a folder with all days."
        )
    return tasks[0].run_dir.name, tasks


def plan_preflight(
    overrides: Sequence[str], world: World, stamp: str
) -> tuple[str, list[LaunchTask]]:
    """The name of a check of nodes, and its only task, with a folder of its own.

    Raises:
        RecsysError: settings that do not fit.
    """
    _refuse_counts(overrides, ("processes",))
    folder = RUNS / "jobs" / f"{PREFLIGHT}-{stamp}"
    given = any(override.startswith("out=") for override in overrides)
    out = () if given else (f"out={folder / 'check'}",)
    settings = (*overrides, *preflight_settings(world), *out)
    configured(PREFLIGHT, settings)
    return "nodes", [LaunchTask(folder, settings)]


def preflight_settings(world: World) -> tuple[str, ...]:
    """What tells a check of nodes which processes there are."""
    gpus = (f"gpus={world.processes_per_node}",) if world.gpus else ()
    return (f"processes={world.processes}", *gpus)


def _refuse_counts(overrides: Sequence[str], keys: Sequence[str]) -> None:
    for override in overrides:
        if override.partition("=")[0] in keys:
            raise ConfigError(
                f"`{override}`: the launcher knows how many processes it starts; give nodes=… and "
                "the processes per node instead."
            )


def configured(verb: str, settings: Sequence[str]) -> Any:
    """The configuration of a verb with these settings."""
    return importlib.import_module(f"recsys.cli.{_MODULES.get(verb, verb)}").configure(settings)


def _training(
    settings: Sequence[str], config: RunConfig, world: World, run_dir: Path
) -> LaunchTask:
    """A training spread over ``world``; by TorchRec where its own strategy is for one process."""
    _check_accelerator(config.trainer.accelerator, world)
    place = next((one for one in settings if _first_word(one) == "run_dir"), f"run_dir={run_dir}")
    spread = config.strategy.name == SINGLE and world.processes > 1
    given = [setting for setting in settings if _first_word(setting) != "run_dir"]
    if config.resume:
        # a resumed run takes single settings alone
        strategy = (f"strategy.name={TORCHREC}",) if spread else ()
    elif (run_dir / CONFIG_FILE).exists():
        raise ConfigError(
            f"{run_dir} holds a run already; go on with it by resume=true, or give another run_dir."
        )
    else:
        strategy = (f"strategy={TORCHREC}",) if spread else ()
    whole = (place, *given, *strategy, *world.settings)
    if world.processes > 1:
        configure_training(whole)  # refuses what only one process could do
    go_on = None if config.resume else (place, "resume=true", *world.settings)
    return LaunchTask(run_dir, whole, go_on)


def _check_accelerator(accelerator: str, world: World) -> None:
    if world.gpus and accelerator == "cpu":
        raise ConfigError(
            "The launcher gives every process a GPU (launcher.gpus), but the run is to use the "
            "CPU; add trainer=gpu, or choose a launcher without GPUs."
        )
    if world.gpus is False and accelerator == "gpu":
        raise ConfigError(
            f"trainer.accelerator={accelerator}, but the launcher gives no GPUs; choose "
            "launcher=gpu, or one of your own with gpus: true."
        )


def _folder(config: Any) -> Path:
    """The folder that a verb is about: of a run, maybe by its artifact, or of generations."""
    if isinstance(config, RecurConfig):
        return Path(config.folder)
    if config.run_dir is not None:
        return _on_a_disk(config.run_dir)
    return _on_a_disk(config.artifact).parent


def _on_a_disk(folder: Path | str) -> Path:
    """A folder in which the logs of jobs can lie.

    Raises:
        ConfigError: it is a URL.
    """
    if is_url(folder):
        raise ConfigError(
            f"{folder}: what a launcher starts writes logs beside the run, so give a path on a "
            "file system that every node sees; `recsys train` itself takes a URL."
        )
    return Path(folder)


def _refuse_shared(folders: Sequence[Path]) -> None:
    for folder in folders:
        if folders.count(folder) > 1:
            raise ConfigError(
                f"{folders.count(folder)} runs cannot share run_dir={folder}; leave run_dir out, "
                "or give as many of them."
            )


def _choices(override: str) -> list[str]:
    """The values of a setting that has several (``key=a,b``, ``key=range(0,3)``), or itself."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return [override]  # composing says what is wrong with it
    if not parsed.is_sweep_override():
        return [override]
    key = parsed.get_key_element()
    given = override.partition("=")[2]
    if parsed.is_choice_sweep() and not given.startswith("choice("):
        return [f"{key}={value}" for value in split_list(given)]  # texts stay as they are typed
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()]


def _first_word(override: str) -> str:
    return override.partition("=")[0].partition(".")[0]
