"""The post tower (NxtPost §3.1.1): channels of an item's features, fused by learned weights.

Legend: P items, N channels, D width of a channel, W width of an item embedding, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.bounds import Settings, Share, ShareBelowOne, Width
from recsys.core.errors import ConfigError
from recsys.data.batches.item_features import ItemFeatures
from recsys.data.content.text import HashedTextConfig
from recsys.data.contract.schema import ID_COLUMNS, Column, Feature
from recsys.nn.interaction.channel_fusion import ChannelFusion
from recsys.systems.post_tower.images import ImageSet
from recsys.systems.post_tower.text import HashedText, PretrainedText


@dataclass(frozen=True)
class PostTowerConfig(Settings):
    """Sizes of the post tower.

    Attributes:
        width: D of every channel.
        output_width: W.
        hashed_text: the n-grams of the text channel.
        pretrained_text: folder of a Hugging Face encoder that reads the text instead; the texts
            must then be split by its tokeniser.
        post_id: whether each item of the fit period has an embedding of its own too: what its
            engagements say beyond what is known of it. For items that live on; a new one does
            without.
        id_dropout: probability that an author or topic is read as unknown in training, so that
            index 0 learns what to say about new ones, and that an item is taken for a new one.
        dropout: of the fused channels.
    """

    width: Width = 64
    output_width: Width = 64
    hashed_text: HashedTextConfig = field(default_factory=HashedTextConfig)
    pretrained_text: str | None = None
    post_id: bool = False
    id_dropout: Share = 0.05
    dropout: ShareBelowOne = 0.1


class Metadata(nn.Module):
    """Categorical metadata: the looked-up values side by side, and an MLP.

    The item's own id is not among them: see :class:`PostId`. Index 0 of every table, unknown, is
    what an author or topic that was never seen is read as.

    Args:
        features: the categorical features, in column order, the item's id among them.
        width: D.
        id_dropout: see :class:`PostTowerConfig`.
    """

    def __init__(self, features: Sequence[Feature], width: int, id_dropout: float) -> None:
        super().__init__()
        self.columns: Tensor
        columns = metadata_columns(features)
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        used = [features[column] for column in columns]
        self.rows = [feature.cardinality for feature in used]
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for rows in self.rows)
        self.is_id = [feature.name in ID_COLUMNS for feature in used]
        self.id_dropout = id_dropout
        self.mlp = nn.Sequential(
            nn.Linear(len(used) * width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, categorical: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F] → [P, D], and [P] bool: whether anything is known of an item."""
        used = categorical.index_select(1, self.columns)
        looked_up = [
            table(self._in_table(used[:, place], place)) for place, table in enumerate(self.tables)
        ]
        return self.mlp(torch.cat(looked_up, dim=1)), (used > 0).any(dim=1)

    def _in_table(self, indices: Tensor, place: int) -> Tensor:
        """[P] with what a table does not have as unknown, and some ids of a training step."""
        unknown = indices >= self.rows[place]
        if not torch.jit.is_scripting() and self.training and self.is_id[place]:
            unknown |= torch.rand(indices.shape, device=indices.device) < self.id_dropout
        return indices.masked_fill(unknown, 0)


def metadata_columns(features: Sequence[Feature]) -> list[int]:
    """The columns of categorical features that tell items apart, without the item's own id."""
    return [
        c
        for c, feature in enumerate(features)
        if feature.name != Column.ITEM and feature.cardinality > 1
    ]


class PostId(nn.Module):
    """An embedding of its own for every item that can be told from others, none for a new one.

    Args:
        features: the categorical features, in column order, the item's id among them.
        width: D.
        dropout: probability that an item is taken for a new one in training.

    Raises:
        ConfigError: the item's id is not among the features.
    """

    def __init__(self, features: Sequence[Feature], width: int, dropout: float) -> None:
        super().__init__()
        names = [feature.name for feature in features]
        if Column.ITEM not in names:
            raise ConfigError(
                f"post_id=true needs {Column.ITEM} among the data set's categorical "
                "features of items, and it is not; leave post_id=false."
            )
        self.column = names.index(Column.ITEM)
        self.embedding = nn.Embedding(features[self.column].cardinality, width)
        nn.init.zeros_(self.embedding.weight)  # of an item without pairs nothing is said
        self.dropout = dropout

    def forward(self, categorical: Tensor) -> tuple[Tensor, Tensor]:
        """[P, F] → [P, D], and [P] bool: whether an item is known, which a new one, 0, is not."""
        items = categorical[:, self.column]
        known = items > 0
        if not torch.jit.is_scripting() and self.training:
            known &= torch.rand(items.shape, device=items.device) >= self.dropout
        return self.embedding(items), known


class PostTower(nn.Module):
    """Encodes what there is of an item, fuses it by learned weights (equation 5), projects to W.

    Args:
        config: sizes.
        has_text: whether items have texts.
        image_width: width of the given image embeddings, 0 where items have none.
        categorical: categorical features of items, in column order.
        num_dense: number of dense features.
        given_width: width of the embeddings that came with the items, 0 where there are none.

    Raises:
        ConfigError: the items have nothing to encode, the pretrained encoder cannot be loaded, or
            the ids of the items are not among their features.
        InstallationError: the pretrained encoder needs a package that is not installed.
    """

    def __init__(
        self,
        config: PostTowerConfig,
        *,
        has_text: bool,
        image_width: int,
        categorical: Sequence[Feature],
        num_dense: int,
        given_width: int = 0,
    ) -> None:
        super().__init__()
        width = config.width
        self.text = _text_channel(config) if has_text else None
        self.images = ImageSet(image_width, width) if image_width else None
        has_metadata = bool(metadata_columns(categorical))
        self.metadata = Metadata(categorical, width, config.id_dropout) if has_metadata else None
        self.post_id = PostId(categorical, width, config.id_dropout) if config.post_id else None
        self.dense = _vector_channel(num_dense, width)
        self.given = _vector_channel(given_width, width)
        channels = (self.text, self.images, self.metadata, self.post_id, self.dense, self.given)
        num_channels = sum(channel is not None for channel in channels)
        if num_channels == 0:
            raise ConfigError(
                "The items of this data set have no text, images, categories, numbers or "
                "embeddings, so there is nothing a post tower could encode; name columns of theirs "
                "in data.options.items, or set post_id=true among the settings of the tower."
            )
        # The channels come at different scales; their weights should not have to undo that.
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_channels))
        self.fusion = ChannelFusion(num_channels, width)
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(width, config.output_width)

    @classmethod
    def of_items(
        cls, config: PostTowerConfig, items: ItemFeatures, categorical: Sequence[Feature]
    ) -> PostTower:
        """A tower with a channel for whatever is known of some items; raises as the class does."""
        return cls(
            config,
            has_text=bool(items.text_lengths.any()),
            image_width=items.images.shape[1],
            categorical=categorical,
            num_dense=items.dense.shape[1],
            given_width=items.given.shape[1],
        )

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        images: Tensor,
        image_lengths: Tensor,
        categorical: Tensor,
        dense: Tensor,
        has_dense: Tensor,
        given: Tensor,
        has_given: Tensor,
    ) -> Tensor:
        """Encode P items by the columns of ``ItemFeatures``; this is what is exported.

        Returns:
            [P, W], L2-normalised; zeros for an item of which nothing is known.
        """
        encoded: list[Tensor] = []
        present: list[Tensor] = []
        if self.text is not None:
            encoded.append(self.text(text, text_lengths))
            present.append(text_lengths > 0)
        if self.images is not None:
            encoded.append(self.images(images, image_lengths))
            present.append(image_lengths > 0)
        if self.metadata is not None:
            values, known = self.metadata(categorical)
            encoded.append(values)
            present.append(known)
        if self.post_id is not None:
            values, known = self.post_id(categorical)
            encoded.append(values)
            present.append(known)
        if self.dense is not None:
            encoded.append(self.dense(dense))
            present.append(has_dense)
        if self.given is not None:
            encoded.append(self.given(given))
            present.append(has_given)
        normed: list[Tensor] = []
        for place, norm in enumerate(self.norms):
            normed.append(norm(encoded[place]))
        is_present = torch.stack(present, dim=1)  # [P, N]
        fused = self.fusion(torch.stack(normed, dim=1), is_present)  # [P, D]
        embedding = F.normalize(self.projection(self.dropout(fused)), dim=1)
        return embedding * is_present.any(dim=1, keepdim=True)


def _vector_channel(given: int, width: int) -> nn.Module | None:
    """An MLP for numbers [P, given]; None where there are none."""
    if not given:
        return None
    return nn.Sequential(nn.Linear(given, width), nn.ReLU(), nn.Linear(width, width))


def _text_channel(config: PostTowerConfig) -> nn.Module:
    if config.pretrained_text is not None:
        return PretrainedText(config.pretrained_text, config.width)
    return HashedText(config.hashed_text.buckets, config.width)
