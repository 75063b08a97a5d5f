"""A training that ends when its validations get no better."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.runs.config import TrainerConfig
from tests.runs.small_training import Line, small_run, told_to_stop_in, weights


def settings(patience: int | None, every: int | None = None) -> TrainerConfig:
    """Nine epochs at most."""
    return TrainerConfig(
        max_epochs=9, patience=patience, validate_every_n_steps=every, progress_bar=False
    )


@pytest.mark.parametrize("every", [None, 3])
def test_it_ends_after_so_many_and_is_not_gone_on_with(tmp_path: Path, every: int | None) -> None:
    """From zero weights the mean square of the predictions soon only grows."""
    model = Line()
    best = small_run(tmp_path, settings(2, every), 4, model).best[0].step
    steps = 4 if every is None else every
    assert model.validated == list(range(steps, best + 2 * steps + 1, steps))
    assert model.validated[-1] < 36 and weights(tmp_path)["step"] == [model.validated[-1]]
    again = Line()
    small_run(tmp_path, settings(2, every), 4, again)
    assert again.steps == [] and again.validated == []


def test_without_it_the_training_goes_on(tmp_path: Path) -> None:
    model = Line()
    small_run(tmp_path, settings(None), 4, model)
    assert model.validated[-1] == 36


def test_a_resumed_run_counts_the_validations_before(tmp_path: Path) -> None:
    whole = Line()
    small_run(tmp_path / "whole", settings(2), 4, whole)
    with pytest.raises(BaseException, match="is saved"):
        small_run(tmp_path, settings(2), 4, Line(told_to_stop_in(whole.validated[-1] - 2)))
    model = Line()
    small_run(tmp_path, settings(2), 4, model)
    assert model.validated == whole.validated[-1:]
