from __future__ import annotations

import math
from dataclasses import replace

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.optim.dense import DenseOptimConfig, DenseOptimizerConfig, ScheduleConfig
from recsys.systems.sequence.module import (
    SequenceRecommender,
    SequenceRecommenderConfig,
    next_items,
)

NUM_ITEMS = 8  # of the fit vocabulary; indices 8 and 9 came later
VOCABULARY = 10
OPTIM = DenseOptimConfig(DenseOptimizerConfig(1e-2, 0.0), ScheduleConfig(1, 1.0))


def _batch(histories: list[list[int]], labels: list[list[int]]) -> SequenceBatch:
    items = [item for history in histories for item in history]
    users = torch.arange(len(histories))
    return SequenceBatch(
        user=users,
        request_time=torch.full_like(users, 10**6),
        lengths=torch.tensor([len(history) for history in histories]),
        item=torch.tensor(items, dtype=torch.int64),
        action_type=torch.zeros(len(items), dtype=torch.int64),
        surface=torch.zeros(len(items), dtype=torch.int64),
        timestamp=torch.arange(len(items)) * 1000,
        label_lengths=torch.tensor([len(label) for label in labels]),
        label_item=torch.tensor([item for label in labels for item in label]),
        user_categorical=torch.zeros(len(histories), 0, dtype=torch.int64),
        user_dense=torch.zeros(len(histories), 0),
        query_id=users,
    )


def _model(encoder: str = "sasrec", scale: float | None = None, **sizes) -> SequenceRecommender:
    torch.manual_seed(0)
    config = SequenceRecommenderConfig(
        encoder, width=8, dropout=0.0, max_length=6, scale=scale, **sizes
    )
    model = SequenceRecommender(config, NUM_ITEMS, OPTIM)
    for weight in (model.items.weight, model.positions.weight, model.no_history):
        torch.nn.init.normal_(weight)
    model.log = lambda *_, **__: None  # no trainer
    return model


def test_next_items_worked_example():
    batch = _batch([[1, 2, 3], [], [4]], [[5], [6, 7], [2, 1]])
    after, first = next_items(batch)
    assert after.tolist() == [2, 3, 5, 2]
    assert first.tolist() == [1, 6, 4]


def test_next_items_without_any_history():
    after, first = next_items(_batch([[], []], [[5], [6, 7]]))
    assert after.tolist() == []
    assert first.tolist() == [5, 6]


@pytest.mark.parametrize("encoder", ["sasrec", "hstu"])
def test_tokens_are_scaled_items_with_places_from_the_end(encoder):
    model = _model(encoder)
    batch = _batch([[1, 2, 3], [4]], [[5], [6]])
    tokens = torch.stack(
        [
            math.sqrt(8) * model.items.weight[item] + model.positions.weight[place]
            for item, place in [(1, 2), (2, 1), (3, 0), (4, 0)]
        ]
    )
    assert torch.allclose(model.states(batch), model.encoder(tokens, batch.lengths), atol=1e-6)


def test_user_embedding_is_the_last_state_or_the_learned_one():
    model = _model()
    batch = _batch([[1, 2, 3], [], [4]], [[5], [6], [7]])
    states, users = model.states(batch), model(batch)
    assert torch.allclose(users, torch.stack([states[2], model.no_history, states[3]]))


def test_items_of_later_days_are_the_unknown_one():
    model = _model()
    late = _batch([[1, 9, 3]], [[5]])
    unknown = _batch([[1, 0, 3]], [[5]])
    assert torch.equal(model(late), model(unknown))
    embeddings = model.item_embeddings(VOCABULARY)
    assert torch.equal(embeddings[8:], model.items.weight[[0, 0]])
    assert torch.equal(embeddings[:8], model.items.weight)


def _dense_loss(queries: Tensor, targets: list[int], model: SequenceRecommender) -> Tensor:
    items = model.items.weight
    if model.config.scale is not None:
        queries = F.normalize(queries, dim=1) * model.config.scale
        items = F.normalize(items, dim=1)
    return F.cross_entropy(queries @ items.T, torch.tensor(targets))


@pytest.mark.parametrize("scale", [None, 5.0])
def test_loss_is_the_softmax_over_the_catalogue_at_every_step(scale):
    model = _model(scale=scale)
    batch = _batch([[1, 2, 3], [], [4]], [[5], [6], [7]])
    loss = model.training_step(batch, 0)
    queries = torch.cat([model.states(batch), model.no_history.expand(3, -1)])
    expected = _dense_loss(queries, [2, 3, 5, 7, 1, 6, 4], model)
    assert torch.allclose(loss, expected, atol=1e-6)
    parameters = list(model.parameters())
    pairs = zip(
        torch.autograd.grad(loss, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    )
    assert all(torch.allclose(ours, theirs, atol=1e-6) for ours, theirs in pairs)


def test_unknown_items_are_no_targets():
    model = _model()
    batch = _batch([[1, 9, 0, 3]], [[9]])
    states = model.states(batch)
    expected = _dense_loss(torch.stack([states[2], model.no_history]), [3, 1], model)
    assert torch.allclose(model.training_step(batch, 0), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "scale"), [("sasrec", None), ("sasrec", 10.0), ("hstu", None), ("hstu", 10.0)]
)
def test_learns_a_small_catalogue_by_heart(encoder, scale):
    # after 1 comes 2, and so on around, but after 2 the item before it decides
    model = _model(encoder, scale)
    sequences = [[1, 2, 3, 4, 1], [5, 2, 6, 7, 5], [3, 4, 1, 2, 3], [6, 7, 5, 2, 6]]
    batch = _batch([one[:-1] for one in sequences], [one[-1:] for one in sequences])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model.training_step(batch, 0).backward()
        optimizer.step()
    targets = next_items(batch)[0]
    # the first step of a sequence may have several answers, item 2 has two as well without history
    logits = model.states(batch) @ model.items.weight.T
    if scale is not None:
        logits = F.normalize(model.states(batch), dim=1) @ model.item_embeddings(NUM_ITEMS).T
    assert torch.equal(logits.argmax(dim=1), targets)
    scores = model(batch) @ model.item_embeddings(VOCABULARY).T
    assert torch.equal(scores.argmax(dim=1), batch.label_item)


def test_training_validates_with_users_in_the_order_of_their_queries():
    model = _model()
    del model.log
    first, second = _batch([[1, 2], [3]], [[3], [4]]), _batch([[5]], [[6]])
    second = replace(second, query_id=torch.tensor([0]))
    first = replace(first, query_id=torch.tensor([2, 1]))
    seen: list[Tensor] = []

    def validate(users: Tensor) -> dict[str, float]:
        seen.append(users)
        return {"hits@10/all": 0.25 * len(seen)}

    model.validate = validate
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader = DataLoader([first, second], batch_size=None)
    trainer.fit(model, loader, loader)
    assert trainer.callback_metrics["val/hits@10/all"] == 0.5
    assert math.isfinite(trainer.callback_metrics["val/loss"])
    expected = torch.cat([model.eval()(second), model(first).flip(0)])
    assert torch.allclose(seen[-1], expected, atol=1e-6)
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"encoder": "gru"}, "encoder is 'gru', it must be one of sasrec, hstu"),
        ({"blocks": 0}, "blocks is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"scale": 0.0}, "scale is 0.0, it must be a finite number above 0, or null"),
        ({"has_times": True}, "no option of SASRec"),
    ],
)
def test_refuses_what_cannot_work(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        SequenceRecommenderConfig(**options)
