"""What may be wrong with what a ranker is given: a sentence, or what is written down here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import lmdb
import numpy as np
import polars as pl
import pytest
import torch

from recsys.cli.main import invoke
from recsys.core.errors import ArtifactError
from recsys.data.batches.given_rows import GivenRows
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.embeddings.rows import quantize_rows
from recsys.embeddings.stores import open_store
from recsys.systems.choice import compose_run
from recsys.systems.ranker.system import RankerSystem
from recsys.systems.runs import load_run, train
from tests.embeddings.stores import redis_server
from tests.evaluation.baselines.planted import HOUR, START, impressions, own_log
from tests.systems.ranker.test_system import log, settings  # noqa: F401

FEW = "trainer.max_steps=3"
MOMENT = START + 4 * 24 * HOUR


def publish(location: str, ids: list[int], moment: int = MOMENT, vectors: int = 3) -> None:
    with open_store(location) as store:
        store.begin(moment, {})
        store.put_many(ids, quantize_rows(torch.randn(len(ids), vectors, 16)).numpy())
        store.commit()


def users(settings_of: list[str]) -> list[int]:
    dataset, _ = open_or_prepare(compose_run(settings_of).data)
    return dataset.vocabulary("user").table["raw"].to_list()


def pairs(days: float, items: int = 3) -> GivenRows:
    moment = np.full(items, START + round(days * 24 * HOUR))
    return GivenRows(np.full(items, 3), np.arange(items), moment)


@pytest.fixture
def stored(log: Path, tmp_path: Path) -> Iterator[tuple[list[str], Path]]:  # noqa: F811
    """Settings of a run that reads a store, and the store."""
    settings_of = settings(log, tmp_path / "run", FEW)
    publish(str(tmp_path / "store"), users(settings_of))
    yield (
        [*settings_of, f"loader.user_embeddings.stores=[{tmp_path / 'store'}]"],
        tmp_path / "store",
    )


def test_an_item_without_features_is_the_unknown_author_and_topic(tmp_path: Path) -> None:
    shown = impressions(0).with_columns(
        author_id=pl.when(pl.col("item_id") < 5).then(None).otherwise("author_id")
    )
    likes = np.random.default_rng(1).random(len(shown)) < 0.3
    own_log(likes, shown).write_parquet(tmp_path / "log.parquet")
    train(compose_run(settings(tmp_path / "log.parquet", tmp_path / "run", FEW)))
    run = load_run(tmp_path / "run")
    item = run.dataset.vocabulary("item").indices_of([2, 40])
    batch = (
        RankerSystem()
        .data(run.config, run.dataset)
        .reader.given(np.array([3]), np.array([MOMENT]), np.array([2]), item, None)
    )
    names = list(RankerSystem().data(run.config, run.dataset).reader.candidates.names)
    column = names.index("author: impressions, all")
    assert batch.counted[0, column] == 0 < batch.counted[1, column]
    scored = RankerSystem().score(run, GivenRows(np.array([3, 3]), item, np.full(2, MOMENT)))
    assert np.isfinite(scored["liked"]).all()


def test_a_task_without_positives_is_told_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = impressions(0)
    likes = np.random.default_rng(1).random(len(shown)) < 0.3
    whole = own_log(likes, shown)
    late = shown.tail(3).with_columns(pl.col("timestamp") + 1000, action_type=pl.lit("save"))
    pl.concat([whole, late]).write_parquet(tmp_path / "log.parquet")
    settings_of = settings(tmp_path / "log.parquet", tmp_path / "run", FEW)
    assert invoke(["train", *settings_of]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "nothing is learned of some tasks: save is 0 in all" in said
    assert "save is not calibrated, for" in said
    found = RankerSystem().score(load_run(tmp_path / "run"), pairs(20))
    assert np.isfinite(found["save"]).all() and (found["save"] < 0.01).all()


def test_a_corrupt_row_stops_a_training_with_a_sentence(stored: tuple[list[str], Path]) -> None:
    settings_of, folder = stored
    with lmdb.open(str(folder), max_dbs=4) as environment:
        records = environment.open_db(b"records")
        with environment.begin(write=True, db=records) as transaction:
            for key, content in list(transaction.cursor()):
                transaction.put(key, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="is damaged"):
        train(compose_run(settings_of))


def test_a_store_of_another_width_is_a_sentence(
    stored: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    settings_of, folder = stored
    run_dir = train(compose_run(settings_of))
    publish(str(folder), users(settings_of), MOMENT + 1, vectors=2)
    capsys.readouterr()
    assert invoke(["evaluate", f"run_dir={run_dir}"]) == 2
    said = " ".join("".join(capsys.readouterr()).split())
    assert "2 x 16" in said and "3 x 16" in said


def test_a_publication_of_later_is_not_seen(stored: tuple[list[str], Path]) -> None:
    settings_of, _ = stored
    run = load_run(train(compose_run(settings_of)))
    reader = RankerSystem().data(run.config, run.dataset).reader
    moment = np.array([MOMENT - 1, MOMENT])
    batch = reader.given(np.array([3, 3]), moment, np.array([1, 1]), np.array([5, 5]), None)
    assert batch.has_embedding.tolist() == [False, True]


def test_a_redis_that_was_gone_is_read_again(log: Path, tmp_path: Path) -> None:  # noqa: F811
    settings_of = settings(log, tmp_path / "run", FEW)
    kept = ("--appendonly", "yes")
    with redis_server(tmp_path, *kept) as url:
        publish(url, users(settings_of))
        train(compose_run([*settings_of, f"loader.user_embeddings.stores=[{url}]"]))
        run, system = load_run(tmp_path / "run"), RankerSystem()
        before = system.score(run, pairs(6))["liked"]
        reader = system.data(run.config, run.dataset).reader
    asked = np.array([3]), np.array([MOMENT]), np.array([1]), np.array([5]), None
    with pytest.raises(ArtifactError, match=r"No Redis server answers at 127\.0\.0\.1"):
        reader.given(*asked)
    with redis_server(tmp_path, *kept, port=urlsplit(url).port):
        assert reader.given(*asked).has_embedding.tolist() == [True]
        np.testing.assert_array_equal(system.score(run, pairs(6))["liked"], before)
