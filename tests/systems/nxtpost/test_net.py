"""The user tower against a loop over users and channels; no step sees the future; scripting."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import ACTION_TYPES, Feature, FeatureKind, FeatureSide
from recsys.nn.sequence.channel import ChannelSummary, SequenceChannel
from recsys.nn.sequence.relative_time import BOUNDARIES, gap_buckets
from recsys.systems.nxtpost.net import (
    ChannelConfig,
    SequenceTower,
    SequenceTowerConfig,
    StepEmbeddings,
)
from tests.manifests import EMPTY

ITEM_WIDTH = 6
MANIFEST = replace(
    EMPTY,
    features=(
        Feature("user_id", FeatureSide.USER, FeatureKind.CATEGORICAL, 50),
        Feature("language", FeatureSide.USER, FeatureKind.CATEGORICAL, 4),
        Feature("register_days", FeatureSide.USER, FeatureKind.DENSE),
    ),
    surfaces=("unknown", "pages", "groups"),
)
TWO_CHANNELS = [
    ChannelConfig("pages", surfaces=["pages"]),
    ChannelConfig("likes", actions=["liked", "comment"]),
]
TINY = SequenceTowerConfig(width=8, layers=2, heads=2, max_length=5, feed_forward_factor=2)
#: Table 1 of the paper, row by row, then channels, the other poolings and the other encoder.
SETTINGS = {
    "two_tower_transformer": replace(
        TINY, cls=False, causal=False, pooling="mean", relative_time=False
    ),
    "cls": replace(TINY, causal=False, pooling="mean", relative_time=False),
    "causal": replace(TINY, relative_time=False),
    "relative_time": TINY,
    "channels": replace(TINY, channels=TWO_CHANNELS),
    "shared_channels": replace(TINY, channels=TWO_CHANNELS, share_encoder=True),
    "channels_without_cls": replace(TINY, channels=TWO_CHANNELS, cls=False),
    "attention": replace(TINY, causal=False, pooling="attention"),
    "sum_without_static": replace(TINY, pooling="sum", static_features=False),
    "content_residual": replace(TINY, content_residual=True),
    "hstu": replace(TINY, encoder="hstu"),
    "hstu_channels_without_cls": replace(TINY, encoder="hstu", channels=TWO_CHANNELS, cls=False),
    "hstu_without_times": replace(TINY, encoder="hstu", relative_time=False),
}
CAUSAL = [name for name, config in SETTINGS.items() if config.causal]


@dataclass
class Histories:
    """A batch of the tower's arguments."""

    post_embedding: Tensor
    action_type: Tensor
    surface: Tensor
    timestamp: Tensor
    lengths: Tensor
    request_time: Tensor
    user_categorical: Tensor
    user_dense: Tensor

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        return tuple(vars(self).values())

    @property
    def history(self) -> tuple[Tensor, ...]:
        """What ``encode`` takes: everything but the request's time."""
        return tuple(v for name, v in vars(self).items() if name != "request_time")

    def users(self) -> list[Histories]:
        """One batch per user."""
        sizes = self.lengths.tolist()
        events = [column.split(sizes) for column in self.arguments[:4]]
        return [
            Histories(
                *(column[user] for column in events),
                *(column[user : user + 1] for column in self.arguments[4:]),
            )
            for user in range(len(sizes))
        ]

    def first(self, events: int) -> Histories:
        """The first events of a single user."""
        return Histories(
            *(column[:events] for column in self.arguments[:4]),
            torch.tensor([events]),
            *self.arguments[5:],
        )


def histories(lengths: list[int], seed: int = 0) -> Histories:
    generator = torch.Generator().manual_seed(seed)
    events, users = sum(lengths), len(lengths)
    gaps = torch.randint(1, 50_000_000, (events,), generator=generator)
    timestamp = torch.cat([gaps.new_zeros(0), *(g.cumsum(0) for g in gaps.split(lengths))])
    return Histories(
        F.normalize(torch.randn(events, ITEM_WIDTH, generator=generator), dim=1).double(),
        torch.randint(1, 5, (events,), generator=generator, dtype=torch.int8),
        torch.randint(0, 4, (events,), generator=generator, dtype=torch.int8),  # 3 is unknown
        timestamp,
        torch.tensor(lengths, dtype=torch.int64),
        torch.full([users], 10**9),
        torch.randint(0, 6, (users, 2), generator=generator),
        torch.randn(users, 1, generator=generator).double(),
    )


def build(config: SequenceTowerConfig) -> SequenceTower:
    """Every weight random, also those that start at 0; in evaluation mode."""
    torch.manual_seed(0)
    tower = SequenceTower(config, ITEM_WIDTH, MANIFEST).double().eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return tower


# A reference: one user, one channel and one event at a time.


def reference_tokens(
    channel: SequenceChannel, user: Histories, rows: list[int], causal: bool
) -> Tensor:
    tokens = [] if channel.start is None else [channel.start]
    events = channel.tokens
    for place, row in enumerate(rows):
        content = [user.post_embedding[row] * ITEM_WIDTH**0.5]
        if events.gap is not None:
            bucket = 0
            if place > 0:
                seconds = int(user.timestamp[row] - user.timestamp[rows[place - 1]]) // 1000
                bucket = seconds.bit_length() + 1
            content.append(events.gap.embedding.weight[bucket])
        position = place if causal else len(rows) - 1 - place
        surface = int(user.surface[row])
        tokens.append(
            events.content.weight @ torch.cat(content)
            + events.content.bias
            + events.position.weight[position]
            + events.action.weight[int(user.action_type[row])]
            + events.surface.weight[surface if surface < 3 else 0]
        )
    return torch.stack(tokens) if tokens else torch.empty(0, TINY.width).double()


def reference_summary(
    summary: ChannelSummary, states: Tensor, config: SequenceTowerConfig, gap_bucket: int
) -> Tensor:
    if config.pooling == "attention":
        scores = torch.softmax(states @ summary.pooling.score.weight[0], dim=0)
        pooled = (scores.unsqueeze(1) * states).sum(dim=0)
    else:
        pooled = {"mean": states.mean(0), "sum": states.sum(0), "last": states[-1]}[config.pooling]
    if summary.request_gap is not None:
        scale, shift = summary.request_gap.scale_and_shift.weight[gap_bucket].chunk(2)
        pooled = pooled * (1 + scale) + shift
    return pooled


def reference(tower: SequenceTower, config: SequenceTowerConfig, user: Histories) -> Tensor:
    first = max(0, int(user.lengths) - config.max_length)
    channels, present = [], []
    for number, setting in enumerate(config.channels):
        rows = [
            row
            for row in range(first, int(user.lengths))
            if (not setting.actions or ACTION_TYPES[user.action_type[row]] in setting.actions)
            and (
                not setting.surfaces
                or (*MANIFEST.surfaces, "unknown")[user.surface[row]] in setting.surfaces
            )
        ]
        channel = tower.channels[number]
        tokens = reference_tokens(channel, user, rows, config.causal)
        present.append(len(tokens) > 0)
        if not present[-1]:
            channels.append(torch.zeros(config.width).double())
            continue
        bucket = 0
        if rows:
            bucket = int(user.request_time - user.timestamp[rows[-1]]) // 1000
            bucket = bucket.bit_length() + 1
        times = user.timestamp[rows]
        if channel.start is not None:  # [CLS] is as old as the first event
            times = torch.cat([times[:1] if rows else torch.tensor([0]), times])
        states = channel.encoder(tokens, torch.tensor([len(tokens)]), times)
        channels.append(reference_summary(tower.summaries[number], states, config, bucket))
    if tower.static is not None:
        channels.append(tower.static(user.user_categorical, user.user_dense)[0])
        present.append(True)
    logits = tower.fusion.projection.weight @ torch.cat(channels) + tower.fusion.projection.bias
    weights = torch.exp(logits) * torch.tensor(present)
    fused = sum(w * c for w, c in zip(weights / weights.sum(), channels, strict=True))
    projected = tower.projection.weight @ fused + tower.projection.bias
    items = user.post_embedding[first : int(user.lengths)]
    if tower.content_mean is not None and len(items):
        projected = projected + tower.content_mean.weight * items.mean(dim=0)
    return projected / projected.norm()


@pytest.mark.parametrize("name", SETTINGS)
def test_embedding_agrees_with_the_loop_over_users_and_channels(name: str) -> None:
    config = SETTINGS[name]
    tower, batch = build(config), histories([3, 0, 8, 1])
    embedding = tower(*batch.arguments)
    assert embedding.shape == (4, ITEM_WIDTH)
    expected = torch.stack([reference(tower, config, user) for user in batch.users()])
    torch.testing.assert_close(embedding, expected)


def test_the_references_bucket_is_the_one_of_the_module() -> None:
    gaps = torch.tensor([0, 999, 1_000, 3_999, 4_000, 86_400_000])
    buckets = gap_buckets(gaps, torch.zeros_like(gaps), gaps >= 0, torch.tensor(BOUNDARIES))
    assert buckets.tolist() == [(int(gap) // 1000).bit_length() + 1 for gap in gaps]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_user_does_not_depend_on_the_others_of_the_batch(name: str) -> None:
    tower, batch = build(SETTINGS[name]), histories([3, 0, 8, 1])
    alone = torch.cat([tower(*user.arguments) for user in batch.users()])
    torch.testing.assert_close(alone, tower(*batch.arguments))


def steps_of(tower: SequenceTower, batch: Histories) -> StepEmbeddings:
    return tower.step_embeddings(tower.encode(*batch.history))


@pytest.mark.parametrize("name", CAUSAL)
def test_a_step_is_the_user_embedding_of_the_events_before_it_but_for_the_request_gap(
    name: str,
) -> None:
    """By running the tower on every prefix; without [CLS] no event is before the first."""
    config = replace(SETTINGS[name], pooling="last")
    tower, batch = build(config), histories([3, 0, 5, 1])
    steps = steps_of(tower, batch)
    for summary in tower.summaries:
        if summary.request_gap is not None:
            torch.nn.init.zeros_(summary.request_gap.scale_and_shift.weight)
    expected, target, begin = [], [], 0
    for user in batch.users():
        for event in range(0 if config.cls else 1, int(user.lengths)):
            expected.append(tower(*user.first(event).arguments)[0])
            target.append(begin + event)
        begin += int(user.lengths)
    assert steps.target.tolist() == target
    torch.testing.assert_close(steps.embedding, torch.stack(expected))


@pytest.mark.parametrize("name", CAUSAL)
def test_planted_leaks_do_not_reach_earlier_steps(name: str) -> None:
    """Everything about event 2 is changed: steps that predict events 0 to 2 stay."""
    tower, batch = build(SETTINGS[name]), histories([5])
    before = steps_of(tower, batch)
    unaffected = before.target <= 2
    changes = {
        "timestamp": batch.timestamp + torch.tensor([0, 0, 1, 0, 0]) * 5_000_000,
        "action_type": torch.where(torch.arange(5) == 2, 6, batch.action_type).to(torch.int8),
        "surface": torch.where(torch.arange(5) == 2, 0, batch.surface).to(torch.int8),
        "post_embedding": batch.post_embedding + torch.eye(5).double()[2].unsqueeze(1),
    }
    for column, changed in changes.items():
        after = steps_of(tower, replace(batch, **{column: changed}))
        # A channel that the event enters or leaves has other shapes, so sums round otherwise.
        torch.testing.assert_close(
            before.embedding[unaffected],
            after.embedding[unaffected],
            rtol=0,
            atol=1e-12,
            msg=column,
        )
    everything = steps_of(tower, replace(batch, **changes))
    assert not torch.allclose(before.embedding[-1], everything.embedding[-1])


def test_the_request_gap_changes_the_user_embedding_and_no_state() -> None:
    """States and step embeddings come from ``encode``, which is not given the request's time."""
    tower, batch = build(TINY), histories([3, 0])
    encoded = tower.encode(*batch.history)
    embedding = tower.user_embedding(encoded, batch.request_time)
    later = tower.user_embedding(encoded, batch.request_time * 2)
    assert torch.equal(embedding, tower(*batch.arguments))
    assert not torch.allclose(embedding[0], later[0])
    assert torch.equal(embedding[1], later[1])  # without history there is no gap
    assert "request_time" not in inspect.signature(tower.encode).parameters


def test_only_the_newest_events_are_looked_at_and_targets_are_places_in_the_batch() -> None:
    tower, batch = build(TINY), histories([8, 2])
    newest = Histories(
        *(torch.cat([column[3:8], column[8:]]) for column in batch.arguments[:4]),
        torch.tensor([5, 2]),
        *batch.arguments[5:],
    )
    torch.testing.assert_close(tower(*batch.arguments), tower(*newest.arguments))
    steps = steps_of(tower, batch)
    assert steps.target.tolist() == [3, 4, 5, 6, 7, 8, 9]
    torch.testing.assert_close(steps.embedding, steps_of(tower, newest).embedding)


def test_users_without_history_are_told_apart_by_static_features_alone() -> None:
    batch = histories([0, 0, 2])
    batch.user_categorical[:, 1] = torch.tensor([1, 2, 1])
    embedding = build(TINY)(*batch.arguments)
    assert not torch.allclose(embedding[0], embedding[1])
    nothing = build(replace(TINY, cls=False, static_features=False))
    embedding = nothing(*batch.arguments)
    bias = nothing.projection.bias
    torch.testing.assert_close(embedding[:2], (bias / bias.norm()).expand(2, -1))
    assert not torch.allclose(embedding[0], embedding[2])


@pytest.mark.parametrize("name", SETTINGS)
def test_gradients_are_finite_and_reach_every_weight(name: str) -> None:
    config = SETTINGS[name]
    tower, batch = build(config).train(), histories([3, 0, 8, 1, 5], seed=2)
    encoded = tower.encode(*batch.history)
    embedding = tower.user_embedding(encoded, batch.request_time)
    loss = (embedding * torch.randn_like(embedding)).sum()
    if config.causal:
        steps = tower.step_embeddings(encoded).embedding
        loss = loss + (steps * torch.randn_like(steps)).sum()
    loss.backward()
    for parameter_name, parameter in tower.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        # A single channel has weight 1 whatever its logit is.
        if not (parameter_name.startswith("fusion") and tower.fusion.projection.out_features == 1):
            assert parameter.grad.abs().sum() > 0, parameter_name


def test_a_shared_encoder_has_the_weights_of_one() -> None:
    def count(config: SequenceTowerConfig) -> int:
        return sum(p.numel() for p in SequenceTower(config, ITEM_WIDTH, MANIFEST).parameters())

    one = count(replace(TINY, channels=[ChannelConfig()]))
    shared, own = count(SETTINGS["shared_channels"]), count(SETTINGS["channels"])
    encoder = sum(
        p.numel() for p in SequenceTower(TINY, ITEM_WIDTH, MANIFEST).channels[0].parameters()
    )
    assert own - shared == encoder
    assert shared - one < encoder


def test_scripted_and_loaded_with_torch_alone_it_gives_the_same_embeddings(tmp_path: Path) -> None:
    batch = histories([3, 0, 8, 1])
    expected = {}
    for name in ("relative_time", "channels_without_cls", "attention"):
        tower = build(SETTINGS[name])
        torch.jit.script(tower).save(str(tmp_path / f"{name}.pt"))
        expected[name] = tower(*batch.arguments)
    torch.save(batch.arguments, tmp_path / "batch.pt")
    script = "import sys, torch\nbatch = torch.load(sys.argv[1] + '/batch.pt')\n"
    script += "for name in sys.argv[2:]:\n"
    script += "    tower = torch.jit.load(f'{sys.argv[1]}/{name}.pt')\n"
    script += "    torch.save([tower(*batch) for _ in range(3)], f'{sys.argv[1]}/{name}.out')\n"
    script += "banned = ('recsys', 'torchrec', 'fbgemm')\n"
    script += "assert not [name for name in sys.modules if name.startswith(banned)]\n"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path), *expected],
        check=True,
        cwd=tmp_path,
    )
    for name, embedding in expected.items():
        for loaded in torch.load(tmp_path / f"{name}.out"):
            torch.testing.assert_close(loaded, embedding, msg=name)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"heads": 3}, "heads=3 does not divide"),
        ({"pooling": "max"}, "pooling=max is unknown"),
        ({"max_length": 0}, "max_length is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"channels": []}, "no channel"),
        (
            {"channels": [ChannelConfig("web", surfaces=["web"])]},
            r"Channel 'web' .* surfaces \['web'\]",
        ),
        (
            {"channels": [ChannelConfig("x", actions=["like"])]},
            r"actions \['like'\].*'liked'",
        ),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SequenceTower(replace(TINY, **wrong), ITEM_WIDTH, MANIFEST)


def test_steps_of_a_bidirectional_encoder_are_refused() -> None:
    with pytest.raises(ConfigError, match="causal=true"):
        steps_of(build(SETTINGS["cls"]), histories([2]))


def test_an_untrained_tower_with_the_residual_is_near_the_mean_of_the_history() -> None:
    torch.manual_seed(0)
    tower = SequenceTower(replace(TINY, content_residual=True), ITEM_WIDTH, MANIFEST).eval()
    batch = histories([4, 3, 5])
    items = F.normalize(batch.post_embedding.float(), dim=1)
    embedding = tower(
        items,
        batch.action_type,
        batch.surface,
        batch.timestamp,
        batch.lengths,
        batch.request_time,
        batch.user_categorical,
        batch.user_dense.float(),
    )
    means = torch.stack([part.mean(dim=0) for part in items.split([4, 3, 5])])
    assert (F.cosine_similarity(embedding, means) > 0.5).all()
