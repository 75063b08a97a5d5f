"""The table and the plot of a study without a baseline, by hand from made-up metrics."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys.core.errors import ArtifactError, ConfigError
from recsys.evaluation.metrics_file import read_metrics_file, replace_metrics
from recsys.runs.config import RunConfig
from recsys.runs.files import DIVERGED_FILE
from recsys.studies.figures import metric_figure
from recsys.studies.metric_page import change_rows, metric_outcome, table_rows
from recsys.studies.metric_table import MetricTable, metric_table
from recsys.studies.outcome import write_outcome
from recsys.studies.plan import StudyConfig, StudyRun, Variant
from recsys.studies.process import add_training_seconds
from recsys.studies.run import State, state
from recsys.systems.choice import compose_run

ALL = "hits@10/all"
BATCH = "hits@1/batch"

Study = tuple[StudyConfig, list[StudyRun]]


@pytest.fixture(scope="module")
def config_of_runs() -> RunConfig:
    return compose_run(["experiment=nxtpost_globo"])


def _entry(value: float, queries: int = 100) -> dict[str, Any]:
    interval = {"low": value - 0.1, "high": value + 0.1}
    return {"value": value, **interval, "queries": queries, "protocol": f"{queries} queries"}


def _run(
    folder: Path, variant: str, seed: int, metrics: dict[str, Any], config: RunConfig
) -> StudyRun:
    run_dir = folder / variant / f"seed_{seed}"
    run_dir.mkdir(parents=True)
    replace_metrics(run_dir, "", metrics)
    add_training_seconds(run_dir, 60.0 * (seed + 1), jobs=1)
    return StudyRun(variant, seed, run_dir, (), config)


def _config(folder: Path, **settings: Any) -> StudyConfig:
    return StudyConfig(**({"name": "toy", "out": str(folder), "metrics": [ALL]} | settings))


@pytest.fixture
def study(tmp_path: Path, config_of_runs: RunConfig) -> Study:
    def run(variant: str, seed: int, hits: float) -> StudyRun:
        metrics = {
            f"report/{ALL}": _entry(hits),
            f"report/popularity/{ALL}": _entry(0.25),
            f"val/{ALL}": _entry(0.9),
        }
        return _run(tmp_path, variant, seed, metrics, config_of_runs)

    variants = {"plain": Variant(), "causal": Variant(line="with a mask")}
    config = _config(tmp_path, variants=variants, scorers=["popularity"])
    return config, [run("plain", 0, 0.3), run("plain", 1, 0.5), run("causal", 0, 0.6)]


@pytest.fixture
def curve(tmp_path: Path, config_of_runs: RunConfig) -> MetricTable:
    """Three lengths on two lines, the longest first; the plain line over two seeds."""
    values = {"long": [0.5, 0.3], "short": [0.2, 0.4], "other": [0.1]}
    variants = {
        "long": Variant(at=50, line="plain"),
        "short": Variant(at=5, line="plain"),
        "other": Variant(at=5),
    }
    runs = [
        _run(
            tmp_path,
            name,
            seed,
            {f"report/{ALL}": _entry(value), f"report/popularity/{ALL}": _entry(0.25)},
            config_of_runs,
        )
        for name, found in values.items()
        for seed, value in enumerate(found)
    ]
    settings: dict[str, Any] = {"axis": "length", "scorers": ["popularity"]}
    return metric_table(_config(tmp_path, variants=variants, **settings), runs)


@pytest.fixture
def stale(tmp_path: Path, config_of_runs: RunConfig) -> Study:
    """Two ages within one run, the queries of each counted apart."""
    metrics = {
        f"report/{ALL}": _entry(0.9),
        f"report/stale/10_days/{ALL}": _entry(0.3, queries=70),
        f"report/stale/2_days/{ALL}": _entry(0.4, queries=80),
        f"report/stale/2_days/{BATCH}": _entry(0.5, queries=64),
        f"report/stale/2_days/no_event/{ALL}": _entry(0.8),
    }
    run = _run(tmp_path, "plain", 0, metrics, config_of_runs)
    settings = {"axis": "age", "within": "stale/{point}_days", "metrics": [BATCH, ALL]}
    return _config(tmp_path, variants={"plain": Variant()}, **settings), [run]


def test_rows_by_hand(study: Study) -> None:
    assert table_rows(metric_table(*study)) == [
        ["variant", ALL, "n", "seeds", "training, s"],
        ["plain", "0.4000 ± 0.1414", "100", "0, 1", "90"],
        ["with a mask", "0.6000 [0.1000]", "100", "0", "60"],
        ["popularity", "0.2500 [0.1000]", "100", "-", "-"],
    ]


def test_a_variant_with_a_seed_that_diverged_has_no_numbers(study: Study) -> None:
    config, [one, other, third] = study
    (other.folder / DIVERGED_FILE).write_text("why\n")
    outcome = metric_outcome(config, [one, third], [other])
    assert outcome.table[1] == ["plain", "-", "100", "0, 1 diverged", "60"]
    assert outcome.table[2][1] == "0.6000 [0.1000]"
    assert "plain, seed 1 diverged: why" in outcome.sections


def test_points_of_an_axis_by_hand(curve: MetricTable) -> None:
    assert table_rows(curve) == [
        ["variant", "length", ALL, "n", "seeds", "training, s"],
        ["plain", "50", "0.4000 ± 0.1414", "100", "0, 1", "90"],
        ["plain", "5", "0.3000 ± 0.1414", "100", "0, 1", "90"],
        ["other", "5", "0.1000 [0.1000]", "100", "0", "60"],
        ["popularity", "-", "0.2500 [0.1000]", "100", "-", "-"],
    ]
    # seed 0: 0.5 instead of 0.2, seed 1: 0.3 instead of 0.4
    assert change_rows(curve)[1:] == [["plain", "50", "+62.5 ± 123.7"]]


def test_points_within_a_run_by_hand(stale: Study) -> None:
    table = metric_table(*stale)
    assert table_rows(table) == [
        ["variant", "age", BATCH, ALL, "n", "seeds", "training, s"],
        ["plain", "2", "0.5000 [0.1000]", "0.4000 [0.1000]", "64 / 80", "0", "60"],
        ["plain", "10", "-", "0.3000 [0.1000]", "70", "0", "60"],
    ]
    assert change_rows(table)[1:] == [["plain", "10", "-", "-25.0"]]
    assert table.protocols == {BATCH: "64 queries", ALL: "80 queries"}


def test_points_along_a_metric_by_hand(tmp_path: Path, config_of_runs: RunConfig) -> None:
    """Beams of two variants: each lies where its own share of the pairs is, over seeds."""
    shares = {("even", 0): (0.02, 0.101), ("even", 1): (0.04, 0.102), ("uneven", 0): (0.3, 0.9)}
    runs = []
    for (variant, seed), of_beams in shares.items():
        metrics = {}
        for beam, share in zip((1, 8), of_beams, strict=True):
            metrics[f"report/beam_{beam}/share"] = {"value": share, "protocol": "p"}
            metrics[f"report/beam_{beam}/{ALL}"] = _entry(0.1 * beam + seed)
            metrics[f"report/beam_{beam}/difference/{ALL}"] = _entry(0.1)
            metrics[f"report/beam_{beam}/pairs"] = {"value": 1e4 * share, "protocol": "p"}
        runs.append(_run(tmp_path, variant, seed, metrics, config_of_runs))
    settings: dict[str, Any] = {
        "axis": "share of the pairs",
        "within": "beam_{point}",
        "along": "share",
        "metrics": [ALL, "pairs"],
        "variants": {"even": Variant(), "uneven": Variant()},
    }
    table = metric_table(_config(tmp_path, **settings), runs)
    assert [row[:4] for row in table_rows(table)] == [
        ["variant", "share of the pairs", ALL, "pairs"],
        ["even", "0.03", "0.6000 ± 0.7071", "300 ± 141"],
        ["even", "0.1015", "1.3000 ± 0.7071", "1,015 ± 7"],
        ["uneven", "0.3", "0.1000 [0.1000]", "3,000"],
        ["uneven", "0.9", "0.8000 [0.1000]", "9,000"],
    ]
    of_hits, _ = metric_figure(table).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in of_hits.lines}  # type: ignore[union-attr]
    assert drawn["even"] == [[0.03, pytest.approx(0.6)], [0.1015, pytest.approx(1.3)]]
    with pytest.raises(ArtifactError, match="the runs of even have no cost, along which they"):
        metric_table(_config(tmp_path, **(settings | {"along": "cost"})), runs)


def test_many_points_are_not_named_one_by_one(tmp_path: Path, config_of_runs: RunConfig) -> None:
    variants = {f"v{at}": Variant(at=at + 0.5, line="one") for at in range(13)}
    runs = [
        _run(tmp_path, name, 0, {f"report/{ALL}": _entry(0.5)}, config_of_runs) for name in variants
    ]
    table = metric_table(_config(tmp_path, variants=variants, axis="length"), runs)
    [axes] = metric_figure(table).axes
    assert len(axes.get_xticks()) < 13


def test_changes_against_a_reference_by_hand(study: Study) -> None:
    config, runs = study
    table = metric_table(replace(config, reference="plain"), runs)
    # seed 0, which both have: 0.6 instead of 0.3
    assert change_rows(table) == [["variant", ALL], ["with a mask", "+100.0"]]
    page = metric_outcome(replace(config, reference="plain"), runs, [])
    assert "## Change against plain, %" in page.sections
    with pytest.raises(ConfigError, match="reference=nothing: nothing is none of the variants"):
        replace(config, reference="nothing")


def test_points_that_are_no_numbers_keep_their_order(
    tmp_path: Path, config_of_runs: RunConfig
) -> None:
    names = ["own_history", "popular_posts", "own_history/no_event"]
    metrics = {f"report/cold/{name}/{ALL}": _entry(0.5) for name in names}
    run = _run(tmp_path, "plain", 0, metrics, config_of_runs)
    settings = {"axis": "history", "within": "cold/{point}"}
    table = metric_table(_config(tmp_path, variants={"plain": Variant()}, **settings), [run])
    assert [row[1] for row in table_rows(table)] == ["history", *names]
    assert not table.lines
    [axes] = metric_figure(table).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"plain, {name}" for name in names]


def test_another_outcome_has_files_and_a_title_of_its_own(stale: Study) -> None:
    config, runs = stale
    config = replace(config, outcome="ages")
    write_outcome(metric_outcome(config, runs, []), config)
    page = (config.folder / "ages.md").read_text()
    assert page.startswith("# Study toy, ages\n") and "(ages.png)" in page and "## Change" in page
    assert (config.folder / "ages.json").is_file() and (config.folder / "ages.png").is_file()
    assert not (config.folder / "study.md").exists()


def test_runs_without_such_points_are_said_so(stale: Study) -> None:
    config, runs = stale
    days = {"axis": "day", "within": "day_{point}", "variants": config.variants}
    with pytest.raises(ArtifactError, match=r"no run of toy has metrics at report/day_{point}"):
        metric_table(_config(config.folder, **days), runs)


def test_a_curve_goes_through_the_means(curve: MetricTable) -> None:
    [axes] = metric_figure(curve).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}  # type: ignore[union-attr]
    assert drawn["plain"] == [[5.0, pytest.approx(0.3)], [50.0, pytest.approx(0.4)]]
    assert drawn["popularity"] == [[0, 0.25], [1, 0.25]]  # over the whole width
    assert axes.get_xscale() == "log"
    assert axes.get_title() == f"{ALL}\nn = 100"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "50"]


def test_n_stands_at_the_points_where_it_differs(stale: Study) -> None:
    _, everything = metric_figure(metric_table(*stale)).axes
    assert everything.get_title() == ALL
    labels = [label.get_text() for label in everything.get_xticklabels()]
    assert labels == ["2\nn = 80", "10\nn = 70"]


def test_a_metric_that_nobody_measured_leaves_its_panel_empty(stale: Study) -> None:
    config, runs = stale
    table = metric_table(replace(config, metrics=[ALL, "hits@10/nowhere"]), runs)
    everything, nowhere = metric_figure(table).axes
    assert len(everything.lines) > 0
    assert not any(len(line.get_xdata()) for line in nowhere.lines)  # type: ignore[arg-type]


def test_page_json_and_plot_are_written(study: Study) -> None:
    config, runs = study
    write_outcome(metric_outcome(config, runs, []), config)
    page = config.file("md").read_text()
    assert "| with a mask | 0.6000 [0.1000] | 100 | 0 | 60 |" in page
    assert f"- `{ALL}`: 100 queries." in page
    assert page.startswith("# Study toy\n") and "(study.png)" in page and "## Change" not in page
    content = json.loads((config.folder / "study.json").read_text())
    assert content["rows"]["popularity"]["training_seconds"] is None
    assert content["rows"]["causal"]["queries"][ALL] == 100
    assert (config.folder / "study.png").read_bytes().startswith(b"\x89PNG")


def test_an_older_run_has_no_n(study: Study) -> None:
    config, runs = study
    for run in runs:
        metrics = read_metrics_file(run.folder)
        for metric in metrics.values():
            del metric["queries"]
        replace_metrics(run.folder, "", metrics)
    assert [row[2] for row in table_rows(metric_table(config, runs))] == ["n", "-", "-", "-"]


def test_a_run_is_measured_once_its_predictions_are_there(study: Study) -> None:
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


def test_a_place_along_a_metric_needs_an_axis_and_no_other_place() -> None:
    with pytest.raises(ConfigError, match="it needs an axis=… that says"):
        StudyConfig(name="toy", metrics=[ALL], along="share", variants={"plain": Variant()})
    variants = {"plain": Variant(at=3)}
    with pytest.raises(ConfigError, match="leave out at=… of plain"):
        StudyConfig(name="toy", metrics=[ALL], axis="a", along="share", variants=variants)
