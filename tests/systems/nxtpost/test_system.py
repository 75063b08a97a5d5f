"""Post tower → NxtPost → evaluation, and the wide-and-deep baseline, on a small log."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from recsys.cli import index_build, publish, recommend, report
from recsys.cli.export import run as export
from recsys.core.errors import ConfigError, DataError
from recsys.data.batches.sequences.reader import SequenceReader
from recsys.data.content.item_embeddings import ITEM_EMBEDDINGS_FILE, read_embeddings
from recsys.data.contract.schema import Split
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.baselines.similarity import last_item_embeddings
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import read_metrics_file, replace_metrics
from recsys.evaluation.other_histories import MeasuredTower, cold_start_metrics
from recsys.evaluation.predictions import read_predictions
from recsys.evaluation.queries import EvaluationQueries
from recsys.evaluation.query_embedder import QueryEmbedder
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.retrieval import RetrievalProtocol
from recsys.runs.config import RunConfig
from recsys.runs.metrics_log import read_metrics
from recsys.systems.choice import compose_run
from recsys.systems.evaluate import evaluate
from recsys.systems.nxtpost.items import ItemsConfig, load_items
from recsys.systems.post_tower.module import ItemSimilarity
from recsys.systems.post_tower.system import PostTowerSystem, untrained
from recsys.systems.runs import load_config, load_run, train

USERS, ITEMS, EVENTS = 60, 44, 16
#: Items from this one on come when the fit period is over.
LATE = 40
HOUR = 3_600_000
START = 1_600_000_000_000

SHORT = (
    "trainer.progress_bar=false",
    "trainer.log_every_n_steps=1",
    "optim.dense.learning_rate=0.01",
    "loader.batch_size=16",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users engage with items of one of four topics, then with any, then with a new one of theirs.

    Item p has topic p mod 4.
    """
    path = tmp_path_factory.mktemp("nxtpost")
    generator = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        items = generator.permutation(LATE // 4) * 4 + user % 4
        other = generator.permutation(LATE)[: EVENTS - len(items) - 1]
        for step, item in enumerate([*items, *other, LATE + user % 4]):
            rows.append((user, int(item), START + (step * 5 + user % 5) * HOUR, int(item) % 4))
    names = ["user_id", "item_id", "timestamp", "topic_id"]
    log = pl.DataFrame(rows, schema=names, orient="row")
    log.with_columns(action_type=pl.lit("click")).write_parquet(path / "log.parquet")
    topics = np.eye(4, 8)[np.arange(ITEMS) % 4] + 0.3 * generator.normal(size=(ITEMS, 8))
    np.savez(path / "posts.npz", item_id=np.arange(ITEMS), embedding=topics)
    return path


def _data(folder: Path) -> tuple[str, ...]:
    return (
        "data=log",
        f"data.path={folder / 'log.parquet'}",
        f"data.out={folder / 'prepared'}",
        "data.options.choose_fraction=0.15",
        "data.options.report_fraction=0.2",
    )


def _run(folder: Path, run_dir: Path, system: str, *overrides: str) -> RunConfig:
    return compose_run(
        [f"system={system}", f"run_dir={run_dir}", *_data(folder), *SHORT, *overrides]
    )


NXTPOST = ("model.tower.width=16", "loader.labels=2", "trainer.max_epochs=12")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A run of NxtPost, evaluated."""
    items = f"posts.path={folder / 'posts.npz'}"
    others = ("evaluation.cold_start=true", "evaluation.stale_days=[0,1]")
    run_dir = train(_run(folder, folder / "run", "nxtpost", items, *NXTPOST, *others))
    evaluate(EvaluateConfig(run_dir=str(run_dir), split="choose"))
    evaluate(EvaluateConfig(run_dir=str(run_dir)))
    return run_dir


def _value(run_dir: Path, name: str) -> float:
    return float(json.loads((run_dir / "metrics.json").read_text())[name]["value"])


def test_it_learns_and_beats_what_knows_no_content(trained: Path) -> None:
    ours = _value(trained, "report/hits@10/all")
    assert ours > _value(trained, "report/fit_popularity/hits@10/all")
    difference = _value(trained, "report/fit_popularity/difference/hits@10/all")
    assert difference == pytest.approx(ours - _value(trained, "report/fit_popularity/hits@10/all"))


def test_evaluation_of_the_choose_split_gives_what_validation_gave(trained: Path) -> None:
    best = read_metrics(trained).filter(metric="val/hits@10/batch")["value"].max()
    assert _value(trained, "val/hits@10/batch") == pytest.approx(best)


def test_the_weight_of_popularity_comes_from_the_choose_split(trained: Path) -> None:
    metric = json.loads((trained / "metrics.json").read_text())[
        "report/with_recent_popularity/weight"
    ]
    assert "on the choose split" in metric["protocol"]
    if metric["value"] == 0:
        same = _value(trained, "report/with_recent_popularity/hits@10/all")
        assert same == _value(trained, "report/hits@10/all")


def test_what_the_model_adds_to_popularity_is_a_paired_difference(trained: Path) -> None:
    name = "report/with_recent_popularity/recent_popularity/difference/hits@10/all"
    gap = json.loads((trained / "metrics.json").read_text())[name]
    both = _value(trained, "report/with_recent_popularity/hits@10/all")
    alone = _value(trained, "report/recent_popularity/hits@10/all")
    assert gap["value"] == pytest.approx(both - alone)
    assert gap["protocol"].endswith("with_recent_popularity minus recent_popularity")


def test_retrieval_is_not_measured_against_another_run(trained: Path) -> None:
    with pytest.raises(ConfigError, match="compared by `recsys study`"):
        evaluate(EvaluateConfig(run_dir=str(trained), against=str(trained)))


def test_every_query_has_its_ranks(trained: Path) -> None:
    frame = read_predictions(trained, Split.REPORT)
    assert frame["query_id"].to_list() == list(range(len(frame)))
    hits = (frame["rank_all"] <= 10).mean()
    assert _value(trained, "report/hits@10/all") == pytest.approx(hits)


def test_items_that_came_after_the_fit_period_are_measured_apart(trained: Path) -> None:
    frame = read_predictions(trained, Split.REPORT)
    # every event of this log is an engagement: what was not engaged with has a later index
    known = load_run(trained).manifest.counts["fit_vocabulary_item"]
    seen = frame["item"] < known
    assert 0 < seen.sum() < len(frame)
    for name, part in {"seen_posts": seen, "unseen_posts": ~seen}.items():
        metrics = json.loads((trained / "metrics.json").read_text())
        found = metrics[f"report/{name}/hits@10/all"]
        hits = (frame.filter(part)["rank_all"] <= 10).mean()
        assert found["value"] == pytest.approx(hits)
        assert found["queries"] == part.sum()
        assert f"{part.sum()} rows" in found["protocol"]
        # so are the untrained scorers: no engagement of the fit period is one with a new item
        popular = metrics[f"report/fit_popularity/{name}/hits@10/all"]
        assert popular["queries"] == part.sum()
    assert _value(trained, "report/fit_popularity/unseen_posts/hits@10/all") == 0
    ranked = frame["rank_unseen_batch"].is_not_null()
    assert ranked.to_list() == (~seen).to_list()
    among = frame.filter(ranked)["rank_unseen_batch"].to_numpy()
    assert among.max() <= ITEMS - LATE
    assert _value(trained, "report/hits@1/unseen_batch") == pytest.approx((among == 1).mean())


def test_own_histories_of_cold_and_fresh_users_are_those_of_all_queries(trained: Path) -> None:
    frame = read_predictions(trained, Split.CHOOSE)
    hit = frame["rank_all"] <= 10
    known = hit.filter(frame["history_events"] > 0).mean()
    # one engagement every five hours: whoever has a history now had one a day ago
    assert _value(trained, "val/stale/0_days/hits@10/all") == pytest.approx(known)
    assert _value(trained, "val/stale/1_days/hits@10/all") != pytest.approx(known)


def test_users_with_few_events_are_measured_apart(folder: Path, trained: Path) -> None:
    run = load_run(trained)
    store = EngagementStore.open(run.dataset, run.config.sequences)
    reader = SequenceReader(run.dataset, store, run.config.loader.max_length)
    # in the first hours of the log everybody is cold, and nobody is there to stand in
    last = START + 21 * HOUR
    queries = EvaluationQueries.of_period(store, START, last)
    protocol = RetrievalProtocol(
        replace(run.config.evaluation, candidates=["all"]),
        run.dataset,
        store,
        np.arange(ITEMS + 1) > 0,
        Split.CHOOSE,
    )
    protocol.queries = queries
    embedder = QueryEmbedder(run.model, reader, run.config.loader.gap_hours)
    measured = MeasuredTower(run.identity, embedder, run.model.items, run.dataset)
    metrics = cold_start_metrics(measured, EvaluateConfig(str(trained)), protocol)
    ranks = protocol.rank(
        DotProductScorer(embedder.with_histories(queries), run.model.items), protocol.candidates()
    )
    by_hand = (ranks["all"].rank[queries.history_events == 0] <= 10).mean()
    own = metrics["report/cold/own_history/no_event/hits@10/all"]["value"]
    assert own == pytest.approx(by_hand)
    popular = metrics["report/cold/popular_posts/1_to_4_events/hits@10/all"]["value"]
    assert popular != metrics["report/cold/own_history/1_to_4_events/hits@10/all"]["value"]


def test_histories_of_an_evaluation_end_as_those_of_validation(trained: Path) -> None:
    run = load_run(trained)
    loader = replace(run.config.loader, gap_hours=12.0)
    store = EngagementStore.open(run.dataset, run.config.sequences)
    data = SequenceDataModule(loader, run.dataset, store)
    queries = EvaluationQueries.of_period(store, *run.manifest.split_bounds[Split.CHOOSE])
    embedder = QueryEmbedder(run.model, data.reader, loader.gap_hours)
    validated = {
        query: user
        for index, batch in enumerate(data.loader(Split.CHOOSE, shuffle=False))
        for query, user in zip(
            batch.query_id.tolist(),
            run.model.predict_step(batch, index)["user_embedding"],
            strict=True,
        )
    }
    users = embedder.embed(queries)
    expected = torch.stack([validated[query] for query in range(len(queries))])
    torch.testing.assert_close(users, expected)
    assert not torch.allclose(users, embedder.with_histories(queries))


def test_item_embeddings_are_read_again_when_they_change(folder: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset.open(folder / "prepared")
    file = tmp_path / "posts.npz"
    shutil.copy(folder / "posts.npz", file)
    config = ItemsConfig(path=str(file))
    first = load_items(config, dataset)
    assert load_items(config, dataset) is first
    np.savez(file, item_id=np.arange(ITEMS - 1), embedding=np.ones((ITEMS - 1, 8)))
    assert load_items(config, dataset).known.sum() == ITEMS - 1
    file.unlink()
    with pytest.raises(DataError, match="is missing"):
        load_items(config, dataset)


def test_a_killed_run_goes_on_exactly(folder: Path, tmp_path: Path) -> None:
    items = f"posts.path={folder / 'posts.npz'}"
    settings = ("nxtpost", items, *NXTPOST, "model.negatives=5")
    whole = train(_run(folder, tmp_path / "whole", *settings, "trainer.max_steps=9"))
    cut = train(_run(folder, tmp_path / "cut", *settings, "trainer.max_steps=6"))
    config = load_config(cut)
    train(replace(config, resume=True, trainer=replace(config.trainer, max_steps=9)))
    losses = [read_metrics(one).filter(metric="train/loss").sort("step") for one in (whole, cut)]
    assert_frame_equal(*losses)


def test_from_the_run_to_recommendations(trained: Path, folder: Path, tmp_path: Path) -> None:
    export([f"run_dir={trained}"])
    embeddings = folder / "posts.npz"
    prepared = folder / "prepared"
    index_build.run([f"embeddings={embeddings}", f"out={tmp_path / 'i'}", f"dataset={prepared}"])
    out = tmp_path / "posts.parquet"
    artifact = trained / "artifact"
    recommend.run(
        [f"artifact={artifact}", f"index={tmp_path / 'i'}", "user=7", f"out={out}", "k=5"]
    )
    rows = pl.read_parquet(out)
    seen = pl.read_parquet(folder / "log.parquet").filter(user_id=7)["item_id"]
    assert len(rows) == 5
    assert not set(rows["item_id"]) & set(seen)
    exported = _value(trained, "export/val/float/hits@10/batch")
    assert exported == pytest.approx(_value(trained, "val/hits@10/batch"))
    report.run([f"run_dir={trained}"])
    assert "<h2>Export</h2>" in (trained / "report.html").read_text()


def test_there_are_no_user_embeddings_to_publish(trained: Path) -> None:
    with pytest.raises(ConfigError, match="a run of nxtpost, which has no user embeddings to"):
        publish.run([f"run_dir={trained}"])


def test_the_report_stands_alone(trained: Path) -> None:
    report.run([f"run_dir={trained}"])
    page = (trained / "report.html").read_text()
    hits = _value(trained, "report/hits@10/batch")
    assert f'<div class="value">{hits:.4f}</div><div class="name">hits@10, batch (' in page
    for candidates in ("batch", "unseen_batch", "all", "alive"):
        assert f"Candidates {candidates}: split report" in page
    for wanted in (
        "NxtPost trained on",
        "Differences, candidates all",
        "model - last_post",
        "with_recent_popularity - recent_popularity",
        "<th>95 % over items</th>",
        "equally frequent items: on other days there are others",
        "Hits@K over K",
        "By length of the history",
        "User embeddings that are days old",
        "ties: a tie with another item counts against the model",
        "config.yaml",
    ):
        assert wanted in page
    queries = read_predictions(trained, Split.REPORT)
    assert f"all ({len(queries):,})" in page
    for outside in ("<script", "<link", "<img", "@import"):
        assert outside not in page


def test_a_run_that_was_not_evaluated_has_a_report(trained: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(trained, run_dir)
    shutil.rmtree(run_dir / "predictions")
    metrics = {
        name: metric
        for name, metric in read_metrics_file(run_dir).items()
        if name in ("val/hits@10/batch", "val/loss")
    }
    replace_metrics(run_dir, "", metrics)
    report.run([f"run_dir={run_dir}"])
    page = (run_dir / "report.html").read_text()
    assert "split choose (the report split was not evaluated)" in page
    assert "Hits@K over K" not in page
    with pytest.raises(ConfigError, match="compared by `recsys study`"):
        report.run([f"run_dir={run_dir}", f"against={trained}"])


def test_the_post_tower_leaves_embeddings_for_nxtpost(folder: Path, tmp_path: Path) -> None:
    tower = train(
        _run(
            folder,
            tmp_path / "tower",
            "post_tower",
            "model.tower.width=8",
            "model.tower.output_width=8",
            "model.log_q=1",
            "trainer.max_epochs=3",
        )
    )
    ids, embeddings = read_embeddings(tower / ITEM_EMBEDDINGS_FILE)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    same = np.arange(ITEMS)[:, None] % 4 == np.arange(ITEMS) % 4
    vectors = embeddings[np.argsort(ids.to_numpy())]
    cosine = vectors @ vectors.T
    assert cosine[same].mean() > cosine[~same].mean() + 0.1  # users stay with a topic
    # training is measured against the same similarity before it
    evaluate(EvaluateConfig(run_dir=str(tower)))
    run = load_run(tower)
    lightning.seed_everything(run.config.seed, verbose=False)
    begun = PostTowerSystem().assemble(run.config, run.dataset, run.manifest).model
    assert isinstance(begun, ItemSimilarity)
    torch.testing.assert_close(untrained(run).embed_all(), begun.eval().embed_all())
    protocol = PostTowerSystem().protocol(run.config, run.dataset, Split.REPORT)
    for place, model in {"report": run.model, "report/last_post": begun}.items():
        items = model.embed_all()
        users = last_item_embeddings(protocol.engagements, protocol.queries, items)
        ranks = protocol.rank(DotProductScorer(users, items), protocol.candidates(["all"]))
        mrr = protocol.values(ranks)["mrr/all"]
        assert _value(tower, f"{place}/mrr/all") == pytest.approx(mrr)
    assert _value(tower, "report/last_post/difference/mrr/all") != 0
    settings = (f"posts.path={tower}", *NXTPOST, "model.log_q=1", "trainer.max_steps=2")
    run_dir = train(_run(folder, tmp_path / "run", "nxtpost", *settings))
    assert load_run(run_dir).model.items.shape == (ITEMS + 1, 8)


def test_the_wide_and_deep_baseline_is_measured_on_the_same_queries(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    run_dir = train(
        _run(folder, tmp_path / "run", "wide_and_deep", "model.width=8", "trainer.max_epochs=12")
    )
    evaluate(EvaluateConfig(run_dir=str(run_dir)))
    columns = ["query_id", "user", "request_time", "item"]
    assert_frame_equal(
        read_predictions(run_dir, Split.REPORT).select(columns),
        read_predictions(trained, Split.REPORT).select(columns),
    )
    assert 0 < _value(run_dir, "report/hits@10/all") < 1
    report.run([f"run_dir={run_dir}"])
    assert "Wide-and-deep trained on" in (run_dir / "report.html").read_text()


def test_items_are_asked_for(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"posts\.path=… is needed"):
        train(_run(folder, tmp_path / "run", "nxtpost"))
    # the folder is not taken by a run that never began
    missing = f"posts.path={tmp_path / 'none.npz'}"
    with pytest.raises(DataError, match=r"none\.npz"):
        train(_run(folder, tmp_path / "run", "nxtpost", missing))


def test_an_unknown_system_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="system=nxtpots is not known; the systems are dv365"):
        compose_run(["system=nxtpots"])
