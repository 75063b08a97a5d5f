"""What the stages of a funnel lose: recall of what comes later, and regret against the best list.

Legend: B requests, N candidates over all requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.serving.funnel.candidates import Candidates, place_of


@dataclass(frozen=True, eq=False)
class Recall:
    """What of the best candidates survived a stage, [B] each; NaN for requests without any.

    Attributes:
        hard: share of the best so many that survived.
        soft: value of the best so many of those that survived, over that of all. Values below 0
            count as nothing, for a list need not hold them.
    """

    hard: NDArray[np.float64]
    soft: NDArray[np.float64]


def stage_recall(
    candidates: Candidates, value: NDArray[np.floating], stage: int, number: int
) -> Recall:
    """What a stage kept of the best candidates that came to it.

    Args:
        candidates: of B requests, as they ended.
        value: [N] what each is worth by who comes later, or in truth; NaN counts as nothing.
        stage: number of the stage.
        number: how many are the best.

    Example: of candidates worth 3, 2 and 1 a stage leaves out the second. With ``number=2`` the
    hard recall is 1/2 and the soft one (3 + 1) / (3 + 2).
    """
    came = candidates.alive | (candidates.death >= stage)
    survived = came & (candidates.death != stage)
    worth = np.where(np.isnan(value), 0.0, np.maximum(value, 0.0)).astype(np.float64)
    request, requests = candidates.request, len(candidates.lengths)
    of_all = _best(worth, came, request, number)
    of_kept = _best(worth, survived, request, number)

    def summed(chosen: NDArray[np.bool_], of: NDArray[np.float64]) -> NDArray[np.float64]:
        return _summed(request, chosen, of, requests)

    ones = np.ones(len(worth))
    with np.errstate(divide="ignore", invalid="ignore"):
        return Recall(
            summed(of_all & survived, ones) / summed(of_all, ones),
            summed(of_kept, worth) / summed(of_all, worth),
        )


def regret(
    candidates: Candidates,
    value: NDArray[np.floating],
    best: NDArray[np.float64],
    stages: int,
    k: int,
) -> NDArray[np.float64]:
    """How much of the best list's value is lost where; the parts add up to the whole.

    What is left after a stage is the value of the best k among those that survived it, at the end
    the value of the list itself. Filters are rules and no losses: what they leave out belongs in no
    list, so ``best`` must obey them too and ``value`` be NaN for it.

    Args:
        candidates: of B requests, as they ended.
        value: [N] what each is truly worth; NaN for what belongs in no list.
        best: [B] value of the best list of k of all items.
        stages: how many the funnel has, S.
        k: places of a list.

    Returns:
        [B, S + 1]: what the sources did not find, then what each stage lost.
    """
    request = candidates.request
    worth = np.where(np.isnan(value), 0.0, value).astype(np.float64)
    left = [np.asarray(best, np.float64)]
    for stage in range(-1, stages - 1):
        survived = (candidates.alive | (candidates.death > stage)) & ~np.isnan(value) & (worth > 0)
        chosen = _best(worth, survived, request, k)
        left.append(_summed(request, chosen, worth, len(best)))
    shown = candidates.position > 0
    left.append(_summed(request, shown, worth, len(best)))
    return -np.diff(np.stack(left, axis=1), axis=1)


def _summed(
    request: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    of: NDArray[np.float64],
    requests: int,
) -> NDArray[np.float64]:
    """[B] sums over the chosen candidates of each request."""
    return np.bincount(request[chosen], of[chosen], minlength=requests).astype(np.float64)


def _best(
    worth: NDArray[np.float64], among: NDArray[np.bool_], request: NDArray[np.int64], number: int
) -> NDArray[np.bool_]:
    """[N] which are the best so many of each request; of equal ones the first."""
    rows = np.flatnonzero(among)
    order = rows[np.lexsort((-worth[rows], request[rows]))]
    counts = np.bincount(request[rows], minlength=int(request.max(initial=-1)) + 1)
    chosen = np.zeros(len(worth), np.bool_)
    chosen[order[place_of(counts) < number]] = True
    return chosen
