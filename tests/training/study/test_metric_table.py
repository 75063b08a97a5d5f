"""The table of a study without a baseline: means and deviations by hand, scorers of one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recsys.cli.study import configure
from recsys.errors import ConfigError
from recsys.training.study.metric_table import metric_table, table_rows, write_metric_table
from recsys.training.study.plan import StudyConfig, StudyRun, Variant, plan
from recsys.training.study.run import State, state
from recsys.training.systems.choice import compose_run


def _run(folder: Path, variant: str, seed: int, hits: float) -> StudyRun:
    run_dir = folder / variant / f"seed_{seed}"
    run_dir.mkdir(parents=True)
    metrics = {
        "report/hits@10/all": {"value": hits, "low": hits - 0.1, "high": hits + 0.1},
        "report/popularity/hits@10/all": {"value": 0.25, "low": 0.2, "high": 0.3},
        "val/hits@10/all": {"value": 0.9},
    }
    for metric in metrics.values():
        metric["protocol"] = "stated"  # type: ignore[assignment]
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    (run_dir / "timing.json").write_text(json.dumps({"training_seconds": 60.0 * (seed + 1)}))
    return StudyRun(variant, seed, run_dir, (), compose_run(["experiment=nxtpost_globo"]))


@pytest.fixture
def study(tmp_path: Path) -> tuple[StudyConfig, list[StudyRun]]:
    config = StudyConfig(
        name="toy",
        out=str(tmp_path),
        variants={"plain": Variant(), "causal": Variant()},
        metrics=["hits@10/all"],
        scorers=["popularity"],
    )
    runs = [
        _run(tmp_path, "plain", 0, 0.3),
        _run(tmp_path, "plain", 1, 0.5),
        _run(tmp_path, "causal", 0, 0.6),
    ]
    return config, runs


def test_rows_by_hand(study: tuple[StudyConfig, list[StudyRun]]) -> None:
    rows = table_rows(metric_table(*study))
    assert rows == [
        ["variant", "hits@10/all", "seeds", "training, s"],
        ["plain", "0.4000 ± 0.1414", "0, 1", "90"],
        ["causal", "0.6000 [0.1000]", "0", "60"],
        ["popularity", "0.2500 [0.0500]", "-", "-"],
    ]


def test_page_json_and_plot_are_written(study: tuple[StudyConfig, list[StudyRun]]) -> None:
    config, runs = study
    write_metric_table(metric_table(config, runs), config.folder)
    page = (config.folder / "study.md").read_text()
    assert "| causal | 0.6000 [0.1000] | 0 | 60 |" in page
    assert "- `hits@10/all`: stated." in page
    content = json.loads((config.folder / "study.json").read_text())
    assert content["rows"]["popularity"]["training_seconds"] is None
    assert (config.folder / "study.png").stat().st_size > 1000


def test_a_run_is_measured_once_its_predictions_are_there(
    study: tuple[StudyConfig, list[StudyRun]],
) -> None:
    config, [run, *_] = study
    assert state(config, run) is State.NEW
    (run.folder / "config.yaml").touch()
    assert state(config, run) is State.TRAINED
    for name in ("checkpoints/best.ckpt", "predictions/report.parquet"):
        (run.folder / name).parent.mkdir()
        (run.folder / name).touch()
    assert state(config, run) is State.MEASURED


def test_a_study_needs_a_baseline_or_metrics() -> None:
    with pytest.raises(ConfigError, match="needs a baseline"):
        StudyConfig(name="toy", variants={"plain": Variant()})


@pytest.mark.parametrize("name", ["nxtpost_globo", "nxtpost_kuairand", "nxtpost_simulated"])
def test_shipped_studies_compose(name: str, tmp_path: Path) -> None:
    runs = plan(configure([f"study={name}", f"out={tmp_path}"]))
    systems = {run.config.system for run in runs}
    assert systems == {"nxtpost", "wide_and_deep", "sequence"}
    assert len({(run.config.data.out_folder, run.config.data.path) for run in runs}) == 1
