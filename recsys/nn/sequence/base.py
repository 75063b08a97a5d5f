"""The interface of sequence encoders, and the passage between jagged and padded tensors.

A batch of sequences is jagged: the steps of all users one after the other, oldest first, [E, D],
and the number of steps of each user, ``lengths`` [B]. Everything that works on a step by itself
runs on this layout; attention alone needs a padded one, [B, T, D] with T the longest sequence,
real steps first.

Plain tensor operations, not FBGEMM's, so that a scripted encoder loads where torch alone is
installed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SequenceEncoder(nn.Module):
    """Turns the tokens of each user's sequence into states, one per step."""

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        timestamps: Tensor | None = None,
        host_lengths: Tensor | None = None,
    ) -> Tensor:
        """Encode the sequences of a batch.

        Args:
            tokens: [E, D], jagged, each user's steps oldest first.
            lengths: [B] int64, steps per user; 0 is allowed.
            timestamps: [E] int64, ms, for encoders that look at times; ``None`` where the log has
                no times.
            host_lengths: [B], ``lengths`` on the host; without them a device is waited for.

        Returns:
            [E, D]: state t has seen the tokens up to t (causal) or all of its user's tokens.
        """
        raise NotImplementedError


def longest(lengths: Tensor) -> int:
    """T: the greatest number of steps in the batch, 0 for a batch without users."""
    return int(lengths.max().item()) if lengths.numel() > 0 else 0


def user_of_step(lengths: Tensor, num_steps: int) -> Tensor:
    """The row of the batch that each step belongs to, [B] → [E] int64.

    >>> user_of_step(torch.tensor([2, 0, 1]), 3)
    tensor([0, 0, 2])
    """
    return torch.repeat_interleave(lengths, output_size=num_steps)


def step_number(lengths: Tensor, num_steps: int) -> Tensor:
    """The place of each step in its own sequence, 0 the oldest, [B] → [E] int64.

    >>> step_number(torch.tensor([2, 0, 1]), 3)
    tensor([0, 1, 0])
    """
    before = torch.cumsum(lengths, dim=0) - lengths  # [B] steps of the users before
    steps = torch.arange(num_steps, device=lengths.device)
    return steps - torch.repeat_interleave(before, lengths, dim=0, output_size=num_steps)


def padded_slots(lengths: Tensor, num_steps: int, padded_length: int) -> Tensor:
    """Where each step lies in a padded batch whose first two dimensions are one, [B] → [E] int64.

    >>> padded_slots(torch.tensor([2, 0, 1]), 3, 2)
    tensor([0, 1, 4])
    """
    users = user_of_step(lengths, num_steps)
    return users * padded_length + step_number(lengths, num_steps)


def to_padded(flat: Tensor, slots: Tensor, batch_size: int, padded_length: int) -> Tensor:
    """Jagged to padded, [E, D] → [B, T, D]; slots without a step hold zeros.

    Args:
        flat: [E, D].
        slots: [E] of :func:`padded_slots`.
        batch_size: B.
        padded_length: T.
    """
    width = flat.shape[1]
    padded = flat.new_zeros([batch_size * padded_length, width]).index_copy(0, slots, flat)
    return padded.view(batch_size, padded_length, width)


def to_jagged(padded: Tensor, slots: Tensor) -> Tensor:
    """Padded to jagged, [B, T, D] → [E, D]; the inverse of :func:`to_padded`."""
    return padded.reshape(-1, padded.shape[2]).index_select(0, slots)


def newest_steps(
    lengths: Tensor, max_length: int, host_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The places of the newest ``max_length`` steps of each user, and how many each has.

    Args:
        lengths: [B] int64.
        max_length: of a user at most.
        host_lengths: [B], ``lengths`` on the host; without them a device is waited for.
    """
    kept = lengths.clamp(max=max_length)
    known = kept if host_lengths is None else host_lengths.clamp(max=max_length)
    num_kept = int(known.sum().item())
    left_out = torch.cumsum(lengths - kept, dim=0)  # [B] up to the first that is kept
    left_out = torch.repeat_interleave(left_out, kept, output_size=num_kept)
    return torch.arange(num_kept, device=lengths.device) + left_out, kept
