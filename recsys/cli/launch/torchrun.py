"""`launchers/torchrun/run`: a verb on the processes of one host or of several, by torchrun."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated

import typer

from recsys.cli.launch import elastic
from recsys.cli.launch.config import TorchrunConfig
from recsys.cli.launch.tasks import (
    DIVIDED,
    PREFLIGHT,
    TRAIN,
    LaunchTask,
    World,
    plan_preflight,
    plan_trainings,
    plan_verb,
    separate,
    verb_and_overrides,
)
from recsys.cli.main import invoke
from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.core.errors import ConfigError
from recsys.core.threads import share_threads
from recsys.runs.files import LOGS
from recsys.runs.folder import time_stamp

EXAMPLES = """Examples:

launchers/torchrun/run experiment=dv365_ebnerd processes_per_node=2 --dry-run

launchers/torchrun/run experiment=dv365_ebnerd trainer=gpu run_dir=runs/mine nodes=2
processes_per_node=8 rendezvous=host1:29500

launchers/torchrun/run evaluate run_dir=runs/mine processes_per_node=4
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def command_of(arguments: Sequence[str]) -> list[str]:
    """The words of the command that `run` stands for.

    Raises:
        RecsysError: settings that do not fit, several runs, or a verb for one process.
    """
    verb, settings = verb_and_overrides(arguments)
    own, others = separate(settings, [field.name for field in fields(TorchrunConfig)])
    config = compose("torchrun", TorchrunConfig, own)
    named = any(other.startswith("run_dir=") for other in others)
    if config.nodes > 1 and verb != PREFLIGHT and not named:
        raise ConfigError(
            f"nodes={config.nodes} hosts must write one run folder: add run_dir=…, the same on all "
            "of them."
        )
    world = World(config.nodes, config.processes_per_node)
    if verb == TRAIN:
        name, tasks = plan_trainings(others, world, time_stamp())
    elif verb in DIVIDED:
        name, tasks = plan_verb(verb, others, world)
    elif verb == PREFLIGHT:
        name, tasks = plan_preflight(others, world, time_stamp())
    else:
        raise ConfigError(f"`{verb}` runs in one process; give it as `recsys {verb}`.")
    if len(tasks) > 1:
        raise ConfigError(
            f"{len(tasks)} runs are given; torchrun starts one, recsys study or an array of "
            "launchers/slurm/submit several."
        )
    [task] = tasks
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *_meeting(config, name),
        *([f"--max-restarts={config.restarts}"] if config.restarts else []),
        f"--nproc-per-node={config.processes_per_node}",
        # each rank's lines to a file in the run folder and, with its number, to the terminal
        *(f"--log-dir={task.run_dir / LOGS}", "--redirects=3", "--tee=3"),
        *_program(config, verb, task),
    ]


def _program(config: TorchrunConfig, verb: str, task: LaunchTask) -> list[str]:
    """What each process runs."""
    if not config.restarts:
        return ["-m", "recsys", verb, *task.settings]
    if verb != TRAIN:
        raise ConfigError(f"restarts={config.restarts} is of a training, not of `{verb}`.")
    then = task.resume or task.settings
    return ["-m", elastic.__name__, str(task.run_dir), *task.settings, elastic.AND_THEN, *then]


def _meeting(config: TorchrunConfig, name: str) -> list[str]:
    if config.rendezvous is None:
        return ["--standalone"]
    fewest = "" if config.min_nodes is None else f"{config.min_nodes}:"
    return [
        f"--nnodes={fewest}{config.nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={config.rendezvous}",
        f"--rdzv-id={name}",
    ]


@app.command(epilog=EXAMPLES)
def run(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[VERB] KEY=VALUE",
            help="train (the default), evaluate, score or preflight, and its settings; nodes, "
            "processes_per_node and rendezvous are the launcher's (conf/torchrun.yaml).",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the command and start nothing.")
    ] = False,
) -> None:
    """Train or evaluate on one host or on several; give the same command on each host."""
    command = command_of(arguments)
    if dry_run:
        output_console().print(shlex.join(command))
        return
    processes = next(word for word in command if word.startswith("--nproc-per-node="))
    share_threads(int(processes.partition("=")[2]))
    # a store of its own for each start of the processes: what is in an old one is of the lost
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.execv(command[0], command)


def main() -> None:
    """Entry point of `launchers/torchrun/run`."""
    sys.exit(invoke(sys.argv[1:], app, "launchers/torchrun/run"))


if __name__ == "__main__":
    main()
