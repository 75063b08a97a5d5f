"""SASRec and HSTU from MovieLens' files to metrics of the report split."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from polars.testing import assert_frame_equal

from recsys.cli import report
from recsys.core.errors import ConfigError
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.config import EvaluateConfig
from recsys.runs.metrics_log import read_metrics
from recsys.systems.choice import compose_run
from recsys.systems.evaluate import evaluate
from recsys.systems.runs import load_config, load_run, train
from recsys.systems.sequence.system import SequenceRunConfig

USERS, ITEMS, LENGTH = 30, 20, 14


@pytest.fixture(scope="module")
def ml1m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who watch films in the order of their numbers, from different ones on."""
    folder = tmp_path_factory.mktemp("data") / "ml-1m"
    folder.mkdir()
    films = "".join(f"{item}::Film {item} (1990)::Drama\n" for item in range(1, ITEMS + 1))
    (folder / "movies.dat").write_text(films)
    users = "".join(f"{user}::F::25::1::12345\n" for user in range(1, USERS + 1))
    (folder / "users.dat").write_text(users)
    ratings = (
        f"{user}::{(7 * user + step) % ITEMS + 1}::5::{1000 * user + step}\n"
        for user in range(1, USERS + 1)
        for step in range(LENGTH)
    )
    (folder / "ratings.dat").write_text("".join(ratings))
    return folder


def _config(experiment: str, ml1m: Path, run_dir: Path, *overrides: str) -> SequenceRunConfig:
    config = compose_run(
        [
            f"experiment={experiment}",
            f"data_dir={ml1m.parent}",
            f"data.out={ml1m.parent / 'prepared'}",
            f"run_dir={run_dir}",
            "loader.batch_size=8",
            "loader.max_length=10",
            "model.width=8",
            "optim.dense.learning_rate=0.02",
            "trainer.max_epochs=8",
            "trainer.log_every_n_steps=1",
            "trainer.progress_bar=false",
            *overrides,
        ]
    )
    assert isinstance(config, SequenceRunConfig)
    return config


@pytest.mark.parametrize("experiment", ["sasrec_ml1m", "hstu_ml1m"])
def test_learns_the_order_and_measures_it_on_both_splits(
    experiment: str, ml1m: Path, tmp_path: Path
) -> None:
    folder = train(_config(experiment, ml1m, tmp_path / "run"))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"all {ITEMS} items" in metrics["val/hits@10/all"]["protocol"]
    assert "ties: a tie with another item counts" in metrics["val/hits@10/all"]["protocol"]
    assert "ties" not in metrics["val/loss"]["protocol"]
    evaluate(EvaluateConfig(run_dir=str(folder), split="choose"))
    evaluate(EvaluateConfig(run_dir=str(folder)))
    evaluated = json.loads((folder / "metrics.json").read_text())
    # validation while training and evaluation of its best checkpoint are one protocol
    for name in ("hits@1", "ndcg@10", "mrr"):
        value = metrics[f"val/{name}/all"]["value"]
        assert evaluated[f"val/{name}/all"]["value"] == pytest.approx(value)
    popular = evaluated["report/fit_popularity/mrr/all"]["value"]
    assert evaluated["report/mrr/all"]["value"] > max(0.6, popular + 0.2)
    report.run([f"run_dir={folder}"])
    page = (folder / "report.html").read_text()
    assert f"{'SASRec' if 'sasrec' in experiment else 'HSTU'} trained on" in page
    assert "1970-01-01" not in page  # a log without times has no dates
    assert "2000-04" not in page and "stand for the order" in page
    assert "Among all the model cannot be told from fit_popularity: hits@10" in page


def test_the_rank_on_the_report_split_by_hand(ml1m: Path, tmp_path: Path) -> None:
    config = _config("sasrec_ml1m", ml1m, tmp_path / "run", "trainer.max_steps=6")
    folder = train(config)
    metrics = evaluate(EvaluateConfig(run_dir=str(folder)))
    run = load_run(folder)
    store = EngagementStore.open(run.dataset, config.sequences)
    data = SequenceDataModule(replace(config.loader, batch_size=USERS), run.dataset, store)
    [batch] = data.test_dataloader()
    assert int(batch.lengths.max()) == 10  # the model sees ten films, all others are excluded too
    gains = []
    with torch.no_grad():
        scores = run.model(batch) @ run.model.item_embeddings(ITEMS + 1).T
    for row, user in enumerate(batch.user.tolist()):
        history = store.item[store.offsets[user] : store.offsets[user + 1]].tolist()
        target = history.pop()
        assert target == batch.label_item[row]
        others = [item for item in range(1, ITEMS + 1) if item not in (*history, target)]
        gains.append(1 / (1 + sum(scores[row, item] >= scores[row, target] for item in others)))
    assert metrics["report/mrr/all"]["value"] == pytest.approx(float(sum(gains)) / USERS)


def test_a_run_cut_within_an_epoch_resumes_exactly(ml1m: Path, tmp_path: Path) -> None:
    whole = train(_config("hstu_ml1m", ml1m, tmp_path / "whole", "trainer.max_steps=10"))
    cut = train(_config("hstu_ml1m", ml1m, tmp_path / "cut", "trainer.max_steps=6"))
    config = load_config(cut)
    longer = replace(config.trainer, max_steps=10)
    train(replace(config, resume=True, trainer=longer))
    losses = [
        read_metrics(folder).filter(metric="train/loss").sort("step") for folder in (whole, cut)
    ]
    assert_frame_equal(*losses, check_exact=True)


def test_a_model_shorter_than_the_sequences_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.max_length=50 is less than loader.max_length"):
        compose_run(["system=sequence", "data.name=log", "model.max_length=50"])
