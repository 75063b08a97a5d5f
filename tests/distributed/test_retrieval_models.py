"""Sequence models and the post tower on two gloo ranks: pools and losses of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.distributed.table_module import TableModule
from recsys.optim.dense import dense_parameters

from .ranks import module_of, run_ranks

PROCESS = Path(__file__).with_name("retrieval_process.py")
retrieval = module_of(PROCESS)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two ranks came to with every model."""
    return run_ranks(PROCESS, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", sorted(retrieval.MODELS))
def test_two_ranks_are_one_process(ranks: list[dict[str, Any]], name: str, tmp_path: Path) -> None:
    """The losses say that negatives come from both ranks: a rank's own would be fewer."""
    one = retrieval.train(name, [0, 1], tmp_path)
    first, second = (rank[name] for rank in ranks)
    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert first["metrics"] == second["metrics"]
    assert first["metrics"] == pytest.approx(one["metrics"], rel=1e-4)
    for key, value in one["state"].items():
        torch.testing.assert_close(first["state"][key], value, rtol=1e-5, atol=3e-6, msg=key)


@pytest.mark.parametrize("name", sorted(retrieval.MODELS))
def test_every_weight_has_an_optimiser(name: str) -> None:
    """Tables that ``dense_parameters`` leaves out belong to a ``TableModule``."""
    build, _ = retrieval.MODELS[name]
    model = build()
    trained = {id(parameter) for parameter in dense_parameters(model)}
    if isinstance(model, TableModule):
        for child in model.table_optimizers():
            trained |= {id(parameter) for parameter in model.get_submodule(child).parameters()}
    forgotten = [key for key, value in model.named_parameters() if id(value) not in trained]
    assert forgotten == []


def test_the_embeddings_of_both_ranks_are_validated_in_the_order_of_the_queries(
    ranks: list[dict[str, Any]],
) -> None:
    assert {"val/mean", "val/first"} <= ranks[0]["nxtpost"]["metrics"].keys()
