"""A first stage trained on what later stages selected: loss and recall by hand, and a play's ledger
from training to the artifact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recsys
from recsys.artifacts.sequence_tower import SequenceTowerArtifact
from recsys.cli.main import invoke
from recsys.core.errors import ConfigError, DataError
from recsys.data.batches.sequences.towers import ITEMS, TowerBatch
from recsys.data.content.item_embeddings import embeddings_file, read_embeddings
from recsys.data.contract.ledger import SELECTED, VALUE_RANK
from recsys.data.contract.schema import Split
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.data.prepare.request_writer import write_requests
from recsys.data.simulator import simulate
from recsys.data.stores.requests import RequestStore
from recsys.online.compare import OnlineConfig, compare_online
from recsys.systems.choice import compose_run
from recsys.systems.runs import train
from recsys.systems.two_tower.module import TwoTower
from recsys.systems.two_tower.selection import Selection
from recsys.systems.two_tower.system import TwoTowerSystem
from tests.data.simulator.conftest import load_config
from tests.data.simulator.world.conftest import TINY

SMALL = (
    "system=two_tower",
    "data=ledger",
    "model.objective=select",
    "kept=[25]",
    "model.items.width=16",
    "model.items.output_width=16",
    "model.items.dropout=0",
    "model.items.id_dropout=0",
    "model.users.width=16",
    "model.users.layers=1",
    "model.users.dropout=0",
    "loader.batch_size=8",
    "evaluation.candidates=[all]",
    "evaluation.baselines=[popularity]",
    "optim.dense.learning_rate=0.01",
    "trainer.progress_bar=false",
)

FUNNEL = """
models: {{first: {{path: {artifact}}}}}
sources: {{trending: {{quota: 200}}}}
first: {{scorer: first, candidates: 200}}
second: {{scorer: rates, candidates: 40}}
value: {{expression: p(liked) + 0.01 * watch_time}}
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the log of a tiny world, and the ledger of a play after it."""
    folder = tmp_path_factory.mktemp("played")
    simulate(load_config("explore_small", *TINY), folder / "log")
    asked = {"simulation": str(folder / "log"), "policy": "explore", "against": "random"}
    compare_online(OnlineConfig(**asked, days=0.7, ledger=str(folder / "ledger")))
    return folder


def settings(played: Path, *more: str, rows: str = "scored") -> list[str]:
    data = (
        f"data.path={played / 'ledger'}",
        f"data.options.simulation.path={played / 'log'}",
        f"data.options.rows={rows}",
        f"data.out={played / rows}",
    )
    return [*SMALL, *data, *more]


def assembled(played: Path, *more: str) -> tuple[TwoTower, TowerBatch]:
    """An untrained model, and the first batch to train on."""
    config: Any = compose_run(settings(played, *more))
    dataset, _ = open_or_prepare(config.data)
    config = config.on(dataset.manifest)
    torch.manual_seed(0)
    assembly = TwoTowerSystem().assemble(config, dataset, dataset.manifest)
    model: Any = assembly.model
    data: Any = assembly.data
    return model, next(iter(data.loader(Split.FIT, shuffle=True)))


@pytest.mark.parametrize("more", [(), ("model.similarity=mixture",), ("model.rank_weight=0.25",)])
def test_the_loss_is_the_cross_entropy_of_every_candidate_by_hand(
    played: Path, more: tuple[str, ...]
) -> None:
    model, batch = assembled(played, *more)
    weight = model.config.rank_weight
    with torch.no_grad():
        found = model.losses(batch)
        users, items = model(batch), model._items(batch)
        costs, row = [], 0
        for user, length in zip(users, batch.label_lengths.tolist(), strict=True):
            for _ in range(length):
                item = items[int((batch.pools[ITEMS] == batch.label_item[row]).nonzero())]
                score = 20 * user @ item
                if model.mixture is not None:
                    score = model.mixture(user[None], item[None])[0]
                p = float((score + model.bias).sigmoid())
                target = (1 - weight) * batch.selected[row] + weight * batch.value_rank[row]
                costs.append(-(target * np.log(p) + (1 - target) * np.log1p(-p)))
                row += 1
        share = float(model.bias.sigmoid())
    assert row == len(batch.label_item) == 100 * len(batch.user)
    assert float(found) == pytest.approx(float(np.mean(costs)), rel=1e-4)
    assert share == pytest.approx(0.22, abs=1e-4)  # 22 of 100 are selected


def test_every_weight_learns_and_a_candidate_without_value_is_told_by_selection_alone(
    played: Path,
) -> None:
    model, batch = assembled(played, "model.rank_weight=1")
    model.losses(batch).backward()
    names = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert names == []
    batch.value_rank = torch.full_like(batch.selected, torch.nan)
    alone, _ = assembled(played, "model.rank_weight=0")
    with torch.no_grad():
        torch.testing.assert_close(model.losses(batch), alone.losses(batch))


def test_a_request_sees_what_was_before_it(played: Path) -> None:
    _, batch = assembled(played)
    ends = batch.request_time.repeat_interleave(batch.lengths)
    assert len(batch.timestamp) and (batch.timestamp < ends).all()


def test_recall_and_chance_by_hand(tmp_path: Path) -> None:
    """Of the first request's candidates the 2nd and 4th are selected; of the second's none, of the
    third's the only one.
    """
    frame = pl.DataFrame(
        {
            "user": [1, 1, 1, 1, 2, 2, 1],
            "request_time": [5, 5, 5, 5, 6, 6, 7],
            "item": [1, 2, 3, 4, 1, 2, 3],
            "label_selected": [0.0, 1, 0, 1, 0, 0, 1],
            "label_value_rank": [0.0] * 7,
        }
    )
    write_requests(tmp_path, [frame], [SELECTED, VALUE_RANK])
    selection = Selection(RequestStore.open(tmp_path), kept=[1, 2])
    logits = torch.tensor([0.1, 0.9, 0.5, 0.5, 3.0, 2.0, -1.0])
    np.testing.assert_array_equal(selection.recall(logits, 1), [0.5, np.nan, 1])
    np.testing.assert_array_equal(selection.recall(logits, 2), [0.5, np.nan, 1])  # a tie: item 3
    np.testing.assert_array_equal(selection.recall(logits, 3), [1, np.nan, 1])
    np.testing.assert_allclose(selection.chance(1), [0.25, np.nan, 1])
    with pytest.raises(DataError, match="of no request of a split"):
        Selection(RequestStore.open(tmp_path, (6, 7)), kept=[1])
    values = selection.values(logits)
    assert values["recall@1/selected"] == 0.75
    # of 3 selected and 4 others: 0.9 is above 2, 0.5 above 1 and beside 1, -1 above none
    assert values["auc/selected"] == pytest.approx((2 + 1.5 + 0) / 12)


def test_from_a_ledger_to_an_artifact(
    played: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    train(compose_run(settings(played, f"run_dir={run_dir}", "trainer.max_epochs=4")))
    assert invoke(["evaluate", f"run_dir={run_dir}"]) == 0
    out = capsys.readouterr().out
    assert "What the later stages selected" in out and "chance" in out
    run = recsys.open_run(run_dir)
    found = run.metrics["report/recall@25/selected"]
    chance = run.metrics["report/chance/recall@25/selected"]["value"]
    assert chance == 0.25 < found["low"] <= found["value"] <= found["high"]
    assert "chosen by: highest val/recall@25/selected" in found["protocol"]
    assert "report/hits@10/all" in run.metrics
    assert invoke(["export", f"run_dir={run_dir}"]) == 0
    artifact = recsys.open_artifact(run_dir / "artifact")
    assert isinstance(artifact, SequenceTowerArtifact)
    raw, vectors = read_embeddings(embeddings_file(run_dir / "artifact"))
    scored = run.score("1", raw[:20])["score"].to_numpy()
    user = torch.from_numpy(run.user_embeddings(["1"])[0])
    products = artifact.score(user, torch.tensor(vectors[:20])).numpy()
    np.testing.assert_allclose(products, scored, rtol=1e-4, atol=1e-6)
    assert invoke(["report", f"run_dir={run_dir}"]) == 0
    funnel = tmp_path / "first.yaml"
    funnel.write_text(FUNNEL.format(artifact=run_dir / "artifact"))
    played_on = [f"simulation={played / 'log'}", f"after={played / 'ledger'}", "days=0.2"]
    changes = "changes=[first.scorer=random]"
    assert invoke(["online", *played_on, f"policy={funnel}", f"against={funnel}", changes]) == 0
    assert "value_per_session" in capsys.readouterr().out


def test_towers_of_engagements_are_as_they_were(played: Path) -> None:
    model, batch = assembled(played, "model.objective=engage")
    assert "bias" not in model.state_dict() and batch.selected is None
    assert batch.label_tasks is not None


@pytest.mark.parametrize(
    ("more", "rows", "sentence"),
    [
        ((), "shown", "model.objective=select learns which candidates of requests were selected"),
        (("kept=[]",), "scored", "kept is empty"),
        (("model.tasks=[{action: liked}]",), "scored", "model.tasks are actions of users"),
        (("model.objective=selected",), "scored", "it must be one of engage, select"),
    ],
)
def test_what_cannot_be_learned_is_one_sentence(
    played: Path, tmp_path: Path, more: tuple[str, ...], rows: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        train(compose_run(settings(played, *more, f"run_dir={tmp_path / 'run'}", rows=rows)))
