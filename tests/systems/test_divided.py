"""Several processes measure and score what one does, to the last byte, or fail as one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

from recsys.cli.main import invoke
from recsys.core.engines import Engine
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.schema import Split
from recsys.distributed.together import together
from recsys.evaluation import division, query_embedder, ranking
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import METRICS_FILE
from recsys.evaluation.paired import Bootstrap
from recsys.evaluation.predictions import predictions_path
from recsys.systems import evaluate as evaluation
from recsys.systems.choice import compose_run
from recsys.systems.evaluate import evaluate
from recsys.systems.hsnn import measure
from recsys.systems.runs import train
from recsys.systems.score_pairs import ScoreConfig, score
from tests.data.prepare.engines import SMALL as RAY
from tests.evaluation.baselines.planted import impressions, own_log

SMALL = (
    "data=log",
    "trainer.progress_bar=false",
    "trainer.max_steps=2",
    "optim.schedule.warmup_steps=1",
)
OF: dict[str, tuple[str, ...]] = {
    "ranker": (
        "loader.batch_requests=16",
        "loader.features.windows_hours=[24]",
        "model.calibration=isotonic",
    ),
    "hsnn": (
        "model.net.dimension=16",
        "model.net.levels=[{codes:6,size:S},{codes:4,size:S}]",
        "loader.max_events=12",
        "loader.features.windows_hours=[24]",
        "evaluation.max_queries=60",
        "descent.beams=[1,3]",
        "descent.recall_at=[5]",
    ),
    "two_tower": ("evaluation.max_queries=60",),
    "sequence": ("evaluation.max_queries=60",),
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shown = impressions(0)
    likes = np.random.default_rng(1).random(len(shown)) < 0.3
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    own_log(likes, shown).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def runs(log: Path) -> list[Path]:
    """A run of hardly any training of each system."""
    data = (f"data.path={log}", f"data.out={log.parent / 'prepared'}")
    folders = []
    for system, settings in OF.items():
        where = f"run_dir={log.parent / system}"
        folders.append(train(compose_run([f"system={system}", where, *SMALL, *data, *settings])))
        (folders[-1] / METRICS_FILE).unlink()  # it has what the training has validated
    return folders


@contextmanager
def small_parts() -> Iterator[None]:
    """Parts of which a tiny log has many."""
    with ExitStack() as patched:
        patched.enter_context(patch.object(ranking, "MOST_QUERIES", 7))
        patched.enter_context(patch.object(query_embedder, "_QUERIES_PER_BATCH", 16))
        patched.enter_context(patch.object(measure, "_PAIRS_AT_A_TIME", 2_000))
        yield


def measure_all(runs: Sequence[Path], pairs: Path) -> None:
    """Measure and score by every run; within ``together`` the processes divide it."""
    bootstrap = Bootstrap(resamples=20)
    with small_parts():
        for run in runs:
            asked = EvaluateConfig(str(run), bootstrap=bootstrap, baselines=["user_mean"])
            evaluation._evaluate(asked)
            score(ScoreConfig(str(run), str(pairs), out=str(run.parent / f"{run.name}.csv")))


def written(runs: Sequence[Path]) -> dict[Path, bytes]:
    """What was measured and scored, each file once: it is removed."""
    found = {}
    for run in runs:
        table = predictions_path(run, Split.REPORT)
        scores = run.parent / f"{run.name}.csv"
        for path in (run / METRICS_FILE, table, table.with_suffix(".json"), scores):
            found[path] = path.read_bytes()
            path.unlink()
    return found


@pytest.fixture(scope="module")
def pairs(log: Path) -> Path:
    path = log.parent / "pairs.csv"
    pl.read_parquet(log).select("user_id", "item_id").unique(maintain_order=True).head(
        90
    ).write_csv(path)
    return path


@pytest.fixture(scope="module")
def of_one(runs: list[Path], pairs: Path) -> dict[Path, bytes]:
    measure_all(runs, pairs)
    return written(runs)


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_files_of_several_processes_are_those_of_one(
    runs: list[Path], pairs: Path, of_one: dict[Path, bytes], count: int
) -> None:
    together(count, measure_all, runs, pairs)
    found = written(runs)
    assert [path for path in of_one if found[path] != of_one[path]] == []


@pytest.mark.slow  # a worker of Ray loads all that evaluates
def test_the_files_of_ray_s_workers_are_those_of_one_process(
    ray: Engine, runs: list[Path], pairs: Path, of_one: dict[Path, bytes]
) -> None:
    asked = {"engine": RAY, "folders": runs}
    together(1, measure_all, runs, pairs, **asked)
    found = written(runs)
    assert [path for path in of_one if found[path] != of_one[path]] == []
    with pytest.raises(DataError, match="row 7 of the second process is damaged"):
        together(1, one_fails, runs[-1], **asked)
    assert not (runs[-1] / METRICS_FILE).exists()
    assert invoke(["evaluate", f"run_dir={runs[-1]}", "engine=ray", "bootstrap.resamples=20"]) == 0
    for path in (METRICS_FILE, "predictions/report.parquet", "predictions/report.json"):
        (runs[-1] / path).unlink()  # was written, and is in nobody's way


def one_fails(run: Path) -> None:
    """An evaluation of which the second process cannot do its share."""
    processes = division._together.get()
    assert processes is not None
    with (
        patch.object(ranking, "checked_scores", _damaged) if processes.rank else nullcontext(),
        small_parts(),
    ):
        evaluation._evaluate(EvaluateConfig(str(run), bootstrap=Bootstrap(resamples=20)))


def _damaged(*given: object) -> None:
    raise DataError("row 7 of the second process is damaged")


@pytest.mark.slow  # two more processes
def test_a_process_that_fails_ends_all_and_nothing_is_written(
    runs: list[Path], of_one: dict[Path, bytes]
) -> None:
    run = runs[-1]
    with pytest.raises(DataError, match="row 7 of the second process is damaged"):
        together(2, one_fails, run)
    assert not (run / METRICS_FILE).exists()
    assert list((run / "predictions").iterdir()) == []
    assert not list(run.glob(".*.lock.*"))


@pytest.mark.slow
def test_torchrun_starts_an_evaluation_which_prints_once(runs: list[Path]) -> None:
    run, root = runs[-1], Path(__file__).resolve().parents[2]
    evaluate(EvaluateConfig(str(run), bootstrap=Bootstrap(resamples=20)))
    of_one = (run / METRICS_FILE).read_bytes()
    (run / METRICS_FILE).unlink()
    words = [root / "launchers/torchrun/run", "evaluate", f"run_dir={run}"]
    command = [*words, "processes_per_node=2", "bootstrap.resamples=20"]
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "Protocol" in line]
    assert said and all(line.startswith("[default0]") for line in said)
    assert (run / METRICS_FILE).read_bytes() == of_one


def test_a_launcher_s_processes_are_counted(
    monkeypatch: pytest.MonkeyPatch, runs: list[Path]
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"4 process\(es\) were started, but processes is 2"):
        evaluate(EvaluateConfig(str(runs[0]), processes=2))
