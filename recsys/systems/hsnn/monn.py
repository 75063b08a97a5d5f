"""The modular neural network (MoNN) of a level: user tower, item side, interactions, over-arch.

Legend: n pairs, B requests, V vectors of width E that come in, n_u, n_i and n_ui vectors of width D
of a user, an item and their pair, W width of an item embedding, K tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor, nn

from recsys.core.bounds import Number, Settings, Width
from recsys.core.errors import ConfigError
from recsys.nn.interaction.attention_factorisation import EvenLinear, FeatureTower, KeptCoordinates
from recsys.nn.interaction.over_arch import DotProduct, OverArch

_Vectors = Annotated[int, Number(at_least=1, at_most=512)]
_VectorsOrZero = Annotated[int, Number(at_least=0, at_most=512)]
_Layers = Annotated[int, Number(at_least=0, at_most=64)]


@dataclass(frozen=True)
class MonnConfig(Settings):
    """The size of a level's network.

    Attributes:
        user_vectors: n_u.
        item_vectors: n_i.
        interaction_vectors: n_ui; 0 for a network without an interaction tower.
        width: D.
        tower_sizes: layers of the towers' MLPs.
        over_layers: layers of the over-arch; 0 for the dot product of two towers.
        over_vectors: that come out of each of them.
        task_hidden_size: units of each task's network.
    """

    user_vectors: _Vectors = 8
    item_vectors: _Vectors = 1
    interaction_vectors: _VectorsOrZero = 1
    width: Annotated[int, Number(at_least=4, at_most=4_096, multiple_of=4)] = 40
    tower_sizes: list[Width] = field(default_factory=lambda: [128])
    over_layers: _Layers = 1
    over_vectors: _Vectors = 4
    task_hidden_size: Width = 32

    def __post_init__(self) -> None:
        """Refuse pairs that a dot product would not look at."""
        super().__post_init__()
        if self.over_layers == 0 and self.interaction_vectors:
            raise ConfigError(
                f"over_layers=0 with interaction_vectors={self.interaction_vectors}: a dot product "
                "of two towers has no place for interactions; give one of the two."
            )

    @property
    def item_width(self) -> int:
        """W of what its item tower gives."""
        return self.item_vectors * self.width


class Monn(nn.Module):
    """What all levels have: a user tower and an over-arch.

    Args:
        config: sizes.
        user_vectors: V of a user.
        vector_width: E.
        num_tasks: K.
    """

    def __init__(
        self, config: MonnConfig, user_vectors: int, vector_width: int, num_tasks: int
    ) -> None:
        super().__init__()
        self.width = config.width
        self.users = FeatureTower(
            user_vectors, vector_width, config.user_vectors, config.width, config.tower_sizes
        )
        self.over: nn.Module
        if config.over_layers:
            vectors = config.user_vectors + config.item_vectors + config.interaction_vectors
            self.over = OverArch(
                vectors,
                config.width,
                config.over_layers,
                config.over_vectors,
                config.task_hidden_size,
                num_tasks,
            )
        else:
            self.over = DotProduct(config.width, num_tasks)


class ItemMonn(Monn):
    """The network of items: an item tower, and interactions from the features of the pair.

    Args:
        config: sizes.
        user_vectors: V of a user.
        item_vectors: V of an item.
        pair_vectors: V of a pair.
        vector_width: E.
        num_tasks: K.
    """

    def __init__(
        self,
        config: MonnConfig,
        user_vectors: int,
        item_vectors: int,
        pair_vectors: int,
        vector_width: int,
        num_tasks: int,
    ) -> None:
        super().__init__(config, user_vectors, vector_width, num_tasks)
        self.item_width = config.item_width
        sizes, hidden = (config.item_vectors, config.width), config.tower_sizes
        self.items = FeatureTower(item_vectors, vector_width, *sizes, hidden)
        self.interactions = None
        if config.interaction_vectors:
            of_pairs = (config.interaction_vectors, config.width)
            self.interactions = FeatureTower(pair_vectors, vector_width, *of_pairs, hidden)

    def embed(self, items: Tensor) -> Tensor:
        """[n, V, E] → [n, W], of length 1."""
        embedding: Tensor = self.items(items).flatten(1) / self.item_width**0.5
        return embedding

    def forward(self, user: Tensor, item: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Score pairs.

        Args:
            user: [n, n_u, D] of the user tower.
            item: [n, W] of :meth:`embed`.
            pair: [n, V, E].

        Returns:
            [n, K], and [n, n_ui · D] what was made of the pair.
        """
        vectors = item.unflatten(1, [-1, self.width]) * self.item_width**0.5
        if self.interactions is None:
            return self.over(user, vectors), user.new_zeros([len(user), 0])
        interaction = self.interactions(pair)
        return self.over(user, torch.cat([vectors, interaction], dim=1)), interaction.flatten(1)


class NodeMonn(Monn):
    """The network of a level's nodes: what is known of a node is its embedding.

    Its interaction tower sees the user's and the node's vectors alone, and learns to say what the
    interaction tower of the items says.

    Args:
        config: sizes.
        user_vectors: V of a user.
        vector_width: E.
        of_item: sizes of the items' network.
        num_tasks: K.
    """

    def __init__(
        self,
        config: MonnConfig,
        user_vectors: int,
        vector_width: int,
        of_item: MonnConfig,
        num_tasks: int,
    ) -> None:
        super().__init__(config, user_vectors, vector_width, num_tasks)
        self.item_shape = [of_item.item_vectors, of_item.width]
        self.item_width = of_item.item_width
        self.nodes = EvenLinear(self.item_width, config.item_vectors * config.width)
        self.kept = KeptCoordinates(of_item.item_vectors, config.item_vectors, config.width)
        self.interactions, self.imitation = None, None
        if config.interaction_vectors:
            self.interactions = FeatureTower(
                config.user_vectors + config.item_vectors,
                config.width,
                config.interaction_vectors,
                config.width,
                config.tower_sizes,
            )
            if of_item.interaction_vectors:
                own, its = (one.interaction_vectors * one.width for one in (config, of_item))
                self.imitation = nn.Linear(own, its)

    def forward(self, user: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        """Score nodes.

        Args:
            user: [n, n_u, D] of the user tower.
            node: [n, W].

        Returns:
            [n, K], and what is held against the interactions of the items, [n, n_ui · D] of these;
            of no width where there are none.
        """
        scaled = node * self.item_width**0.5  # of length 1 in, of variance 1 here
        vectors = self.nodes(scaled).unflatten(1, [-1, self.width])
        vectors = vectors + self.kept(scaled.unflatten(1, self.item_shape))
        imitated = user.new_zeros([len(user), 0])
        if self.interactions is None:
            return self.over(user, vectors), imitated
        interaction = self.interactions(torch.cat([user, vectors], dim=1))
        if self.imitation is not None:
            imitated = self.imitation(interaction.flatten(1))
        return self.over(user, torch.cat([vectors, interaction], dim=1)), imitated


class LevelEnsemble(nn.Module):
    """``y_l = Σ_{m ≤ l} w_lm z_m + b_l``: what a level says, with the levels above it.

    A level starts as itself alone.

    Args:
        levels: number of levels, the items' among them.
        num_tasks: K.
    """

    def __init__(self, levels: int, num_tasks: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(levels).unsqueeze(2).repeat(1, 1, num_tasks))
        self.bias = nn.Parameter(torch.zeros(levels, num_tasks))

    def forward(self, scores: list[Tensor]) -> Tensor:
        """[n, K] of the last of some levels' scores, each [n, K], coarsest first."""
        level = len(scores) - 1
        found = self.bias[level].expand_as(scores[0])
        for above, score in enumerate(scores):
            found = found + self.weight[level, above] * score
        return found
