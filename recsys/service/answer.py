"""What a service says to a request, and how it came to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.funnel import SECOND, Outcome
from recsys.serving.funnel.ledger import Described


@dataclass(frozen=True, eq=False)
class Answer:
    """What a funnel did for one request.

    Attributes:
        number: of the request.
        items: raw ids by place.
        scores: what each is worth; NaN for one that was drawn.
        requests: who asked.
        generation: by which.
        fallback: why the list is one made before; None where it is not.
        outcome: what became of the candidates, by items as they are noted; None for a list made
            before.
        described: names of the funnel's parts.
        in_advance: whether it was made when the user opened the app.
    """

    number: int
    items: list[int | str | None]
    scores: list[float]
    requests: Requests
    generation: int
    fallback: str | None = None
    outcome: Outcome | None = None
    described: Described | None = None
    in_advance: bool = False

    @property
    def unpredicted(self) -> bool:
        """Whether the second stage failed, or had no time for a single candidate."""
        if self.outcome is None or SECOND not in self.outcome.missed:
            return False
        return bool(np.isnan(self.outcome.candidates.scores[SECOND]).all())

    @property
    def why_empty(self) -> str | None:
        """Where the candidates have ended, if none of them is in the list; None where some are."""
        if self.items:
            return None
        if self.outcome is None or self.described is None:
            return "of what is popular the user has seen all that passes the filters"
        ended = self.outcome.candidates.death
        stages = np.bincount(ended[ended >= 0], minlength=len(self.described.stages))
        parts = [
            f"{number:,} at {name}"
            for name, number in zip(self.described.stages, stages.tolist(), strict=True)
            if number
        ]
        if not parts:
            return "no source found an item that the user has not seen"
        return f"all candidates have ended: {', '.join(parts)}"
