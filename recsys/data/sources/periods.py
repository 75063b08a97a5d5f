"""Splits by time: bounds, whole days at the end of a log, or shares of its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from recsys.core.bounds import Count, Number, Settings
from recsys.core.errors import ConfigError
from recsys.data.contract.moments import to_milliseconds, to_text
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, Split


@dataclass(frozen=True)
class PeriodOptions(Settings):
    """How a log is split by time.

    Attributes:
        fit_until: end of the fit period, for example ``2024-05-01`` (UTC); None for a fraction.
        choose_until: end of the choose period, likewise.
        choose_days: whole UTC days before those of ``report_days`` that are the choose period; None
            for a fraction.
        report_days: whole UTC days at the end of the log that are the report period, likewise.
        choose_fraction: share of the log's time that is the choose period if no bound is given.
        report_fraction: share of the log's time, at its end, that is the report period.
    """

    fit_until: str | None = None
    choose_until: str | None = None
    choose_days: Count | None = None
    report_days: Count | None = None
    choose_fraction: Annotated[float, Number(above=0, below=1)] = 0.1
    report_fraction: Annotated[float, Number(above=0, below=1)] = 0.2


def periods(options: PeriodOptions, first: int, last: int) -> dict[str, tuple[int, int]]:
    """``[first, last)`` request time of each split, in ms.

    Taken anew of a log that has grown, days and shares move with its end; bounds stay, and what
    has come is reported.

    Args:
        options: how the log is split.
        first: the log's first moment, ms.
        last: its last moment, ms.

    Raises:
        ConfigError: bounds beside days, one number of days without the other, or periods that do
            not follow each other inside the log.
    """
    end = last + 1
    span = end - first
    by_days = _days(options)
    if by_days is not None:
        choose_days, report_days = by_days
        day = last // MILLISECONDS_PER_DAY
        report = (day + 1 - report_days) * MILLISECONDS_PER_DAY
        choose = report - choose_days * MILLISECONDS_PER_DAY
        mend = "set options.choose_days and options.report_days to fewer days, or add days."
    else:
        report = end - round(span * options.report_fraction)
        choose = report - round(span * options.choose_fraction)
        if options.fit_until is not None:
            choose = to_milliseconds("options.fit_until", options.fit_until)
        if options.choose_until is not None:
            report = to_milliseconds("options.choose_until", options.choose_until)
        mend = "set options.fit_until and options.choose_until."
    if not first < choose < report < end:
        raise ConfigError(
            "the fit, choose and report periods must follow each other inside the log, which "
            f"covers {to_text(first)} to {to_text(last)}; found fit until {to_text(choose)} and "
            f"choose until {to_text(report)}: {mend}"
        )
    return {Split.FIT: (first, choose), Split.CHOOSE: (choose, report), Split.REPORT: (report, end)}


def _days(options: PeriodOptions) -> tuple[int, int] | None:
    """Days of choose and report; None where the log is not split by days."""
    choose, report = options.choose_days, options.report_days
    if choose is None and report is None:
        return None
    if choose is None or report is None:
        missing = "choose_days" if choose is None else "report_days"
        raise ConfigError(f"options.{missing} is missing: splits by days need both numbers.")
    if options.fit_until is not None or options.choose_until is not None:
        raise ConfigError(
            "options.choose_days and options.report_days count from the end of the log, "
            "options.fit_until and options.choose_until are moments: give the one or the other."
        )
    return choose, report
