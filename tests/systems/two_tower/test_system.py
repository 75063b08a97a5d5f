"""The two-tower model from a log to metrics, scores, recommendations and an index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import recsys
from recsys.cli.main import invoke
from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.towers import CANDIDATES, ITEMS, TowerBatch
from recsys.data.contract.schema import Split
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.embeddings.rows import quantize_rows
from recsys.embeddings.stores import open_store
from recsys.evaluation.config import EvaluateConfig
from recsys.nn.sequence.base import user_of_step
from recsys.runs.metrics_log import read_metrics
from recsys.systems.choice import compose_run
from recsys.systems.evaluate import evaluate
from recsys.systems.runs import train
from recsys.systems.two_tower.module import TwoTower
from recsys.systems.two_tower.system import TwoTowerSystem

HOUR = 3_600_000
START = 1_600_000_000_000
USERS, OLD, NEW, GROUPS, DAYS = 60, 480, 120, 6, 10

SMALL = (
    "system=two_tower",
    "data=log",
    "loader.batch_size=20",
    "loader.labels=8",
    "loader.max_length=20",
    "model.items.width=16",
    "model.items.output_width=16",
    "model.users.width=16",
    "model.users.layers=1",
    "model.users.dropout=0",
    "model.items.dropout=0",
    "model.tasks=[{action: click}, {action: liked, weight: 2}]",
    "optim.dense.learning_rate=0.01",
    "trainer.progress_bar=false",
)


def shown_and_done() -> pl.DataFrame:
    """Users click on what the authors of their group make, and seldom on else; some likes.

    Items from ``OLD`` on are made on the last two days, by the same authors.
    """
    generator = np.random.default_rng(0)
    rows: list[tuple[str, str, str, int, str]] = []
    for day in range(DAYS):
        alive = OLD + NEW if day >= DAYS - 2 else OLD
        for user in range(USERS):
            for step in range(12):
                item = int(generator.integers(alive))
                if generator.random() < 0.4:  # of the user's group
                    item += (user - item) % GROUPS
                    item -= GROUPS if item >= alive else 0
                time = START + (day * 24 + step) * HOUR + user * 1000
                who = (f"u{user}", f"i{item}", f"a{item % (2 * GROUPS)}")
                rows.append((*who, time, "impression"))
                if generator.random() < (0.8 if item % GROUPS == user % GROUPS else 0.03):
                    rows.append((*who, time + 100, "click"))
                    if generator.random() < 0.4:
                        rows.append((*who, time + 200, "liked"))
    names = ["user_id", "item_id", "author_id", "timestamp", "action_type"]
    return pl.DataFrame(rows, schema=names, orient="row")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    shown_and_done().write_parquet(path)
    return path


def settings(log: Path, run: Path, *more: str) -> list[str]:
    data = (f"data.path={log}", f"data.out={log.parent / 'prepared'}", f"run_dir={run}")
    return [*SMALL, *data, *more]


def values(run_dir: Path, metric: str) -> list[float]:
    found = read_metrics(run_dir).filter(pl.col("metric") == metric)["value"].to_list()
    assert found
    return found


@pytest.fixture(scope="module")
def run_dir(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "dot"
    train(compose_run(settings(log, folder, "trainer.max_epochs=40")))
    return folder


def assembled(log: Path, *more: str) -> tuple[TwoTower, TowerBatch]:
    """An untrained model without dropout, and the first batch of an epoch."""
    config: Any = compose_run(settings(log, log.parent / "none", *more))
    dataset, _ = open_or_prepare(config.data)
    config = config.on(dataset.manifest)
    torch.manual_seed(0)
    assembly = TwoTowerSystem().assemble(config, dataset, dataset.manifest)
    model: Any = assembly.model
    data: Any = assembly.data
    return model, next(iter(data.loader(Split.FIT, shuffle=True)))


def test_it_beats_popularity_and_chance_also_on_new_items(run_dir: Path) -> None:
    found = evaluate(EvaluateConfig(run_dir=str(run_dir)))
    name = "hits@10/all"
    mine, popular, chance = (
        found[f"report/{part}{name}"]["value"] for part in ("", "popularity/", "chance/")
    )
    assert mine > 2 * max(popular, chance), (mine, popular, chance)
    # new items of an author are all alike: ten at a time
    unseen, expected = (
        found[f"report/{part}/hits@100/all"]["value"] for part in ("unseen_posts", "chance")
    )
    assert unseen > 2 * expected, (unseen, expected)
    items = found["report/pairs_scored"]["value"]
    assert OLD < items <= OLD + NEW + 1  # those in the log, and the row of no item
    products = 2 * 16 * items
    assert products < found["report/flops_per_query"]["value"] < products + 1e7
    tasks = [found[f"report/task_{task}/{name}"] for task in ("click", "liked")]
    queries = [one["queries"] for one in (found[f"report/{name}"], *tasks)]
    assert queries[0] == queries[1] > queries[2] > 0  # every engagement has a click


def test_items_born_after_training_have_embeddings(run_dir: Path) -> None:
    run = recsys.open_run(run_dir)
    scored = run.score("u1", ["i1", f"i{OLD}", f"i{OLD + 1}"], at=START + DAYS * 24 * HOUR)
    assert scored["score"].null_count() == 0
    # nothing but the author is known of them
    other = run.score("u1", [f"i{OLD + 2 * GROUPS}"], at=START + DAYS * 24 * HOUR)
    assert other["score"][0] == pytest.approx(scored["score"][1], abs=1e-6)


def test_from_an_export_and_an_index_to_the_runs_recommendations(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recsys.open_run(run_dir)
    assert invoke(["export", f"run_dir={run_dir}"]) == 0
    artifact, index = run_dir / "artifact", tmp_path / "index"
    prepared = run.config.data.out_folder
    build = [f"embeddings={artifact}", f"dataset={prepared}", f"out={index}"]
    assert invoke(["index", "build", *build]) == 0
    as_of = START + (DAYS - 1) * 24 * HOUR
    out = tmp_path / "items.parquet"
    given = [f"artifact={artifact}", f"index={index}", f"as_of={as_of}", "k=5", f"out={out}"]
    assert invoke(["recommend", *given, "user=[u1,u2,nobody]"]) == 0
    found = pl.read_parquet(out)
    expected = run.recommend(["u1", "u2", "nobody"], k=5, as_of=as_of)
    assert found.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-4, atol=1e-5)
    assert "export/val/float/hits@10/all" in run.metrics
    capsys.readouterr()


def test_every_weight_has_a_gradient(log: Path) -> None:
    # of one channel alone there is nothing to fuse
    channels = "model.users.channels=[{name: all}, {name: clicks, actions: [click]}]"
    for more in ((), ("model.similarity=mixture",)):
        model, batch = assembled(log, channels, *more)
        assert model.items.post_id is not None
        torch.nn.init.normal_(model.items.post_id.embedding.weight)
        model.losses(batch).backward()
        without = [
            name
            for name, weight in model.named_parameters()
            if weight.grad is None or not weight.grad.any()
        ]
        assert not without, without


def test_the_loss_is_the_weighted_sum_of_the_tasks_by_hand(log: Path) -> None:
    model, batch = assembled(log, "model.items.id_dropout=0")
    assert batch.negative_item is not None and len(batch.negative_item) == 40
    with torch.no_grad():
        found = model.losses(batch)
        items = model._items(batch)
        users = model(batch)
        expected = by_hand(model, batch, users, items)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_loss_of_a_mixture_is_the_same_of_its_logits(log: Path) -> None:
    model, batch = assembled(log, "model.items.id_dropout=0", "model.similarity=mixture")
    with torch.no_grad():
        found = model.losses(batch)
        expected = by_hand(model, batch, model(batch), model._items(batch))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def by_hand(model: TwoTower, batch: TowerBatch, users: Tensor, items: Tensor) -> Tensor:
    pool = batch.pools[CANDIDATES]
    of_pool = items[torch.searchsorted(batch.pools[ITEMS], pool)]
    logits = users @ of_pool.T * 20
    if model.mixture is not None:
        logits = model.mixture.of_all(users, of_pool)
    assert model.log_share is not None and batch.label_tasks is not None
    logits = logits - model.log_share[pool]
    owner = user_of_step(batch.lengths, len(batch.item))
    of_label = user_of_step(batch.label_lengths, len(batch.label_item))
    costs = []
    for label, user in zip(batch.label_item, of_label, strict=True):
        own = torch.cat([batch.item[owner == user], batch.label_item[of_label == user]])
        kept = ~torch.isin(pool, own) | (pool == label)
        costs.append(logits[user][kept].logsumexp(0) - logits[user][pool == label][0])
    tasks = batch.label_tasks
    per_task = (torch.stack(costs).unsqueeze(1) * tasks).sum(0) / tasks.sum(0)
    return per_task[0] + 2 * per_task[1]


def test_hard_negatives_were_shown_and_never_engaged_with(log: Path) -> None:
    model, batch = assembled(log)
    assert model.log_share is not None and batch.negative_item is not None
    events = pl.read_parquet(log)
    engaged = events.filter(pl.col("action_type") != "impression")
    prepared = recsys.open_dataset(log.parent / "prepared")
    raw = dict(prepared.vocabulary("item").table.select("index", "raw").iter_rows())
    names = dict(prepared.vocabulary("user").table.select("index", "raw").iter_rows())
    fit_end = prepared.manifest.split_bounds[Split.FIT][1]
    engaged = engaged.filter(pl.col("timestamp") < fit_end)
    drawn = batch.negative_item.reshape(len(batch.user), 2)
    for user, items in zip(batch.user.tolist(), drawn.tolist(), strict=True):
        mine = events.filter(user_id=names[user])
        for item in items:
            assert len(mine.filter(item_id=raw[item]))
            assert not len(engaged.filter(user_id=names[user], item_id=raw[item]))


def test_a_mixture_of_logits_learns_scores_and_recommends(log: Path, tmp_path: Path) -> None:
    mixture = ("model.similarity=mixture", "model.mixture.width=8", "trainer.max_epochs=20")
    run_dir = tmp_path / "run"
    train(compose_run(settings(log, run_dir, *mixture)))
    assert max(values(run_dir, "val/hits@10/all")) > 2 * 10 / (OLD + NEW)
    run = recsys.open_run(run_dir)
    as_of = START + (DAYS - 1) * 24 * HOUR
    found = run.recommend(["u1"], k=3, as_of=as_of)
    scores = run.score("u1", found["item_id"].to_list(), at=as_of)
    np.testing.assert_allclose(found["score"], scores["score"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["gated", "projected"])
def test_published_embeddings_are_read_as_they_were_served(
    log: Path, tmp_path: Path, kind: str
) -> None:
    dataset, _ = open_or_prepare(compose_run(settings(log, tmp_path / "none")).data)
    ids = dataset.vocabulary("user").table["raw"].to_list()
    published = START + 4 * 24 * HOUR
    with open_store(str(tmp_path / "store")) as store:
        store.begin(published, {})
        store.put_many(ids[:-5], quantize_rows(torch.randn(len(ids) - 5, 3, 16)).numpy())
        store.commit()
    read = f"loader.user_embeddings.stores=[{tmp_path / 'store'}]"
    model, batch = assembled(log, read, f"model.adoption.kind={kind}")
    assert batch.has_embedding is not None and batch.user_embedding is not None
    served = batch.request_time >= published
    assert not batch.has_embedding[~served].any() and batch.has_embedding[served].any()
    assert not batch.user_embedding[~batch.has_embedding].any()
    model.losses(batch).backward()
    adopted = dict(model.users.named_parameters())
    assert all(weight.grad is not None for weight in adopted.values())
    model.eval()
    changed = replace(batch, user_embedding=batch.user_embedding + 1)
    with torch.no_grad():
        moved = (model(changed) - model(batch)).abs().sum(dim=1) > 0
    assert torch.equal(moved, batch.has_embedding)
    with pytest.raises(ConfigError, match=r"adoption.kind=prepended is for rankers"):
        assembled(log, read, "model.adoption.kind=prepended")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "model.tasks=[{action: bought}]",
            "model.tasks has bought, which is no action",
        ),
        ("model.tasks=[{action: click}, {action: click}]", "names click more than once"),
        ("model.tasks=[{action: click, weight: 0}]", "weight"),
        ("model.similarity=cosine", "dot, mixture"),
        ("model.users.heads=3", "heads"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    log: Path, tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(compose_run(settings(log, tmp_path / "run", setting)))
