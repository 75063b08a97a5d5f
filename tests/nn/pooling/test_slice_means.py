from __future__ import annotations

import math

import pytest
import torch

from recsys.nn.pooling.slice_means import SliceMeans
from recsys.nn.tables.collection import IdSpread, evenly_spread

SUMS = torch.tensor([[[2.0, 4.0], [0.0, 0.0]]])  # [B=1, S=2, D=2]
WEIGHTS = torch.tensor([[4.0, 0.0]])


def test_means_without_counts_are_the_papers() -> None:
    means = SliceMeans(2, 2, counted=False)
    assert not list(means.parameters())
    torch.testing.assert_close(means(SUMS, WEIGHTS), torch.tensor([[[0.5, 1.0], [0.0, 0.0]]]))


def test_counts_add_the_slices_own_vector_in_proportion_to_the_standardised_logarithm() -> None:
    means = SliceMeans(2, 2, counted=True)
    means.measure(torch.tensor([[0.0, 2.0], [8.0, 2.0]]))  # ln(1 + w): 0 and ln 9; twice ln 3
    with torch.no_grad():
        means.count_vectors.copy_(torch.tensor([[1.0, 0.0], [3.0, 3.0]]))
    first = (math.log(5) - math.log(3)) / math.log(3)
    second = (0 - math.log(3)) / 0.1  # all have as much: no deviation, the least is taken
    expected = torch.tensor([[[0.5 + first, 1.0], [3 * second, 3 * second]]])
    torch.testing.assert_close(means(SUMS, WEIGHTS), expected)


def test_what_was_measured_is_saved_with_the_weights() -> None:
    means, other = (SliceMeans(2, 2, counted=True) for _ in range(2))
    means.measure(torch.tensor([[0.0, 2.0], [8.0, 2.0]]))
    other.load_state_dict(means.state_dict())
    torch.testing.assert_close(other(SUMS, WEIGHTS), means(SUMS, WEIGHTS), rtol=0, atol=0)


def test_tables_of_an_id_type_start_alike_and_follow_the_seed() -> None:
    spread = IdSpread(item=0.1, author=0.2, topic=0.4)
    torch.manual_seed(3)
    rows = {name: torch.empty(400, 8) for name in ("topic", "again", "author")}
    spread.fill("topic")(rows["topic"])
    torch.rand(5)  # whatever was drawn in between
    spread.fill("topic")(rows["again"])
    spread.fill("author")(rows["author"])
    torch.testing.assert_close(rows["topic"], rows["again"], rtol=0, atol=0)
    assert abs(float(rows["topic"].std()) - 0.4) < 0.02
    assert abs(float(rows["author"].std()) - 0.2) < 0.01
    torch.manual_seed(4)
    spread.fill("topic")(rows["again"])
    assert not torch.equal(rows["topic"], rows["again"])


@pytest.mark.parametrize(("rows", "width"), [(20, 32), (101, 64), (101, 32)])
def test_evenly_spread_rows_are_as_orthogonal_as_can_be(rows: int, width: int) -> None:
    spread = evenly_spread(torch.randn(rows, width, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(spread.norm(dim=1), torch.full((rows,), math.sqrt(width)))
    cosines = spread @ spread.t() / width - torch.eye(rows)
    welch = max(0, rows - width) / (width * (rows - 1))
    mean_square = float(cosines.square().sum() / (rows * (rows - 1)))
    assert mean_square == pytest.approx(welch, rel=0.01, abs=1e-9)


def test_only_tables_of_few_rows_start_evenly_spread() -> None:
    def table(rows: int, even_rows: int) -> torch.Tensor:
        torch.manual_seed(5)
        weight = torch.empty(rows, 32)
        IdSpread(topic=0.4, even_rows=even_rows).fill("topic")(weight)
        return weight

    even = table(30, even_rows=30)
    torch.testing.assert_close(even @ even.t(), torch.eye(30) * 0.4**2 * 32)
    random = table(31, even_rows=30)
    torch.testing.assert_close(random, table(31, even_rows=0), rtol=0, atol=0)
    assert float((random @ random.t() - torch.eye(31) * 0.4**2 * 32).abs().max()) > 0.5
