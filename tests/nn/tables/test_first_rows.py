"""Any part of a table starts with the rows that the whole table would have there."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig

from recsys.nn.tables import first_rows
from recsys.nn.tables.collection import (
    IdSpread,
    bag_collection,
    start_table,
    tables_without_memory,
    uniform_rows,
)
from recsys.nn.tables.first_rows import FirstRows, Normal, Uniform, rows_come_later

NORMAL = FirstRows("item", Normal(0.02), seed=7)
UNIFORM = FirstRows("user", Uniform(0.05), seed=7)


def filled(rows: FirstRows, height: int, width: int) -> Tensor:
    weight = torch.empty(height, width)
    rows(weight)
    return weight


def collection(height: int) -> EmbeddingBagCollection:
    """Normal and uniform rows, and a table that is spread evenly."""
    spread = IdSpread(even_rows=8)
    fills = {
        "item": (height, spread.fill("item")),
        "user": (height + 3, uniform_rows("user", 0.05)),
        "topic": (8, spread.fill("topic")),
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


def philox(name: str, seed: int, place: int, stream: int, group: int, count: int) -> list[float]:
    """Numbers in [0, 1) from a place of a stream on, by numpy's own interface."""
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    bits = np.random.Philox(
        key=np.array([seed, key], np.uint64),
        counter=np.array([place, stream, group, 0], np.uint64),
    )
    return np.random.Generator(bits).random(count, dtype=np.float32).tolist()


def test_a_row_by_the_formula() -> None:
    """Row 4,096 of width 64: 16 numbers of each stream are two values of the counter."""
    row = filled(NORMAL, 4097, 64)[4096].tolist()
    other = filled(UNIFORM, 4097, 64)[4096].tolist()
    for group in (0, 1):
        first, second = (philox("item", 7, 4096 * 2, one, group, 16) for one in (0, 1))
        radius = [0.02 * math.sqrt(-2 * math.log(1 - one)) for one in first]
        pairs = list(zip(radius, second, strict=True))
        cosines = [one * math.cos(2 * math.pi * turn) for one, turn in pairs]
        sines = [one * math.sin(2 * math.pi * turn) for one, turn in pairs]
        assert row[32 * group :][:32] == pytest.approx(cosines + sines, rel=1e-4, abs=1e-7)
        both = [number for one in (0, 1) for number in philox("user", 7, 4096 * 2, one, group, 16)]
        assert other[32 * group :][:32] == pytest.approx(
            [0.1 * one - 0.05 for one in both], abs=1e-8
        )


@st.composite
def parts(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    """A table's size, and a part's first row and column, height and width."""
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    row, column = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return (
        height,
        width,
        row,
        column,
        draw(st.integers(0, height - row)),
        draw(st.integers(0, width - column)),
    )


@settings(max_examples=60, deadline=None)
@given(parts(), st.sampled_from([NORMAL, UNIFORM]), st.sampled_from([8, 16, 2048]))
def test_a_part_has_the_rows_of_the_whole(
    part: tuple[int, int, int, int, int, int], rows: FirstRows, unit: int
) -> None:
    height, width, row, column, count, columns = part
    whole = filled(rows, height, width)
    held = torch.empty(count, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first_rows, "_UNIT", unit)  # small ones, so that a part has several
        rows.fill(held, (row, column), (height, width))
        assert torch.equal(held, whole[row : row + count, column : column + columns])
        # a table that has grown starts with the rows it had, and others after them
        grown = filled(rows, height + 5, width)
    assert torch.equal(grown[:height], whole)


def test_a_part_of_a_table_beyond_all_memory_is_drawn_alone() -> None:
    held = torch.empty(3, 2)
    NORMAL.fill(held, (2 * 10**12, 254), (10**13, 256))
    assert held.isfinite().all() and len(held.unique()) == 6


def test_threads_and_types_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_rows, "_UNIT", 16)
    whole = filled(NORMAL, 1000, 6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(filled(NORMAL, 1000, 6), whole)
    other = torch.empty(1000, 6, dtype=torch.float64)
    NORMAL(other)
    assert torch.equal(other, whole.double())


def test_numbers_are_spread_as_said() -> None:
    normal, uniform = filled(NORMAL, 20_000, 32), filled(UNIFORM, 20_000, 32)
    assert float(normal.mean()) == pytest.approx(0, abs=5 * 0.02 / 800)
    assert float(normal.std()) == pytest.approx(0.02, rel=0.005)
    assert float((normal.abs() < 0.02).float().mean()) == pytest.approx(0.6827, abs=0.003)
    assert float(uniform.min()) >= -0.05 and float(uniform.max()) <= 0.05
    assert float(uniform.std()) == pytest.approx(0.1 / math.sqrt(12), rel=0.005)
    assert len(normal.unique(dim=0)) == 20_000
    products = nn.functional.normalize(normal[:500]) @ nn.functional.normalize(normal[:500]).T
    assert float(products.fill_diagonal_(0).std()) == pytest.approx(1 / math.sqrt(32), rel=0.02)


@pytest.mark.parametrize("other", [{"name": "author"}, {"seed": 8}, {"seed": 7 + 2**32}])
def test_other_tables_and_seeds_have_other_rows(other: dict[str, int | str]) -> None:
    fields = {"name": "item", "spread": Normal(0.02), "seed": 7} | other
    rows = FirstRows(**fields)  # type: ignore[arg-type]
    assert not (filled(rows, 50, 8) == filled(NORMAL, 50, 8)).any()


@pytest.mark.parametrize("height", [1, 3, 48, 1001])
def test_tables_without_memory_start_with_the_same_rows(height: int) -> None:
    torch.manual_seed(7)
    expected = collection(height)
    afterwards = torch.rand(3)

    torch.manual_seed(7)
    with tables_without_memory():
        built = collection(height)
    assert all(weight.is_meta for weight in built.parameters())
    assert torch.equal(torch.rand(3), afterwards)  # dense weights do not depend on tables
    for table in built.embedding_bag_configs():
        whole = expected.embedding_bags[table.name].weight.detach()
        upper, lower = torch.empty(1, 4), torch.empty(len(whole) - 1, 4)
        start_table(built, table, [((0, 0), upper), ((1, 0), lower)])
        assert torch.equal(torch.cat([upper, lower]), whole), table.name
        right = torch.empty(len(whole), 2)
        start_table(expected, table, [((0, 2), right)])
        assert torch.equal(right, whole[:, 2:])


def test_rows_that_come_later_are_no_numbers_yet() -> None:
    with rows_come_later():
        weights = list(collection(5).parameters())
    assert all(weight.isnan().all() for weight in weights)


def test_a_table_that_fills_itself_is_refused() -> None:
    config = EmbeddingBagConfig(name="t", embedding_dim=4, num_embeddings=3, feature_names=["f"])
    with pytest.raises(ValueError, match="FirstRows"):
        bag_collection([config])
