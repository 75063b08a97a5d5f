"""Rows that are drawn block by block are those of a whole table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig

from recsys.nn.tables import first_rows
from recsys.nn.tables.collection import IdSpread, bag_collection, tables_for_shards, uniform_rows
from recsys.nn.tables.first_rows import block_bounds, first_rows_of


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 128 numbers, so that small tables have several."""
    monkeypatch.setattr(first_rows, "BLOCK", 128)


def collection(rows: int) -> EmbeddingBagCollection:
    """Tables of a generator of their own, of torch's, and one that is spread evenly."""
    spread = IdSpread(even_rows=8)
    fills = {
        "item": (rows, spread.fill("item")),
        "user": (rows + 3, uniform_rows(0.05)),
        "topic": (8, spread.fill("topic")),
        "context": (2, uniform_rows(0.5)),
    }
    return bag_collection(
        [
            EmbeddingBagConfig(
                name=name,
                embedding_dim=4,
                num_embeddings=count,
                feature_names=[name],
                init_fn=fill,
            )
            for name, (count, fill) in fills.items()
        ]
    )


def tables_of(built: EmbeddingBagCollection) -> dict[str, Tensor]:
    """Every table from its blocks."""
    return {
        name: torch.cat([block for _, block in first_rows_of(bag.weight)])
        for name, bag in built.embedding_bags.items()
    }


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 31, 32, 33, 47, 48, 49, 63, 64, 65, 1001])
def test_tables_without_memory_know_the_rows_they_start_with(rows: int) -> None:
    torch.manual_seed(7)
    expected = tables_of(collection(rows))
    afterwards = torch.rand(3)

    torch.manual_seed(7)
    with tables_for_shards():
        built = collection(rows)
    assert all(weight.is_meta for weight in built.parameters())
    assert torch.equal(torch.rand(3), afterwards)  # dense weights are drawn as before
    found = tables_of(built)
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_blocks_cover_a_table_without_a_small_last_one() -> None:
    for rows in range(1, 300):
        bounds = list(block_bounds(rows, width=4))
        assert [first for first, _ in bounds] == [
            sum(count for _, count in bounds[:position]) for position in range(len(bounds))
        ]
        assert sum(count for _, count in bounds) == rows
        assert all(count % 16 == 0 for _, count in bounds[:-1])
        assert bounds[-1][1] >= min(rows, 16)
