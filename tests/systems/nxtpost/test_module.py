"""NxtPost's losses equal what the paper's formulas give, query by query."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.optim.dense import DenseOptimConfig
from recsys.systems.nxtpost.module import NxtPost, NxtPostConfig
from recsys.systems.nxtpost.net import SequenceTowerConfig
from tests.manifests import EMPTY

MANIFEST = dataclasses.replace(
    EMPTY,
    vocabulary_sizes={"user": 5, "item": 12, "author": 1, "topic": 1},
    surfaces=("unknown", "feed"),
    media_types=("unknown",),
    split_bounds={"fit": (0, 10), "choose": (10, 20), "report": (20, 30)},
)
SCALE = 17.0
TOWER = SequenceTowerConfig(width=8, heads=2, dropout=0.0, max_length=10)

#: Histories and labels by user; item 3 is in two histories, item 5 a label of one and an event of
#: another, and the last user has no history.
HISTORIES = [[1, 2, 3], [3, 5], []]
LABELS = [[5, 6], [7], [8, 9]]
EVENTS = [item for one in HISTORIES for item in one]
TARGETS = [item for one in LABELS for item in one]


def batch() -> SequenceBatch:
    lengths = torch.tensor([len(one) for one in HISTORIES])
    events = int(lengths.sum())
    return SequenceBatch(
        user=torch.tensor([1, 2, 3]),
        request_time=torch.tensor([50_000, 60_000, 70_000]),
        lengths=lengths,
        item=torch.tensor(EVENTS),
        action_type=torch.ones(events, dtype=torch.int64),
        surface=torch.ones(events, dtype=torch.int64),
        timestamp=torch.arange(events) * 5_000,
        label_lengths=torch.tensor([len(one) for one in LABELS]),
        label_item=torch.tensor(TARGETS),
        user_categorical=torch.zeros(3, 0, dtype=torch.int64),
        user_dense=torch.zeros(3, 0),
        query_id=torch.tensor([2, 0, 1]),
    )


def model(**settings: object) -> NxtPost:
    torch.manual_seed(0)
    items = torch.nn.functional.normalize(torch.randn(12, 6), dim=1)
    config = NxtPostConfig(**{"tower": TOWER, "scale": SCALE, **settings})  # type: ignore[arg-type]
    return NxtPost(config, MANIFEST, items, DenseOptimConfig()).eval()


def cross_entropy(query: Tensor, target: int, pool: list[int], own: list[int], nxt: NxtPost):  # type: ignore[no-untyped-def]
    """Equation 6 for one query: negatives are the pool's distinct items that are not the user's."""
    negatives = sorted(set(pool) - set(own) - {target})
    logits = SCALE * nxt.items[[target, *negatives]] @ query
    return -torch.log_softmax(logits, dim=0)[0]


def test_the_long_term_loss_matches_the_user_with_each_of_the_next_items() -> None:
    nxt = model(short_term=0.0)
    users = nxt(batch())
    pool = TARGETS
    expected = [
        cross_entropy(users[u], label, pool, HISTORIES[u] + LABELS[u], nxt)
        for u in range(3)
        for label in LABELS[u]
    ]
    losses = nxt.losses(batch())
    assert losses.keys() == {"long_term"}
    torch.testing.assert_close(losses["long_term"], torch.stack(expected).mean())


def test_the_short_term_loss_matches_every_step_with_the_item_after_it() -> None:
    nxt = model(long_term=0.0)
    # the first t events of a user as a history of their own, without the gap to a request
    pool = EVENTS
    encoded = nxt.encode(batch())
    steps = nxt.tower.step_embeddings(encoded)
    expected = []
    for query, target in zip(steps.embedding, steps.target.tolist(), strict=True):
        user = 0 if target < 3 else 1
        own = HISTORIES[user] + LABELS[user]
        expected.append(cross_entropy(query, pool[target], pool, own, nxt))
    assert sorted(steps.target.tolist()) == [0, 1, 2, 3, 4]
    loss = nxt.losses(batch())["short_term"]
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_sampled_negatives_never_lose_the_target() -> None:
    nxt = model(short_term=0.0, negatives=1)
    losses = torch.stack([nxt.losses(batch())["long_term"] for _ in range(20)])
    assert torch.isfinite(losses).all()
    assert losses.std() > 0  # other negatives each time
    assert (losses < model(short_term=0.0).losses(batch())["long_term"]).all()


def test_the_logq_correction_takes_the_share_of_an_item_from_its_logit() -> None:
    plain, corrected = model(short_term=0.0), model(short_term=0.0, log_q=0.5)
    corrected.log_share = torch.log(torch.linspace(0.1, 1.0, 12))
    users = plain(batch())
    pool = TARGETS
    expected = []
    for u in range(3):
        for label in LABELS[u]:
            ids = [label, *sorted(set(pool) - set(HISTORIES[u] + LABELS[u]))]
            logits = SCALE * plain.items[ids] @ users[u] - 0.5 * corrected.log_share[ids]
            expected.append(-torch.log_softmax(logits, dim=0)[0])
    loss = corrected.losses(batch())["long_term"]
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_validation_sees_the_embeddings_in_the_order_of_the_queries() -> None:
    nxt = model()
    seen: list[Tensor] = []
    nxt.validate = lambda users: seen.append(users) or {"hits@10/batch": 0.5}  # type: ignore[func-returns-value]
    logged: dict[str, object] = {}
    nxt.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign]
    nxt.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign]
    nxt.on_validation_epoch_start()
    nxt.validation_step(batch(), 0)
    nxt.on_validation_epoch_end()
    torch.testing.assert_close(seen[0], nxt(batch())[[1, 2, 0]])
    assert logged["val/hits@10/batch"] == 0.5


def test_a_bidirectional_tower_cannot_have_the_short_term_loss() -> None:
    tower = dataclasses.replace(TOWER, causal=False, pooling="mean")
    with pytest.raises(ConfigError, match="causal"):
        model(tower=tower).losses(batch())
    assert model(tower=tower, short_term=0.0).losses(batch()).keys() == {"long_term"}


def test_both_losses_off_is_refused() -> None:
    with pytest.raises(ConfigError, match="one must be above 0"):
        NxtPostConfig(long_term=0, short_term=0)
