"""The networks of a trained HSNN, for who scores users, nodes and items."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from recsys.data.batches.ranking_reader import RankingReader
from recsys.data.batches.requests import RankingBatch
from recsys.data.contract.schema import TaskKind
from recsys.index.hierarchy.scoring import Scoring as OfNetworks
from recsys.systems.hsnn.config import HsnnRun
from recsys.systems.hsnn.net import HsnnNet


class Scoring(OfNetworks):
    """What a trained model says.

    Args:
        run: the trained model.
        reader: of users, and of what is counted of pairs.
    """

    def __init__(self, run: HsnnRun, reader: RankingReader) -> None:
        self.net = run.model.net
        is_binary = [task.kind is TaskKind.BINARY for task in run.manifest.tasks]
        super().__init__(
            TrainedNetworks(self.net),
            run.dataset,
            reader,
            run.config.loader.gap_hours,
            np.array(is_binary),
        )


class TrainedNetworks:
    """The networks as :class:`recsys.index.hierarchy.scoring.Networks` has them.

    Args:
        net: of a trained model.
    """

    def __init__(self, net: HsnnNet) -> None:
        self._net = net

    def embed(self, categorical: Tensor, dense: Tensor) -> Tensor:
        """[n, W] of items by their features."""
        return self._net.embed(categorical, dense)

    def codes(self, embedding: Tensor) -> Tensor:
        """[n, L] of items [n, W]."""
        return self._net.nodes.assign(embedding)

    def centres(self, codes: Tensor) -> Tensor:
        """[n, W] of nodes [n, l] of a level."""
        return self._net.nodes.embeddings(codes)[-1]

    def users(self, batch: RankingBatch) -> list[Tensor]:
        """Of every level [B, n_u, D]."""
        return self._net.users(batch)

    def of_nodes(self, level: int, user: Tensor, node: Tensor) -> Tensor:
        """[n, K] of a level."""
        score: Tensor = self._net.levels[level](user, node)[0]
        return score

    def of_items(
        self, user: Tensor, item: Tensor, counted: Tensor, categorical: Tensor, dense: Tensor
    ) -> Tensor:
        """[n, K] of the items' network."""
        pair = self._net.pairs(counted, self._net.context(categorical), dense)
        score: Tensor = self._net.items(user, item, pair)[0]
        return score

    def combined(self, scores: Tensor) -> Tensor:
        """[n, K] of levels [n, l, K]."""
        return self._net.combined(list(scores.unbind(dim=1))).double()
