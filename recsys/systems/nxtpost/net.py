"""NxtPost's user tower: a history of engagements to a user embedding (NxtPost §3.1.2).

Legend: B users, E events over all histories (jagged), C channels of events, N channels that are
fused (the C and, where there are static features, one for them), Q steps that predict an item,
D width of the model, W width of an item embedding.
"""

# no `from __future__ import annotations`: TorchScript reads the types of the class attributes

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.bounds import Few, Length, OneOf, Settings, ShareBelowOne, Width
from recsys.core.errors import ConfigError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import FeatureKind, FeatureSide
from recsys.nn.interaction.channel_fusion import ChannelFusion
from recsys.nn.interaction.static_features import StaticFeatures, used_columns
from recsys.nn.sequence.base import SequenceEncoder, newest_steps, step_number, user_of_step
from recsys.nn.sequence.channel import ChannelSummary, EventTokens, SequenceChannel
from recsys.nn.sequence.content_mean import ContentMean
from recsys.nn.sequence.hstu import HSTUEncoder
from recsys.nn.sequence.transformer import TransformerSequenceEncoder

TRANSFORMER, HSTU = ENCODERS = ("transformer", "hstu")

#: Length of an untrained output beside the mean of the items, where that is added.
RESIDUAL_START = 0.3


@dataclass(frozen=True)
class ChannelConfig(Settings):
    """The events that make one sequence of their own.

    Attributes:
        name: what the channel is called in errors.
        actions: action types of its events; empty for all.
        surfaces: surfaces of its events; empty for all.
    """

    name: str = "all"
    actions: list[str] = field(default_factory=list)
    surfaces: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SequenceTowerConfig(Settings):
    """What the rows of NxtPost table 1 switch, and the sizes.

    The table's Two Tower Transformer is ``cls=False, causal=False, pooling=mean,
    relative_time=False``; its further rows set ``cls``, then ``causal`` with ``pooling=last``, and
    the last one ``relative_time``. The two losses are the model's affair.

    Attributes:
        width: D.
        encoder: ``transformer``, or ``hstu``: causal, without feed-forward networks, its attention
            biased by the time between events too (Zhai et al., ICML 2024). The paper has none.
        layers: Transformer layers (figure 8), or blocks of HSTU.
        heads: attention heads; they divide the width.
        feed_forward_factor: hidden width of the Transformer's feed-forward network over D.
        dropout: of tokens and of the encoder's parts.
        max_length: newest events of a history that are looked at (figure 7).
        cls: a learned [CLS] token starts each sequence; it stands for users without history.
        causal: a step sees only itself and the steps before it; the short-term loss needs it.
        pooling: ``mean``, ``sum``, ``attention`` or ``last``.
        relative_time: gaps between events, and to the request, are looked at; not for logs that
            have no times.
        channels: the sequences; by default one of all events.
        share_encoder: whether the channels are encoded by the same weights.
        static_features: whether the users' features are one more channel.
        content_residual: the mean of the history's item embeddings is added before the output is
            normalised (``ContentMean``); for corpora of few items. The paper has none.
    """

    width: Width = 64
    encoder: Annotated[str, OneOf(ENCODERS)] = TRANSFORMER
    layers: Few = 2
    heads: Few = 2
    feed_forward_factor: Few = 4
    dropout: ShareBelowOne = 0.2
    max_length: Length = 100
    cls: bool = True
    causal: bool = True
    pooling: str = "last"
    relative_time: bool = True
    channels: list[ChannelConfig] = field(default_factory=lambda: [ChannelConfig()])
    share_encoder: bool = False
    static_features: bool = True
    content_residual: bool = False

    def __post_init__(self) -> None:
        """Refuse a tower without channels, and HSTU that sees the future."""
        super().__post_init__()
        if self.encoder == HSTU and not self.causal:
            raise ConfigError(
                "encoder=hstu is causal: a step sees those before it alone; leave causal=true, or "
                "take encoder=transformer."
            )
        if not self.channels:
            raise ConfigError("The user tower has no channel; give it at least one, `- name: all`.")


class EncodedHistory(NamedTuple):
    """What the encoders say about the histories of a batch, before anything is fused.

    Attributes:
        lengths: [B] int64, events per user that were looked at.
        event: [E'] int64, their places in the batch that was given.
        members: [C, E'] bool, whether an event is in a channel.
        states: per channel [S, D].
        steps: per channel [B] int64, states per user.
        timestamps: per channel, its events' times in ms.
        static: [B, D], the encoded static features; ``None`` where there are none.
        items: [E', W], the embeddings of the events' items.
    """

    lengths: Tensor
    event: Tensor
    members: Tensor
    states: list[Tensor]
    steps: list[Tensor]
    timestamps: list[Tensor]
    static: Tensor | None
    items: Tensor


class StepEmbeddings(NamedTuple):
    """What the short-term loss matches.

    Attributes:
        embedding: [Q, W], L2-normalised.
        target: [Q] int64, the place in the batch of the event whose item it is to be matched with:
            the one that follows the step.
    """

    embedding: Tensor
    target: Tensor


class SequenceTower(nn.Module):
    """Encodes the channels of a history, fuses them with the static features, projects to W.

    The embedding after a step is made as the user embedding is, by the same fusion and the same
    projection, from the state each channel had reached by then; only the gap to the request is not
    in it. So a user without history is represented by what the short-term loss teaches to come
    before a first item: the [CLS] states and the static features.

    Of a user with neither history nor [CLS] nor static features nothing is known; all of them have
    the same embedding, that of the projection's bias.

    Args:
        config: sizes and switches.
        item_width: W.
        manifest: of the data set: its surfaces and its users' features.

    Raises:
        ConfigError: heads that do not divide the width, an unknown pooling, or a channel of actions
            or surfaces that the data set does not have.
    """

    channel_actions: Tensor
    channel_surfaces: Tensor

    def __init__(
        self, config: SequenceTowerConfig, item_width: int, manifest: DatasetManifest
    ) -> None:
        super().__init__()
        self.max_length = config.max_length
        self.cls = config.cls
        self.causal = config.causal
        self.register_buffer(
            "channel_actions",
            torch.stack([_selected(c, "actions", manifest.action_types) for c in config.channels]),
            persistent=False,
        )
        self.register_buffer(
            "channel_surfaces",
            torch.stack([_selected(c, "surfaces", manifest.surfaces) for c in config.channels]),
            persistent=False,
        )
        self.of_all_events = [not (c.actions or c.surfaces) for c in config.channels]
        self.channels = nn.ModuleList()
        for _ in config.channels:
            shared = config.share_encoder and len(self.channels) > 0
            self.channels.append(
                self.channels[0] if shared else _build_channel(config, item_width, manifest)
            )
        self.summaries = nn.ModuleList(
            ChannelSummary(config.width, config.pooling, config.relative_time)
            for _ in config.channels
        )
        categorical = manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL)
        num_dense = len(manifest.select(FeatureSide.USER, FeatureKind.DENSE))
        has_static = config.static_features and (used_columns(categorical) or num_dense)
        self.static = StaticFeatures(categorical, num_dense, config.width) if has_static else None
        num_fused = len(self.channels) + (self.static is not None)
        self.fusion = ChannelFusion(num_fused, config.width)
        self.projection = nn.Linear(config.width, item_width)
        self.content_mean = ContentMean() if config.content_residual else None
        if config.content_residual:
            # short beside the mean, which has a length of up to 1
            spread = RESIDUAL_START * (config.width * item_width) ** -0.5
            nn.init.normal_(self.projection.weight, std=spread)
            nn.init.zeros_(self.projection.bias)

    def forward(
        self,
        post_embedding: Tensor,
        action_type: Tensor,
        surface: Tensor,
        timestamp: Tensor,
        lengths: Tensor,
        request_time: Tensor,
        user_categorical: Tensor,
        user_dense: Tensor,
    ) -> Tensor:
        """The user embeddings of a batch; this is what is exported.

        Args:
            post_embedding: [E, W], each user's events oldest first; only the newest
                ``max_length`` events of a history are looked at.
            action_type: [E], positions in the manifest's ``action_types``.
            surface: [E], codes of the manifest's surfaces; a code it does not have is unknown.
            timestamp: [E] int64, ms.
            lengths: [B] int64, events per user; 0 is allowed.
            request_time: [B] int64, ms.
            user_categorical: [B, F_u] int64, columns in the order of the manifest's features.
            user_dense: [B, D_u] float32.

        Returns:
            [B, W], L2-normalised.
        """
        encoded = self.encode(
            post_embedding, action_type, surface, timestamp, lengths, user_categorical, user_dense
        )
        return self.user_embedding(encoded, request_time)

    def encode(
        self,
        post_embedding: Tensor,
        action_type: Tensor,
        surface: Tensor,
        timestamp: Tensor,
        lengths: Tensor,
        user_categorical: Tensor,
        user_dense: Tensor,
        host_lengths: Tensor | None = None,
    ) -> EncodedHistory:
        """Run the encoders; arguments of :meth:`forward`.

        Training calls it once, and both :meth:`user_embedding` and :meth:`step_embeddings` on what
        it returns. With ``host_lengths``, [B] ``lengths`` on the host, a device is waited for only
        where a channel has some events and not all.
        """
        num_surfaces = self.channel_surfaces.shape[1]
        event, lengths = newest_steps(lengths, self.max_length, host_lengths)
        if host_lengths is not None:
            host_lengths = host_lengths.clamp(max=self.max_length)
        action_type = action_type.index_select(0, event).long()
        surface = surface.index_select(0, event).long()
        surface = surface.masked_fill(surface >= num_surfaces, 0)
        members = self.channel_actions.index_select(1, action_type)
        members = members & self.channel_surfaces.index_select(1, surface)  # [C, E']
        users = user_of_step(lengths, event.shape[0])
        states: list[Tensor] = []
        steps: list[Tensor] = []
        timestamps: list[Tensor] = []
        for number, channel in enumerate(self.channels):
            place, channel_lengths, channel_sizes = event, lengths, host_lengths
            channel_action, channel_surface = action_type, surface
            if not self.of_all_events[number]:
                chosen = torch.nonzero(members[number]).squeeze(1)  # [E_c]
                channel_lengths = torch.zeros_like(lengths).index_add(
                    0, users, members[number].to(lengths.dtype)
                )
                channel_sizes = None
                place = event.index_select(0, chosen)
                channel_action = action_type.index_select(0, chosen)
                channel_surface = surface.index_select(0, chosen)
            channel_time = timestamp.index_select(0, place)
            channel_states, channel_steps = channel(
                post_embedding.index_select(0, place),
                channel_action,
                channel_surface,
                channel_time,
                channel_lengths,
                channel_sizes,
            )
            states.append(channel_states)
            steps.append(channel_steps)
            timestamps.append(channel_time)
        static: Tensor | None = None
        if self.static is not None:
            static = self.static(user_categorical, user_dense)
        items = post_embedding.index_select(0, event)
        return EncodedHistory(lengths, event, members, states, steps, timestamps, static, items)

    def user_embedding(self, encoded: EncodedHistory, request_time: Tensor) -> Tensor:
        """The user embeddings [B, W] at the time of the request [B], L2-normalised."""
        representations: list[Tensor] = []
        present: list[Tensor] = []
        for number, summary in enumerate(self.summaries):
            states, steps = encoded.states[number], encoded.steps[number]
            events = steps - int(self.cls)
            representations.append(
                summary(states, steps, encoded.timestamps[number], events, request_time)
            )
            present.append(steps > 0)
        residual: Tensor | None = None
        if self.content_mean is not None:
            residual = self.content_mean(encoded.items, encoded.lengths)
        return self._fuse(representations, present, encoded.static, residual)

    def step_embeddings(self, encoded: EncodedHistory) -> StepEmbeddings:
        """The embedding before every event, to be matched with the event's item.

        With [CLS], also the first event of a user has one. Where a history was cut to
        ``max_length`` events, that is the first one of the window.

        Raises:
            ConfigError: the encoder is bidirectional: its states have seen the item they would
                have to predict.
        """
        if not self.causal:
            raise ConfigError(
                "The short-term loss needs causal=true: a state of a bidirectional encoder has "
                "seen the item it is to predict."
            )
        num_events = encoded.event.shape[0]
        predicted = torch.arange(num_events, device=encoded.event.device)
        if not self.cls:
            predicted = predicted[step_number(encoded.lengths, num_events) > 0]
        users = user_of_step(encoded.lengths, num_events)  # [E']
        first = (torch.cumsum(encoded.lengths, dim=0) - encoded.lengths)[users]  # [E']
        representations: list[Tensor] = []
        present: list[Tensor] = []
        for number, states in enumerate(encoded.states):
            member = encoded.members[number].long()
            before = torch.cumsum(member, dim=0) - member  # events of the channel, of all users
            reached = before - before[first] + int(self.cls)  # states of the user by then
            steps = encoded.steps[number]
            last = (torch.cumsum(steps, dim=0) - steps)[users] + reached - 1
            last = torch.where(reached > 0, last, states.shape[0])[predicted]
            representations.append(F.pad(states, (0, 0, 0, 1)).index_select(0, last))  # [Q, D]
            present.append(reached[predicted] > 0)
        static = encoded.static
        if static is not None:
            static = static.index_select(0, users[predicted])
        residual: Tensor | None = None
        if self.content_mean is not None:
            before = self.content_mean.before(encoded.items, encoded.lengths)
            residual = before.index_select(0, predicted)
        embedding = self._fuse(representations, present, static, residual)
        return StepEmbeddings(embedding, encoded.event[predicted])

    def _fuse(
        self,
        representations: list[Tensor],
        present: list[Tensor],
        static: Tensor | None,
        residual: Tensor | None,
    ) -> Tensor:
        """Channels [n, D] each, static features [n, D] and means of items [n, W] to [n, W]."""
        if static is not None:
            representations.append(static)
            present.append(torch.ones_like(present[0]))
        fused = self.fusion(torch.stack(representations, dim=1), torch.stack(present, dim=1))
        output: Tensor = self.projection(fused)
        if residual is not None:
            output = output + residual
        return F.normalize(output, dim=1)


def _build_channel(
    config: SequenceTowerConfig, item_width: int, manifest: DatasetManifest
) -> SequenceChannel:
    tokens = EventTokens(
        item_width,
        config.width,
        len(manifest.action_types),
        len(manifest.surfaces),
        config.max_length,
        from_oldest=config.causal,
        relative_time=config.relative_time,
    )
    timed = config.encoder == HSTU and config.relative_time
    encoder = _build_encoder(config, timed)
    return SequenceChannel(tokens, encoder, config.width, config.cls, config.dropout, timed)


def _build_encoder(config: SequenceTowerConfig, timed: bool) -> SequenceEncoder:
    if config.encoder == HSTU:
        steps = config.max_length + int(config.cls)
        return HSTUEncoder(
            config.width, config.layers, config.heads, config.dropout, steps, has_times=timed
        )
    return TransformerSequenceEncoder(
        config.width,
        config.layers,
        config.heads,
        config.feed_forward_factor,
        config.dropout,
        config.causal,
    )


def _selected(channel: ChannelConfig, kind: str, names: Sequence[str]) -> Tensor:
    """Which of ``names`` the channel's ``actions`` or ``surfaces`` choose, [len(names)] bool."""
    chosen: list[str] = getattr(channel, kind)
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise ConfigError(
            f"Channel {channel.name!r} of the user tower asks for {kind} {unknown}, which the data "
            f"set does not have; choose from {list(names)}, or leave the list empty for all."
        )
    return torch.tensor([not chosen or name in chosen for name in names])
