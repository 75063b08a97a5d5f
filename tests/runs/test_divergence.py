"""A training whose numbers go wrong ends with a sentence; what was good before is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.cli.main import USER_ERROR, invoke
from recsys.core.errors import TrainingError
from recsys.data.batches.requests import RequestBatch
from recsys.runs import divergence
from recsys.runs.checkpoints import BEST, CHECKPOINTS, LAST
from recsys.runs.config import TrainerConfig
from recsys.runs.files import DIVERGED_FILE
from recsys.runs.metrics_log import read_metrics
from recsys.systems.dv365.module import DV365
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.runs import load_config, train
from tests.small_runs import TINY_RUN

from .small_training import Before, Line, small_run, weights

#: Six steps, validated and saved after every second.
SETTINGS = TrainerConfig(
    max_epochs=2,
    max_steps=6,
    validate_every_n_steps=2,
    checkpoint_every_n_steps=2,
    progress_bar=False,
)


def spoiled_in(step: int, spoil: Callable[[Line], Any]) -> Before:
    """Have something done to a model before a step, counted from 1."""

    def before(model: Line, _: int) -> None:
        if model.trainer.global_step + 1 == step:
            spoil(model)

    return before


def weight_is(value: float) -> Callable[[Line], Any]:
    return lambda model: model.layer.weight.data.fill_(value)


@given(
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.integers(1, 6),
    st.integers(1, 2),
    st.sampled_from([1, 9]),
)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_it_ends_in_its_step_and_goes_on_from_the_last_good_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, value: float, step: int, accumulated: int, keep: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    config = replace(SETTINGS, accumulate_batches=accumulated, keep_best=keep)
    whole = Line()
    small_run(folder / "whole", config, 7, whole)
    spoiled = Line(spoiled_in(step, weight_is(value)))
    sentence = (
        rf"diverged in step {step}: train/loss is (nan|inf), and layer\.weight is not finite\."
    )
    with pytest.raises(TrainingError, match=sentence):
        small_run(folder / "run", config, 7, spoiled)
    good = (step - 1) // 2 * 2
    assert spoiled.validated == list(range(2, good + 1, 2))
    if good:
        assert weights(folder / "run")["step"] == [good]
        assert all(math.isfinite(one) for one in weights(folder / "run", BEST)["layer.weight"])
    small_run(folder / "run", config, 7, Line())
    for name in (BEST, LAST):
        assert weights(folder / "run", name) == weights(folder / "whole", name)


def test_a_loss_of_finite_weights_is_said_to_be_that(tmp_path: Path) -> None:
    model = Line()
    forward = model.forward
    model.forward = lambda batch: forward(batch) * math.inf  # type: ignore[method-assign]
    sentence = "step 1: train/loss is nan, and all weights are finite.*no checkpoint before it"
    with pytest.raises(TrainingError, match=sentence):
        small_run(tmp_path, SETTINGS, 7, model)


def _spoil_the_state(model: Line) -> None:
    for state in model.optimizers().state.values():  # type: ignore[union-attr]
        state["exp_avg_sq"].fill_(math.inf)


def test_a_state_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    """The losses stay finite: infinite squares make steps of zero."""
    with pytest.raises(TrainingError, match="step 4: the dense optimiser's state is not finite"):
        small_run(tmp_path, SETTINGS, 7, Line(spoiled_in(4, _spoil_the_state)))
    assert weights(tmp_path)["step"] == weights(tmp_path, BEST)["step"] == [2]


@pytest.mark.parametrize("every", [6, 3])
def test_weights_that_go_wrong_in_the_last_step_are_neither_measured_nor_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    model = Line()

    def on_train_batch_end(*_: Any) -> None:
        if model.trainer.global_step == 6:
            model.layer.bias.data.fill_(math.nan)

    monkeypatch.setattr(model, "on_train_batch_end", on_train_batch_end)
    config = replace(SETTINGS, checkpoint_every_n_steps=every, validate_every_n_steps=4)
    with pytest.raises(TrainingError, match=r"diverged in step 6: layer\.bias is not finite"):
        small_run(tmp_path, config, 7, model)
    assert model.validated == [4]
    assert weights(tmp_path)["step"] == weights(tmp_path, BEST)["step"] == [4]


def test_predictions_of_the_choose_split_that_are_not_finite_are_never_best(tmp_path: Path) -> None:
    model = Line()
    forward = model.forward

    def overflow(batch: torch.Tensor) -> torch.Tensor:
        validated = model.trainer.validating and model.trainer.global_step == 4
        return forward(batch) * (math.inf if validated else 1)

    model.forward = overflow  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="diverged in step 4: val/loss is"):
        small_run(tmp_path, SETTINGS, 7, model)
    assert weights(tmp_path)["step"] == weights(tmp_path, BEST)["step"] == [2]


def test_a_checkpoint_that_is_not_finite_is_not_gone_on_with(tmp_path: Path) -> None:
    small_run(tmp_path, replace(SETTINGS, max_steps=4), 7, Line())
    path = tmp_path / CHECKPOINTS / LAST
    content = torch.load(path, weights_only=True)
    content["state_dict"]["layer.bias"][0] = math.nan
    torch.save(content, path.resolve())
    before = sorted(one.name for one in path.parent.iterdir())
    with pytest.raises(TrainingError, match=r"begin at step 4 .*layer\.bias is not finite"):
        small_run(tmp_path, SETTINGS, 7, Line())
    assert sorted(one.name for one in path.parent.iterdir()) == before


class _OnItsWay:
    """Stands for the event of a GPU's stream."""

    def synchronize(self) -> None:
        """It has come."""


@pytest.mark.parametrize(
    ("step", "trained", "good"), [(3, 3, 2), (4, 4, 2), (6, 6, 4)], ids=["next", "save", "last"]
)
def test_losses_that_come_to_the_host_later_are_looked_at_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, trained: int, good: int
) -> None:
    """One batch later, and before anything is measured or saved."""
    of = divergence._Seen.of
    monkeypatch.setattr(
        divergence._Seen, "of", lambda *given: replace(of(*given), copied=_OnItsWay())
    )
    model = Line(spoiled_in(step, weight_is(math.nan)))
    with pytest.raises(TrainingError, match=f"diverged in step {step}: train/loss is nan"):
        small_run(tmp_path, SETTINGS, 7, model)
    assert weights(tmp_path)["step"] == [good]
    assert max(number for number, _ in model.steps) == trained + (step == 3)


@pytest.mark.parametrize("strategy", ["single", "torchrec"])
def test_a_row_of_a_table_that_nobody_looks_up_is_found(
    run_config: DV365RunConfig, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """Of the weights or of the fused optimiser's state, sharded or not."""
    step = DV365.training_step

    def spoil(model: DV365, batch: RequestBatch, index: int) -> torch.Tensor:
        if model.trainer.global_step + 1 == 6:
            [state] = [
                one
                for name, one in divergence._state(model.trainer)
                if "state of backbone.item_features" in name and "item" in name.rpartition(".")[0]
            ][:1]
            part = state.shards[0][1] if hasattr(state, "shards") else state
            part.detach()[-1] = math.inf
        return step(model, batch, index)

    monkeypatch.setattr(DV365, "training_step", spoil)
    config = replace(run_config, strategy=replace(run_config.strategy, name=strategy))
    with pytest.raises(
        TrainingError, match=r"step 6: the optimiser's state of backbone\.item_feat"
    ):
        train(config)
    folder = Path(str(run_config.run_dir))
    assert (folder / DIVERGED_FILE).read_text().startswith("The training diverged in step 6")
    assert read_metrics(folder).filter(metric="val/ne/mean")["step"].to_list() == [4]
    assert (folder / CHECKPOINTS / LAST).resolve().name == "step-00000004.ckpt"

    monkeypatch.undo()
    train(replace(load_config(folder), resume=True))
    assert not (folder / DIVERGED_FILE).exists()
    assert (folder / CHECKPOINTS / LAST).resolve().name == "step-00000012.ckpt"


def test_the_command_ends_with_the_sentence_and_code_2(
    data_overrides: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = "optim.dense.learning_rate=1e18"
    folder = tmp_path / "run"
    assert invoke(["train", *TINY_RUN, *data_overrides, f"run_dir={folder}", rate]) == USER_ERROR
    error = capsys.readouterr().err
    assert "recsys: The training diverged in step " in error and "Lower the learning rates" in error
    assert not (folder / "metrics.json").exists()


@pytest.mark.slow
def test_all_ranks_end(data_overrides: tuple[str, ...], tmp_path: Path) -> None:
    from recsys.systems.choice import compose_run

    folder = tmp_path / "run"
    ranks = ("strategy=torchrec", "trainer.devices=2", "optim.dense.learning_rate=1e18")
    config = compose_run([*TINY_RUN, *data_overrides, *ranks, f"run_dir={folder}"])
    with pytest.raises(TrainingError, match="The training diverged in step "):
        train(config)
    assert (folder / DIVERGED_FILE).is_file()
