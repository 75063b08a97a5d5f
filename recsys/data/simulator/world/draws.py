"""Draws that belong to an event: the same whoever asks, when, and with what beside it.

A draw is SplitMix64 over the seed, the stream and the keys of its event, such as user, item and
moment. Two policies that show one user the same item at the same visit see the same draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from recsys.core.hashing import splitmix64

Words = NDArray[np.uint64]
Doubles = NDArray[np.float64]


class Stream(IntEnum):
    """What is drawn."""

    OUTCOME = 1
    MOOD = 2
    STAY = 3
    THINK = 4
    ACTION_TIME = 5
    REQUEST_ROW = 6
    NOTIFICATION = 7
    WAIT = 8


def codes_in_shares(
    rng: np.random.Generator, shares: Mapping[str, float], count: int
) -> NDArray[np.int8]:
    """So many codes, places in ``shares``, drawn in these proportions."""
    share = np.array(list(shares.values()))
    return rng.choice(len(share), count, p=share / share.sum()).astype(np.int8)


def words(seed: int, stream: Stream, *keys: NDArray[np.integer]) -> Words:
    """64 bits for each event, in the shape of the keys together.

    Args:
        seed: of the world.
        stream: what is drawn.
        keys: whole numbers that name the event.
    """
    state = splitmix64(np.array([seed], np.uint64) ^ splitmix64(np.array([stream], np.uint64)))
    for key in keys:
        state = splitmix64(state ^ np.asarray(key).astype(np.uint64))
    return state


def uniforms(words: Words, number: int = 0) -> Doubles:
    """The draw of that number of each event, uniform in (0, 1)."""
    mixed = splitmix64(words ^ splitmix64(np.array([number], np.uint64)))
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normals(words: Words, number: int = 0) -> Doubles:
    """The draw of that number of each event, standard normal."""
    drawn: Doubles = ndtri(uniforms(words, number))
    return drawn
