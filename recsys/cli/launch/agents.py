"""`launchers/slurm/agents`: wandb agents of a sweep as an array of jobs of SLURM."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from recsys.cli.launch.config import SubmitConfig
from recsys.cli.launch.script import agents_script
from recsys.cli.launch.slurm import send_or_show
from recsys.cli.main import invoke
from recsys.core.composition import compose
from recsys.studies.sweep.run import SWEEPS

EXAMPLES = """Examples:

launchers/slurm/agents my-team/recsys/ab12cd34 --agents 4 --dry-run

launchers/slurm/agents my-team/recsys/ab12cd34 --agents 4 --trials 10 nodes=2 launcher=gpu
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EXAMPLES)
def agents(
    sweep: Annotated[str, typer.Argument(help="What `wandb sweep FILE` prints: team/project/id.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="nodes of a trial, after, at_once and launcher (conf/submit.yaml, conf/launcher).",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--agents", min=1, help="Agents, a job each.")] = 1,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials of an agent; without it until none is left.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the script and submit nothing.")
    ] = False,
) -> None:
    """Start agents of a sweep on a cluster; each trains one trial after the other on its nodes."""
    config = compose("submit", SubmitConfig, overrides or [])
    folder = SWEEPS / sweep.rpartition("/")[2]
    script = agents_script(sweep, count, config, folder, trials)
    send_or_show(script, folder, config, dry_run)


def main() -> None:
    """Entry point of `launchers/slurm/agents`."""
    sys.exit(invoke(sys.argv[1:], app, "launchers/slurm/agents"))


if __name__ == "__main__":
    main()
