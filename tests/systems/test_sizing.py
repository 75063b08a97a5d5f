"""Settings by the size of the data: the rules, and who they give way to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.cli.main import invoke
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.systems.choice import compose_run
from recsys.systems.runs import load_config
from recsys.systems.sized_run import fitted_to_data
from recsys.systems.sizing import MOST_QUERIES, Extent, schedule

DAY = 86_400_000
START = 1_704_067_200_000


def _of(
    extent: Extent, examples: int, processes: int = 1, given: dict[str, int] | None = None
) -> dict[str, object]:
    sized = schedule(extent, examples, "users", "batch", 100, processes, (given or {}).get)
    return {one.key.rpartition(".")[2]: one.value for one in sized}


def test_a_small_log_has_small_batches_and_more_epochs() -> None:
    """943 / 64 is nearest to 16; 59 steps an epoch; 6,000 / 59 = 102 epochs, at most 60."""
    found = _of(Extent(16, 128, 64, 6_000, 60), 943)
    assert found == {"batch": 16, "max_epochs": 60, "warmup_steps": 100, "patience": 8}


def test_a_large_log_has_few_epochs_and_is_validated_within_them() -> None:
    """5 million / 128 = 39,063 steps: one epoch, a validation each 2,000; 19 of them."""
    found = _of(Extent(16, 128, 64, 6_000, 60), 5_000_000)
    assert found == {
        "batch": 128,
        "max_epochs": 1,
        "warmup_steps": 100,
        "validate_every_n_steps": 2_000,
        "patience": 8,
    }


def test_a_tiny_log_and_several_processes() -> None:
    """The warm-up is a tenth of the steps at most; processes share the examples."""
    assert _of(Extent(16, 128, 64, 60, 3), 20) == {"batch": 16, "max_epochs": 3, "warmup_steps": 1}
    assert _of(Extent(1, 128, 64, 6_000, 60), 6_400, processes=2)["batch"] == 64


def test_what_is_given_decides_about_the_others() -> None:
    """3,953 users in batches of 1,024 are 4 steps an epoch: two epochs are 8."""
    extent = Extent(16, 128, 64, 6_000, 60)
    found = _of(extent, 3_953, given={"batch": 1_024, "trainer.max_epochs": 2})
    assert found == {"batch": 1_024, "max_epochs": 2, "warmup_steps": 1}
    assert _of(extent, 3_953, given={"batch": 1_024})["warmup_steps"] == 24
    assert _of(extent, 943, given={"trainer.max_steps": 50})["warmup_steps"] == 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Clicks and impressions of 50 users over ten days."""
    folder = tmp_path_factory.mktemp("sized")
    draw = np.random.default_rng(0)
    shown = pl.DataFrame(
        {
            "user_id": draw.integers(0, 50, 3_000),
            "item_id": draw.integers(0, 40, 3_000),
            "timestamp": START + draw.integers(0, 10 * DAY, 3_000),
            "dwell_time": draw.exponential(9, 3_000),
        }
    ).with_columns(pl.lit("impression").alias("action_type"))
    clicks = shown[::3].with_columns(pl.lit("click").alias("action_type"))
    pl.concat([shown, clicks]).write_parquet(folder / "log.parquet")
    path, out = str(folder / "log.parquet"), str(folder / "prepared")
    prepare(PrepareConfig(path=path, out=out))
    return ["data=log", f"data.path={path}", f"data.out={out}"]


def _fitted(overrides: list[str]) -> dict[str, object]:
    config, sized = fitted_to_data(compose_run(overrides), overrides)
    for one in sized:
        value = config
        for name in one.key.split("."):
            value = getattr(value, name)
        assert value == one.value, "what is said is what is set"
    return {one.key: one.value for one in sized}


def test_what_is_given_stays(data: list[str]) -> None:
    found = _fitted(["system=sequence", *data])
    assert found["loader.batch_size"] == 16
    assert found["loader.max_length"] == 20  # a user has 3,000 / 3 / 50 x 0.7 = 14 clicks, or so
    assert "evaluation.max_queries" not in found
    given = _fitted(["system=sequence", *data, "loader.batch_size=128", "trainer.patience=3"])
    assert given.keys() == found.keys() - {"loader.batch_size", "trainer.patience"}


def test_a_chosen_file_stays_and_an_experiment_is_taken_as_it_is(data: list[str]) -> None:
    assert "trainer.max_epochs" in _fitted(["system=sequence", *data, "trainer=debug"])
    assert _fitted(["experiment=sasrec_ml1m", *data]) == {}
    assert _fitted(["system=sequence", *data, "settings_by_size=false"]) == {}
    assert "optim.dense.learning_rate" not in _fitted(["system=post_tower", *data, "optim=shampoo"])


@pytest.mark.parametrize("system", ["dv365", "post_tower", "two_tower", "wide_and_deep"])
def test_every_system_has_rules(data: list[str], system: str) -> None:
    found = _fitted([f"system={system}", *data])
    assert {"trainer.max_epochs", "optim.schedule.warmup_steps"} <= found.keys()


def test_a_large_log_is_measured_on_drawn_users(
    data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.systems.sizing.MOST_QUERIES", 50)
    assert MOST_QUERIES == 100_000
    assert _fitted(["system=sequence", *data])["evaluation.max_queries"] == 50


def test_the_command_says_what_it_chose(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    words = ["train", "system=sequence", *data, f"run_dir={run_dir}", "trainer.max_steps=2"]
    assert invoke(words) == 0
    said = capsys.readouterr().err
    assert "Settings by the size of the data" in said and "loader.batch_size=16" in said
    assert load_config(run_dir).trainer.patience == 8
