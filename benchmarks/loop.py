"""The loop, unattended: days that come one by one, and kill -9 at random moments.

A simulated log is cut into its days. Two recurring trainings are given each new day, in turn. One
is let alone, in this process. The other is the real command, whose process group is killed at
moments drawn from the whole processor time that a cycle takes; then the same command is given
again. All the while a process reads what the killed one serves: the pointer, then every user's
embedding. Each generation goes on from the weights of the former one, so that what a kill spoilt
would be carried on. The peer of the killed loop is the other: after every day both must serve the
same generation with the same bytes of every user.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import psutil
import torch
from rich.table import Table

from benchmarks._loop_reader import Served, served
from recsys.cli.simulate import configure as configure_simulation
from recsys.core.bounds import Number
from recsys.core.composition import compose
from recsys.core.console import message_console, output_console
from recsys.core.errors import RecsysError
from recsys.core.progress import track
from recsys.data.contract.schema import MILLISECONDS_PER_DAY
from recsys.data.simulator.simulate import simulate
from recsys.recurring.config import RecurConfig
from recsys.recurring.cycle import run_cycle
from recsys.recurring.generations import MEASURED, SERVED, Generations

DESCRIPTION = "the recurring training killed at random moments, beside one that is let alone"

#: About what a command takes; later ones are measured.
_FIRST_SECONDS = 15.0
_ROOT = Path(__file__).resolve().parent.parent
#: Small: most of a cycle is the start of a process, whatever is trained.
_SIMULATION = (
    "simulator=demo",
    "simulator.activity.scale=0.05",
    "simulator.catalogue.items=20000",
    "simulator.catalogue.authors=500",
)
_TRAINING = (
    "system=dv365",
    "slices=demo",
    "encoder=linear_compression",
    "model.dimension=16",
    "trainer.max_steps=6",
    "trainer.checkpoint_every_n_steps=2",
    "trainer.progress_bar=false",
    "loader.batch_requests=16",
    "data=log",
    "data.options.choose_days=1",
    "data.options.report_days=1",
    "data.options.attribution_hours=1",
)


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        users: of the simulated log, each with some twenty events a day.
        first_days: in the data set when the loop begins.
        days: that come after them, one by one.
        kills: of the one loop.
        seed: of the log, and of the moments.
    """

    users: Annotated[int, Number(at_least=20)] = 100
    first_days: Annotated[int, Number(at_least=6)] = 8
    days: Annotated[int, Number(at_least=1)] = 28
    kills: Annotated[int, Number(at_least=1)] = 20
    seed: int = 0


class _Loop:
    """A recurring training that is given days.

    Args:
        place: of its data set and generations.
        days: files that have come.
    """

    def __init__(self, place: Path, days: Path) -> None:
        self.folder = place / "recurring"
        self._log = place.with_suffix(".log")
        data = [f"data.path={days}", f"data.out={place / 'prepared'}"]
        train = ",".join([*_TRAINING, *data])
        self._settings = [f"folder={self.folder}", f"path={days}", f"train=[{train}]"]
        self._settings += ["rhythm=continue", "gate.worse_percent=null"]
        #: Processor seconds of the last command that ended well.
        self.seconds: float | None = None

    def run_here(self) -> None:
        """A cycle in this process."""
        with self._log.open("a") as log, redirect_stderr(log), redirect_stdout(log):
            run_cycle(compose("recur_run", RecurConfig, self._settings))

    def run(self, until: float = math.inf) -> str | None:
        """Give the command, and kill it when it has used so many processor seconds.

        Returns:
            What it had done last; None where it has ended well before.
        """
        used = 0.0
        with self._log.open("ab") as log:
            process = psutil.Popen(
                [sys.executable, "-m", "recsys", "recur", "run", *self._settings],
                cwd=_ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                used = max(used, sum(process.cpu_times()[:2]))
            if used >= until:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return self._last_step()
            time.sleep(0.02)
        if process.returncode:
            raise RecsysError(
                f"recsys recur run has ended wrongly: {self._log.read_text()[-2000:]}"
            )
        self.seconds = used
        return None

    def _last_step(self) -> str:
        known = Generations(self.folder).all()
        is_between = not known or known[-1].state == SERVED
        return "before the append was kept" if is_between else f"after {list(known[-1].done)[-1]}"


def run(config: Config) -> dict[str, Any]:
    """Run both loops over all days, print a table, and return the figures."""
    generator = random.Random(config.seed)
    kills_on = Counter(generator.randrange(config.days + 1) for _ in range(config.kills))
    with tempfile.TemporaryDirectory() as folder:
        days = _simulated_days(config, Path(folder))
        come = Path(folder) / "come"
        come.mkdir()
        alone, killed = (_Loop(Path(folder) / name, come) for name in ("alone", "killed"))
        torch.set_num_threads(1)  # as the command below has: sums hang on it
        pending, steps, after = 0, Counter[str](), list[dict[str, Any]]()
        with _reader(killed.folder) as reader:
            for number, day in enumerate(track(days, "Days")):
                day.rename(come / day.name)
                alone.run_here()
                pending += kills_on[number]
                while True:
                    most = killed.seconds or _FIRST_SECONDS
                    step = killed.run(generator.uniform(0, most) if pending else math.inf)
                    if step is None:
                        break  # kills that are pending are for another day
                    pending -= 1
                    steps[step] += 1
                after.append(_difference(alone, killed, number + 1))
                message_console().print(json.dumps(after[-1] | {"killed_in": steps}))
            reader.terminate()
            read = json.loads(reader.communicate()[0])
        figures = _figures(config, killed, steps, after, read)
    figures["processor_seconds_of_a_cycle"] = killed.seconds
    _print(figures)
    return figures


def _simulated_days(config: Config, folder: Path) -> list[Path]:
    """Files of the log: its first days, then each day."""
    settings = [f"simulator.users={config.users}", f"simulator.seed={config.seed}"]
    settings += [f"simulator.days={config.first_days + config.days}", f"out={folder / 'log'}"]
    simulation = configure_simulation([*_SIMULATION, *settings])
    simulate(simulation.simulator, Path(simulation.out))
    log = pl.read_parquet(sorted((folder / "log" / "log").glob("*.parquet")))
    day = log["timestamp"] // MILLISECONDS_PER_DAY
    number = (day - day.min() - config.first_days + 1).clip(lower_bound=0)
    files = []
    for wanted in range(config.days + 1):
        files.append(folder / f"{wanted:03d}.parquet")
        log.filter(number == wanted).write_parquet(files[-1])
    return files


def _reader(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks._loop_reader", str(folder)]
    return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE)


def _difference(alone: _Loop, killed: _Loop, generation: int) -> dict[str, Any]:
    """Whether both serve the wanted generation, and the same bytes."""
    one, other = served(alone.folder), served(killed.folder)
    assert isinstance(one, Served) and isinstance(other, Served)
    last, last_killed = (Generations(each.folder).all()[-1] for each in (alone, killed))
    return {
        "generation": generation,
        "served": [one.generation, other.generation],
        "same_embeddings": one.embeddings == other.embeddings and not other.problem,
        "same_ne": last.done[MEASURED]["ne"] == last_killed.done[MEASURED]["ne"],
        "embeddings": one.embeddings[:16],
    }


def _figures(
    config: Config,
    killed: _Loop,
    steps: Counter[str],
    after: list[dict[str, Any]],
    read: dict[str, Any],
) -> dict[str, Any]:
    known = Generations(killed.folder).all()
    once = [one.number for one in known if one.state == SERVED] == list(range(1, len(known) + 1))
    expected = {str(one["generation"]): one["embeddings"] for one in after}
    return {
        "config": asdict(config),
        "kills": steps.total(),
        "killed_in": dict(steps),
        "days": len(after),
        "every_day_published_once": once
        and all(one["served"] == [one["generation"]] * 2 for one in after),
        "days_with_the_same_embeddings": sum(one["same_embeddings"] for one in after),
        "days_with_the_same_ne": sum(one["same_ne"] for one in after),
        "reads": read["reads"],
        "generations_read": len(read["seen"]),
        "read_as_published": all(
            digest.startswith(expected[number]) for number, digest in read["seen"].items()
        ),
        "problems_of_reader": read["problems"],
    }


def _print(figures: dict[str, Any]) -> None:
    table = Table("the killed loop", "", title="A recurring training, killed and let alone")
    days = figures["days"]
    table.add_row("days, the first ones as one", str(days))
    table.add_row("kills", str(figures["kills"]))
    for step, count in sorted(figures["killed_in"].items()):
        table.add_row(f"  {step}", str(count))
    table.add_row("every day published once", str(figures["every_day_published_once"]))
    for what in ("embeddings", "ne"):
        table.add_row(
            f"days with the same {what} as let alone", f"{figures[f'days_with_the_same_{what}']}"
        )
    table.add_row("times that a reader read every user", f"{figures['reads']:,}")
    table.add_row("generations that it saw", str(figures["generations_read"]))
    table.add_row("what it found wrong", str(len(figures["problems_of_reader"])))
    seconds = f"{figures['processor_seconds_of_a_cycle']:.0f}"
    table.add_row("processor seconds of the last command", seconds)
    output_console().print(table)
