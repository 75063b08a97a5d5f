"""Splits by day: four moments, dates in the owner's time zone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from recsys.core.errors import ConfigError
from recsys.data.contract.moments import to_milliseconds, to_text
from recsys.data.contract.schema import Split

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
else:
    DataclassInstance = Any

_SPLITS = (Split.FIT, Split.CHOOSE, Split.REPORT)


@dataclass(frozen=True)
class OtherDays:
    """Splits where they are not those that come with the log; dates and times in UTC.

    A model that reads what another model published is fitted after that model's fit period.

    Attributes:
        fit_from: first moment whose rows are trained on.
        choose_from: where the choose period begins.
        report_from: where the report period begins.
        report_until: where it ends.
    """

    fit_from: str | None = None
    choose_from: str | None = None
    report_from: str | None = None
    report_until: str | None = None


def other_days(
    options: OtherDays, bounds: dict[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """``[first, last)`` in ms per split: those of the log, but for the moments that are given.

    Raises:
        ConfigError: a moment is none, or they do not rise.
    """
    first, choose, report = (bounds[split][0] for split in _SPLITS)
    owners = (first, choose, report, bounds[Split.REPORT][1])
    moments = [
        own if text is None else to_milliseconds(f"options.{name}", text)
        for (name, text), own in zip(asdict(options).items(), owners, strict=True)
    ]
    return _between(moments)


def split_days(options: DataclassInstance, zone: tzinfo) -> dict[str, tuple[int, int]]:
    """``[first, last)`` in ms per split.

    Args:
        options: ``fit_from``, ``choose_from``, ``report_from`` and ``report_until``, in this order.
        zone: time zone of the dates.

    Raises:
        ConfigError: a date is no date, or they do not rise.
    """
    days: dict[str, str] = asdict(options)
    return _between([to_milliseconds(f"options.{name}", day, zone) for name, day in days.items()])


def _between(moments: list[int]) -> dict[str, tuple[int, int]]:
    if not moments[0] < moments[1] < moments[2] < moments[3]:
        found = ", ".join(to_text(moment) for moment in moments)
        raise ConfigError(f"the days of the splits must rise; found {found}.")
    return {split: (moments[place], moments[place + 1]) for place, split in enumerate(_SPLITS)}
