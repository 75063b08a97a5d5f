from __future__ import annotations

import numpy as np

from recsys.core.hashing import splitmix64


def test_the_first_outputs_of_splitmix64() -> None:
    """From a state of 0 and of one step on, as Vigna's reference code gives them."""
    states = np.array([0, 0x9E3779B97F4A7C15], np.uint64)
    assert splitmix64(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
