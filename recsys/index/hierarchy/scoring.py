"""What the networks of a hierarchy say of users, nodes and items, one way for all who ask.

The networks are those of a run or of an artifact, which say the same, to the bit.

Libraries choose by the shape of matrices in which order they add. Everything is computed in blocks
of one shape, filled up, so that a score has the same bits whatever is scored beside it. Legend:
V items of the data set, U users, n pairs, W width of an item embedding, L levels, K tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches.context import Context, context_arrays
from recsys.data.batches.given_rows import GivenRows
from recsys.data.batches.hour_of_day import with_hour
from recsys.data.batches.ranking_reader import RankingReader
from recsys.data.batches.requests import RankingBatch
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.dataset import PreparedDataset
from recsys.index.hierarchy.descent import Scores
from recsys.index.hierarchy.tree import Tree

#: Pairs, items and users that are computed together: a descent asks of a level some hundred pairs.
PAIRS_AT_A_TIME, ITEMS_AT_A_TIME, USERS_AT_A_TIME = 128, 512, 32

#: Indices [n, F_c] and numbers [n, D_c] of the context.
ContextArrays = tuple[NDArray[np.int32], NDArray[np.float32]]


class Networks(Protocol):
    """The networks of all levels and the codes of their nodes, trained or exported.

    D is the width of a vector, n_u and n_i are the vectors of a user and of an item.
    """

    def embed(self, categorical: Tensor, dense: Tensor) -> Tensor:
        """[n, W] of items by their features, [n, F_i] int64 and [n, D_i] float32."""
        ...

    def codes(self, embedding: Tensor) -> Tensor:
        """[n, W] of items → [n, L] int64, what their nodes are called."""
        ...

    def centres(self, codes: Tensor) -> Tensor:
        """[n, l] int64 codes of nodes of a level → their embeddings [n, W]."""
        ...

    def users(self, batch: RankingBatch) -> list[Tensor]:
        """Of every level, the items' last, [B, n_u, D] of the requests of a batch."""
        ...

    def of_nodes(self, level: int, user: Tensor, node: Tensor) -> Tensor:
        """[n, K] of a level for users [n, n_u, D] and embeddings [n, W] of nodes."""
        ...

    def of_items(
        self, user: Tensor, item: Tensor, counted: Tensor, categorical: Tensor, dense: Tensor
    ) -> Tensor:
        """[n, K] of the items' network for users [n, n_u, D] and embeddings [n, W] of items.

        What is counted of the pairs is [n, N] float32, their context [n, F_c] int64 and [n, D_c]
        float32.
        """
        ...

    def combined(self, scores: Tensor) -> Tensor:
        """[n, l, K] of some levels → [n, K] float64, what the last says with those above it."""
        ...


@dataclass(frozen=True, eq=False)
class Moments:
    """Users at moments, as the networks take them.

    Attributes:
        user: [U] indices.
        moment: [U] ms.
        vectors: of every level, the items' last, [U, n_u, D].
        context: indices [U, F_c] and numbers [U, D_c], what is known of it.
    """

    user: NDArray[np.int64]
    moment: NDArray[np.int64]
    vectors: list[Tensor]
    context: ContextArrays


class Scoring:
    """The networks with what reads users, items and counts.

    Args:
        networks: of the levels.
        dataset: the prepared data set, as the networks know it.
        reader: of its users and items, and of what is counted of pairs.
        gap_hours: how long before a moment everything that is read ends.
        is_binary: [K] which tasks are logits, to be given as probabilities.
    """

    def __init__(
        self,
        networks: Networks,
        dataset: PreparedDataset,
        reader: RankingReader,
        gap_hours: float,
        is_binary: NDArray[np.bool_],
    ) -> None:
        self.networks = networks
        self.reader = reader
        self._dataset = dataset
        self._gap = round(gap_hours * MILLISECONDS_PER_HOUR)
        self._is_binary = is_binary

    def items(self, item: NDArray[np.int64]) -> Tensor:
        """[n, W] embeddings of items of the data set."""
        return self.embedded(*self.reader.items(item))

    def embedded(self, categorical: Tensor, dense: Tensor) -> Tensor:
        """[n, W] embeddings of items by their features, [n, F_i] int64 and [n, D_i] float32."""
        return _in_blocks(self.networks.embed, ITEMS_AT_A_TIME, categorical, dense)

    def codes(self, items: Tensor) -> Tensor:
        """[n, L] of embeddings [n, W] the codes of their nodes."""
        return _in_blocks(self.networks.codes, ITEMS_AT_A_TIME, items)

    def centres(self, codes: NDArray[np.int64]) -> Tensor:
        """[n, W] embeddings of nodes [n, l] of a level."""
        with torch.inference_mode():
            return self.networks.centres(torch.from_numpy(codes))

    def users(self, user: NDArray[np.int64], moment: NDArray[np.int64]) -> Moments:
        """Users [U] at moments [U] in ms, U at least 1."""
        parts = [
            self._of_users(one, at)
            for one, at in zip(
                _blocks(user, USERS_AT_A_TIME), _blocks(moment, USERS_AT_A_TIME), strict=True
            )
        ]
        vectors = [torch.cat(one) for one in zip(*parts, strict=True)]
        hour = with_hour(GivenRows(user, np.zeros_like(user), moment), self._dataset.manifest)
        return Moments(user, moment, vectors, self.context(hour.context, len(user)))

    def context(self, context: Context, rows: int) -> ContextArrays:
        """Indices and numbers of raw values."""
        return context_arrays(self._dataset, context, rows)

    @torch.inference_mode()
    def _of_users(self, user: NDArray[np.int64], moment: NDArray[np.int64]) -> list[Tensor]:
        number = len(user)
        blank = np.zeros(USERS_AT_A_TIME - number, np.int64)
        whole = np.concatenate([user, blank])
        at = np.concatenate([moment, blank + moment[0]])
        batch = self.reader.given(whole, at, np.zeros_like(whole), blank[:0])
        return [one[:number] for one in self.networks.users(batch)]

    def nodes(self, level: int, users: Moments, user: NDArray[np.int64], node: Tensor) -> Tensor:
        """[n, K] of a level for positions [n] of users and embeddings [n, W] of nodes."""
        vectors = users.vectors[level]

        def scored(of_user: Tensor, of_node: Tensor) -> Tensor:
            return self.networks.of_nodes(level, vectors[of_user], of_node)

        return _in_blocks(scored, PAIRS_AT_A_TIME, torch.from_numpy(user), node)

    def pairs(
        self,
        users: Moments,
        user: NDArray[np.int64],
        item: NDArray[np.int64],
        embedding: Tensor,
        context: ContextArrays | None = None,
        ids: Mapping[str, NDArray[np.int32]] | None = None,
    ) -> Tensor:
        """[n, K] of the items' network.

        Args:
            users: at their moments.
            user: [n] positions, ascending.
            item: [n] indices.
            embedding: [n, W] of the items.
            context: of the pairs; None for that of the users.
            ids: [n] authors and topics, where not all items are of the data set.
        """
        rows = np.bincount(user, minlength=len(users.user))
        before = users.moment - self._gap
        counted = self.reader.candidates.compute(users.user, before, rows, item, ids)
        categorical, dense = context or (users.context[0][user], users.context[1][user])
        vectors = users.vectors[-1]

        def scored(of_user: Tensor, of_item: Tensor, *of_pair: Tensor) -> Tensor:
            return self.networks.of_items(vectors[of_user], of_item, *of_pair)

        return _in_blocks(
            scored,
            PAIRS_AT_A_TIME,
            torch.from_numpy(user),
            embedding,
            torch.from_numpy(counted),
            torch.from_numpy(categorical.astype(np.int64)),
            torch.from_numpy(dense),
        )

    @torch.inference_mode()
    def values(self, scores: Tensor) -> NDArray[np.float64]:
        """[n, K] of what levels say, [n, l, K], of the last: logits, numbers of regressions."""
        found: NDArray[np.float64] = self.networks.combined(scores).numpy()
        return found

    def predictions(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n, K] logits as probabilities, numbers as they are."""
        binary = self._is_binary
        found = values.copy()
        logits = torch.from_numpy(values[:, binary])
        found[:, binary] = _in_blocks(torch.sigmoid, PAIRS_AT_A_TIME, logits).numpy()
        return found

    def prediction(self, values: NDArray[np.float64], task: int) -> NDArray[np.float64]:
        """[n] logits or numbers of a task as its predictions."""
        whole = np.zeros((len(values), len(self._is_binary)))
        whole[:, task] = values
        return self.predictions(whole)[:, task]

    def given(
        self,
        users: Moments,
        user: NDArray[np.int64],
        item: NDArray[np.int64],
        context: ContextArrays,
    ) -> NDArray[np.float64]:
        """[n, K] predictions of given pairs; arguments of :meth:`pairs`."""
        distinct, place = np.unique(item, return_inverse=True)
        embeddings = self.items(distinct)
        own = torch.from_numpy(place)
        codes = self.codes(embeddings).numpy()
        scores = [
            self.nodes(level, users, user, self.centres(codes[:, : level + 1])[own])
            for level in range(codes.shape[1])
        ]
        scores.append(self.pairs(users, user, item, embeddings[own], context))
        return self.predictions(self.values(torch.stack(scores, dim=1)))


class ItemTree:
    """Items in the nodes that the model has for them.

    Args:
        scoring: of the model.
        indices: [S] of the items, in the data set.
        embeddings: [S, W] of the items; None computes them.
        codes: [S, L] what their nodes are called; None computes them.
        ids: [S] indices of their authors and topics; None for what the data set says.

    Attributes:
        tree: of the items.
        indices: as given.
        ids: as given.
        embeddings: [S, W] of the items.
        centres: of every level the embeddings [n_l, W] of the nodes.
    """

    def __init__(
        self,
        scoring: Scoring,
        indices: NDArray[np.int64],
        embeddings: Tensor | None = None,
        codes: NDArray[np.int64] | None = None,
        ids: Mapping[str, NDArray[np.int32]] | None = None,
    ) -> None:
        self._scoring = scoring
        self.indices = indices
        self.ids = ids
        self.embeddings = scoring.items(indices) if embeddings is None else embeddings
        self.tree = Tree.of(scoring.codes(self.embeddings).numpy() if codes is None else codes)
        self.centres = [scoring.centres(codes) for codes in self.tree.codes]

    def scorer(self, users: Moments, task: int) -> Descending:
        """The networks for some users, by a task."""
        return Descending(self._scoring, self, users, task)


class Descending:
    """The networks of the levels as a descent of a tree asks them.

    Args:
        scoring: of the model.
        items: in their nodes.
        users: U users.
        task: position of the task by which nodes and items are ranked.
    """

    def __init__(self, scoring: Scoring, items: ItemTree, users: Moments, task: int) -> None:
        self._scoring = scoring
        self._items = items
        self._users = users
        self._task = task

    def nodes(
        self, level: int, user: NDArray[np.int64], node: NDArray[np.int64], above: Scores | None
    ) -> Scores:
        """Score nodes of a level."""
        centres = self._items.centres[level][torch.from_numpy(node)]
        return _beside(self._scoring.nodes(level, self._users, user, centres), above)

    def items(
        self, user: NDArray[np.int64], item: NDArray[np.int64], above: Scores | None
    ) -> Scores:
        """Score items."""
        embeddings = self._items.embeddings[torch.from_numpy(item)]
        index, ids = self._items.indices[item], self._items.ids
        of_pairs = None if ids is None else {name: one[item] for name, one in ids.items()}
        own = self._scoring.pairs(self._users, user, index, embeddings, ids=of_pairs)
        return _beside(own, above)

    def value(self, scores: Scores) -> NDArray[np.float64]:
        """[n] the logit or number of the task."""
        return self._scoring.values(torch.from_numpy(scores))[:, self._task]


def _beside(own: Tensor, above: Scores | None) -> Scores:
    found: Scores = own.numpy()[:, None]
    return found if above is None else np.concatenate([above, found], axis=1)


def _blocks(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _in_blocks(scored: Callable[..., Tensor], rows: int, *columns: Tensor) -> Tensor:
    """[n, K] of columns [n, …], as many rows at a time."""
    parts = zip(*(one.split(rows) for one in columns), strict=True)
    # without rows there is one block, of what fills up
    return torch.cat([_filled_up(scored, rows, *part) for part in parts])


def _filled_up(function: Callable[..., Tensor], rows: int, *columns: Tensor) -> Tensor:
    """What a function says of at most ``rows`` rows, filled up with zeros to as many."""
    number = len(columns[0])
    whole = [torch.cat([one, one.new_zeros([rows - number, *one.shape[1:]])]) for one in columns]
    with torch.inference_mode():
        return function(*whole)[:number]
