"""HSNN from a log to metrics, scores and items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import recsys
from recsys.cli.main import invoke
from recsys.core.errors import ConfigError
from recsys.data.loaders.unlabelled import UnlabelledDataModule
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.evaluation import retrieval
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import read_metrics_file, replace_metrics
from recsys.index.hierarchy.descent import Allowed, descend
from recsys.index.hierarchy.scoring import ItemTree
from recsys.nn.hierarchy.nodes import METHODS, RANDOM
from recsys.runs.metrics_log import read_metrics
from recsys.systems.base import ExportConfig
from recsys.systems.choice import compose_run
from recsys.systems.evaluate import evaluate
from recsys.systems.hsnn.cost import cost_of
from recsys.systems.hsnn.net import HsnnNet, Outputs
from recsys.systems.hsnn.nodes_file import read_occupancy
from recsys.systems.hsnn.report import descent_rows
from recsys.systems.hsnn.system import HsnnSystem
from recsys.systems.runs import load_config, load_run, train
from tests.evaluation.baselines.planted import AUTHORS, HOUR, ITEMS, START, impressions, own_log

SMALL = (
    "system=hsnn",
    "data=log",
    "model.net.dimension=16",
    "model.net.levels=[{codes:6,size:S},{codes:4,size:S}]",
    "loader.max_events=12",
    "loader.features.windows_hours=[24]",
    "trainer.progress_bar=false",
    "evaluation.max_queries=60",
    "descent.beams=[1,3,8,24]",
    "descent.recall_at=[5]",
)
NOW = START + 29 * 24 * HOUR


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every user likes the items of two authors, everybody those of three, and few others."""
    shown = impressions(0)
    draw, author = np.random.default_rng(1), shown["author_id"].to_numpy()
    favourite = author % (AUTHORS // 2) == shown["user_id"].to_numpy() % 6
    likes = draw.random(len(shown)) < np.where(favourite, 0.7, 0.05) + 0.25 * (author < 3)
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    own_log(likes, shown).write_parquet(path)
    return path


def settings(log: Path, run: Path, *more: str) -> list[str]:
    data = (f"data.path={log}", f"data.out={log.parent / 'prepared'}", f"run_dir={run}")
    return [*SMALL, *data, *more]


@pytest.fixture(scope="module")
def run_dir(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "hsnn"
    train(compose_run(settings(log, folder, "trainer.max_steps=120")))
    return folder


def test_a_wider_beam_finds_more_of_what_scoring_every_item_finds(run_dir: Path) -> None:
    found = evaluate(EvaluateConfig(run_dir=str(run_dir), baselines=["fit_mean", "user_mean"]))
    assert found["report/ne/liked"]["value"] < 0.85 < found["report/user_mean/ne/liked"]["value"]
    recall = [found[f"report/beam_{beam}/recall@5"]["value"] for beam in (1, 3, 24)]
    scored = [found[f"report/beam_{beam}/share_scored"]["value"] for beam in (1, 3, 24)]
    assert max(recall[:2]) < recall[2] == 1
    assert scored[0] < scored[1] < scored[2] == found["report/exact/share_scored"]["value"]
    assert scored[2] > 1  # nodes and items over items
    recommended = "hits@10/all", "recall@5", "pairs_scored", "flops_per_query"
    for name in recommended:  # descent.beam=8
        by_beam = [found[f"report/{place}{name}"] for place in ("", "beam_8/")]
        assert by_beam[0]["value"] == by_beam[1]["value"]
    headings, *rows = descent_rows(found, "report")
    assert headings[-2:] == ["ndcg@10", "mrr"] and len(rows) == 1 + 4 + 2  # beams, popularity
    of_all, of_widest = (found[f"report/{one}/hits@10/all"] for one in ("exact", "beam_24"))
    assert of_all["value"] == of_widest["value"] > found["report/popularity/hits@10/all"]["value"]
    pairs = [found[f"report/beam_{beam}/pairs_scored"]["value"] for beam in (1, 3, 24)]
    assert pairs == pytest.approx([share * ITEMS for share in scored])
    cost = [found[f"report/beam_{beam}/flops_per_query"]["value"] for beam in (1, 3, 24)]
    assert cost[0] < cost[1] < cost[2] == found["report/exact/flops_per_query"]["value"]
    assert 0 < found["report/level_1/used"]["value"] <= 6
    assert found["report/level_2/used"]["value"] <= found["report/level_2/possible"]["value"] == 24


def test_recall_is_told_of_new_items_apart(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def recall(known: int) -> tuple[float, float | None]:
        in_fit = np.arange(ITEMS + 1) < known
        monkeypatch.setattr(retrieval, "items_before", lambda *_: in_fit)
        found = evaluate(EvaluateConfig(run_dir=str(run_dir), baselines=[]))
        assert "report/exact/recall_new@5" not in found
        new = found.get("report/beam_3/recall_new@5", {"value": None})
        return found["report/beam_3/recall@5"]["value"], new["value"]

    of_all, of_new = recall(known=0)
    assert of_all == of_new
    assert recall(known=ITEMS + 1) == (of_all, None)
    same, of_some = recall(known=ITEMS // 2)
    assert same == of_all and of_some is not None and 0 <= of_some <= 1 and of_some != of_all


def test_a_descent_gives_the_bits_of_scores(run_dir: Path) -> None:
    run = recsys.open_run(run_dir)
    ids = list(range(ITEMS))
    for beam in (1, 2, 24):
        found = run.recommend([3, 4], k=ITEMS, as_of=NOW, keep_seen=True, beam=beam)
        assert len(found) == 2 * ITEMS  # k items whatever the beam
        for user in (3, 4):
            scores = run.score(user, ids, at=NOW)
            by_item = dict(zip(scores["item_id"], scores["liked"], strict=True))
            mine = found.filter(user_id=user)
            wanted = np.array([by_item[item] for item in mine["item_id"]], np.float32)
            np.testing.assert_array_equal(mine["score"].to_numpy(), wanted)
    narrow, wide = (
        run.recommend([3], k=3, as_of=NOW, keep_seen=True, beam=beam) for beam in (1, 24)
    )
    assert narrow["score"][0] <= wide["score"][0]


def test_what_is_measured_of_a_beam_is_what_a_descent_does(run_dir: Path) -> None:
    system, run = HsnnSystem(), load_run(run_dir)
    scoring = system.scoring(run)
    items = ItemTree(scoring, np.arange(1, ITEMS + 1))
    users = scoring.users(np.arange(1, 9), np.full(8, NOW))
    scorer = items.scorer(users, 0)
    every = descend(items.tree, 8, scorer, None, 1, Allowed())
    some = descend(items.tree, 8, scorer, 2, 1, Allowed())
    value = np.full((8, ITEMS), np.nan)
    value[every.user, every.item] = every.value
    assert np.isfinite(value).all()
    np.testing.assert_array_equal(value[some.user, some.item], some.value)
    assert (some.scored[:, 1:] < every.scored[:, 1:]).all()


def test_two_towers_cost_their_products(log: Path, tmp_path: Path) -> None:
    size = ("model.net.levels=[{codes:6,size:XS}]", "model.net.size=XS", "trainer.max_steps=1")
    train(compose_run(settings(log, tmp_path / "run", *size)))
    run = load_run(tmp_path / "run")
    scoring = HsnnSystem().scoring(run)
    cost = cost_of(scoring, ItemTree(scoring, np.arange(1, ITEMS + 1)))
    tasks, width = len(run.manifest.tasks), 40
    # an embedding scaled, each side's one vector summed, products and their sum, a scale per task
    pair = width + 4 * width + tasks
    # a product and a sum per level and task; a scale and an offset per task
    node, item = (2 * levels * tasks + 2 * tasks for levels in (1, 2))
    # inputs are filled up to a multiple of 16; what the two say is added
    linear = 2 * 48 * width + 2 * 16 * width + width
    assert cost.pairs.tolist() == [linear + pair + node, pair + item]
    of_query = cost.user + 3 * cost.pairs[0] + 5 * cost.pairs[1]
    assert cost.of(np.array([3.0, 5.0])) == pytest.approx(of_query)


def test_filters_hold_on_the_way_down(run_dir: Path) -> None:
    run = recsys.open_run(run_dir)
    free = run.recommend([3], k=ITEMS, as_of=NOW, keep_seen=True, beam=1)
    some = free["item_id"].to_list()[::7]
    only = run.recommend([3], k=ITEMS, as_of=NOW, keep_seen=True, beam=1, only=some)
    assert sorted(only["item_id"]) == sorted(some)
    less = run.recommend([3], k=5, as_of=NOW, keep_seen=True, beam=1, exclude=some)
    assert len(less) == 5 and not set(less["item_id"]) & set(some)


def test_losses_are_of_levels_and_of_what_the_items_say_of_unlabelled_pairs(run_dir: Path) -> None:
    model = load_run(run_dir).model
    levels = [torch.tensor([[0.3], [-1.0], [0.5]]), torch.tensor([[0.0], [2.0], [-0.5]])]
    items = torch.tensor([[1.0], [-2.0], [0.2]])
    labels = torch.tensor([[1.0], [0.0], [torch.nan]])
    imitation = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.0, 6.0])]
    found = model._losses(Outputs([*levels, items], imitation), labels, 0.5)
    weight = model.loss.weight.item()

    def entropy(logit: float, target: float) -> float:
        chance = 1 / (1 + np.exp(-logit))
        return -weight * (target * np.log(chance) + (1 - target) * np.log(1 - chance))

    def labelled(outputs: torch.Tensor) -> float:
        return (entropy(outputs[0].item(), 1) + entropy(outputs[1].item(), 0)) / 2

    assert found["items"].item() == pytest.approx(labelled(items), rel=1e-5)
    for number, level in enumerate(levels, 1):
        assert found[f"level_{number}"].item() == pytest.approx(0.5 * labelled(level), rel=1e-5)
    taught = 1 / (1 + np.exp(-0.2))
    expected = 0.5 * sum(entropy(level[2].item(), taught) for level in levels)
    assert found["distillation"].item() == pytest.approx(expected, rel=1e-5)
    assert found["imitation"].item() == pytest.approx(0.1 * 0.5 * (6 + 6) / 3)


@pytest.mark.parametrize("method", METHODS)
def test_nodes_are_learned_in_every_way(log: Path, tmp_path: Path, method: str) -> None:
    steps = ("trainer.max_steps=4", f"model.net.index.method={method}")
    train(compose_run(settings(log, tmp_path / "run", *steps)))
    metrics = read_metrics(tmp_path / "run").filter(pl.col("metric").str.starts_with("val/"))
    assert np.isfinite(metrics["value"].to_numpy()).all()
    assert "val/level_2/ne/mean" in metrics["metric"].to_list()
    run = load_run(tmp_path / "run")
    codes = run.model.net.nodes.codes
    assert all(np.isfinite(one.detach().numpy()).all() for one in codes)
    if method == RANDOM:
        with pytest.raises(ConfigError, match="are not exported"):
            HsnnSystem().export(run, ExportConfig(str(tmp_path / "run")))


def test_the_page_shows_how_full_nodes_are_and_names_a_collapse(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    often = ("trainer.max_steps=8", "trainer.validate_every_n_steps=2")
    train(compose_run(settings(log, folder, *often)))
    evaluate(EvaluateConfig(run_dir=str(folder), baselines=[]))
    first, second = read_occupancy(folder)
    assert (first.possible, second.possible) == (6, 24) and sum(second.size) == ITEMS == first.items
    assert invoke(["report", f"run_dir={folder}"]) == 0
    page = (folder / "report.html").read_text()
    assert "items over an even share" in page and "Nodes in training" in page
    assert "has collapsed" not in page
    # as of a run whose items are all in one node
    metrics = read_metrics_file(folder)
    metrics["report/level_1/largest_share"]["value"] = 0.9
    replace_metrics(folder, "", metrics)
    assert invoke(["report", f"run_dir={folder}"]) == 0
    page = (folder / "report.html").read_text()
    assert "Level 1 has collapsed: 90% of the items" in page
    assert "raise model.net.index.balance" in page
    (folder / "nodes.json").write_text("{")
    capsys.readouterr()
    assert invoke(["report", f"run_dir={folder}"]) == 2
    assert "delete it and run `recsys evaluate` again" in capsys.readouterr().err


def test_a_collapse_is_named_in_training(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_place(self: HsnnNet, categorical: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.ones(len(categorical), 40), dim=1)

    monkeypatch.setattr(HsnnNet, "embed", one_place)
    train(compose_run(settings(log, tmp_path / "run", "trainer.max_steps=1")))
    said = " ".join(capsys.readouterr().err.split())
    assert "Level 1 has collapsed: 100% of the items are in the largest of its 1 nodes" in said
    assert "raise model.net.index.balance" in said


def test_without_levels_every_item_is_scored(log: Path, tmp_path: Path) -> None:
    train(
        compose_run(settings(log, tmp_path / "run", "trainer.max_steps=2", "model.net.levels=[]"))
    )
    run = recsys.open_run(tmp_path / "run")
    assert len(run.recommend([3], k=ITEMS, as_of=NOW, keep_seen=True)) == ITEMS


def test_one_process_is_as_sharded_tables(log: Path, tmp_path: Path) -> None:
    values = []
    for name, more in (("one", ()), ("sharded", ("strategy=torchrec",))):
        folder = tmp_path / name
        train(compose_run(settings(log, folder, "trainer.max_steps=3", *more)))
        metrics = read_metrics(folder).filter(pl.col("metric") == "val/loss")
        values.append(metrics["value"].to_list())
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_a_training_that_goes_on_is_one_that_was_not_cut(log: Path, tmp_path: Path) -> None:
    # what follows from the share of the training that is over is left out: both end elsewhere
    steady = ("model.warmup=0", "model.net.index.power=1e-9", "optim.schedule.final_fraction=1")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    often = (*steady, "trainer.log_every_n_steps=1")
    train(compose_run(settings(log, whole, *often, "trainer.max_steps=7")))
    train(compose_run(settings(log, cut, *often, "trainer.max_steps=4")))
    config = load_config(cut)
    train(replace(config, resume=True, trainer=replace(config.trainer, max_steps=7)))
    losses = [
        read_metrics(one).filter(pl.col("metric").str.starts_with("train/")).sort("step", "metric")
        for one in (whole, cut)
    ]
    assert_frame_equal(*losses)


def test_requests_have_drawn_items_without_labels(log: Path, tmp_path: Path) -> None:
    config = compose_run(settings(log, tmp_path / "run", "loader.unlabelled=3"))
    dataset, _ = open_or_prepare(config.data)
    data = UnlabelledDataModule(config.loader, dataset)  # type: ignore[attr-defined]
    batch = next(iter(data.sample("fit", 8)))
    drawn = batch.row_id < 0
    assert int(drawn.sum()) == 3 * 8
    assert batch.labels[drawn].isnan().all() and not batch.labels[~drawn].isnan().any()
    assert int(batch.rows_per_request.sum()) == len(batch.row_id)
    last = batch.rows_per_request.cumsum(0)
    for back in (1, 2, 3):
        assert drawn[last - back].all()
    assert not drawn[last - 4].any()
    again = next(iter(data.sample("fit", 8)))
    assert (again.item_categorical == batch.item_categorical).all()
    choose = next(iter(data.sample("choose", 8)))
    assert (choose.row_id >= 0).all()


def test_what_cannot_be_is_a_sentence(
    log: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for setting, message in (
        ("model.net.levels=[{codes:99,size:S}]", r"codes=99 are more than the 60 items"),
        ("descent.task=nothing", "hsnn predicts no task nothing; it is one of liked"),
        ("loader.user_embeddings.stores=[somewhere]", "reads no published user embeddings"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(compose_run(settings(log, tmp_path / "run", setting)))
    command = ["recommend", f"run_dir={run_dir}", "user=3"]
    assert invoke([*command, "task=nothing"]) == 2
    assert "hsnn predicts no task nothing" in capsys.readouterr().err
    assert invoke([*command, "beam=0"]) == 2
    assert invoke([*command, "beam=1000", "k=1000"]) == 0
    assert invoke(["report", f"run_dir={run_dir}"]) == 0
    capsys.readouterr()
