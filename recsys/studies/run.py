"""Running a study: every run in a process of its own; what is finished is not done again."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from enum import StrEnum
from pathlib import Path

from recsys.core.console import output_console, progress_bar
from recsys.core.errors import ArtifactError
from recsys.core.folders import check_begun
from recsys.data.contract.schema import Split
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.evaluation.baselines.config import TASK_MEANS
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.evaluation.predictions import predictions_path
from recsys.evaluation.together import NE_DELTA
from recsys.runs.checkpoints import BEST, CHECKPOINTS
from recsys.runs.files import LOCK_FILE
from recsys.runs.folder import held
from recsys.studies import process
from recsys.studies.comparison_page import comparison_outcome
from recsys.studies.metric_page import metric_outcome
from recsys.studies.outcome import print_outcome, write_outcome
from recsys.studies.over_seeds import diverged_sentences
from recsys.studies.plan import StudyConfig, StudyRun, plan


class State(StrEnum):
    """How far a run is."""

    NEW = "not begun"
    BEGUN = "cut off in training"
    DIVERGED = "diverged"
    TRAINED = "trained"
    MEASURED = "measured"


def run_study(config: StudyConfig) -> None:
    """Train and evaluate every run that is not finished, then write and print the tables.

    A run that fails, or diverges, does not stop the others; one that diverged is not tried again
    while its folder is there. What a run prints stands beside its folder, in
    ``seed_<n>.log``.

    Raises:
        ArtifactError: a run failed; the sentence names its log.
        RecsysError: the study cannot work.
    """
    # the second is of runs that were made before the study kept a lock of its own
    check_begun(config.folder, (LOCK_FILE, f"*/seed_*/{LOCK_FILE}"), "a study")
    runs = plan(config)
    if config.dry_run:
        _print_states(config, runs)
        return
    problems = []
    if not config.summarise_only:
        with held(config.folder, "runs the study in", "out="):
            problems = _complete(config, runs)
    measured = [run for run in runs if state(config, run) is State.MEASURED]
    diverged = [run for run in runs if state(config, run) is State.DIVERGED]
    if any(run.variant != config.baseline for run in measured):
        kind = metric_outcome if config.baseline is None else comparison_outcome
        outcome = kind(config, measured, diverged)
        write_outcome(outcome, config)
        print_outcome(outcome, config)
    elif not problems:
        raise ArtifactError(
            f"{config.folder} holds no finished run of a variant to show; "
            "leave out summarise_only=true to make them. "
            f"{' '.join(diverged_sentences(diverged))}".strip()
        )
    if problems:
        raise ArtifactError(" ".join(problems))


def state(config: StudyConfig, run: StudyRun) -> State:
    """How far a run is, by what lies in its folder.

    It is measured if its predictions are younger than its checkpoint and than the baseline's.
    """
    if not process.is_begun(run.folder):
        return State.NEW
    if not process.is_trained(run.folder):
        return State.BEGUN if process.divergence(run.folder) is None else State.DIVERGED
    metrics = read_metrics_file(run.folder)
    predictions = predictions_path(run.folder, Split(config.split))
    control = baseline_folder(config, run)
    wanted = f"{config.prefix}/" if control is None else f"{config.prefix}/{NE_DELTA}/"
    checkpoints = [folder / CHECKPOINTS / BEST for folder in (run.folder, control or run.folder)]
    if not any(name.startswith(wanted) for name in metrics) or not predictions.is_file():
        return State.TRAINED
    age = predictions.stat().st_mtime
    if any(not path.is_file() or path.stat().st_mtime > age for path in checkpoints):
        return State.TRAINED
    return State.MEASURED


def baseline_folder(config: StudyConfig, run: StudyRun) -> Path | None:
    """The run it is measured against; None for a baseline, and where there is none."""
    if config.baseline is None or run.variant == config.baseline:
        return None
    return config.folder / config.baseline / run.folder.name


def _complete(config: StudyConfig, runs: Sequence[StudyRun]) -> list[str]:
    """Train, then evaluate baselines, then the others; what went wrong, a sentence each.

    All runs are trained before the split is looked at for the first time.
    """
    problems = []
    for data in {run.config.data.out_folder: run.config.data for run in runs}.values():
        open_or_prepare(data)  # once, and not within the training time of the first run
    unfinished = [run for run in runs if state(config, run) in (State.NEW, State.BEGUN)]
    problems += _in_processes(config, "Training", unfinished, lambda run: _train(config, run))
    for verb, baselines in (("Measuring the baseline", True), ("Measuring", False)):
        trained = [
            run
            for run in runs
            if (run.variant == config.baseline) == baselines
            and state(config, run) is State.TRAINED
            and _baseline_is_measured(config, run)
        ]
        problems += _in_processes(config, verb, trained, lambda run: _evaluate(config, run))
    return problems


def _baseline_is_measured(config: StudyConfig, run: StudyRun) -> bool:
    control = baseline_folder(config, run)
    return control is None or predictions_path(control, Split(config.split)).is_file()


def _train(config: StudyConfig, run: StudyRun) -> None:
    """Train or go on, and add the seconds to what was spent on the run before.

    A run that diverges is no failure: its state says so.
    """
    start = time.perf_counter()
    try:
        _recsys(config, run, process.training_command(run.folder, run.overrides))
    except ArtifactError:
        if process.divergence(run.folder) is None:
            raise
    finally:
        process.add_training_seconds(run.folder, time.perf_counter() - start, config.jobs)


def _evaluate(config: StudyConfig, run: StudyRun) -> None:
    control = baseline_folder(config, run)
    against = () if control is None else (f"against={control}",)
    # every run has the same rows, for which LightGBM would be trained anew each time
    quick = f"baselines=[{','.join(TASK_MEANS)}]"
    words = ("evaluate", f"run_dir={run.folder}", f"split={config.split}", quick, *against)
    _recsys(config, run, words)


def _recsys(config: StudyConfig, run: StudyRun, words: Sequence[str]) -> None:
    process.run(run.name, words, run.folder.with_suffix(".log"), config.jobs)


def _in_processes(
    config: StudyConfig, verb: str, runs: Sequence[StudyRun], command: Callable[[StudyRun], None]
) -> list[str]:
    """``command`` for every run, some at a time, under a progress bar; the failures."""
    problems: list[str] = []
    if not runs:
        return problems
    with progress_bar() as progress, ThreadPoolExecutor(config.jobs) as pool:
        bar = progress.add_task(f"{verb} ({len(runs)} runs)", total=len(runs))
        started = time.perf_counter()
        futures = {pool.submit(command, run): run for run in runs}
        try:
            for future in as_completed(futures):
                progress.advance(bar)
                error = future.exception()
                if isinstance(error, ArtifactError):
                    problems.append(str(error))
                elif error is not None:
                    raise error
                diverged = state(config, futures[future]) is State.DIVERGED
                outcome = "failed" if error else State.DIVERGED if diverged else "done"
                minutes = (time.perf_counter() - started) / 60
                progress.console.print(
                    f"{verb}: {futures[future].name} {outcome} after {minutes:.1f} min"
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return problems


def _print_states(config: StudyConfig, runs: Sequence[StudyRun]) -> None:
    console = output_console()
    for run in runs:
        console.print(f"# {run.name}: {state(config, run)}")
        words = ("recsys", "train", *run.overrides)
        console.print(shlex.join(words))
