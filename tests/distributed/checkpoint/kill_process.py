"""Runs of two forked ranks that are killed at random moments and gone on with; see test_kill.py."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from recsys.cli.simulate import configure
from recsys.data.prepare.prepare import prepare
from recsys.data.simulator.simulate import simulate
from recsys.runs.checkpoints import CHECKPOINTS, LAST
from recsys.runs.config import RunConfig
from recsys.runs.files import CONFIG_FILE
from recsys.systems.choice import compose_run
from recsys.systems.runs import load_config, train

sys.path.insert(0, str(Path(__file__).parent))
import forked

STEPS = 6
KILLS = 3
SIMULATION = (
    "simulator=demo",
    "simulator.users=60",
    "simulator.catalogue.items=2000",
    "simulator.catalogue.authors=100",
)
RUN = (
    "experiment=demo",
    "model.dimension=8",
    "loader.batch_requests=13",
    "optim.schedule.warmup_steps=2",
    f"trainer.max_steps={STEPS}",
    "trainer.validate_every_n_steps=3",
    "trainer.checkpoint_every_n_steps=1",
    "trainer.keep_best=2",
    "trainer.progress_bar=false",
    "strategy=torchrec",
    "trainer.devices=2",
    "data.name=tiny",
)


def slow_disk() -> None:
    """Let writing take a while, so that a kill may well come in the middle of it."""
    force = os.fsync

    def slowly(descriptor: int) -> None:
        time.sleep(0.1)
        force(descriptor)

    os.fsync = slowly


def one_rank(rank: int, config: RunConfig) -> None:
    """Train, or go on."""
    slow_disk()
    train(config)


def main(folder: Path) -> None:
    """A run that nobody kills, and one for each way of writing that is killed several times."""
    simulation = configure([*SIMULATION, f"out={folder / 'log'}"])
    simulate(simulation.simulator, Path(simulation.out))
    place = (f"data.path={folder / 'log'}", f"data.out={folder / 'prepared'}")
    prepare(compose_run([*RUN, *place]).data)
    for name, in_background in (("whole", False), ("killed", False), ("killed_background", True)):
        run_dir = folder / name
        background = f"trainer.checkpoint_in_background={str(in_background).lower()}"
        config = compose_run([*RUN, *place, background, f"run_dir={run_dir}"])
        for seed in range(KILLS if name != "whole" else 0):
            checkpoints = run_dir / CHECKPOINTS

            def ready(seed: int = seed, checkpoints: Path = checkpoints) -> bool:
                if seed % 2 == 0:
                    return forked.being_written(checkpoints)
                return (checkpoints / LAST).exists()

            was_killed = forked.run_and_kill(2, partial(one_rank, config=config), ready, seed)
            print(name, seed, "killed" if was_killed else "finished", flush=True)
            if (run_dir / CONFIG_FILE).exists():
                config = replace(load_config(run_dir), resume=True)
        forked.run(2, partial(one_rank, config=config))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
