from __future__ import annotations

import math

import torch

from recsys.nn.slice_means import SliceMeans
from recsys.nn.tables import IdSpread

SUMS = torch.tensor([[[2.0, 4.0], [0.0, 0.0]]])  # [B=1, S=2, D=2]
WEIGHTS = torch.tensor([[4.0, 0.0]])


def test_means_without_counts_are_the_papers() -> None:
    means = SliceMeans(2, 2, counted=False)
    assert not list(means.parameters())
    torch.testing.assert_close(means(SUMS, WEIGHTS), torch.tensor([[[0.5, 1.0], [0.0, 0.0]]]))


def test_counts_add_the_slices_own_vector_in_proportion_to_the_logarithm() -> None:
    means = SliceMeans(2, 2, counted=True)
    with torch.no_grad():
        means.count_vectors.copy_(torch.tensor([[1.0, 0.0], [3.0, 3.0]]))
    fill = math.log(5) / math.log(35_001)
    expected = torch.tensor([[[0.5 + fill, 1.0], [0.0, 0.0]]])
    torch.testing.assert_close(means(SUMS, WEIGHTS), expected)


def test_a_full_timeline_adds_the_whole_vector() -> None:
    means = SliceMeans(1, 3, counted=True)
    pooled = means(torch.zeros(1, 1, 3), torch.tensor([[35_000.0]]))
    torch.testing.assert_close(pooled[0], means.count_vectors)


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
