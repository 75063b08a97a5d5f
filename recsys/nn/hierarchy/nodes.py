"""How the nodes of a hierarchy are learned: with the model, between its epochs, or after it.

Every learner holds codes and says the same three things: which nodes items are in, what a node's
embedding is, and, in training, what the levels are to be trained on. Legend: n items, W width of an
item embedding, L levels, K_l codes of level l.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from recsys.core.bounds import Few, NotNegative, Number, OneOf, Positive, Settings, Share
from recsys.core.errors import ConfigError
from recsys.nn.hierarchy.kmeans import far_items, nearest_in_parts, residual_kmeans
from recsys.nn.hierarchy.soft_assignment import (
    FlopsBalance,
    distances,
    embeddings_of,
    nearest_codes,
    soft_nodes,
    temperature,
)

LTI, EM, KMEANS, STREAMING, RANDOM = METHODS = ("lti", "em", "kmeans", "streaming", "random")

#: Of ``streaming``: the least a code's crowd counts, and what a count is divided by.
_LEAST_CROWD, _LEAST_COUNT = 1e-2, 1e-6

#: Of ``random``: how often an embedding's way of length 1 goes around all nodes.
_ROUNDS_OF_NODES = 2.0**16

#: The mean over the ranks of a tensor, without gradient.
MeanOverRanks = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class IndexConfig(Settings):
    """How nodes are learned.

    Attributes:
        method: ``lti``: soft assignment, with the model; ``em``: k-means before each validation,
            and the levels are trained on its centroids; ``kmeans``: k-means, and the levels are
            trained on the items themselves; ``streaming``: exponential moving averages of the
            items of a code; ``random``: no learning at all, the floor of a comparison.
        joint: of ``lti``: the losses of the levels move codes and items too; without, codes are
            learned by reconstruction and balance alone, and items by their own losses.
        alpha: α_max of ``lti``, of embeddings of length 1.
        power: p of its temperature schedule.
        reconstruction: weight of the squared distance between an item and what the levels say of
            it, which moves the codes (``lti``), or the items (``streaming``).
        balance: weight of the balance of ``lti``, which is K times its FLOPs regulariser, less 1.
            The paper has it against a collapse; codes that begin anew keep nodes apart without.
        balanced_batches: batches that are balanced together.
        decay: of the moving averages of ``streaming``.
        crowding: exponent of a code's share of the items, over an even share, by which its
            distances are multiplied in ``streaming``; 0 for plain distances.
        seed: of k-means.
    """

    method: Annotated[str, OneOf(METHODS)] = LTI
    joint: bool = True
    alpha: Positive = 40.0
    power: Positive = 1.0
    reconstruction: NotNegative = 1.0
    balance: NotNegative = 0.0
    balanced_batches: Few = 8
    decay: Annotated[float, Number(above=0, below=1)] = 0.99
    crowding: Share = 0.25
    seed: Annotated[int, Number(at_least=0, at_most=2**31 - 1)] = 0

    def __post_init__(self) -> None:
        """Refuse codes that nothing moves."""
        super().__post_init__()
        if self.method == LTI and not self.joint and not self.reconstruction:
            raise ConfigError(
                "model.net.index.joint=false with reconstruction=0: nothing would move the codes "
                "to the items; give reconstruction=1."
            )


@dataclass(frozen=True, eq=False)
class Learned:
    """What a step of training makes of items.

    Attributes:
        nodes: of every level [n, W], what the level is trained on.
        losses: by name, already weighed.
    """

    nodes: list[Tensor]
    losses: dict[str, Tensor] = field(default_factory=dict)


class NodeLearner(nn.Module):
    """Codes of every level.

    Args:
        config: how they are learned.
        sizes: K_l of every level.
        width: W.
    """

    #: Whether :meth:`refit` is to be called before validations.
    refitted = False
    #: What one does where nodes collapse.
    against_collapse = (
        "k-means finds no more groups, for the items' embeddings lie together: see with `recsys "
        "data describe` what the log says of items"
    )

    def __init__(self, config: IndexConfig, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.config = config
        self.sizes = list(sizes)
        self.codes = nn.ParameterList(
            nn.Parameter(torch.randn(size, width) / width**0.5, requires_grad=config.method == LTI)
            for size in sizes
        )

    def assign(self, items: Tensor) -> Tensor:
        """[n, W] → [n, L] int64: the code of every level; the first l of them are a node."""
        return nearest_codes(items, list(self.codes))

    def embeddings(self, chosen: Tensor) -> list[Tensor]:
        """[n, l] codes of the first levels → of each the embeddings [n, W] of the nodes."""
        return embeddings_of(chosen, list(self.codes))

    @abstractmethod
    def learn(self, items: Tensor, done: float, mean_over_ranks: MeanOverRanks) -> Learned:
        """A step of training.

        Args:
            items: [n, W] of length 1, one for each row of the batch.
            done: share of the training that is over.
            mean_over_ranks: of several processes.
        """

    def maintain(self, items: Tensor) -> None:
        """Called now and then in a training, with all items [n, W] on the CPU."""
        self.restart(items)

    @torch.no_grad()
    def restart(self, items: Tensor) -> None:
        """Codes without an item begin anew, each at an item of a node of many."""
        residual = items.float()
        for code in self.codes:
            codes = code.detach().cpu()
            nearest = nearest_in_parts(residual, codes)
            restarted = far_items(residual, codes, nearest)
            unused = torch.bincount(nearest, minlength=len(codes)) == 0
            places = unused.nonzero()[: len(restarted), 0]
            codes[places] = residual[restarted[: len(places)]]
            code.copy_(codes)
            residual = residual - codes[nearest_in_parts(residual, codes)]

    @torch.no_grad()
    def refit(self, items: Tensor) -> None:
        """Codes by k-means of items [n, W]."""
        fitted = residual_kmeans(items.cpu(), self.sizes, self.config.seed)
        for code, found in zip(self.codes, fitted, strict=True):
            code.copy_(found)


class LearnedToIndex(NodeLearner):
    """Codes are weights of the model; assignment is soft and hardens (LTI)."""

    against_collapse = "raise model.net.index.balance"

    def __init__(self, config: IndexConfig, sizes: Sequence[int], width: int) -> None:
        super().__init__(config, sizes, width)
        self.balances = nn.ModuleList(FlopsBalance(size, config.balanced_batches) for size in sizes)

    def learn(self, items: Tensor, done: float, mean_over_ranks: MeanOverRanks) -> Learned:
        """Soft nodes, the reconstruction loss of all levels and the balance of each."""
        config = self.config
        alpha = temperature(config.alpha, done, config.power)
        items = items if config.joint else items.detach()
        found = soft_nodes(items, list(self.codes), alpha)
        rows = _rows(items, mean_over_ranks)
        losses = {
            # codes come to the items: were items pulled too, all would end in one place
            "reconstruction": config.reconstruction
            * _distance(found.nodes[-1], items.detach())
            / rows,
            "balance": items.new_zeros(()),
        }
        for share, balance in zip(found.shares, self.balances, strict=True):
            own = share.sum(dim=0) / rows
            # of all ranks' rows; each rank sends its own gradient
            mean = own + (mean_over_ranks(own) - own).detach()
            uneven = share.shape[1] * balance(mean) - 1
            losses["balance"] = losses["balance"] + config.balance * uneven
        nodes = found.nodes if config.joint else [one.detach() for one in found.nodes]
        return Learned(nodes, losses)


class CentroidNodes(NodeLearner):
    """Levels are trained on the centroids of k-means, which follows the model (EM)."""

    refitted = True

    def maintain(self, items: Tensor) -> None:
        """The E-step: k-means of the items as they are now."""
        self.refit(items)

    def learn(self, items: Tensor, done: float, mean_over_ranks: MeanOverRanks) -> Learned:
        """The nodes as they are."""
        return Learned(self.embeddings(self.assign(items)))


class ClusteredAfterwards(NodeLearner):
    """Levels are trained on the items themselves, which k-means puts into nodes afterwards."""

    refitted = True

    def maintain(self, items: Tensor) -> None:
        """Nothing: nobody looks at the nodes before a validation."""

    def learn(self, items: Tensor, done: float, mean_over_ranks: MeanOverRanks) -> Learned:
        """The items."""
        return Learned([items.detach()] * len(self.sizes))


class RandomNodes(CentroidNodes):
    """Items that have nothing in common are in a node, all nodes being about as large.

    Which one hangs on the last digits of an item's embedding. A code is the mean of its items.
    """

    mixing: Tensor
    against_collapse = "many items have the very same embedding"

    def __init__(self, config: IndexConfig, sizes: Sequence[int], width: int) -> None:
        super().__init__(config, sizes, width)
        drawn = np.random.default_rng(config.seed).standard_normal((len(sizes), width))
        self.register_buffer("mixing", torch.from_numpy(drawn * _ROUNDS_OF_NODES))

    def assign(self, items: Tensor) -> Tensor:
        """[n, W] → [n, L] int64."""
        found = torch.empty([len(items), len(self.sizes)], dtype=torch.int64, device=items.device)
        for level, size in enumerate(self.sizes):
            turns = (items.double() * self.mixing[level]).sum(dim=1).remainder(1.0)
            found[:, level] = (turns * size).long().clamp(max=size - 1)
        return found

    @torch.no_grad()
    def refit(self, items: Tensor) -> None:
        """Codes of items [n, W], each the mean of what the levels before leave of its own."""
        residual = items.to(self.mixing.device)
        chosen = self.assign(residual)
        for code, own in zip(self.codes, chosen.unbind(dim=1), strict=True):
            total = torch.zeros_like(code).index_add_(0, own, residual)
            code.copy_(total / own.bincount(minlength=len(code)).clamp(min=1).unsqueeze(1))
            residual = residual - code.index_select(0, own)


class StreamingCodes(NodeLearner):
    """A code is the moving average of the items that are assigned to it.

    (Bin et al., streaming vector quantisation, 2025: crowded codes are farther away.)
    """

    against_collapse = "raise model.net.index.crowding"

    def __init__(self, config: IndexConfig, sizes: Sequence[int], width: int) -> None:
        super().__init__(config, sizes, width)
        for level, (code, size) in enumerate(zip(self.codes, sizes, strict=True)):
            self.register_buffer(f"count_{level}", torch.ones(size))
            self.register_buffer(f"total_{level}", code.detach().clone())

    def learn(self, items: Tensor, done: float, mean_over_ranks: MeanOverRanks) -> Learned:
        """Move the codes; the nodes as they are then, and how far items are from them."""
        chosen, residual = [], items.detach()
        for level, code in enumerate(self.codes):
            assigned = self._crowded(level, distances(residual, code)).argmin(dim=1)
            chosen.append(assigned)
            moved = residual
            residual = residual - code.index_select(0, assigned)
            self._move(level, moved, assigned, mean_over_ranks)
        nodes = self.embeddings(torch.stack(chosen, dim=1))
        commitment = _distance(items, nodes[-1]) / _rows(items, mean_over_ranks)
        return Learned(nodes, {"reconstruction": self.config.reconstruction * commitment})

    def _crowded(self, level: int, distance: Tensor) -> Tensor:
        count = self.get_buffer(f"count_{level}")
        crowd = (count * len(count) / count.sum()).clamp(min=_LEAST_CROWD)
        return distance * crowd.pow(self.config.crowding)

    @torch.no_grad()
    def _move(
        self, level: int, items: Tensor, assigned: Tensor, mean_over_ranks: MeanOverRanks
    ) -> None:
        """``N ← γ N + (1 − γ) n``, ``S ← γ S + (1 − γ) Σ v``, ``c = S / N``."""
        decay = self.config.decay
        count, total = self.get_buffer(f"count_{level}"), self.get_buffer(f"total_{level}")
        new = torch.zeros_like(count).index_add_(0, assigned, torch.ones_like(items[:, 0]))
        summed = torch.zeros_like(total).index_add_(0, assigned, items)
        count.mul_(decay).add_(mean_over_ranks(new), alpha=1 - decay)
        total.mul_(decay).add_(mean_over_ranks(summed), alpha=1 - decay)
        self.codes[level].copy_(total / count.clamp(min=_LEAST_COUNT).unsqueeze(1))

    @torch.no_grad()
    def refit(self, items: Tensor) -> None:
        """Codes to start with, by k-means of items [n, W]."""
        super().refit(items)
        for level, code in enumerate(self.codes):
            self._begin(level, torch.ones(len(code), dtype=torch.bool))

    @torch.no_grad()
    def restart(self, items: Tensor) -> None:
        """As everywhere; what restarts has counted nothing yet."""
        before = [code.detach().clone() for code in self.codes]
        super().restart(items)
        for level, (code, one) in enumerate(zip(self.codes, before, strict=True)):
            self._begin(level, (code != one).any(dim=1))

    def _begin(self, level: int, codes: Tensor) -> None:
        self.get_buffer(f"count_{level}")[codes] = 1
        self.get_buffer(f"total_{level}")[codes] = self.codes[level][codes]


#: By method.
LEARNERS: dict[str, type[NodeLearner]] = {
    LTI: LearnedToIndex,
    EM: CentroidNodes,
    KMEANS: ClusteredAfterwards,
    STREAMING: StreamingCodes,
    RANDOM: RandomNodes,
}


def build_nodes(config: IndexConfig, sizes: Sequence[int], width: int) -> NodeLearner:
    """The learner of ``config.method``."""
    return LEARNERS[config.method](config, sizes, width)


def _distance(items: Tensor, others: Tensor) -> Tensor:
    return (items - others).square().sum()


def _rows(items: Tensor, mean_over_ranks: MeanOverRanks) -> Tensor:
    """What sums are divided by, so that the mean over ranks is that of all rows."""
    return mean_over_ranks(items.new_full((), len(items))).clamp(min=1)
