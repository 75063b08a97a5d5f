"""When a user engaged, in a form that does not tell a step what comes after it (NxtPost §4.2).

The paper concatenates "the time since current" to an item's embedding. Seen from a causal state,
the time from an event to the end of the sequence is news of the future: it says how much later the
user still came back. Here a step is told the gap to the event before it, and the gap from the last
event to the request comes in only where the user representation is made. Gaps are bucketed by
powers of two, from under a second to half a year and more.

Legend: B users, E events (jagged), D width.
"""

# no `from __future__ import annotations`: TorchScript reads the types of the class attributes

import torch
from torch import Tensor, nn

from recsys.data.contract.schema import MILLISECONDS_PER_SECOND
from recsys.nn.sequence.base import step_number

#: 1 s, 2 s, 4 s, … 2^24 s (194 days): the first values, in ms, of the buckets from the third on.
BOUNDARIES = [MILLISECONDS_PER_SECOND * 2**power for power in range(25)]

#: Bucket 0 says that there is no event before.
NUM_BUCKETS = len(BOUNDARIES) + 2


def gap_buckets(later: Tensor, earlier: Tensor, known: Tensor, boundaries: Tensor) -> Tensor:
    """The bucket of each gap ``later − earlier``.

    Args:
        later: [n] int64, ms.
        earlier: [n] int64, ms.
        known: [n] bool, false where there is no earlier event.
        boundaries: of :data:`BOUNDARIES`.

    Returns:
        [n] int64: 0 where ``known`` is false, 1 for gaps under 1 s (a negative one, from a clock
        that went back, too), k + 2 for gaps of 2^k up to 2^(k+1) seconds, and the last bucket for
        all longer ones.
    """
    return (torch.bucketize(later - earlier, boundaries, right=True) + 1) * known


class PreviousGap(nn.Module):
    """An embedding of the gap between each event and the event before it.

    Args:
        width: of the embedding.
    """

    boundaries: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("boundaries", torch.tensor(BOUNDARIES), persistent=False)
        self.embedding = nn.Embedding(NUM_BUCKETS, width)

    def forward(self, timestamp: Tensor, lengths: Tensor) -> Tensor:
        """Embed the gaps.

        Args:
            timestamp: [E] int64, ms, each user's events oldest first.
            lengths: [B] int64.

        Returns:
            [E, width]; row t depends on the times of events t − 1 and t alone.
        """
        has_previous = step_number(lengths, timestamp.shape[0]) > 0
        buckets = gap_buckets(timestamp, timestamp.roll(1), has_previous, self.boundaries)
        embedded: Tensor = self.embedding(buckets)
        return embedded


class RequestGap(nn.Module):
    """Scales and shifts a user's representation by the gap from the last event to the request.

    ``h → h · (1 + scale[bucket]) + shift[bucket]``: after a long gap, for example, the coordinates
    that tell of a passing interest can fade. It starts as the identity.

    Args:
        width: D.
    """

    boundaries: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("boundaries", torch.tensor(BOUNDARIES), persistent=False)
        self.scale_and_shift = nn.Embedding(NUM_BUCKETS, 2 * width)
        nn.init.zeros_(self.scale_and_shift.weight)

    def forward(
        self, representation: Tensor, timestamp: Tensor, lengths: Tensor, request_time: Tensor
    ) -> Tensor:
        """Bring the gap in.

        Args:
            representation: [B, D].
            timestamp: [E] int64, ms, each user's events oldest first.
            lengths: [B] int64.
            request_time: [B] int64, ms.

        Returns:
            [B, D].
        """
        has_events = lengths > 0
        last_time = request_time
        if timestamp.shape[0] > 0:
            last = (torch.cumsum(lengths, dim=0) - 1).clamp(min=0)
            last_time = torch.where(has_events, timestamp.index_select(0, last), request_time)
        buckets = gap_buckets(request_time, last_time, has_events, self.boundaries)
        scale, shift = self.scale_and_shift(buckets).chunk(2, dim=1)
        moved: Tensor = representation * (1 + scale) + shift
        return moved
