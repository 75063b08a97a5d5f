"""What a slice asks of an event: attributes, conditions on them, and their numpy evaluation.

Bounds. The paper writes closed ranges ``[lb, ub]`` (DV365 equations 3 and 4). Here a range is
half-open, ``[lower, upper)``, so that adjoining ranges share no event. A debiased score asks for
strictly more than its threshold (equation 5), and a window for an age in ``(0, upper]``
(equation 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

#: Value of a dwell time, ratio or score that is not known: below every bound, so in no slice.
UNKNOWN = -1.0


class AttributeKind(StrEnum):
    """What of an event is compared."""

    ACTION_TYPE = "action_type"
    MEDIA_TYPE = "media_type"
    SURFACE = "surface"
    AGE = "age"  # request time − timestamp, ms (Δt of equation 6)
    DWELL_TIME = "dwell_time"  # s (equation 3)
    WATCH_RATIO = "watch_ratio"  # dwell_time / video_duration ** parameter (equation 4)
    DEBIASED_SCORE = "debiased_score"  # s(E) with γ = parameter (equation 5)


#: Attributes with codes; all others are numbers.
CATEGORICAL_KINDS = (AttributeKind.ACTION_TYPE, AttributeKind.MEDIA_TYPE, AttributeKind.SURFACE)


@dataclass(frozen=True, order=True)
class Attribute:
    """A property of an event; ``parameter`` is β of a watch ratio or γ of a debiased score."""

    kind: AttributeKind
    parameter: float = 1.0

    @property
    def is_categorical(self) -> bool:
        """Whether its values are codes."""
        return self.kind in CATEGORICAL_KINDS


@dataclass(frozen=True)
class CategoryCondition:
    """Holds where the attribute's code equals ``code`` (-1: a value this log lacks; never)."""

    attribute: Attribute
    code: int

    def holds(self, values: NDArray) -> NDArray[np.bool_]:
        """[E] bool of the attribute's values [E]."""
        return (values == self.code) & (self.code >= 0)


@dataclass(frozen=True)
class RangeCondition:
    """Holds in ``[lower, upper)``, or in ``(lower, upper]`` where ``open_below`` is set."""

    attribute: Attribute
    lower: float
    upper: float
    open_below: bool = False

    def holds(self, values: NDArray) -> NDArray[np.bool_]:
        """[E] bool of the attribute's values [E], compared in their own precision."""
        if values.dtype.kind == "f":
            lower, upper = values.dtype.type(self.lower), values.dtype.type(self.upper)
        else:
            lower, upper = self.lower, self.upper
        if self.open_below:
            return (values > lower) & (values <= upper)
        return (values >= lower) & (values < upper)


Condition = CategoryCondition | RangeCondition


def attribute_values(
    attribute: Attribute, events: Mapping[str, NDArray], request_time: NDArray[np.int64]
) -> NDArray:
    """Evaluate one attribute.

    Args:
        attribute: what to evaluate.
        events: timeline columns [E].
        request_time: [E] int64, ms: the request each event is pooled for.

    Returns:
        [E]: codes, ms (int64) or float32, the latter ``UNKNOWN`` where dwell time or duration is
        missing or the duration is not positive.
    """
    if attribute.is_categorical:
        return events[attribute.kind.value]
    if attribute.kind is AttributeKind.AGE:
        return request_time - events["timestamp"]
    dwell = events["dwell_time"].astype(np.float32)
    if attribute.kind is AttributeKind.DWELL_TIME:
        return np.where(np.isnan(dwell), np.float32(UNKNOWN), dwell)
    duration = events["video_duration"].astype(np.float32)
    known = ~np.isnan(dwell) & (duration > 0)  # a comparison with NaN is false
    duration = np.where(known, duration, np.float32(1))
    dwell = np.where(known, dwell, np.float32(0))
    parameter = np.float32(attribute.parameter)
    if attribute.kind is AttributeKind.WATCH_RATIO:
        value = dwell / duration**parameter
    else:
        value = np.log1p(dwell) / np.log1p(parameter * duration)
    return np.where(known, value, np.float32(UNKNOWN))
