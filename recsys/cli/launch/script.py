"""The scripts that sbatch is given, made from the templates beside this file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from recsys.cli.launch.config import APPTAINER, PYXIS, SECONDS_TO_REQUEUE, SlurmConfig, SubmitConfig
from recsys.cli.launch.tasks import (
    DIVIDED,
    PREFLIGHT,
    RECUR,
    TRAIN,
    LaunchTask,
    World,
    preflight_settings,
)
from recsys.cli.main import USER_ERROR
from recsys.core.errors import PreemptedError

#: In both kinds of container and outside: one rank that fails ends the others, which would wait.
_SRUN = "srun --kill-on-bad-exit=1"


def world_of(verb: str, config: SubmitConfig) -> World:
    """The processes of a job: a training's, those that divide its work on CPUs, or one."""
    launcher = config.launcher
    if verb in (TRAIN, PREFLIGHT):
        return World(config.nodes, launcher.processes_per_node, launcher.gpus)
    if verb in DIVIDED:
        return World(config.nodes, launcher.processes_per_node, gpus=False)
    return World(gpus=False)


def job_script(
    verb: str,
    name: str,
    tasks: Sequence[LaunchTask],
    config: SubmitConfig,
    folder: Path,
    check: bool = False,
) -> str:
    """The script of a job that runs a verb, or of an array with a task for each of ``tasks``.

    Args:
        verb: of `recsys`.
        name: of the job, beside the verb.
        tasks: what it runs.
        config: the cluster and how many nodes of it.
        folder: where the script's own lines are logged; the ranks' are in the run folders.
        check: whether the nodes are checked before a training.
    """
    training = verb == TRAIN
    world = world_of(verb, config)
    return _render(
        "job.sh.jinja",
        config.launcher,
        world,
        verb=verb,
        name=name,
        tasks=tasks,
        folder=str(folder),
        at_once=config.at_once,
        training=training,
        words=f"{verb} run" if verb == RECUR else verb,
        dependencies=_dependencies(verb, config.after),
        seconds_to_save=config.launcher.signal_seconds - SECONDS_TO_REQUEUE,
        preempted=PreemptedError.EXIT_CODE,
        check=preflight_settings(world) if check else (),
        unfit=USER_ERROR,
    )


def _dependencies(verb: str, after: Sequence[int]) -> list[str]:
    """What a job waits for.

    A cycle waits until those of the folder before it have ended, well or not: it goes on with what
    was cut off. A chain by ``afterok`` would end with the first that fails.
    """
    ended_well = [f"afterok:{':'.join(map(str, after))}"] if after else []
    return ended_well + ["singleton"] * (verb == RECUR)


def agents_script(
    sweep: str, agents: int, config: SubmitConfig, folder: Path, trials: int | None = None
) -> str:
    """The script of an array of wandb agents; each trains its trials on nodes of its own.

    What an agent calls `recsys` starts a rank on every process of its task of the array, all with
    the settings of the trial and one run folder, ``folder/<wandb's run id>``.

    Args:
        sweep: wandb's id of the sweep, ``entity/project/id``.
        agents: tasks of the array.
        config: the cluster, and how many nodes of it an agent has.
        folder: for the run folders and the logs.
        trials: how many an agent runs; None for as many as the sweep has for it.
    """
    return _render(
        "agents.sh.jinja",
        config.launcher,
        world_of(TRAIN, config),
        sweep=sweep,
        agents=agents,
        trials=trials,
        folder=str(folder),
        after=config.after,
        at_once=config.at_once,
    )


def _render(template: str, launcher: SlurmConfig, world: World, **values: Any) -> str:
    return rendered(
        template,
        launcher=launcher,
        world=world,
        srun=_srun(launcher),
        command=_command(launcher, bool(world.gpus)),
        **values,
    )


def rendered(template: str, **values: Any) -> str:
    """A template beside this file with values put in."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = shlex.quote
    return environment.get_template(template).render(**values)


def _srun(launcher: SlurmConfig) -> str:
    words = [_SRUN, f"--cpus-per-task={launcher.cpus_per_process}"]
    container = launcher.container
    if container.runtime == PYXIS:
        mounts = ",".join(["$PWD:$PWD", *(_here_and_there(mount) for mount in container.mounts)])
        words += [
            f"--container-image={shlex.quote(str(container.image))}",
            f'--container-mounts="{mounts}"',
            '--container-workdir="$PWD"',
        ]
    return " ".join(words)


def _command(launcher: SlurmConfig, gpus: bool) -> str:
    """`recsys` as the nodes know it."""
    container = launcher.container
    if container.runtime is None:
        beside = Path(sys.executable).with_name("recsys")
        return launcher.command or shlex.quote(str(beside))
    recsys = launcher.command or "recsys"
    if container.runtime != APPTAINER:
        return recsys
    mounts = " ".join(f"--bind {shlex.quote(mount)}" for mount in container.mounts)
    words = ["apptainer exec", "--nv" if gpus else "", '--bind "$PWD" --pwd "$PWD"', mounts]
    image = shlex.quote(str(container.image))
    return " ".join([*filter(None, words), image, recsys])


def _here_and_there(mount: str) -> str:
    """Pyxis wants both sides of a mount."""
    return mount if ":" in mount else f"{mount}:{mount}"
