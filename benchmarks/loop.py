"""The loop, unattended: days that come one by one, and kill -9 at random moments.

A simulated log is cut into its days. Two recurring trainings are given one after the other, at the
same time. One is let alone, in this process. The other is the real command, whose process group is
killed at moments drawn from the whole processor time that a cycle takes; then the same command is
given again. All the while a process reads what the killed one serves: the pointer, then every
user's embedding. Each generation goes on from the weights of the former one, so that what a kill
spoilt would be carried on. The peer of the killed loop is the other: after every day both must
serve the same generation with the same bytes of every user.
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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
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
    """

    def __init__(self, place: Path) -> None:
        self.folder = place / "recurring"
        self._come = place / "come"
        self._come.mkdir(parents=True)
        self._log = place / "log.txt"
        data = [f"data.path={self._come}", f"data.out={place / 'prepared'}"]
        train = ",".join([*_TRAINING, *data])
        self._settings = [f"folder={self.folder}", f"path={self._come}", f"train=[{train}]"]
        self._settings += ["rhythm=continue", "gate.worse_percent=null"]
        #: Processor seconds of the last command that ended well.
        self.seconds: float | None = None

    def give(self, day: Path) -> None:
        """Let a day come, with those before it in one folder."""
        os.link(day, self._come / day.name)

    def run_here(self) -> None:
        """A cycle in this process."""
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


@dataclass(frozen=True)
class _Day:
    """What a loop serves after a day."""

    served: Served
    ne: float


def run(config: Config) -> dict[str, Any]:
    """Run both loops over all days, print a table, and return the figures."""
    torch.set_num_threads(1)  # as the command has: sums hang on it
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
        days = _simulated_days(config, Path(folder))
        killed, alone = (_Loop(Path(folder) / name) for name in ("killed", "alone"))
        other = thread.submit(_killed, killed, days, config)
        expected = []
        for day in track(days, "Days of the loop that is let alone"):
            alone.give(day)
            alone.run_here()
            expected.append(_after(alone))
        figures = {"config": asdict(config), **other.result()}
        figures |= _compared(figures.pop("days"), expected, figures.pop("seen"))
        states = [one.state for one in Generations(killed.folder).all()]
        figures["every_day_published_once"] &= states == [SERVED] * len(days)
    _print(figures)
    return figures


def _killed(loop: _Loop, days: list[Path], config: Config) -> dict[str, Any]:
    """Run the loop that is killed, with a reader beside it."""
    generator = random.Random(config.seed)
    kills_on = Counter(generator.randrange(len(days)) for _ in range(config.kills))
    pending, steps, after = 0, Counter[str](), list[_Day]()
    with _reader(loop.folder) as reader:
        for number, day in enumerate(days):
            loop.give(day)
            pending += kills_on[number]
            while True:
                most = loop.seconds or _FIRST_SECONDS
                step = loop.run(generator.uniform(0, most) if pending else math.inf)
                if step is None:
                    break  # kills that are pending are for another day
                pending -= 1
                steps[step] += 1
            after.append(_after(loop))
            message_console().print(
                f"{number + 1} of {len(days)} days of the killed loop, {steps.total()} kills so far"
            )
        reader.terminate()
        read = json.loads(reader.communicate()[0])
    return {
        "days": after,
        "kills": steps.total(),
        "killed_in": dict(steps),
        "processor_seconds_of_a_cycle": loop.seconds,
        **read,
    }


def _after(loop: _Loop) -> _Day:
    now = served(loop.folder)
    assert now is not None
    return _Day(now, Generations(loop.folder).all()[-1].done[MEASURED]["ne"])


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


@contextmanager
def _reader(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks._loop_reader", str(folder)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE) as reader:
        try:
            yield reader
        finally:
            reader.kill()


def _compared(after: list[_Day], expected: list[_Day], seen: dict[str, str]) -> dict[str, Any]:
    """The killed loop beside the other, day by day, and what the reader saw of it."""
    pairs = list(zip(after, expected, strict=True))
    numbers = [one.served.generation for one in after]
    digests = {str(one.served.generation): one.served.embeddings for one in expected}
    return {
        "days": len(after),
        "every_day_published_once": numbers == list(range(1, len(after) + 1)),
        "days_with_the_same_embeddings": sum(one.served == other.served for one, other in pairs),
        "days_with_the_same_ne": sum(one.ne == other.ne for one, other in pairs),
        "generations_read": len(seen),
        "generations_read_as_let_alone": sum(digests[one] == seen[one] for one in seen),
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
    as_alone = str(figures["generations_read_as_let_alone"])
    table.add_row("  with the embeddings of the other loop", as_alone)
    table.add_row("what it found wrong", str(len(figures["problems"])))
    seconds = f"{figures['processor_seconds_of_a_cycle']:.0f}"
    table.add_row("processor seconds of the last command", seconds)
    output_console().print(table)
