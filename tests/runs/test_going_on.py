"""A run that was cut off anywhere, or told to go on when it had ended, ends as one that was not."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ConfigError, PreemptedError
from recsys.runs.config import TrainerConfig

from .small_training import Line, killed_in, small_run, told_to_stop_in, weights

Cut = tuple[str, int]


def trainer_config(**given: int | None) -> TrainerConfig:
    """Settings of a run on the CPU that logs every step."""
    quiet = TrainerConfig(log_every_n_steps=1, progress_bar=False)
    return replace(quiet, **given)  # type: ignore[arg-type]


@st.composite
def runs(draw: st.DrawFn) -> tuple[int, TrainerConfig, list[Cut], TrainerConfig]:
    """Batches of an epoch, the run's settings, where it is cut, and those of a shorter run."""
    batches, epochs, accumulated = (draw(st.integers(1, most)) for most in (7, 3, 3))
    total = -(-batches // accumulated) * epochs
    config = trainer_config(
        max_epochs=epochs,
        max_steps=draw(st.just(-1) | st.integers(1, total + 1)),
        accumulate_batches=accumulated,
        validate_every_n_steps=draw(st.none() | st.integers(1, 5)),
        checkpoint_every_n_steps=draw(st.integers(1, 4)),
    )
    cuts = draw(st.lists(st.tuples(st.sampled_from(["kill", "signal"]), st.integers(1, total))))
    shorter = replace(config, max_epochs=draw(st.integers(1, epochs)))
    if config.max_steps != -1 or draw(st.booleans()):
        most = total if config.max_steps == -1 else config.max_steps
        shorter = replace(shorter, max_steps=draw(st.integers(1, most)))
    return batches, config, sorted(cuts, key=lambda cut: cut[1])[:3], shorter


def check(
    folder: Path, batches: int, config: TrainerConfig, cuts: list[Cut], shorter: TrainerConfig
) -> None:
    whole, cut, longer = (folder / name for name in ("whole", "cut", "longer"))
    model = Line()
    small_run(whole, config, batches, model)
    expected = weights(whole)

    validated: list[int] = []
    for kind, step in cuts:
        stopped = Line(killed_in(step) if kind == "kill" else told_to_stop_in(step))
        with suppress(PreemptedError, RuntimeError):
            small_run(cut, config, batches, stopped)
        validated += stopped.validated
    last = Line()
    small_run(cut, config, batches, last)
    assert weights(cut) == expected
    assert sorted({*validated, *last.validated}) == model.validated
    if config.validate_every_n_steps is not None:
        regular = [one % config.validate_every_n_steps == 0 for one in model.validated[:-1]]
        assert all(regular)

    for folder_again in (whole, cut):
        again = Line()
        small_run(folder_again, config, batches, again)
        assert not again.steps and weights(folder_again) == expected

    small_run(longer, shorter, batches, Line())
    small_run(longer, config, batches, Line())
    assert weights(longer) == expected


@pytest.mark.parametrize(
    ("batches", "config", "cuts"),
    [
        (7, {"validate_every_n_steps": 3}, []),
        (7, {"max_epochs": 2, "validate_every_n_steps": 3}, [("signal", 7), ("kill", 12)]),
        (1, {"max_epochs": 3, "accumulate_batches": 3}, [("signal", 1), ("signal", 2)]),
        # the last step of an epoch has fewer batches
        (5, {"max_epochs": 2, "accumulate_batches": 2, "validate_every_n_steps": 2}, [("kill", 5)]),
        (2, {"max_epochs": 2, "max_steps": 4, "validate_every_n_steps": 3}, [("signal", 4)]),
    ],
)
def test_a_run_ends_at_the_step_and_with_the_weights_of_one_that_was_not_cut_off(
    tmp_path: Path, batches: int, config: dict[str, int], cuts: list[Cut]
) -> None:
    settings_ = trainer_config(**config, checkpoint_every_n_steps=2)
    check(tmp_path, batches, settings_, cuts, replace(settings_, max_steps=2))


def test_a_run_is_not_gone_on_with_to_fewer_epochs_than_it_has_done(tmp_path: Path) -> None:
    config = trainer_config(max_epochs=3, validate_every_n_steps=3)
    small_run(tmp_path, config, 2, Line())
    with pytest.raises(ConfigError, match=r"done 2 epochs, and trainer\.max_epochs is 1; give 2"):
        small_run(tmp_path, replace(config, max_epochs=1), 2, Line())
    assert weights(tmp_path)["step"] == [6]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(runs())
def test_any_run_does(run: tuple[int, TrainerConfig, list[Cut], TrainerConfig]) -> None:
    with TemporaryDirectory() as folder:
        check(Path(folder), *run)
