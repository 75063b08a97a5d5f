"""Simulated items in the tree of an HSNN that nobody has trained: a query takes as long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import index
from benchmarks._products import Products
from recsys.artifacts.hsnn_tower import user_inputs
from recsys.artifacts.inspection import check_tower_file
from recsys.artifacts.torchscript import save_tower, script_tower
from recsys.data.contract.schema import FeatureKind, FeatureSide, Split
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.index.hierarchy.descent import Allowed, Scores, descend
from recsys.index.hierarchy.scoring import ItemTree
from recsys.index.hierarchy.tree import Tree
from recsys.nn.hierarchy.kmeans import residual_kmeans
from recsys.systems.choice import compose_run
from recsys.systems.hsnn.config import HsnnRunConfig
from recsys.systems.hsnn.system import HsnnSystem
from recsys.systems.hsnn.tower import HsnnTower

#: By which nodes and items are ranked.
_TASK = 0


@dataclass(frozen=True, eq=False)
class Placed:
    """What of ``ItemTree`` the exported tower asks."""

    tree: Tree
    embeddings: Tensor
    centres: list[Tensor]


class Corpus:
    """Simulated items in a tree, with the networks and a request.

    Args:
        settings: of the run, whose data set says what a request is.
        items: their number.
        clusters: of their embeddings.
        queries: users with an embedding, for indexes without networks.

    Attributes:
        tower: not yet compiled.
        codes: of every level.
        embeddings: [S, W] of the items.
        users: [Q, W].
    """

    def __init__(self, settings: list[str], items: int, clusters: int, queries: int) -> None:
        config = cast(HsnnRunConfig, compose_run(settings))
        dataset, _ = open_or_prepare(config.data)
        system = HsnnSystem()
        model = cast(Any, system.assemble(config, dataset, dataset.manifest).model).eval()
        self.net = net = model.net
        simulated = index.simulated(
            index.Config(posts=items, width=net.items.item_width, clusters=clusters, users=queries)
        )
        self.embeddings, self.users = (
            one.astype(np.float32) for one in (simulated.embedding, simulated.users)
        )
        embeddings = torch.from_numpy(self.embeddings)
        self.codes = net.nodes.sizes
        for code, found in zip(
            net.nodes.codes, residual_kmeans(embeddings, self.codes, 0), strict=True
        ):
            code.data.copy_(found)
        chosen = torch.cat([net.nodes.assign(some) for some in embeddings.split(2**14)])
        tree = Tree.of(chosen.numpy())
        centres = [net.nodes.embeddings(torch.from_numpy(one))[-1] for one in tree.codes]
        self.placed = Placed(tree, embeddings, centres)
        self.tower = HsnnTower(model, cast(ItemTree, self.placed), _TASK)
        store = dataset.requests(Split.CHOOSE)
        user, moment = store.user[-1:].astype(np.int64), np.array(store.request_time[-1:])
        reader = system.data(config, dataset).reader
        batch = reader.given(user, moment, np.zeros(1, np.int64), user[:0])
        self.user = self.tower.encode_user(**user_inputs(batch, 0))
        context = len(dataset.manifest.select(FeatureSide.CONTEXT, FeatureKind.DENSE))
        self._candidates = (
            torch.rand(items, len(net.counted_mean)),
            torch.zeros(items, self.tower.num_context, dtype=torch.int64),
            torch.zeros(items, context),
        )
        self._every = torch.ones(items, dtype=torch.bool)

    def candidates(self, number: int) -> tuple[Tensor, ...]:
        """What is counted of so many candidates, and their context: somebody hands it in."""
        return tuple(one[:number] for one in self._candidates)

    def query(self, tower: Any, beam: int, k: int) -> Tensor:
        """A user's best items, as the exported tower finds them."""
        with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[no-untyped-call]
            item, above = tower.descend(self.user, beam, k, self._every)
            scores = tower.score(self.user, item, above, *self.candidates(len(item)))
        return cast(Tensor, item[scores[:, _TASK].topk(min(k, len(item))).indices])

    def products(self, beam: int, k: int) -> tuple[Products, NDArray[np.int64]]:
        """The products that such a query needs, none filled up; what it scores on each level."""
        with Products() as found:  # not in inference mode, where a linear layer is no product
            reached = descend(self.placed.tree, 1, Networks(self), beam, k, Allowed())
        return found, reached.scored[0]

    @property
    def bytes_per_item(self) -> float:
        """Of what is kept for the items: embeddings, their nodes, and the nodes."""
        kept = [self.tower.embeddings, self.tower.order, *self.tower.tree.buffers()]
        return sum(one.nbytes for one in kept) / len(self.embeddings)

    def write(self, path: Path) -> None:
        """A generation: networks and tree."""
        save_tower(script_tower(self.tower), path)


def open_tower(path: Path) -> torch.jit.ScriptModule:
    """A generation, opened as artifacts are."""
    check_tower_file(path)
    return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-any-return]


class Networks:
    """The networks on exactly the nodes and items that are asked for."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def nodes(
        self, level: int, user: NDArray[np.int64], node: NDArray[np.int64], above: Scores | None
    ) -> Scores:
        corpus = self._corpus
        vectors = corpus.user[level].expand(len(node), -1, -1)
        own = corpus.net.levels[level](vectors, corpus.placed.centres[level][node])[0]
        return _beside(own, above)

    def items(
        self, user: NDArray[np.int64], item: NDArray[np.int64], above: Scores | None
    ) -> Scores:
        corpus, number = self._corpus, len(item)
        counted, context, numbers = corpus.candidates(number)
        pair = corpus.net.pairs(counted, corpus.net.context(context), numbers)
        vectors = corpus.user[-1].expand(number, -1, -1)
        return _beside(corpus.net.items(vectors, corpus.placed.embeddings[item], pair)[0], above)

    def value(self, scores: Scores) -> NDArray[np.float64]:
        levels = list(torch.from_numpy(scores).unbind(dim=1))
        found: NDArray[np.float64] = self._corpus.net.combined(levels)[:, _TASK].double().numpy()
        return found


def _beside(own: Tensor, above: Scores | None) -> Scores:
    found: Scores = own.numpy()[:, None]
    return found if above is None else np.concatenate([above, found], axis=1)
