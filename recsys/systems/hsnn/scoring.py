"""What a trained HSNN says of users, nodes and items, one way for all who ask.

Libraries choose by the shape of matrices in which order they add. Everything is computed in blocks
of one shape, filled up, so that a score has the same bits whatever is scored beside it. Legend:
V items of the data set, U users, n pairs, W width of an item embedding, L levels, K tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches.context import Context, context_arrays
from recsys.data.batches.given_rows import GivenRows
from recsys.data.batches.ranking_reader import RankingReader
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.dataset import PreparedDataset
from recsys.index.hierarchy.descent import Scores
from recsys.index.hierarchy.tree import Tree
from recsys.systems.hsnn.config import HsnnRun
from recsys.systems.kinds.hour_of_day import with_hour

#: Pairs, items and users that are computed together: a descent asks of a level some hundred pairs.
PAIRS_AT_A_TIME, ITEMS_AT_A_TIME, USERS_AT_A_TIME = 128, 512, 32

#: Indices [n, F_c] and numbers [n, D_c] of the context.
ContextArrays = tuple[NDArray[np.int32], NDArray[np.float32]]


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
    """A trained model with what reads users, items and counts.

    Args:
        run: the trained model.
        reader: of users, and of what is counted of pairs.
    """

    def __init__(self, run: HsnnRun, reader: RankingReader) -> None:
        self.net = run.model.net
        self._dataset: PreparedDataset = run.dataset
        self._reader = reader
        self._gap = round(run.config.loader.gap_hours * MILLISECONDS_PER_HOUR)
        self._binary = run.model.binary

    def items(self, item: NDArray[np.int64]) -> Tensor:
        """[n, W] embeddings of items by their features."""
        parts = [
            _filled_up(self.net.embed, ITEMS_AT_A_TIME, *self._reader.items(some))
            for some in _blocks(item, ITEMS_AT_A_TIME)
        ]
        return torch.cat(parts)

    def codes(self, items: Tensor) -> Tensor:
        """[n, L] of embeddings [n, W] the codes of their nodes."""
        return _in_blocks(self.net.nodes.assign, items)

    def centres(self, codes: NDArray[np.int64]) -> Tensor:
        """[n, W] embeddings of nodes [n, l] of a level."""
        with torch.inference_mode():
            return self.net.nodes.embeddings(torch.from_numpy(codes))[-1]

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
        batch = self._reader.given(whole, at, np.zeros_like(whole), blank[:0])
        return [one[:number] for one in self.net.users(batch)]

    def nodes(self, level: int, users: Moments, user: NDArray[np.int64], node: Tensor) -> Tensor:
        """[n, K] of a level for positions [n] of users and embeddings [n, W] of nodes."""
        network, vectors = self.net.levels[level], users.vectors[level]

        def scored(of_user: Tensor, of_node: Tensor) -> Tensor:
            score: Tensor = network(vectors[of_user], of_node)[0]
            return score

        return _in_blocks(scored, torch.from_numpy(user), node)

    def pairs(
        self,
        users: Moments,
        user: NDArray[np.int64],
        item: NDArray[np.int64],
        embedding: Tensor,
        context: ContextArrays | None = None,
    ) -> Tensor:
        """[n, K] of the items' network.

        Args:
            users: at their moments.
            user: [n] positions, ascending.
            item: [n] indices.
            embedding: [n, W] of the items.
            context: of the pairs; None for that of the users.
        """
        rows = np.bincount(user, minlength=len(users.user))
        before = users.moment - self._gap
        counted = self._reader.candidates.compute(users.user, before, rows, item)
        categorical, dense = context or (users.context[0][user], users.context[1][user])
        vectors = users.vectors[-1]

        def scored(of_user: Tensor, of_item: Tensor, *of_pair: Tensor) -> Tensor:
            numbers, features, dense = of_pair
            pair = self.net.pairs(numbers, self.net.context(features), dense)
            score: Tensor = self.net.items(vectors[of_user], of_item, pair)[0]
            return score

        return _in_blocks(
            scored,
            torch.from_numpy(user),
            embedding,
            torch.from_numpy(counted),
            torch.from_numpy(categorical.astype(np.int64)),
            torch.from_numpy(dense),
        )

    @torch.inference_mode()
    def values(self, scores: Tensor) -> NDArray[np.float64]:
        """[n, K] of what levels say, [n, l, K], of the last: logits, numbers of regressions."""
        found: NDArray[np.float64] = self.net.combined(list(scores.unbind(dim=1))).double().numpy()
        return found

    def predictions(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n, K] logits as probabilities, numbers as they are."""
        binary = self._binary.numpy()
        found = values.copy()
        found[:, binary] = torch.from_numpy(values[:, binary]).sigmoid().numpy()
        return found

    def prediction(self, values: NDArray[np.float64], task: int) -> NDArray[np.float64]:
        """[n] logits or numbers of a task as its predictions."""
        whole = np.zeros((len(values), len(self.net.offset)))
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
        centres = self.net.nodes.embeddings(self.codes(embeddings))
        scores = [self.nodes(level, users, user, one[own]) for level, one in enumerate(centres)]
        scores.append(self.pairs(users, user, item, embeddings[own], context))
        return self.predictions(self.values(torch.stack(scores, dim=1)))


class ItemTree:
    """Items in the nodes that the model has for them.

    Args:
        scoring: of the model.
        indices: [S] of the items, in the data set.

    Attributes:
        tree: of the items.
        indices: as given.
        embeddings: [S, W] of the items.
        centres: of every level the embeddings [n_l, W] of the nodes.
    """

    def __init__(self, scoring: Scoring, indices: NDArray[np.int64]) -> None:
        self._scoring = scoring
        self.indices = indices
        self.embeddings = scoring.items(indices)
        self.tree = Tree.of(scoring.codes(self.embeddings).numpy())
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
        index = self._items.indices[item]
        return _beside(self._scoring.pairs(self._users, user, index, embeddings), above)

    def value(self, scores: Scores) -> NDArray[np.float64]:
        """[n] the logit or number of the task."""
        return self._scoring.values(torch.from_numpy(scores))[:, self._task]


def _beside(own: Tensor, above: Scores | None) -> Scores:
    found: Scores = own.numpy()[:, None]
    return found if above is None else np.concatenate([above, found], axis=1)


def _blocks(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _in_blocks(scored: Callable[..., Tensor], *columns: Tensor) -> Tensor:
    """[n, K] of columns [n, …]."""
    parts = zip(*(one.split(PAIRS_AT_A_TIME) for one in columns), strict=True)
    # without pairs there is one block, of what fills up
    return torch.cat([_filled_up(scored, PAIRS_AT_A_TIME, *part) for part in parts])


def _filled_up(function: Callable[..., Tensor], rows: int, *columns: Tensor) -> Tensor:
    """What a function says of at most ``rows`` rows, filled up with zeros to as many."""
    number = len(columns[0])
    whole = [torch.cat([one, one.new_zeros([rows - number, *one.shape[1:]])]) for one in columns]
    with torch.inference_mode():
        return function(*whole)[:number]
