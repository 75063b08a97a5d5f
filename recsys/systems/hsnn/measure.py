"""How well a descent finds the items that scoring every one finds, and how even the nodes are.

Legend: Q queries, U of them at a time, V items of the data set, S of the tree, n_l nodes of level
l, k items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.data.contract.schema import Split
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.division import in_parts, once
from recsys.evaluation.flops import FLOPS_PER_QUERY, PAIRS_SCORED
from recsys.evaluation.identity import RunIdentity
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.ranking import CandidateSet, Ranks, gather_ranks
from recsys.evaluation.retrieval import RetrievalProtocol
from recsys.evaluation.retrieval_evaluation import measured_ranks, protocol_of
from recsys.index.hierarchy.descent import Allowed, LevelScorer, Reached, Scores, descend
from recsys.index.hierarchy.scoring import ItemTree
from recsys.index.hierarchy.tree import Tree, tree_health, tree_occupancy
from recsys.systems.hsnn.config import DescentConfig
from recsys.systems.hsnn.cost import cost_of
from recsys.systems.hsnn.nodes_file import write_occupancy
from recsys.systems.hsnn.scoring import Scoring

#: Scores of pairs that are in memory at a time.
_PAIRS_AT_A_TIME = 2**18
#: What an item counts that a descent did not come to.
_NOT_REACHED = float(np.finfo(np.float32).min)

#: The places of what is recommended, of what is found when every item is scored, and of a beam.
RECOMMENDED, EXACT = "", "exact"


def beam_place(beam: int) -> str:
    """``beam_8``."""
    return f"beam_{beam}"


class _Noted:
    """A scorer that notes what every node is worth to every user."""

    def __init__(self, scorer: LevelScorer, tree: Tree, users: int) -> None:
        self._scorer = scorer
        self.of_nodes = [np.full((users, len(one)), np.nan) for one in tree.codes]

    def nodes(
        self, level: int, user: NDArray[np.int64], node: NDArray[np.int64], above: Scores | None
    ) -> Scores:
        found = self._scorer.nodes(level, user, node, above)
        self.of_nodes[level][user, node] = self._scorer.value(found)
        return found

    def items(
        self, user: NDArray[np.int64], item: NDArray[np.int64], above: Scores | None
    ) -> Scores:
        return self._scorer.items(user, item, above)

    def value(self, scores: Scores) -> NDArray[np.float64]:
        return self._scorer.value(scores)


class _Known:
    """What was noted, for descents with other beams: nothing is computed again."""

    def __init__(
        self, of_nodes: Sequence[NDArray[np.float64]], of_items: NDArray[np.float64]
    ) -> None:
        self._of_nodes = of_nodes
        self._of_items = of_items

    def nodes(
        self, level: int, user: NDArray[np.int64], node: NDArray[np.int64], above: Scores | None
    ) -> Scores:
        return self._of_nodes[level][user, node][:, None, None]

    def items(
        self, user: NDArray[np.int64], item: NDArray[np.int64], above: Scores | None
    ) -> Scores:
        return self._of_items[user, item][:, None, None]

    def value(self, scores: Scores) -> NDArray[np.float64]:
        return scores[:, -1, 0].astype(np.float64)


@dataclass(frozen=True)
class _Found:
    """What was found for U queries, at one place.

    Attributes:
        ranks: [U] of each candidate set.
        scored: [U, L + 1] how many nodes of each level and items were scored for a query.
        best: which of the best were found, by how many are looked for; none where every item is
            scored.
    """

    ranks: dict[str, NDArray[np.int64]]
    scored: NDArray[np.int64]
    best: dict[int, _Best]


@dataclass(frozen=True)
class _Best:
    """The best items of U queries when every one is scored.

    Attributes:
        found: [U, k] whether a descent has it among its own k best.
        new: [U, k] whether nobody engaged with it in the fit period.
    """

    found: NDArray[np.bool_]
    new: NDArray[np.bool_]


def measure_descent(
    run: RunIdentity,
    config: EvaluateConfig,
    protocol: RetrievalProtocol,
    scoring: Scoring,
    items: ItemTree,
    descent: DescentConfig,
    task: int,
) -> Metrics:
    """Rank the queries' targets among all items, with every item scored and by descents.

    Args:
        run: which model is measured.
        config: the split, and how intervals are made.
        protocol: queries and candidate sets of the split.
        scoring: of the model.
        items: all that can be recommended, in their nodes.
        descent: beams, and how many of the best are looked for.
        task: position of the task by which items are ranked.

    Returns:
        ``report/hits@10/all`` of the descent that recommends, ``report/exact/hits@10/all`` of every
        item scored and ``report/beam_8/hits@10/all`` of other beams; at each of these places
        ``recall@10``, the share of the ten best of all items that is found, ``recall_new@10``, the
        same of those of them that nobody engaged with in the fit period, if any, ``pairs_scored``,
        nodes and items that are scored for a query, ``share_scored``, the same over all items,
        and ``flops_per_query``; of untrained scorers ``report/popularity/hits@10/all``; of each
        level ``report/level_1/entropy`` and so on, see ``LevelHealth``.
    """
    split, prefix = Split(config.split), config.prefix
    candidates = protocol.candidates()
    found = _all_found(protocol, candidates, scoring, items, descent, task)
    ranks: dict[str, dict[str, Ranks]] = {
        _at(prefix, place): {
            name: gather_ranks(
                protocol.queries, [part.ranks[name] for part in parts], candidate_set.description
            )
            for name, candidate_set in candidates.items()
        }
        for place, parts in found.items()
    }
    for name in protocol.config.baselines:
        scorer = protocol.baseline(name, None)
        if scorer is not None:
            place = f"{prefix}/{name}"
            ranks[place] = protocol.rank(scorer, candidates, place)
    metrics = measured_ranks(run, config, protocol, ranks, differences=True)
    how = protocol_of(run, split, next(iter(ranks[prefix].values())))

    def add(place: str, name: str, value: float) -> None:
        metrics[f"{_at(prefix, place)}/{name}"] = how.measure(value).as_dict()

    cost = cost_of(scoring, items)
    for place, parts in found.items():
        scored = np.concatenate([part.scored for part in parts]).mean(axis=0)
        add(place, PAIRS_SCORED, float(scored.sum()))
        add(place, "share_scored", float(scored.sum() / len(items.indices)))
        add(place, FLOPS_PER_QUERY, cost.of(scored))
        for k in parts[0].best:
            is_found = np.concatenate([part.best[k].found for part in parts])
            is_new = np.concatenate([part.best[k].new for part in parts])
            add(place, f"recall@{k}", float(is_found.mean()))
            if is_new.any():
                add(place, f"recall_new@{k}", float(is_found[is_new].mean()))
    codes = scoring.net.nodes.sizes
    once(lambda: write_occupancy(run.folder, tree_occupancy(items.tree, codes)))
    for number, health in enumerate(tree_health(items.tree, codes), 1):
        for name, value in vars(health).items():
            add(f"level_{number}", name, float(value))
    return metrics


def _all_found(
    protocol: RetrievalProtocol,
    candidates: Mapping[str, CandidateSet],
    scoring: Scoring,
    items: ItemTree,
    descent: DescentConfig,
    task: int,
) -> dict[str, list[_Found]]:
    queries, tree = protocol.queries, items.tree
    step = max(_PAIRS_AT_A_TIME // max(len(items.indices), 1), 1)
    beams = {RECOMMENDED: descent.beam, EXACT: None}
    beams |= {beam_place(beam): beam for beam in descent.beams}
    # of all items every one is among the best
    recall_at = [k for k in descent.recall_at if k < len(items.indices)]
    is_new = ~protocol.fit_items[items.indices]

    def found(rows: slice) -> dict[str, _Found]:
        number = rows.stop - rows.start
        users = scoring.users(queries.user[rows], queries.time[rows])
        noted = _Noted(items.scorer(users, task), tree, number)
        exact = descend(tree, number, noted, None, 1, Allowed())
        of_items = np.full((number, len(items.indices)), np.nan)
        of_items[exact.user, exact.item] = exact.value
        known = _Known(noted.of_nodes, of_items)
        best = _first(exact, number, max(recall_at, default=0))
        of_places = {}
        for place, beam in beams.items():
            reached, of_best = exact, {}
            if place != EXACT:
                reached = descend(tree, number, known, beam, 1, Allowed())
                of_best = {k: _of_best(reached, best[:, :k], is_new) for k in recall_at}
            ranks = _ranks(reached, items, rows, protocol.num_items, candidates)
            of_places[place] = _Found(ranks, reached.scored, of_best)
        return of_places

    firsts = range(0, len(queries), step)
    parts = [slice(first, min(first + step, len(queries))) for first in firsts]
    by_part = in_parts(parts, found, "Scoring every item")
    return {place: [one[place] for one in by_part] for place in beams}


def _at(prefix: str, place: str) -> str:
    return f"{prefix}/{place}" if place else prefix


def _ranks(
    reached: Reached,
    items: ItemTree,
    rows: slice,
    num_items: int,
    candidates: Mapping[str, CandidateSet],
) -> dict[str, NDArray[np.int64]]:
    scores = np.full((rows.stop - rows.start, num_items), _NOT_REACHED, np.float32)
    scores[reached.user, items.indices[reached.item]] = reached.value
    return {name: one.ranks(rows, torch.from_numpy(scores)) for name, one in candidates.items()}


def _of_best(reached: Reached, best: NDArray[np.int64], is_new: NDArray[np.bool_]) -> _Best:
    """Which of the best [U, k] are among the k first of a descent."""
    users, k = best.shape
    found = [
        np.isin(one, other[other >= 0])
        for one, other in zip(best, _first(reached, users, k), strict=True)
    ]
    return _Best(np.array(found), is_new[best])


def _first(reached: Reached, users: int, k: int) -> NDArray[np.int64]:
    """[U, k'] the best items of each user, k' the smaller of k and all items; −1 for none."""
    rank = np.arange(len(reached.user)) - np.searchsorted(reached.user, reached.user)
    width = min(k, int(rank.max(initial=-1)) + 1)
    best = np.full((users, width), -1, np.int64)
    chosen = rank < width
    best[reached.user[chosen], rank[chosen]] = reached.item[chosen]
    return best
