"""A sweep without any server: trials in processes of their own, some of them stopped early."""

from __future__ import annotations

import difflib
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from recsys.core.bounds import Count, Jobs, OutPath, Settings
from recsys.core.console import message_console, output_console
from recsys.core.errors import ArtifactError, ConfigError, PreemptedError
from recsys.core.folders import check_begun
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.runs.files import LOCK_FILE
from recsys.runs.folder import RUNS, held
from recsys.studies import process
from recsys.studies.sweep.file import SweepFile, check_settings, shell_command, words
from recsys.studies.sweep.page import print_outcome, write_outcome
from recsys.studies.sweep.search import suggest, to_stop
from recsys.studies.sweep.trials import (
    BAD_ENDS,
    Trial,
    TrialState,
    read_history,
    read_trials,
    write_trials,
)

SWEEPS = RUNS / "sweeps"

#: Seconds between two looks at the running trials.
_INTERVAL = 1.0
#: Seconds a trial that is told to end has for it; as an agent of wandb gives it.
_GRACE = 30.0


@dataclass(frozen=True)
class SweepConfig(Settings):
    """How a sweep is run on this machine.

    Attributes:
        out: its folder; None for ``runs/sweeps/<name>``.
        jobs: trials at a time; with more than one the cores are divided among them.
        count: trials in all; None for ``run_cap`` of the file, or all points of a grid.
        dry_run: check the file, print the first trial's command, and do nothing.
        summarise_only: make table and plot from the trials so far.
    """

    out: OutPath | None = None
    jobs: Jobs = 1
    count: Count | None = None
    dry_run: bool = False
    summarise_only: bool = False


@dataclass(frozen=True)
class RunningTrial:
    """A trial and the process that trains it.

    Attributes:
        trial: what the sweep keeps of it.
        process: `recsys train`.
        started: when, in seconds of ``time.perf_counter``.
    """

    trial: Trial
    process: subprocess.Popen[bytes]
    started: float


def run_sweep(file: SweepFile, config: SweepConfig) -> None:
    """Train the trials of a sweep that are not finished, then write and print the outcome.

    A trial that fails or diverges is recorded and does not stop the others. What a trial prints
    stands beside its folder, in ``<trial>.log``.

    Raises:
        RecsysError: the sweep cannot work.
    """
    limit = config.count or file.content.get("run_cap")
    if limit is None and file.content["method"] != "grid":
        raise ConfigError(
            f"{file.path} has no run_cap, and a {file.content['method']} search has no end; give "
            "count=…, the number of trials."
        )
    sweep = LocalSweep(file, config, limit)
    if config.dry_run:
        sweep.print_first_command()
        return
    check_begun(sweep.folder, (LOCK_FILE,), "a sweep")
    with held(sweep.folder, "runs the sweep in", "out="):
        sweep.open()
        if not config.summarise_only:
            sweep.complete()
        if not any(trial.is_measured for trial in sweep.trials):
            ends = "".join(f" {one.name} {one.state}: {one.problem}" for one in sweep.bad_ends)
            raise ArtifactError(f"{sweep.folder} holds no trial with {file.metric} to show.{ends}")
        write_outcome(file, sweep.trials, sweep.folder)
        print_outcome(file, sweep.trials, sweep.folder)


class LocalSweep:
    """The trials of a sweep file, from first to last.

    Attributes:
        folder: where they lie.
        trials: those so far, in order.
    """

    def __init__(self, file: SweepFile, config: SweepConfig, limit: int | None) -> None:
        self.file = file
        self.config = config
        self.limit = limit
        self.folder = Path(config.out) if config.out is not None else SWEEPS / file.name
        self.trials: list[Trial] = []
        self._console = message_console()

    def print_first_command(self) -> None:
        """Check the file against what `recsys train` takes and print the first trial's command."""
        check_settings(self.file)
        parameters = suggest(self.file.content, []) or {}
        command = shell_command(self.file.settings, parameters)
        output_console().print(command)

    def open(self) -> None:
        """Read what there is; a trial that came to a bad end is tried again where its log was
        deleted.
        """
        self.trials = read_trials(
            self.folder / "sweep.json", self.file.settings, self.file.parameters
        )
        for trial in self.trials:
            trial.history = self._history(trial)
            if trial.state in BAD_ENDS and not self._log(trial).exists():
                trial.state, trial.problem = TrialState.BEGUN, None

    def complete(self) -> None:
        """Train until the search is over; processes end with this one.

        Raises:
            ConfigError: a setting does not fit, or the trials log no such metric.
            PreemptedError: a trial was told to save its state and end.
        """
        open_or_prepare(check_settings(self.file).data)  # once, and in no trial's training time
        self._wait_for_orphans()
        running: list[RunningTrial] = []
        waiting = [trial for trial in self.trials if trial.state is TrialState.BEGUN]
        try:
            while True:
                while len(running) < self.config.jobs and (trial := self._next(waiting)):
                    running.append(self._start(trial))
                if not running:
                    return
                time.sleep(_INTERVAL)
                for one in running:
                    one.trial.history = self._history(one.trial)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    self._finish(one)
                self.stop_early(running)
        finally:
            for one in running:
                self._end(one)

    def _next(self, waiting: list[Trial]) -> Trial | None:
        """A trial that has begun, a new one, or None where the search is over."""
        if waiting:
            return waiting.pop(0)
        enough = self.limit is not None and len(self.trials) >= self.limit
        if enough or self._is_reached():
            return None
        parameters = suggest(self.file.content, self.trials)
        if parameters is None:
            return None
        trial = Trial(f"trial_{len(self.trials):03d}", parameters)
        self.trials.append(trial)
        self.save()
        return trial

    def _is_reached(self) -> bool:
        """Whether a trial is as good as ``metric.target``."""
        target = self.file.content["metric"].get("target")
        if target is None:
            return False
        return any(self.file.best([value, target]) == value for value in self._values())

    def _start(self, trial: Trial) -> RunningTrial:
        run_dir = self._run_dir(trial)
        overrides = (
            *self.file.settings,
            *words(trial.parameters),
            f"run_dir={run_dir}",
            "trainer.progress_bar=false",
        )
        self._say(f"{trial.name}: {' '.join(words(trial.parameters))}")
        command = process.training_command(run_dir, overrides)
        trial.started = time.time()
        self.save()
        return RunningTrial(
            trial, process.start(command, self._log(trial), self.config.jobs), time.perf_counter()
        )

    def _finish(self, one: RunningTrial) -> None:
        """Note how a trial has ended."""
        trial, code = one.trial, one.process.returncode
        trial.started = None
        seconds = time.perf_counter() - one.started
        trial.training_seconds = process.add_training_seconds(
            self._run_dir(trial), seconds, self.config.jobs
        )
        trial.history = self._history(trial)
        if code == PreemptedError.EXIT_CODE:
            raise PreemptedError(f"{trial.name}: {process.last_line(self._log(trial))}")
        if code == 0 and process.is_trained(self._run_dir(trial)):
            trial.state = TrialState.FINISHED
        elif sentence := process.divergence(self._run_dir(trial)):
            trial.state, trial.problem = TrialState.DIVERGED, sentence
        elif trial.state is not TrialState.STOPPED:
            trial.state = TrialState.FAILED
            trial.problem = process.last_line(self._log(trial))
        self.save()
        if trial.state is TrialState.FINISHED:
            self._check_metric(trial)
        self._say(f"{trial.name}: {trial.state}, {self._outcome(trial)}")

    def stop_early(self, running: list[RunningTrial]) -> None:
        """Tell the trials to end that Hyperband gives up."""
        names = to_stop(self.file.content, self.trials)
        for one in [one for one in running if one.trial.name in names]:
            one.trial.state = TrialState.STOPPED
            self.save()  # before the signal: a sweep that is killed here does not go on with it
            self._end(one)
            running.remove(one)
            self._finish(one)

    def _end(self, one: RunningTrial) -> None:
        one.process.terminate()
        try:
            one.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()

    def _wait_for_orphans(self) -> None:
        """Let trainings end that a killed sweep has left behind."""
        for trial in self.trials:
            if trial.state is not TrialState.BEGUN:
                continue
            if process.is_running(self._log(trial)):
                self._say(f"{trial.name} is still training since the sweep was killed: waiting")
            while process.is_running(self._log(trial)):
                time.sleep(_INTERVAL)
            self._note_seconds(trial)
            if sentence := process.divergence(self._run_dir(trial)):
                trial.state, trial.problem = TrialState.DIVERGED, sentence
            elif process.is_trained(self._run_dir(trial)):
                trial.history = self._history(trial)
                trial.state = TrialState.FINISHED
        self.save()

    def _note_seconds(self, trial: Trial) -> None:
        """Add what a training took that nobody waited for: from its start to its last line."""
        log = self._log(trial)
        if trial.started is None or not log.is_file():
            return
        seconds = max(log.stat().st_mtime - trial.started, 0.0)
        trial.started = None
        trial.training_seconds = process.add_training_seconds(
            self._run_dir(trial), seconds, self.config.jobs
        )

    def _check_metric(self, trial: Trial) -> None:
        """Refuse a metric that a finished trial has not logged, be it not defined."""
        logged = [name for name in read_metrics_file(self._run_dir(trial)) if "val/" in name]
        if trial.history or self.file.metric in logged:
            return
        near = difflib.get_close_matches(self.file.metric, logged, n=1)
        meant = f"did you mean {near[0]}?" if near else f"they log {', '.join(logged)}."
        raise ConfigError(
            f"{self.file.path}: the trials log no {self.file.metric}; {meant} Correct metric.name "
            "and start the sweep again: it goes on with the trials there are."
        )

    def _outcome(self, trial: Trial) -> str:
        if trial.problem is not None:
            return f"see {self._log(trial)}: {trial.problem}"
        if not trial.history:
            return f"{self.file.metric} is not defined"
        value = self.file.best(trial.history)
        so_far = self.file.best(self._values())
        return f"{self.file.metric} {value:.4f}, best so far {so_far:.4f}"

    @property
    def bad_ends(self) -> list[Trial]:
        """The trials that failed or diverged."""
        return [trial for trial in self.trials if trial.state in BAD_ENDS]

    def _values(self) -> list[float]:
        return [value for one in self.trials if one.is_measured for value in one.history]

    def save(self) -> None:
        """Write sweep.json, from which a sweep that is killed goes on."""
        head = {
            "name": self.file.name,
            "metric": self.file.content["metric"],
            "settings": list(self.file.settings),
            "parameters": self.file.parameters,
        }
        write_trials(self.folder / "sweep.json", head, self.trials)

    def _history(self, trial: Trial) -> list[float]:
        return read_history(self._run_dir(trial), self.file.metric)

    def _run_dir(self, trial: Trial) -> Path:
        return self.folder / trial.name

    def _log(self, trial: Trial) -> Path:
        return self.folder / f"{trial.name}.log"

    def _say(self, line: str) -> None:
        self._console.print(line)
