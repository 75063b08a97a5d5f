"""`launchers/torchrun/run`: a training on the processes of one host or of several, by torchrun."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated

import typer

from recsys.cli.launch.config import TorchrunConfig
from recsys.cli.launch.tasks import TRAIN, World, plan_trainings, separate
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
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def command_of(overrides: Sequence[str]) -> list[str]:
    """The words of the command that `run` stands for.

    Raises:
        RecsysError: settings that do not fit, or several trainings.
    """
    own, others = separate(overrides, [field.name for field in fields(TorchrunConfig)])
    config = compose("torchrun", TorchrunConfig, own)
    if config.nodes > 1 and not any(other.startswith("run_dir=") for other in others):
        raise ConfigError(
            f"nodes={config.nodes} hosts must write one run folder: add run_dir=…, the same on all "
            "of them."
        )
    world = World(config.nodes, config.processes_per_node)
    name, tasks = plan_trainings(others, world, time_stamp())
    if len(tasks) > 1:
        raise ConfigError(
            f"{len(tasks)} trainings are given; torchrun starts one, recsys study or an array of "
            "launchers/slurm/submit several."
        )
    [task] = tasks
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *_meeting(config, name),
        f"--nproc-per-node={config.processes_per_node}",
        # each rank's lines to a file in the run folder and, with its number, to the terminal
        *(f"--log-dir={task.run_dir / LOGS}", "--redirects=3", "--tee=3"),
        *("-m", "recsys", TRAIN, *task.settings),
    ]


def _meeting(config: TorchrunConfig, name: str) -> list[str]:
    if config.rendezvous is None:
        return ["--standalone"]
    return [
        f"--nnodes={config.nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={config.rendezvous}",
        f"--rdzv-id={name}",
    ]


@app.command(epilog=EXAMPLES)
def run(
    overrides: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings of recsys train; nodes, processes_per_node and rendezvous are the "
            "launcher's (conf/torchrun.yaml).",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the command and start nothing.")
    ] = False,
) -> None:
    """Train on the processes of one host or of several; give the same command on each host."""
    command = command_of(overrides)
    if dry_run:
        output_console().print(shlex.join(command))
        return
    processes = next(word for word in command if word.startswith("--nproc-per-node="))
    share_threads(int(processes.partition("=")[2]))
    os.execv(command[0], command)


def main() -> None:
    """Entry point of `launchers/torchrun/run`."""
    sys.exit(invoke(sys.argv[1:], app, "launchers/torchrun/run"))


if __name__ == "__main__":
    main()
