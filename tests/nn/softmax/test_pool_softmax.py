"""The tiled loss equals the materialised one, in value and in both gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.nn.softmax import tiled as pool_softmax_tiled
from recsys.nn.softmax.exclusions import Owned
from recsys.nn.softmax.pool import sample_pool
from recsys.nn.softmax.pool_softmax import pool_softmax_loss
from recsys.nn.softmax.reference import materialised_loss


@dataclass
class Case:
    """Arguments of the loss."""

    queries: Tensor
    pool: Tensor
    target: Tensor
    options: dict

    def value_and_gradients(self, loss) -> tuple[Tensor, Tensor, Tensor]:
        queries, pool = (part.clone().requires_grad_() for part in (self.queries, self.pool))
        value = loss(queries, pool, self.target, **self.options)
        by_queries, by_pool = torch.autograd.grad(value, [queries, pool])
        return value.detach(), by_queries, by_pool


def draw_case(
    seed: int,
    num_queries: int,
    pool_size: int,
    num_owners: int = 0,
    log_q: bool = False,
    weighted: bool = False,
    sampled: int | None = None,
    width: int = 5,
    magnitude: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return magnitude * torch.randn(*shape, generator=generator, dtype=dtype)

    def below(limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, shape, generator=generator)

    options: dict = {"scale": 1.5}
    target = below(pool_size, num_queries)
    if num_owners:
        owner = below(num_owners, num_queries)
        pairs = below(num_owners, 2 * pool_size), below(pool_size, 2 * pool_size)
        options["owner"] = owner
        options["owned"] = Owned.from_pairs(
            torch.cat([pairs[0], owner]), torch.cat([pairs[1], target]), num_owners
        )
    if log_q:
        options["log_q"] = -torch.rand(pool_size, generator=generator, dtype=dtype) * 9
    if weighted:
        options["weights"] = below(3, num_queries).to(dtype)
        options["weights"][0] = 1
    if sampled is not None:
        options["negatives"] = sample_pool(pool_size, sampled, generator=generator)
    return Case(normal(num_queries, width), normal(pool_size, width), target, options)


@pytest.fixture(params=[(4096, 2**21), (3, 12), (8, 8)], ids=["one tile", "3 wide", "8 wide"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles as large as they are, and so small that a test has many."""
    columns, logits = request.param
    monkeypatch.setattr(pool_softmax_tiled, "TILE_COLUMNS", columns)
    monkeypatch.setattr(pool_softmax_tiled, "TILE_LOGITS_PER_THREAD", logits)


def assert_same(case: Case, **tolerance: float) -> None:
    ours = case.value_and_gradients(pool_softmax_loss)
    reference = case.value_and_gradients(materialised_loss)
    for mine, plain in zip(ours, reference, strict=True):
        torch.testing.assert_close(mine, plain, **tolerance)


def test_by_hand() -> None:
    """Two users; the first owns items 0 and 1, so its query has the negative 2 alone."""
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    pool = torch.tensor([[0.5, 0.0], [7.0, 0.0], [0.0, 1.0]])
    owned = Owned(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 2]))
    loss = pool_softmax_loss(
        queries,
        pool,
        torch.tensor([0, 2]),
        scale=2.0,
        owner=torch.tensor([0, 1]),
        owned=owned,
        log_q=torch.tensor([0.0, 0.0, math.log(0.5)]),
        weights=torch.tensor([3.0, 1.0]),
    )
    # logits of the first: 1 and 0 + ln 2; of the second: 2 + ln 2 and 0, 0
    first = -math.log(math.e / (math.e + 2))
    second = -math.log(2 * math.e**2 / (2 * math.e**2 + 2))
    # pytest's own 1e-6 is eight roundings of float32, and this is up to four off
    assert loss.item() == pytest.approx((3 * first + second) / 4, rel=1e-5)


def test_a_sample_leaves_the_target_beside_it() -> None:
    queries, pool = torch.tensor([[1.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    loss = pool_softmax_loss(queries, pool, torch.tensor([0]), negatives=torch.tensor([2]))
    assert loss.item() == pytest.approx(math.log(1 + math.e**2))


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("log_q", [False, True])
@pytest.mark.parametrize("sampled", [None, 4])
@pytest.mark.parametrize("num_owners", [0, 1, 5])
def test_equals_the_materialised_loss(num_owners: int, sampled: int | None, log_q: bool) -> None:
    assert_same(draw_case(1, 11, 10, num_owners, log_q, True, sampled), rtol=1e-11, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**30),
    num_queries=st.integers(1, 9),
    pool_size=st.integers(1, 9),
    num_owners=st.integers(0, 4),
    weighted=st.booleans(),
    sampled=st.none() | st.integers(0, 9),
    magnitude=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_random_masks(seed, num_queries, pool_size, num_owners, weighted, sampled, magnitude):
    case = draw_case(
        seed, num_queries, pool_size, num_owners, True, weighted, sampled, magnitude=magnitude
    )
    assert_same(case, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("tiles")
def test_float32() -> None:
    case = draw_case(2, 40, 30, 6, log_q=True, width=16, magnitude=0.5, dtype=torch.float32)
    assert_same(case, rtol=2e-5, atol=1e-6)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("magnitude", [1e-3, 12.0, 40.0])
def test_any_range_of_logits(magnitude: float) -> None:
    """Norms whose product is far above the true logits make the bound of the rows useless."""
    case = draw_case(3, 20, 17, 4, width=8, magnitude=magnitude, dtype=torch.float32)
    value, *gradients = case.value_and_gradients(pool_softmax_loss)
    case.queries, case.pool = case.queries.double(), case.pool.double()
    exact, *exact_gradients = case.value_and_gradients(materialised_loss)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
    for ours, expected in zip(gradients, exact_gradients, strict=True):
        largest = float(expected.abs().max())
        torch.testing.assert_close(ours.double(), expected, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.usefixtures("tiles")
def test_own_items_may_have_much_larger_logits() -> None:
    """They are masked: what they would overflow or drown must not be touched by them."""
    queries = torch.eye(4)[:2]
    pool = torch.cat([600 * torch.eye(4)[:2], -600 * torch.eye(4)[:2], torch.zeros(2, 4)])
    owned = Owned(torch.tensor([0, 2]), torch.tensor([0, 1]))
    owner = torch.zeros(2, dtype=torch.int64)
    case = Case(queries, pool, torch.tensor([4, 5]), {"owner": owner, "owned": owned})
    assert_same(case, rtol=1e-6, atol=1e-6)
    assert case.value_and_gradients(pool_softmax_loss)[0].item() == pytest.approx(math.log(3))


@pytest.mark.usefixtures("tiles")
def test_gradcheck() -> None:
    case = draw_case(4, 6, 7, 3, log_q=True, weighted=True)
    inputs = [part.requires_grad_() for part in (case.queries, case.pool)]
    assert torch.autograd.gradcheck(
        lambda queries, pool: pool_softmax_loss(queries, pool, case.target, **case.options), inputs
    )


def test_the_outer_gradient_scales_and_may_come_twice() -> None:
    case = draw_case(5, 4, 6)
    queries = case.queries.requires_grad_()
    loss = pool_softmax_loss(queries, case.pool, case.target)
    (once,) = torch.autograd.grad(loss, queries, retain_graph=True)
    (tripled,) = torch.autograd.grad(3 * loss, queries)
    torch.testing.assert_close(tripled, 3 * once)


def test_a_pool_that_is_fixed_gets_no_gradient() -> None:
    case = draw_case(6, 4, 6)
    queries = case.queries.requires_grad_()
    pool_softmax_loss(queries, case.pool, case.target).backward()
    assert queries.grad is not None
    assert case.pool.grad is None
    with torch.no_grad():
        assert not pool_softmax_loss(queries, case.pool, case.target).requires_grad


@pytest.mark.usefixtures("tiles")
def test_one_user_alone_has_no_negatives() -> None:
    case = draw_case(7, 5, 6)
    case.options["owner"] = torch.zeros(5, dtype=torch.int64)
    case.options["owned"] = Owned(torch.tensor([0, 6]), torch.arange(6))
    for part in case.value_and_gradients(pool_softmax_loss):
        torch.testing.assert_close(part, torch.zeros_like(part), rtol=0, atol=0)


def test_a_user_with_one_event_owns_its_target_alone() -> None:
    case = draw_case(8, 3, 5)
    case.target = torch.tensor([2, 0, 4])
    case.options["owner"] = torch.tensor([1, 0, 0])
    case.options["owned"] = Owned(torch.tensor([0, 2, 3]), torch.tensor([0, 4, 2]))
    assert_same(case, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("tiles")
def test_queries_of_weight_0_count_for_nothing() -> None:
    """Not even what they hold: padding may be anything, its target too."""
    case = draw_case(9, 4, 6, num_owners=2)
    expected = case.value_and_gradients(pool_softmax_loss)
    padding = torch.full((2, 5), torch.nan, dtype=torch.float64)
    case.queries = torch.cat([padding, case.queries])
    case.target = torch.cat([torch.tensor([-1, 99]), case.target])
    case.options["owner"] = torch.cat([torch.tensor([-1, 7]), case.options["owner"]])
    case.options["weights"] = torch.tensor([0.0, 0, 1, 1, 1, 1])
    value, by_queries, by_pool = case.value_and_gradients(pool_softmax_loss)
    torch.testing.assert_close(value, expected[0])
    torch.testing.assert_close(by_queries[2:], expected[1])
    torch.testing.assert_close(by_pool, expected[2])
    assert not by_queries[:2].any()


@pytest.mark.parametrize(("num_queries", "pool_size"), [(0, 3), (0, 0), (2, 0), (2, 3)])
def test_nothing_to_learn_from_is_a_loss_of_0(num_queries: int, pool_size: int) -> None:
    queries, pool = torch.randn(num_queries, 4), torch.randn(pool_size, 4)
    case = Case(queries, pool, torch.zeros(num_queries, dtype=torch.int64), {})
    if num_queries:
        case.options["weights"] = torch.zeros(num_queries)
    value, by_queries, by_pool = case.value_and_gradients(pool_softmax_loss)
    assert value.item() == 0
    assert by_queries.shape == queries.shape and not by_queries.any()
    assert by_pool.shape == pool.shape and not by_pool.any()


def test_bfloat16_is_computed_in_float32_also_under_autocast() -> None:
    case = draw_case(10, 12, 9, width=8, dtype=torch.float32)
    half = [part.bfloat16() for part in (case.queries, case.pool)]
    expected = pool_softmax_loss(half[0].float(), half[1].float(), case.target)
    with torch.autocast("cpu", torch.bfloat16):
        value = pool_softmax_loss(*half, case.target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_arguments_that_do_not_fit() -> None:
    queries, pool, target = torch.randn(2, 4), torch.randn(3, 4), torch.tensor([0, 3])
    with pytest.raises(ValueError, match="0 to 2, not 0 to 3"):
        pool_softmax_loss(queries, pool, target)
    with pytest.raises(ValueError, match="same width"):
        pool_softmax_loss(queries, pool[:, :2], target)
    with pytest.raises(ValueError, match="2 queries"):
        pool_softmax_loss(queries, pool, target[:1])
    with pytest.raises(ValueError, match="both or neither"):
        pool_softmax_loss(queries, pool, target, owner=target)
