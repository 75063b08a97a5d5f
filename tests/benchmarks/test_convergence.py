"""The study of convergence: where a curve reaches a value, and tiny runs of each task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.cli import bench
from recsys.cli.simulate import configure
from recsys.core.composition import load
from recsys.core.errors import ConfigError
from recsys.core.paths import conf_dir
from recsys.data.simulator.simulate import simulate
from recsys.optim.shampoo.run_config import ShampooConfig

convergence = bench._load("convergence")
from benchmarks import _convergence_runs as runs  # noqa: E402  (bench makes it importable)
from benchmarks._convergence_digits import Digits, DigitsData  # noqa: E402

TRIAL = runs.Trial(3e-3, 0.999)
#: [P, 4] step, CPU seconds, wall seconds, value
FALLING = np.array([[10, 1.0, 2.0, 0.9], [20, 2.0, 5.0, 0.5], [30, 3.0, 8.0, 0.7]])


def frozen() -> object:
    return load(conf_dir() / "benchmark" / "convergence.yaml", convergence.Study)


def test_a_value_is_reached_on_the_line_between_two_points() -> None:
    where = convergence.reached(FALLING, 0.6, highest=False)
    assert (where.step, where.cpu_seconds, where.wall_seconds) == pytest.approx((17.5, 1.75, 4.25))


def test_a_value_of_the_first_point_is_reached_there() -> None:
    assert convergence.reached(FALLING, 0.95, highest=False).step == 10


def test_a_value_beyond_the_curve_is_not_reached() -> None:
    assert convergence.reached(FALLING, 0.4, highest=False) is None
    assert convergence.reached(FALLING, 0.95, highest=True) is None


def test_the_highest_value_is_best_where_the_task_says_so() -> None:
    rising = FALLING * [1, 1, 1, -1]
    assert convergence.reached(rising, -0.6, highest=True).step == pytest.approx(17.5)
    assert convergence._rank(0.2, highest=True) > convergence._rank(0.1, highest=True)
    assert convergence._rank(0.1, highest=False) > convergence._rank(0.2, highest=False)
    assert convergence._rank(float("nan"), highest=False) < convergence._rank(9.0, highest=False)


def test_a_row_is_of_the_mean_over_seeds() -> None:
    """Two straight curves, to 0 and to 0.4, by hand: their mean is 0.6 at step 15."""
    curves = [
        [runs.Point(10, 1.0, 1.0, start), runs.Point(20, 3.0, 2.0, end)]
        for start, end in ((1.0, 0.0), (1.0, 0.4))
    ]
    row = convergence._row(TRIAL, curves, 0.6, False)
    assert row["reached"] == pytest.approx({"step": 15, "cpu_seconds": 2, "wall_seconds": 1.5})
    assert row["value"] == pytest.approx(0.2)
    assert row["deviation"] == pytest.approx(0.4 / 2**0.5)
    assert row["cpu_ms_per_step"] == pytest.approx(150)
    assert convergence._row(TRIAL, curves, 0.3, False)["seeds_reached"] == 1


def test_a_curve_that_would_not_end_with_the_training_is_refused() -> None:
    with pytest.raises(ConfigError, match="must divide the 10 steps"):
        runs.Task("val/loss", False, 10, 4, [1e-3], [0.999], [1])


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose one of digits, dv365, nxtpost"):
        convergence.run(convergence.Config("cifar"))


def test_both_optimisers_begin_with_the_same_weights_and_images() -> None:
    """Before its start Shampoo grafted to Adam is AdamW: the curves agree."""
    task = replace(frozen().tasks["digits"], steps=4, validate_every_n_steps=2)
    adamw = runs.train(task, TRIAL, None, 0, [])
    shampoo = runs.train(task, TRIAL, ShampooConfig(precondition_frequency=10), 0, [])
    assert [p.step for p in adamw] == [2, 4]
    assert [p.value for p in adamw] == pytest.approx([p.value for p in shampoo], rel=1e-4)
    assert 0 < adamw[0].cpu_seconds < adamw[1].cpu_seconds


def test_the_choose_images_are_the_same_for_every_seed_and_in_no_fit_batch() -> None:
    first, second = DigitsData(0), DigitsData(1)
    [(choose, _)], [(same, _)] = first.val_dataloader(), second.val_dataloader()
    torch.testing.assert_close(choose, same, rtol=0, atol=0)
    assert (len(first.fit), len(choose)) == (1347, 450)
    orders = [next(iter(data.train_dataloader()))[0] for data in (first, second)]
    assert not torch.equal(*orders)


def test_the_resnet_is_as_large_as_it_says() -> None:
    model = Digits(runs.DenseOptimConfig())
    assert sum(one.numel() for one in model.parameters()) == 39_354


def test_a_study_of_digits_from_trials_to_the_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = replace(
        frozen().tasks["digits"],
        steps=4,
        validate_every_n_steps=2,
        learning_rates=[1e-3, 1e-2],
        second_betas=[0.9],
        seeds=[1, 2],
    )
    study = convergence.Study(2, 0, {"digits": task})
    result = convergence.measure(study, convergence.Config("digits", out=str(tmp_path)))
    for optimizer in convergence.OPTIMIZERS:
        trials = result["trials"][optimizer]
        best = min(trials, key=lambda one: one["value"])
        row = result["rows"][optimizer]
        assert row["learning_rate"] == best["learning_rate"]
        assert [len(trials), len(result["curves"][optimizer])] == [2, 2]
    assert result["rows"]["AdamW"]["value"] == pytest.approx(result["target"])
    assert result["rows"]["AdamW"]["reached"] is not None
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")
    assert "to the val/loss of" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["dv365", "nxtpost"])
def test_an_experiment_is_configured_as_recsys_train_would(name: str) -> None:
    task = frozen().tasks[name]
    tuned = runs.DenseOptimizerConfig(0.02, betas=(0.9, 0.99), shampoo=ShampooConfig())
    config = runs._configured(task, tuned, 7, ["loader.batch_size=3"] if name == "nxtpost" else [])
    plain = runs._configured(task, replace(tuned, shampoo=None), 7, [])
    assert (config.system, config.seed) == (name, 7)
    assert config.trainer.max_steps == task.steps
    assert config.optim.dense.learning_rate == 0.02
    assert config.optim.dense.shampoo is not None
    assert plain.optim.dense.shampoo is None
    assert config.optim.schedule == plain.optim.schedule


def test_an_experiment_is_trained_to_a_curve(tmp_path: Path) -> None:
    """Validated twice, the second time after the last step, by both optimisers."""
    settings = ["simulator=demo", "simulator.users=30", "simulator.catalogue.items=2000"]
    log = configure([*settings, "simulator.catalogue.authors=100", f"out={tmp_path / 'log'}"])
    simulate(log.simulator, Path(log.out))
    task = replace(frozen().tasks["dv365"], steps=4, validate_every_n_steps=2)
    here = [f"data.path={tmp_path / 'log'}", f"data.out={tmp_path / 'prepared'}"]
    here += ["model.dimension=8", "loader.batch_requests=8", "optim.schedule.warmup_steps=1"]
    adamw = runs.train(task, TRIAL, None, 0, here)
    shampoo = runs.train(task, TRIAL, ShampooConfig(precondition_frequency=1), 0, here)
    assert [point.step for point in adamw] == [point.step for point in shampoo] == [2, 4]
    values = [point.value for point in (*adamw, *shampoo)]
    assert np.isfinite(values).all()
    assert len(set(values)) == 4
