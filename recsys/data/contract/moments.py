"""Moments in milliseconds since 1970 (UTC), and as a user writes and reads them."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from recsys.core.errors import ConfigError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import MILLISECONDS_PER_SECOND
from recsys.data.contract.time_columns import FIRST_TIMESTAMP, LAST_TIMESTAMP


def to_milliseconds(setting: str, text: str, zone: tzinfo = UTC) -> int:
    """The moment an ISO 8601 text names, in ms.

    Args:
        setting: the key that has this value, for the sentence.
        text: a date or a date and time; one without a zone is in ``zone``.
        zone: time zone.

    Raises:
        ConfigError: the text names no moment.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{setting}={text} is no moment; write it like 2024-05-01 or 2024-05-01T07:00:00."
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return round(moment.timestamp() * MILLISECONDS_PER_SECOND)


def parse_moment(setting: str, text: str) -> int:
    """The moment that a text names, in ms: ISO 8601 (UTC where it names no zone), or ms as digits.

    Up to eight digits are a date without hyphens: as ms they would be on the first day of 1970.

    Args:
        setting: the key that has this value, for the sentence.
        text: what the user wrote.

    Raises:
        ConfigError: it is neither, or a number of seconds.
    """
    if not text.lstrip("-").isdecimal() or len(text) <= len("20240501"):
        return to_milliseconds(setting, text)
    moment = int(text)
    in_seconds = FIRST_TIMESTAMP // MILLISECONDS_PER_SECOND <= moment < FIRST_TIMESTAMP
    if not FIRST_TIMESTAMP <= moment < LAST_TIMESTAMP:
        raise ConfigError(
            f"{setting}={text} is not in milliseconds since 1970 (UTC)"
            f"{', it looks like seconds' * in_seconds}; give milliseconds or a moment such as "
            "2022-05-09T00:00:00."
        )
    return moment


def as_of_moment(text: str | None, manifest: DatasetManifest) -> int:
    """The moment that ``as_of`` names, or the end of the data set's last split.

    Raises:
        ConfigError: the text names none, or there is none and the data set has no splits.
    """
    if text is None:
        if not manifest.split_bounds:
            raise ConfigError(f"The data set {manifest.name} has no splits; give as_of=….")
        return max(last for _, last in manifest.split_bounds.values())
    return parse_moment("as_of", text)


def to_text(moment: int) -> str:
    """A moment in ms as ISO 8601 text, to the second, in UTC."""
    seconds = moment / MILLISECONDS_PER_SECOND
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
