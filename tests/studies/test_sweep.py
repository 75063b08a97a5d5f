"""Sweep files fit wandb and `recsys train`; trials are proposed, stopped, kept and shown."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sweeps
import yaml

from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.paths import conf_dir
from recsys.evaluation.metrics_file import replace_metrics
from recsys.runs.files import DIVERGED_FILE
from recsys.studies import process
from recsys.studies.sweep.figure import Axis, save_figure
from recsys.studies.sweep.file import SweepFile, check_settings, read_sweep, words
from recsys.studies.sweep.page import best_command, page, table_rows
from recsys.studies.sweep.run import LocalSweep, RunningTrial, SweepConfig, run_sweep
from recsys.studies.sweep.search import ends, middle_values, suggest, to_stop
from recsys.studies.sweep.trials import Trial, TrialState, read_trials
from recsys.systems.choice import compose_run

SHIPPED = sorted((conf_dir() / "sweep").glob("*.yaml"))

GRID: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "val/ne/mean", "goal": "minimize"},
    "command": ["recsys", "train", "experiment=demo", "${args_no_hyphens}"],
    "parameters": {
        "optim.dense.learning_rate": {"values": [0.001, 0.003]},
        "model.dimension": {"values": [8, 16]},
        "seed": {"value": 5},
    },
}


def write(folder: Path, **changes: Any) -> Path:
    """``GRID`` with changes as a sweep file; a key is left out by None."""
    content = {key: one for key, one in {**GRID, **changes}.items() if one is not None}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def made_up(tmp_path: Path) -> tuple[SweepFile, list[Trial]]:
    """A sweep with a trial in every state."""
    file = read_sweep(write(tmp_path))
    rates_and_sizes = [(0.001, 8), (0.001, 16), (0.003, 8), (0.003, 16), (1e18, 8)]
    trials = [
        Trial(
            f"trial_{number:03d}",
            {"optim.dense.learning_rate": rate, "model.dimension": size, "seed": 5},
        )
        for number, (rate, size) in enumerate(rates_and_sizes)
    ]
    trials[0].state, trials[0].history = TrialState.FINISHED, [0.95, 0.93, 0.94]
    trials[1].state, trials[1].history = TrialState.FINISHED, [0.97, 0.92]
    trials[2].state, trials[2].history = TrialState.STOPPED, [0.99]
    trials[3].state, trials[3].history = TrialState.FAILED, [0.5]
    trials[3].problem = "no memory left."
    trials[4].state, trials[4].history = TrialState.DIVERGED, [0.1]
    trials[4].problem = "The training diverged in step 3."
    return file, trials


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_fit_wandb_and_recsys_train(path: Path) -> None:
    file = read_sweep(path)
    sweeps.SweepConfig(file.content)  # raises where wandb's server would warn
    assert check_settings(file).logger.wandb is False  # the loggers of agents are left out
    assert file.name == path.stem
    assert file.metric.startswith("val/")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_command_of_an_agent_of_wandb_composes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """wandb's own agent starts a `recsys` that writes down what it was given."""
    from wandb.wandb_agent import Agent

    program = tmp_path / "recsys"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"open({str(tmp_path / 'given.json')!r}, 'w').write("
        "json.dumps([sys.argv[1:], os.environ['WANDB_RUN_ID']]))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "set by the agent")  # and taken back after the test
    content = yaml.safe_load(path.read_text())
    agent = Agent(None, multiprocessing.Queue(), sweep_id="s1")
    agent._sweep_command = list(content["command"])
    parameters = suggest(content, []) or {}
    arguments = {name: {"value": value} for name, value in parameters.items()}
    agent._command_run({"run_id": "ab12", "args": arguments, "program": content["program"]})
    assert agent._run_processes["ab12"].wait(60) == 0

    given, run_id = json.loads((tmp_path / "given.json").read_text())
    assert run_id == "ab12"
    assert given[0] == "train" and given[-len(parameters) :] == words(parameters)
    monkeypatch.setenv("WANDB_RUN_ID", run_id)
    config = compose_run(given[1:])
    assert config.run_dir == f"runs/sweeps/{path.stem}/ab12"
    assert config.logger.wandb and not config.logger.offline


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": None}, "'method' is a required property"),
        ({"method": "custom"}, "method is custom; choose one of grid, random, bayes"),
        ({"colour": "red"}, "'colour' was unexpected"),
        ({"parameters": {"seed": {"min": 3, "max": 1}}}, "min 3 is not less than max 1"),
        ({"parameters": {"seed": {"vals": [1]}}}, "not valid under any of the given schemas"),
        ({"metric": None}, "metric.name is ''; a sweep chooses by a metric of the choose split"),
        ({"metric": {"name": "report/ne/mean"}}, "never reads the report split"),
        ({"command": None}, "command must be of the form"),
        ({"command": ["recsys", "train", "${args}"]}, "command must be of the form"),
        ({"command": ["python", "train", "${args_no_hyphens}"]}, "command must be of the form"),
        ({"parameters": {"a": {"parameters": {"b": {"value": 1}}}}}, "unknown key `a`|`a.b"),
        (
            {"parameters": {"optim.dense.learning_rate": {"min": -0.01, "max": 0.02}}},
            r"learning_rate is -0\.0",
        ),
        ({"parameters": {"run_dir": {"value": "x"}}}, "a trial has its own folder"),
        ({"parameters": {"experiment": {"value": "x"}}}, "`experiment=demo` is given for all"),
        ({"parameters": {"model.dimensions": {"values": [8]}}}, "did you mean `model.dimension`"),
        ({"parameters": {"model.dimension": {"values": [8, "wide"]}}}, "The trial was `recsys tr"),
        ({"parameters": {"trainer.max_epochs": {"values": [1, 0]}}}, "max_epochs is 0, it must"),
    ],
)
def test_sweeps_that_cannot_work(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_settings(read_sweep(write(tmp_path, **changes)))


def test_nested_parameters_are_searched_by_their_whole_names(tmp_path: Path) -> None:
    model = {"parameters": {"dimension": {"values": [8, 16]}}}
    file = read_sweep(write(tmp_path, parameters={"model": model, "seed": {"value": 5}}))
    assert file.searched == ["model.dimension"]
    assert check_settings(file).model.dimension == 8  # type: ignore[attr-defined]
    assert suggest(file.content, []) == {"model.dimension": 8, "seed": 5}


def test_the_ends_of_a_distribution_are_tried_where_it_has_some() -> None:
    found = ends(
        {
            "a": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0},
            "b": {"distribution": "int_uniform", "min": 2, "max": 5},
            "c": {"distribution": "normal", "mu": 0.0, "sigma": 1.0},
            "d": {"values": [1, 2]},
        }
    )
    assert found == {"a": pytest.approx([1e-4, 1.0]), "b": [2, 5], "c": []}


def test_a_trial_that_outlived_its_sweep_has_the_seconds_from_its_start_to_its_last_line(
    tmp_path: Path,
) -> None:
    file = read_sweep(write(tmp_path))
    sweep = LocalSweep(file, SweepConfig(out=str(tmp_path / "out")), 4)
    trial = Trial("trial_000", {"seed": 5}, started=1_000.0)
    sweep.trials.append(trial)
    (tmp_path / "out" / "trial_000").mkdir(parents=True)
    log = tmp_path / "out" / "trial_000.log"
    log.write_text("Run folder: …\n")
    os.utime(log, (1_090.5, 1_090.5))
    sweep._wait_for_orphans()
    assert trial.training_seconds == pytest.approx(90.5)
    sweep._wait_for_orphans()  # once
    assert trial.training_seconds == pytest.approx(90.5)


def test_a_search_without_end_needs_a_count(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no run_cap, and a random search has no end"):
        run_sweep(read_sweep(write(tmp_path, method="random")), SweepConfig(str(tmp_path / "out")))


def test_settings_of_the_command_line_come_after_those_of_the_file(tmp_path: Path) -> None:
    command = [*GRID["command"][:-1], "trainer.max_epochs=6", "logger=wandb", GRID["command"][-1]]
    file = read_sweep(write(tmp_path, command=command), ["trainer.max_epochs=2", "logger=csv"])
    assert file.settings == ("experiment=demo", "trainer.max_epochs=2", "logger=csv")
    with pytest.raises(ConfigError, match="`seed=7` is given for all trials"):
        read_sweep(write(tmp_path), ["seed=7"])


def test_a_grid_is_every_point_once(tmp_path: Path) -> None:
    content = read_sweep(write(tmp_path)).content
    trials: list[Trial] = []
    while (parameters := suggest(content, trials)) is not None:
        trials.append(Trial(f"{len(trials)}", parameters))
    points = {
        (t.parameters["model.dimension"], t.parameters["optim.dense.learning_rate"]) for t in trials
    }
    assert len(trials) == 4
    assert points == {(8, 0.001), (8, 0.003), (16, 0.001), (16, 0.003)}
    assert {trial.parameters["seed"] for trial in trials} == {5}


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_search_started_again_proposes_the_same(method: str) -> None:
    ranges = {
        "a": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0},
        "b": {"values": [1, 2, 3]},
        "c": {"min": 0, "max": 10},
    }
    content = {"method": method, "metric": GRID["metric"], "parameters": ranges}
    proposed = []
    for _ in range(2):
        trials: list[Trial] = []
        for number in range(4):
            trial = Trial(f"{number}", suggest(content, trials) or {}, TrialState.FINISHED)
            trial.history = [abs(math.log10(trial.parameters["a"]) + 2)]
            trials.append(trial)
        proposed.append([trial.parameters for trial in trials])
    assert proposed[0] == proposed[1]
    assert len({one["a"] for one in proposed[0]}) == 4
    assert all(1e-4 <= one["a"] <= 1 and type(one["a"]) is float for one in proposed[0])
    assert json.loads(json.dumps(proposed[0])) == proposed[0]


def test_a_bayesian_search_comes_closer_than_its_first_trials() -> None:
    content = {
        "method": "bayes",
        "metric": GRID["metric"],
        "parameters": {"a": {"min": 0.0, "max": 1.0}},
    }
    trials: list[Trial] = []
    for number in range(10):
        trial = Trial(f"{number}", suggest(content, trials) or {}, TrialState.FINISHED)
        trial.history = [(trial.parameters["a"] - 0.3) ** 2]
        trials.append(trial)
    distances = [abs(trial.parameters["a"] - 0.3) for trial in trials]
    assert min(distances[3:]) < 0.02 < min(distances[:2])


def test_hyperband_stops_what_is_behind() -> None:
    """With min_iter 2 and eta 2 the rungs are 2, 4, …; the better half goes on."""
    content = {
        "method": "random",
        "metric": {"name": "val/hits@10/batch", "goal": "maximize"},
        "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
        "parameters": {"seed": {"min": 0, "max": 9}},
    }
    histories = {"best": [0.2, 0.4], "good": [0.1, 0.3], "late": [0.25, 0.2], "young": [0.01]}
    trials = [Trial(name, {"seed": 1}, history=history) for name, history in histories.items()]
    # values at rung 2: 0.4, 0.3, 0.2; the threshold is the second of them. `late` has not reached
    # it, `young` has not come to a rung
    assert to_stop(content, trials) == {"late"}
    trials[2].state = TrialState.FINISHED
    assert to_stop(content, trials) == set()
    assert to_stop(
        {**content, "early_terminate": {**content["early_terminate"], "min_iter": 1}}, trials
    ) == {"young"}
    del content["early_terminate"]
    assert to_stop(content, trials) == set()


def test_the_middle_of_a_distribution() -> None:
    found = middle_values(
        {
            "a": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0e-2},
            "b": {"distribution": "normal", "mu": 3.0, "sigma": 1.0},
            "c": {"value": "x"},
        }
    )
    assert found == {"a": pytest.approx(1e-3), "b": 3.0, "c": "x"}


def test_a_trial_that_is_stopped_early_is_ended_and_kept(tmp_path: Path) -> None:
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    file = read_sweep(write(tmp_path, early_terminate=early))
    sweep = LocalSweep(file, SweepConfig(str(tmp_path)), None)
    _, sweep.trials = made_up(tmp_path)
    last = sweep.trials[3]
    last.state, last.history, last.problem = TrialState.BEGUN, [1.2], None
    (tmp_path / f"{last.name}.log").touch()
    (tmp_path / last.name).mkdir()
    metrics = "step,epoch,metric,value\n2,0,train/loss,1.0\n2,0,val/ne/mean,1.2\n"
    (tmp_path / last.name / "metrics.csv").write_text(metrics)
    sleeping = subprocess.Popen(["sleep", "60"])
    running = [RunningTrial(last, sleeping, time.perf_counter())]
    sweep.stop_early(running)
    assert running == [] and sleeping.returncode is not None
    [kept] = [
        one
        for one in read_trials(tmp_path / "sweep.json", file.settings, file.parameters)
        if one.name == last.name
    ]
    assert (kept.state, kept.problem) == (TrialState.STOPPED, None)


def test_trials_are_kept_and_refused_with_other_settings(tmp_path: Path) -> None:
    file, trials = made_up(tmp_path)
    sweep = LocalSweep(file, SweepConfig(str(tmp_path)), None)
    sweep.trials = trials
    sweep.save()
    kept = tmp_path / "sweep.json"
    assert read_trials(kept, file.settings, file.parameters) == trials
    with pytest.raises(ArtifactError, match="holds a sweep with other settings"):
        read_trials(kept, ("experiment=demo", "seed=1"), file.parameters)
    with pytest.raises(ArtifactError, match="holds a sweep with other parameters"):
        read_trials(kept, file.settings, {"seed": {"values": [1]}})
    kept.write_text(kept.read_text()[:-20])
    with pytest.raises(ArtifactError, match="is damaged"):
        read_trials(kept, file.settings, file.parameters)


def test_a_trial_that_failed_is_tried_again_where_its_log_was_deleted(tmp_path: Path) -> None:
    file, trials = made_up(tmp_path)
    sweep = LocalSweep(file, SweepConfig(str(tmp_path)), None)
    sweep.trials = trials
    sweep.save()
    log = tmp_path / "trial_003.log"
    log.touch()
    sweep.open()
    assert sweep.trials[3].state is TrialState.FAILED
    log.unlink()
    sweep.open()
    assert (sweep.trials[3].state, sweep.trials[3].problem) == (TrialState.BEGUN, None)
    assert sweep.trials[0].state is TrialState.FINISHED


@pytest.mark.parametrize("diverged", [True, False])
def test_a_trial_that_diverged_is_marked_so_and_never_best(tmp_path: Path, diverged: bool) -> None:
    """However good it was before; the others go on."""
    file, trials = made_up(tmp_path)
    sweep = LocalSweep(file, SweepConfig(str(tmp_path)), None)
    last = trials[-1]
    last.state, last.problem, sweep.trials = TrialState.BEGUN, None, trials
    (tmp_path / last.name).mkdir()
    (tmp_path / last.name / "metrics.csv").write_text(
        "step,epoch,metric,value\n2,0,val/ne/mean,0.1\n"
    )
    (tmp_path / f"{last.name}.log").write_text("recsys: no memory left.\n")
    if diverged:
        (tmp_path / last.name / DIVERGED_FILE).write_text("The training diverged in step 3.\n")
    ended = subprocess.Popen(["false"])
    ended.wait()
    sweep._finish(RunningTrial(last, ended, time.perf_counter()))
    assert last.history == [0.1] and not last.is_measured
    assert last.state is (TrialState.DIVERGED if diverged else TrialState.FAILED)
    expected = "The training diverged in step 3." if diverged else "no memory left."
    assert last.problem == expected
    assert best_command(file, sweep.trials).startswith("recsys train experiment=demo")
    assert "1e+18" not in best_command(file, sweep.trials)


def test_a_trial_whose_metric_is_logged_but_not_defined_has_no_value(tmp_path: Path) -> None:
    file, trials = made_up(tmp_path)
    sweep = LocalSweep(file, SweepConfig(str(tmp_path)), None)
    last = trials[-1]
    last.state, last.problem, sweep.trials = TrialState.BEGUN, None, trials
    (tmp_path / last.name).mkdir()
    metrics = {"val/ne/mean": {"value": None, "protocol": "p"}}
    replace_metrics(tmp_path / last.name, "val/", metrics)
    ended = subprocess.Popen(["true"])
    ended.wait()
    sweep._finish(RunningTrial(last, ended, time.perf_counter()))
    assert last.state is TrialState.FINISHED and not last.is_measured


def test_two_processes_do_not_run_one_sweep(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from recsys.runs.folder import held\n"
        "with held(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="Another process runs the sweep in"):
            run_sweep(read_sweep(write(tmp_path)), SweepConfig(str(tmp_path / "out")))
        other.kill()


def test_a_command_runs_until_it_and_what_it_started_have_ended(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    assert not process.is_running(log)
    started = process.start(("--version",), log, 1)
    assert process.is_running(log)
    assert started.wait(60) == 0
    assert not process.is_running(log)
    assert process.last_line(log).startswith("recsys ")


def test_the_table_has_the_best_first_and_failures_last(tmp_path: Path) -> None:
    file, trials = made_up(tmp_path)
    assert file.searched == ["optim.dense.learning_rate", "model.dimension"]
    rows, bad = table_rows(file, trials), ["trial_003", "trial_004"]
    assert [row[0] for row in rows[1:]] == ["trial_001", "trial_000", "trial_002", *bad]
    assert rows[1][1:4] == ["0.9200", "0.001", "16"]
    states = ["finished", "finished", "stopped early", "failed", "diverged"]
    assert [row[-1] for row in rows[1:]] == states
    command = (
        "recsys train experiment=demo optim.dense.learning_rate=0.001 model.dimension=16 seed=5"
    )
    assert best_command(file, trials) == command
    text = page(file, trials)
    assert command in text and "trial_003 failed: no memory left." in text
    assert "trial_004 diverged: The training diverged in step 3." in text
    assert "choose split" in text


def test_the_highest_is_best_where_the_metric_is_maximised(tmp_path: Path) -> None:
    _, trials = made_up(tmp_path)
    file = read_sweep(write(tmp_path, metric={"name": "val/auc/mean", "goal": "maximize"}))
    rows = table_rows(file, trials)
    assert [row[0] for row in rows[1:]] == [
        *("trial_002", "trial_001", "trial_000", "trial_003", "trial_004")
    ]


def test_places_on_the_axes() -> None:
    rates = Axis.of("rate", [1e-4, 1e-2, 1e-3])
    assert rates.is_logarithmic
    assert [rates.place(value) for value in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 0.5, 1])
    assert not Axis.of("share", [0.1, 0.5]).is_logarithmic
    assert Axis.of("share", [0.1, 0.5]).place(0.2) == pytest.approx(0.25)
    sizes = Axis.of("size", [64], choices=[64, 16, 32])
    assert sizes.ticks() == [
        (pytest.approx(1 / 6), "16"),
        (0.5, "32"),
        (pytest.approx(5 / 6), "64"),
    ]
    assert Axis.of("kind", ["b"], choices=["b", "a"]).place("b") == 0.25
    assert Axis.of("same", [0.3, 0.3]).place(0.3) == 0.5
    close = Axis.of("val/ne/mean", [0.99881, 0.99884])
    assert [label for _, label in close.ticks()][::4] == ["0.99881", "0.99884"]
    assert len({label for _, label in close.ticks()}) == 5


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    file, trials = made_up(tmp_path)
    save_figure(file, trials, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
