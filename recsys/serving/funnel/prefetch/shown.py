"""What was made in advance, as it is once it is shown.

Legend: N candidates.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.serving.funnel.candidates import GAP, Requests
from recsys.serving.funnel.funnel import SECOND, Outcome


def shown_at(requests: Requests, outcome: Outcome, moment: int) -> tuple[Requests, Outcome]:
    """One request as a ledger has it once its list is shown, at a moment in ms.

    With a cache, what was predicted of its candidates is of a while ago by then.
    """
    of = outcome.candidates
    if GAP in of.scores:
        age = (moment - int(requests.moment[0])) / MILLISECONDS_PER_HOUR
        predicted = ~np.isnan(of.scores[SECOND]).all(axis=1)
        gap = np.where(predicted, age + np.nan_to_num(of.scores[GAP]), np.nan)
        of = replace(of, scores=of.scores | {GAP: gap.astype(np.float32)})
    return replace(requests, moment=np.array([moment])), replace(outcome, candidates=of)


def without(outcome: Outcome, gone: NDArray[np.bool_], stage: int) -> Outcome:
    """One request whose list closes up where items cannot be shown any more.

    Args:
        outcome: of the request.
        gone: [N] which of the candidates.
        stage: number of that which they end at.
    """
    of = outcome.candidates
    shown = np.flatnonzero((of.position > 0) & ~gone)
    position = np.zeros_like(of.position)
    position[shown[np.argsort(of.position[shown])]] = np.arange(1, len(shown) + 1)
    death = np.where((of.position > 0) & gone, stage, of.death).astype(of.death.dtype)
    return replace(outcome, candidates=replace(of, position=position, death=death))
