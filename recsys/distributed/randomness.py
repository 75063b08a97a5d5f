"""Seeds of what a step draws, so that a resumed run draws what the run before it would have."""

from __future__ import annotations

#: A prime that keeps the seeds of (seed, step) pairs apart.
_SEED_STRIDE = 1_000_003
#: 2^32 over the golden ratio. Torch's CPU generator takes the lower 32 bits of a seed; there the
#: multiples of this, up to a thousand of them, are more than a million steps apart.
_PLACE_STRIDE = 2_654_435_761


def seed_of_step(seed: int, step: int, place: int) -> int:
    """The seed of a step of a run.

    Args:
        seed: of the run.
        step: number of the step.
        place: who draws in that step: what draws beside each other has places of its own, at most
            a thousand of them.
    """
    return seed * _SEED_STRIDE + step + place * _PLACE_STRIDE
