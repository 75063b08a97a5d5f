"""DV365 on two gloo ranks is DV365 on one with the batches of both, however tables are sharded."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.strategies import StrategyRegistry
from torch import Tensor

from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.checkpoint.tensors import TensorInFile, state_part
from recsys.distributed.processes import on_processes
from recsys.distributed.strategy import TorchRecStrategy

from .ranks import module_of, run_ranks

PROCESS = Path(__file__).with_name("dv365_process.py")
dv365 = module_of(PROCESS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    """What the two ranks came to in every run."""
    return run_ranks(PROCESS, folder)


@pytest.fixture(scope="module", params=sorted(dv365.RUNS))
def run(request: pytest.FixtureRequest, ranks: list[dict[str, Any]], folder: Path) -> Any:
    """The name of a run, and what two ranks and one process came to."""
    name = request.param
    one = dv365.in_one_process(name, folder / "one")
    return name, [rank[name] for rank in ranks], one


def state_of(result: dict[str, Any]) -> dict[str, Tensor]:
    """Weights and table optimisers' state of a result's checkpoint, by name."""
    checkpoint = open_checkpoint(result["path"]).whole()
    state = dict(checkpoint["state_dict"])
    for child, collections in checkpoint["fused_tables"].items():
        for collection, content in collections.items():
            for table in content["state"].values():
                state |= {f"{child}.{collection}.{key}": value for key, value in table.items()}
    return state


def test_losses_are_those_of_one_process(run: Any) -> None:
    _, (first, second), one = run
    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_weights_and_optimiser_state_are_those_of_one_process(run: Any) -> None:
    _, (first, _), one = run
    ours, expected = state_of(first), state_of(one)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=5e-5, msg=name)


def test_metrics_are_those_of_one_process(run: Any) -> None:
    """Loss, NE and calibration by sums over ranks, AUC over the rows of both."""
    _, (first, second), one = run
    assert first["metrics"] == second["metrics"]
    assert first["metrics"] == pytest.approx(one["metrics"], rel=1e-4)
    assert {"val/loss", "val/ne/liked", "val/auc/liked"} <= one["metrics"].keys()


def test_tables_are_sharded_as_the_constraints_say(ranks: list[dict[str, Any]]) -> None:
    for name in ("table_wise", "column_wise", "table_column_wise", "data_parallel"):
        [plan] = ranks[0][name]["plan"]
        assert not ranks[1][name]["plan"]
        assert {table.sharding_type for table in plan.tables} == {name}
        assert {shard.rank for table in plan.tables for shard in table.shards} == {0, 1}
    [plan] = ranks[0]["mixed"]["plan"]
    types = {table.name.rpartition(".")[2]: table.sharding_type for table in plan.tables}
    assert types["user_id"] == "data_parallel"
    assert types["topic_id"] == "column_wise"
    assert {type for name, type in types.items() if "explicit" in name} == {"table_wise"}


def test_inputs_of_the_next_step_are_on_their_way_before_a_step(
    ranks: list[dict[str, Any]],
) -> None:
    steps = range(dv365.STEPS)
    ahead = [("table_inputs", 0)]
    for step in steps:
        ahead += [("table_inputs", step + 1)] if step + 1 in steps else []
        ahead += [("training_step", step)]
    in_turn = [(call, step) for step in steps for call in ("training_step", "table_inputs")]
    for rank in ranks:
        assert rank["table_wise"]["order"] == ahead
        assert rank["in_turn"]["order"] == in_turn
        assert rank["in_turn"]["losses"] == rank["table_wise"]["losses"]


def test_a_step_without_any_row_of_a_task_on_one_rank() -> None:
    """In ``RUNS`` the second rank has no watch time in the first step."""
    first, second = dv365.parts(0)
    assert second.labels[:, 1].isnan().all() and not first.labels[:, 1].isnan().all()


def test_column_shards_keep_a_state_of_their_own() -> None:
    """Two column shards of two rows; the whole table's state is their mean, and back."""
    stored = TensorInFile(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert state_part(stored, rows=2, count=2, begin=(2,), size=(2,)).tolist() == [3.0, 6.0]
    assert state_part(stored, rows=2, count=1, begin=(0,), size=(2,)).tolist() == [2.0, 4.0]
    assert state_part(stored, rows=2, count=1, begin=(1,), size=(1,)).tolist() == [4.0]
    merged = TensorInFile(torch.tensor([2.0, 4.0]))
    assert state_part(merged, rows=2, count=2, begin=(2,), size=(2,)).tolist() == [2.0, 4.0]
    whole = TensorInFile(torch.arange(16.0).view(2, 8))  # of each weight: cut as the table is
    assert state_part(whole, rows=2, count=2, begin=(0, 4), size=(1, 2)).tolist() == [[4.0, 5.0]]


def train_and_end_the_first_rank(folder: Path) -> None:
    signal.alarm(100)  # ends a rank that waits for the other, with another code
    model, first = dv365.make_model("sgd"), os.environ["RANK"] == "0"

    def end_once(optimizer: torch.optim.Optimizer) -> None:
        if first and model.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    model.on_before_zero_grad = end_once
    batches = [dv365.parts(step)[0] for step in range(dv365.STEPS)]
    dv365.train(folder, model, batches, devices=2, strategy=TorchRecStrategy())


def test_sigterm_to_one_rank_ends_all(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        on_processes(2, train_and_end_the_first_rank, tmp_path)
    assert ended.value.code == 128 + signal.SIGTERM


def test_lightning_knows_the_strategy_by_name() -> None:
    assert "torchrec" in StrategyRegistry
    trainer = lightning.Trainer(accelerator="cpu", devices=1, strategy="torchrec", logger=False)
    assert isinstance(trainer.strategy, TorchRecStrategy)
