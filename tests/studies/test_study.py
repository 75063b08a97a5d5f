"""A study plans its runs, knows which are finished, and says what they say together."""

from __future__ import annotations

import json
import math
import os
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.cli.study import configure
from recsys.core.errors import ArtifactError, ConfigError
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.runs.checkpoints import BEST, CHECKPOINTS
from recsys.runs.files import DIVERGED_FILE
from recsys.studies.comparison import Comparison, compare_variants
from recsys.studies.comparison_page import (
    comparison_outcome,
    detail_rows,
    overview_rows,
    size_rows,
)
from recsys.studies.outcome import write_outcome
from recsys.studies.plan import StudyConfig, StudyRun, plan
from recsys.studies.run import State, baseline_folder, run_study, state
from recsys.studies.spread import Spread
from recsys.systems.evaluate import evaluate
from recsys.systems.registry import SYSTEMS, system_named
from recsys.systems.runs import load_run, train
from tests.small_runs import TINY_RUN

Runs = dict[tuple[str, int], StudyRun]
SHORT = ("trainer.max_steps=3", "trainer.validate_every_n_steps=3")


@pytest.fixture(scope="module")
def study(data_overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A baseline and one variant, two seeds each, trained and measured in this process."""
    folder = tmp_path_factory.mktemp("study")
    of_runs = [one for one in TINY_RUN if not one.startswith(("experiment", "trainer.progress"))]
    config = configure(
        ["study=encoders", f"out={folder}", "seeds=[0,1]", *of_runs, *SHORT, *data_overrides]
    )
    variants = {name: config.variants[name] for name in ("without_timelines", "linear_compression")}
    config = replace(config, variants=variants)
    runs = plan(config)
    for run in runs:
        train(run.config)
    for run in runs:
        control = baseline_folder(config, run)
        against = None if control is None else str(control)
        quick = {"bootstrap": Bootstrap(resamples=20), "baselines": ["user_mean"]}
        evaluate(EvaluateConfig(str(run.folder), against=against, **quick))
    return config


@pytest.fixture(scope="module")
def runs(study: StudyConfig) -> Runs:
    """By variant and seed."""
    return {(run.variant, run.seed): run for run in plan(study)}


@pytest.fixture(scope="module")
def comparison(study: StudyConfig, runs: Runs) -> Comparison:
    return compare_variants(study, list(runs.values()))


@pytest.mark.parametrize(
    "name", ["ebnerd", "kuairand", "simulated", "encoders", "upstreams", "recent_events"]
)
def test_shipped_studies_compose(name: str, tmp_path: Path) -> None:
    config = configure([f"study={name}", f"out={tmp_path}", "seeds=[4]"])
    runs = plan(config)
    assert {run.variant for run in runs} == set(config.variants)
    [baseline] = {run.config.encoder.name for run in runs if run.variant == config.baseline}
    assert baseline == ("funnel" if name in ("upstreams", "recent_events") else "none")
    assert len({run.folder for run in runs}) == len(runs)
    assert all(run.config.seed == run.config.loader.seed == 4 for run in runs)


def test_compressing_encoders_have_equally_many_outputs(tmp_path: Path) -> None:
    from recsys.nn.encoders import build_encoder

    slices, dimension = 48, 32
    outputs = {
        run.variant: build_encoder(run.config.encoder, slices, dimension).num_outputs
        for run in plan(configure(["study=encoders", f"out={tmp_path}"]))
        if run.config.encoder.name != "none"
    }
    assert outputs.pop("pass_through") == slices
    assert set(outputs.values()) == {20} and len(outputs) == 6


def test_settings_of_runs_go_to_all_runs(tmp_path: Path) -> None:
    given = ["model.dimension=8", "seeds=[5]", "variants.dv365.seeds=[]"]
    runs = plan(configure(["study=ebnerd", f"out={tmp_path}", *given]))
    assert [run.variant for run in runs] == ["without_timelines", "mean_pooling_alone"]
    assert all(run.config.model.dimension == 8 for run in runs)
    alone = next(run for run in runs if run.variant == "mean_pooling_alone")
    assert not alone.config.model.slice_counts
    assert alone.folder == tmp_path / "mean_pooling_alone" / "seed_5"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["baseline=nothing"], "baseline=nothing is none of the variants"),
        (["split=fit"], "split is 'fit'"),
        (["jobs=0"], "jobs is 0"),
        (["variants.funnel.seeds=[7]"], "variant funnel has seed 7, the baseline"),
        (["seeds=[]"], "the baseline has no seeds"),
        (["seed=3"], "a study sets seed, run_dir, resume"),
        (["model.dimensions=3"], "did you mean `model.dimension`"),
    ],
)
def test_studies_that_cannot_work(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan(configure(["study=encoders", *overrides]))


def test_a_finished_study_is_not_run_again(
    runs: Runs, study: StudyConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {state(study, run) for run in runs.values()} == {State.MEASURED}
    checkpoints = [(run.folder / CHECKPOINTS / BEST).stat().st_mtime_ns for run in runs.values()]
    run_study(study)
    assert checkpoints == [
        (run.folder / CHECKPOINTS / BEST).stat().st_mtime_ns for run in runs.values()
    ]
    assert not list(study.folder.rglob("*.log"))  # no command was run
    assert "linear_compression" in capsys.readouterr().out
    assert (study.folder / "study.png").read_bytes().startswith(b"\x89PNG")


def test_a_baseline_trained_anew_makes_its_comparisons_stale(
    runs: Runs, study: StudyConfig
) -> None:
    variant, baseline = (runs[name, 1] for name in ("linear_compression", "without_timelines"))
    checkpoint = baseline.folder / CHECKPOINTS / BEST
    before = checkpoint.stat()
    try:
        os.utime(checkpoint)
        assert state(study, baseline) is State.TRAINED
        assert state(study, variant) is State.TRAINED
        assert state(study, runs["linear_compression", 0]) is State.MEASURED
    finally:
        os.utime(checkpoint, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_run_that_was_cut_off_is_begun(runs: Runs, study: StudyConfig) -> None:
    run = runs["linear_compression", 1]
    metrics = run.folder / "metrics.json"
    content = metrics.read_bytes()
    try:
        metrics.unlink()
        assert state(study, run) is State.BEGUN
    finally:
        metrics.write_bytes(content)


def test_a_run_with_other_settings_is_refused(study: StudyConfig) -> None:
    other = replace(study, overrides=[*study.overrides, "model.dimension=4"])
    with pytest.raises(ArtifactError, match=r"other settings \(`dimension: 8`"):
        plan(other)


def test_nothing_to_summarise(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no finished run"):
        run_study(configure(["study=encoders", f"out={tmp_path}", "summarise_only=true"]))


def test_dry_run_prints_the_commands(study: StudyConfig, capsys: pytest.CaptureFixture) -> None:
    run_study(replace(study, dry_run=True))
    printed = capsys.readouterr().out
    assert "# without_timelines, seed 1: measured" in printed
    assert printed.count("recsys train experiment=demo") == 4


def test_the_summary_is_that_of_the_runs(
    runs: Runs, study: StudyConfig, comparison: Comparison
) -> None:
    found = [
        read_metrics_file(runs["linear_compression", seed].folder)[
            "report/seen_items/relative_ne_delta/skip"
        ]
        for seed in (0, 1)
    ]
    change = comparison.change("linear_compression", "seen_items", "skip")
    assert change is not None
    values = [metric["value"] for metric in found]
    assert change.mean == pytest.approx(sum(values) / 2)
    assert change.sd == pytest.approx(statistics.stdev(values))
    assert (change.low, change.high) == (min(values), max(values))
    assert change.by_seed[1].low == found[1]["low"]


def test_weights_and_positives_are_counted(
    runs: Runs, study: StudyConfig, comparison: Comparison
) -> None:
    run = load_run(runs["linear_compression", 0].folder)
    assert run.model.tower is not None
    weights = comparison.variants["linear_compression"].weights
    encoder = sum(weight.numel() for weight in run.model.tower.encoder.parameters())
    assert weights["encoder"] == encoder > 0
    assert sum(weights.values()) == sum(v.numel() for v in run.model.state_dict().values())
    assert comparison.variants["without_timelines"].weights["encoder"] == 0

    labels = run.dataset.requests("report").labels
    names = [task.name for task in run.manifest.tasks]
    everything = comparison.groups[""]
    assert everything.rows == len(labels)
    assert everything.positives["skip"] == (labels[:, names.index("skip")] == 1).sum()
    assert everything.rows == sum(g.rows for name, g in comparison.groups.items() if name)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_has_the_part_that_is_compared(name: str) -> None:
    system = system_named(name)
    assert system.compared_part in system.parts


def test_rare_tasks_are_marked(comparison: Comparison) -> None:
    positives = comparison.groups[""].positives
    rare = [task for task in comparison.binary if positives[task] < comparison.rare_positives]
    assert 0 < len(rare) < len(comparison.binary)
    marked = {heading for heading in overview_rows(comparison)[0] if heading.endswith(" *")}
    assert marked == {f"{task} *" for task in rare}
    assert not comparison.is_rare("", "watch_time")


def test_tables_have_every_task_and_variant(study: StudyConfig, comparison: Comparison) -> None:
    rows = detail_rows(comparison, "")
    assert len(rows) == 1 + len(comparison.tasks) + 1
    assert all(len(row) == len(rows[0]) for row in rows)
    run_study(replace(study, summarise_only=True))
    page = study.file("md").read_text()
    assert "split report" in page and "against without_timelines" in page
    content = json.loads(study.file("json").read_text())
    assert content["variants"]["linear_compression"]["seeds"] == [0, 1]
    skip = content["variants"]["linear_compression"]["metrics"]["report/ne/skip"]
    assert set(skip["by_seed"]) == {"0", "1"}


def test_a_change_without_positives_is_not_defined(comparison: Comparison) -> None:
    empty = replace(comparison.groups[""], positives={**comparison.groups[""].positives, "skip": 0})
    assert comparison.change("linear_compression", "", "skip") is not None
    without = replace(comparison, groups={**comparison.groups, "": empty})
    assert without.change("linear_compression", "", "skip") is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_seed_without_a_value_is_not_averaged_away(value: float) -> None:
    defined = Interval(2.0, 1.0, 3.0)
    assert Spread.of({0: Interval(value, value, value)}) is None
    assert Spread.of({0: Interval(value, value, value), 1: defined}) is None
    spread = Spread.of({1: defined})
    assert spread is not None
    assert (spread.mean, spread.sd, spread.low) == (2.0, None, 2.0)


def test_a_seed_that_diverged_leaves_its_variant_without_a_mean(
    study: StudyConfig, runs: Runs, tmp_path: Path
) -> None:
    measured = [one for key, one in runs.items() if key != ("linear_compression", 1)]
    diverged = replace(runs["linear_compression", 1], folder=tmp_path / "seed_1")
    diverged.folder.mkdir()
    (diverged.folder / "config.yaml").touch()
    assert state(study, diverged) is State.BEGUN
    (diverged.folder / DIVERGED_FILE).write_text("The training diverged in step 2: why.\n")
    assert state(study, diverged) is State.DIVERGED

    outcome = comparison_outcome(study, measured, [diverged])
    comparison = outcome.numbers
    assert overview_rows(comparison)[1][1:] == ["-"] * (len(comparison.tasks) + 1)
    assert size_rows(comparison)[2][-1] == "0, 1 diverged"
    sentence = "linear_compression, seed 1 diverged: The training diverged in step 2: why."
    assert sentence in outcome.sections and sentence in outcome.notes
    write_outcome(outcome, replace(study, out=str(tmp_path / "shown")))  # the figure is drawn


@pytest.mark.slow
def test_a_study_runs_in_processes(data_overrides: tuple[str, ...], tmp_path: Path) -> None:
    """One that fails is named and does not stop the others; the second time only it is run."""
    of_runs = ["model.dimension=8", "loader.batch_requests=16", *SHORT, *data_overrides]
    config = configure(["study=encoders", f"out={tmp_path}", "jobs=2", *of_runs])
    chosen = {n: config.variants[n] for n in ("without_timelines", "funnel", "pass_through")}
    bad = replace(chosen["funnel"], overrides=["encoder=funnel", "encoder.heads=7"])
    with pytest.raises(ArtifactError, match=r"funnel, seed 0 failed, see .*seed_0.log: .*heads"):
        run_study(replace(config, variants={**chosen, "funnel": bad}))
    page = config.file("md").read_text()
    assert "pass_through" in page and "funnel" not in page
    timing = json.loads((tmp_path / "pass_through" / "seed_0" / "timing.json").read_text())
    assert timing["training_seconds"] > 0 and timing["jobs"] == 2


def test_a_study_may_lie_in_a_folder_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text(
        "# @package _global_\nname: mine\nmetrics: [hits@10/all]\nvariants: {one: {}}\n"
    )
    config = configure(["study=mine", f"hydra.searchpath=[{tmp_path}]"])
    assert config.name == "mine" and config.overrides == [f"hydra.searchpath=[{tmp_path}]"]
