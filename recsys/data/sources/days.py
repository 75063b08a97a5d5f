"""Splits by day: four dates in the owner's time zone."""

from __future__ import annotations

from dataclasses import asdict
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from recsys.core.errors import ConfigError
from recsys.data.contract.moments import to_milliseconds
from recsys.data.contract.schema import Split

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
else:
    DataclassInstance = Any


def split_days(options: DataclassInstance, zone: tzinfo) -> dict[str, tuple[int, int]]:
    """``[first, last)`` in ms per split.

    Args:
        options: ``fit_from``, ``choose_from``, ``report_from`` and ``report_until``, in this order.
        zone: time zone of the dates.

    Raises:
        ConfigError: a date is no date, or they do not rise.
    """
    days: dict[str, str] = asdict(options)
    moments = [to_milliseconds(f"options.{name}", day, zone) for name, day in days.items()]
    if not moments[0] < moments[1] < moments[2] < moments[3]:
        raise ConfigError(f"the days of the splits must rise; found {', '.join(days.values())}.")
    return {
        split: (moments[position], moments[position + 1])
        for position, split in enumerate((Split.FIT, Split.CHOOSE, Split.REPORT))
    }
