"""What users did before a moment: as the log has it, or as the caller gives it instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.reader import SequenceReader
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import Engagements
from recsys.serving.given_events import ACTION, ITEM, SURFACE, TIME, UNSAID, USER, GivenEvents
from recsys.serving.pipeline import StepUsers


@dataclass(frozen=True, eq=False)
class Histories:
    """Reads histories for a sequence model.

    Attributes:
        reader: of those in the log.
        gap_ms: how long before a moment they end.
        sequences: what counts as an engagement.
        known: [V] items that the model can read; None for all.
    """

    reader: SequenceReader
    gap_ms: int = 0
    sequences: SequenceConfig = field(default_factory=SequenceConfig)
    known: NDArray[np.bool_] | None = None

    def parts(self, users: StepUsers) -> Iterator[tuple[NDArray[np.int64], SequenceBatch]]:
        """Positions of some of the users of a step, and the batch of their histories."""
        given = users.given
        numbers = np.full(len(users), -1) if given is None else given.numbers(users.raw)
        of_log, own = np.flatnonzero(numbers < 0), np.flatnonzero(numbers >= 0)
        if len(of_log) or given is None:
            yield of_log, self.reader.before(users.indices[of_log], users.moment, self.gap_ms)
        if given is not None and len(own):
            reader = self._reader_of(given, numbers[own], users.indices[own])
            yield own, reader.before(np.arange(len(own)), users.moment, self.gap_ms)

    def _reader_of(
        self, given: GivenEvents, numbers: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> SequenceReader:
        """Reads the given histories of some users as users that are numbered anew."""
        place = pl.DataFrame({USER: numbers, "place": np.arange(len(numbers))})
        events = given.table.join(place, on=USER, how="inner", maintain_order="left")
        codes = self.sequences.action_codes(self.reader.dataset.manifest.actions)
        counted = pl.col(ACTION).is_in([*codes, UNSAID]) & (pl.col(ITEM) > 0)
        if self.known is not None:
            counted &= pl.col(ITEM).is_in(np.flatnonzero(self.known).tolist())
        events = events.filter(counted).sort("place", maintain_order=True)
        if not self.sequences.repeats:
            events = events.unique(["place", ITEM], keep="first", maintain_order=True)
        lengths = np.bincount(events["place"].to_numpy(), minlength=len(numbers))
        engagements = Engagements(
            {
                "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
                "item": events[ITEM].to_numpy(),
                "action_type": events[ACTION].replace(UNSAID, codes[0]).to_numpy(),
                "surface": events[SURFACE].to_numpy(),
                "timestamp": events[TIME].to_numpy(),
            }
        )
        return self.reader.of_others(engagements, indices)
