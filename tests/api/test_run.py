"""Scores, embeddings and recommendations of a run against what they are made of."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import recsys
from recsys.core.errors import ConfigError
from recsys.systems.choice import compose_run
from recsys.systems.runs import train

DAY = 86_400_000
START = 1_700_000_000_000
LATE = 26  # first seen after the fit period


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> recsys.Run:
    """SASRec, whose scores are products, on ids that are text of numbers."""
    folder = tmp_path_factory.mktemp("api")
    generator = np.random.default_rng(2)
    item = generator.integers(1, 25, 500)
    item[-20:] = LATE
    pl.DataFrame(
        {
            "user_id": generator.integers(1, 12, 500),
            "item_id": item,
            "timestamp": START + np.linspace(0, 20 * DAY, 500).astype(np.int64),
            "action_type": ["click"] * 500,
        }
    ).write_parquet(folder / "log.parquet")
    settings = (
        f"data.path={folder / 'log.parquet'}",
        f"data.out={folder / 'prepared'}",
        f"run_dir={folder / 'run'}",
    )
    sizes = ("loader.batch_size=4", "loader.gap_hours=30", "trainer.max_epochs=2", "model.width=8")
    quiet = ("trainer.progress_bar=false", "data=log", "system=sequence")
    train(compose_run([*quiet, *settings, *sizes]))
    return recsys.open_run(folder / "run")


def test_recommendations_are_the_best_scores_of_what_was_not_seen(run: recsys.Run) -> None:
    as_of = START + 12 * DAY
    log = pl.read_parquet(run.config.data.path).filter(pl.col("timestamp") < as_of)
    items = log["item_id"].unique().sort().to_list()
    for user in (1, 2, 3):
        scores = run.score(user, items, at=as_of)
        seen = log.filter(user_id=user)["item_id"].unique().implode()
        expected = scores.filter(~pl.col("item_id").is_in(seen)).sort("score", descending=True)
        found = run.recommend([user], k=5, as_of=as_of)
        assert found["item_id"].to_list() == expected["item_id"].head(5).to_list()
        np.testing.assert_allclose(found["score"], expected["score"].head(5), rtol=1e-4, atol=1e-6)
        assert found["user_id"].to_list() == [user] * len(found)


def test_items_that_were_not_learned_have_no_score(run: recsys.Run) -> None:
    at = START + 21 * DAY
    scores = run.score(1, [3, LATE, 99, "003", "3"], at=at)["score"].to_list()
    assert scores[0] == scores[4] is not None
    assert scores[1:4] == [None, None, None]
    assert LATE not in run.recommend([1, 2], k=30, as_of=at)["item_id"].to_list()
    assert run.score(1, [], at=at).is_empty()


def test_what_is_left_out_and_too_old_is_not_recommended(run: recsys.Run) -> None:
    at = START + 12 * DAY
    best = run.recommend([1], k=3, as_of=at)["item_id"].to_list()
    assert best[0] not in run.recommend([1], k=3, as_of=at, exclude=best[:1])["item_id"]
    assert len(run.recommend([1], k=30, as_of=at, max_age_hours=1)) < 5


def test_embeddings_are_of_the_history_before_the_moment(run: recsys.Run) -> None:
    before, later = (
        run.user_embeddings([1, 2, "nobody"], at) for at in ("2023-11-16", START + 15 * DAY)
    )
    assert before.shape == later.shape == (3, 8)
    assert (before[2] == later[2]).all() and (before[0] != later[0]).any()


def test_what_cannot_be_is_a_sentence(run: recsys.Run) -> None:
    for call, message in (
        (lambda: run.recommend([1], as_of="2020-01-01"), "had no item that the model knows"),
        (lambda: run.recommend([]), "users is empty"),
        (lambda: run.recommend("42"), "users is '42'; give a list of ids"),
        (lambda: run.recommend([1], max_age_hours=-1), "max_age_hours is -1"),
        (lambda: run.recommend([1], min_score=float("nan")), "min_score is nan"),
        (lambda: run.score(1, [2], at="soon"), "at=soon is no moment"),
        (lambda: run.score(1, [2], context={"surface": "feed"}), "take no context"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
