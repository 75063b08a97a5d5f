"""Whether a setting is of the type and range that it must have."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from recsys.core.errors import ConfigError

#: What a number that counts something must be.
COUNT = "a whole number of at least 1"


def refuse_unless(fits: bool, setting: str, value: object, expected: str) -> None:
    """Say what is expected of a setting.

    Raises:
        ConfigError: the value does not fit.
    """
    if not fits:
        shown = repr(value) if isinstance(value, str) else value
        raise ConfigError(f"Shampoo: {setting} is {shown}, it must be {expected}.")


def counts(value: object) -> bool:
    """Whether it is a whole number of at least 1; True and False are no numbers."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_number(value: object) -> bool:
    """Whether it is a real number; True and False, strings and None are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def at_least_zero(value: Any) -> bool:
    """Whether it is a finite number of at least 0."""
    return is_number(value) and 0 <= value < math.inf


def above_zero(value: Any) -> bool:
    """Whether it is a finite number above 0."""
    return at_least_zero(value) and value > 0


def decays(value: Any) -> bool:
    """Whether it is a number above 0 and at most 1."""
    return is_number(value) and 0 < value <= 1


def is_share(value: Any) -> bool:
    """Whether it is a number of at least 0 and below 1."""
    return is_number(value) and 0 <= value < 1
