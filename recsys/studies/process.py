"""Trainings in processes of their own: how far one is, and the command that goes on with it."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recsys.core.console import Console
from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json
from recsys.core.secrets import mask_words
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.runs.files import CONFIG_FILE, DIVERGED_FILE

#: In a run folder: the seconds spent on its training, and how many ran at a time.
TIMING_FILE = "timing.json"

_KIND = "time of a training"


def is_begun(run_dir: Path) -> bool:
    """Whether a training has begun in a run folder."""
    return (run_dir / CONFIG_FILE).is_file()


def is_trained(run_dir: Path) -> bool:
    """Whether it has ended, which is when the metrics of the choose split are written."""
    return any(name.startswith("val/") for name in read_metrics_file(run_dir))


def divergence(run_dir: Path) -> str | None:
    """The sentence a training has ended with because its numbers went wrong; None where not."""
    path = run_dir / DIVERGED_FILE
    return path.read_text().strip() if path.is_file() else None


def training_command(run_dir: Path, overrides: Sequence[str]) -> tuple[str, ...]:
    """What follows `recsys` to train with ``overrides``, or to go on with what has begun."""
    if is_begun(run_dir):
        return ("train", f"run_dir={run_dir}", "resume=true")
    return ("train", *overrides)


def start(words: Sequence[str], log: Path, jobs: int) -> subprocess.Popen[bytes]:
    """Start `recsys` with ``words``, its output appended to ``log``.

    Args:
        words: what follows `recsys`.
        log: the file.
        jobs: commands at a time, among which the cores are divided.
    """
    environment = dict(os.environ)
    if jobs > 1:
        cores = len(os.sched_getaffinity(0))
        environment["OMP_NUM_THREADS"] = str(max(1, cores // jobs))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        fcntl.flock(output, fcntl.LOCK_SH)  # the process inherits it, and all that it starts
        Console(file=output).print(shlex.join(["$", "recsys", *mask_words(words)]))
        output.flush()
        command = [sys.executable, "-m", "recsys", *words]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )


def run(name: str, words: Sequence[str], log: Path, jobs: int) -> None:
    """:func:`start`, and wait until it has ended.

    Raises:
        ArtifactError: the command of ``name`` failed.
    """
    process = start(words, log, jobs)
    try:
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if code != 0:
        raise ArtifactError(f"{name} failed, see {log}: {last_line(log)}")


def is_running(log: Path) -> bool:
    """Whether a command that :func:`start` has begun still runs, if need be without its parent."""
    if not log.is_file():
        return False
    with log.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def last_line(log: Path) -> str:
    """The last line of a log, which says why a command failed."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("recsys: ") if lines else "it printed nothing"


def read_timing(run_dir: Path) -> dict[str, Any]:
    """``training_seconds`` and ``jobs``; empty where nobody noted them.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = run_dir / TIMING_FILE
    mend = "remove it, and the time is not told."
    return read_json(path, _KIND, ArtifactError, mend) if path.is_file() else {}


def add_training_seconds(run_dir: Path, seconds: float, jobs: int) -> float:
    """Add to what was spent on a training, and return the sum; 0 where it made no folder."""
    if not run_dir.is_dir():
        return 0.0
    spent = float(read_timing(run_dir).get("training_seconds", 0)) + seconds
    write_json(run_dir / TIMING_FILE, _KIND, {"training_seconds": spent, "jobs": jobs})
    return spent
