"""`launchers/slurm/submit`: a verb of `recsys` as a job of SLURM, or as an array of jobs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.launch.config import SubmitConfig
from recsys.cli.launch.script import job_script, world_of
from recsys.cli.launch.tasks import (
    DIVIDED,
    PREFLIGHT,
    RECUR,
    TRAIN,
    plan_preflight,
    plan_trainings,
    plan_verb,
    refuse_secrets,
    separate,
    verb_and_overrides,
)
from recsys.cli.main import invoke
from recsys.core.composition import compose
from recsys.core.console import message_console, output_console
from recsys.core.durable import replace_file
from recsys.core.errors import ConfigError
from recsys.core.folders import check_file
from recsys.runs.files import LOGS
from recsys.runs.folder import RUNS, time_stamp

SCRIPT = "job.sh"
EXAMPLES = """Examples:

launchers/slurm/submit experiment=dv365_ebnerd nodes=2 launcher=gpu trainer=gpu --dry-run

launchers/slurm/submit preflight nodes=4 launcher=gpu

launchers/slurm/submit experiment=dv365_ebnerd nodes=2 launcher=gpu trainer=gpu --check

launchers/slurm/submit train experiment=dv365_ebnerd seed=0,1,2 launcher.partition=long

launchers/slurm/submit evaluate run_dir=runs/a,runs/b after=[1234] nodes=2

launchers/slurm/submit recur folder=recurring/feed path=days 'train=[data=mine.yaml,system=dv365]'
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def script_of(arguments: Sequence[str], check: bool = False) -> tuple[str, Path, SubmitConfig]:
    """The script for `submit`'s arguments, the folder for it and its log, and the configuration.

    With ``check`` the nodes are checked before the training.

    Raises:
        RecsysError: arguments that do not fit.
    """
    verb, overrides = verb_and_overrides(arguments)
    if check and verb != TRAIN:
        raise ConfigError(f"`{verb}` has no --check; that is of a training.")
    refuse_secrets(overrides)
    own, others = separate(overrides, [field.name for field in fields(SubmitConfig)])
    config = compose("submit", SubmitConfig, own)
    stamp = time_stamp()
    if verb == TRAIN:
        name, tasks = plan_trainings(others, world_of(verb, config), stamp)
    elif verb == PREFLIGHT:
        name, tasks = plan_preflight(others, world_of(verb, config), stamp)
    else:
        if config.nodes > 1 and verb not in DIVIDED:
            raise ConfigError(f"`{verb}` runs in one process; leave nodes={config.nodes} out.")
        name, tasks = plan_verb(verb, others, world_of(verb, config))
        missing = [task.run_dir for task in tasks if not task.run_dir.is_dir()]
        if missing and not config.after and verb != RECUR:  # whose first cycle makes the folder
            raise ConfigError(
                f"{missing[0]} is not there; give another run folder, or after=[…], the job that "
                "makes it."
            )
    # of one run in its folder, of an array in one of its own
    array = RUNS / "jobs" / f"{verb}-{name}-{stamp}"
    folder = tasks[0].run_dir / LOGS if len(tasks) == 1 else array
    return job_script(verb, name, tasks, config, folder, check), folder, config


def send(script: str, folder: Path, config: SubmitConfig) -> str:
    """Keep a script in ``folder``, hand it to sbatch, and return the id of its job.

    Raises:
        ConfigError: there is no SLURM here, it cannot give what is asked for, or the script would
            replace one of somebody else.
    """
    path = folder / SCRIPT
    check_file(path, is_made_here)
    check_cluster(config)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, script.encode())
    sent = subprocess.run(["sbatch", "--parsable", path], capture_output=True, text=True)
    if sent.returncode != 0:
        problem = " ".join(sent.stderr.replace("sbatch: error:", "").split())
        raise ConfigError(f"sbatch refused {path}: {problem}")
    return sent.stdout.strip().partition(";")[0]


def is_made_here(path: Path) -> bool:
    """Whether a script is one that ``send`` has written."""
    return b"sbatch takes it as it is." in path.read_bytes()


def check_cluster(config: SubmitConfig) -> None:
    """Refuse what a look at the cluster's partitions shows to be impossible.

    Raises:
        ConfigError: no SLURM, no such partition, or too few nodes in it.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "sbatch is not on this machine: give the command where SLURM is, or add --dry-run to "
            "see the script."
        )
    command = ["sinfo", "--noheader", "--format=%P %D"]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode != 0:
        problem = " ".join(asked.stderr.split())
        raise ConfigError(f"SLURM does not answer: {problem}")
    lines = [line.split() for line in asked.stdout.splitlines()]
    sizes = {name.rstrip("*"): int(nodes) for name, nodes in lines}
    default = next((name.rstrip("*") for name, _ in lines if name.endswith("*")), None)
    partition = config.launcher.partition or default
    if partition is None:
        raise ConfigError(
            "This cluster has no default partition; give launcher.partition=…, one of "
            f"{', '.join(sorted(sizes))}."
        )
    for name in partition.split(","):
        if name not in sizes:
            raise ConfigError(
                f"launcher.partition={name}: this cluster has {', '.join(sorted(sizes))}."
            )
    most = max(sizes[name] for name in partition.split(","))
    if config.nodes > most:
        raise ConfigError(f"nodes={config.nodes}, but partition {partition} has {most}.")


def send_or_show(script: str, folder: Path, config: SubmitConfig, dry_run: bool) -> None:
    """Submit a script and print the job's number, or print the script alone."""
    if dry_run:
        output_console().print_lines(script)
        return
    job = send(script, folder, config)
    output_console().print(job)
    message_console().print(f"Job {job}: {folder / SCRIPT}, logs beside it.")


@app.command(epilog=EXAMPLES)
def submit(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[VERB] KEY=VALUE",
            help="train (the default), evaluate, score, preflight, export, publish or recur, and "
            "its settings; key=a,b makes an array of jobs. nodes, after, at_once and launcher are "
            "the job's (conf/submit.yaml, conf/launcher).",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the script and submit nothing.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Check the nodes before a training; a bad one is left for others."
        ),
    ] = False,
) -> None:
    """Run recsys as a job of SLURM; a training that is cut off goes on by itself."""
    script, folder, config = script_of(arguments, check)
    send_or_show(script, folder, config, dry_run)


def main() -> None:
    """Entry point of `launchers/slurm/submit`."""
    sys.exit(invoke(sys.argv[1:], app, "launchers/slurm/submit"))


if __name__ == "__main__":
    main()
