"""Tables that a user gives beside a log."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import recsys
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.given_tables import log_times
from recsys.data.contract.manifest import DatasetManifest

FIRST = 1_714_521_600_000  # 2024-05-01, UTC


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DatasetManifest]:
    """Of logs in seconds, in milliseconds, and in texts of Berlin."""
    folder: Path = tmp_path_factory.mktemp("given")
    time = pl.Series([FIRST + 21_600_000 * number for number in range(120)])
    texts = pl.from_epoch(time, "ms").dt.strftime("%Y-%m-%d %H:%M:%S")
    written = {"s": time // 1000, "ms": time, "iso": texts}
    return {
        unit: recsys.prepare(
            pl.DataFrame(
                {
                    "user_id": [number % 6 for number in range(120)],
                    "item_id": [number % 7 for number in range(120)],
                    "timestamp": column,
                    "action_type": ["click", "impression"] * 60,
                }
            ),
            folder / unit,
            time_unit=unit,
            time_zone="Europe/Berlin",
        ).manifest
        for unit, column in written.items()
    }


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("s", "1714521600.5", FIRST + 500),
        ("s", 1714521600.5, FIRST + 500),
        ("ms", "1714521600000.0", FIRST),
        ("ms", 1714521600000.0, FIRST),
        ("ms", "2024-05-01T02:00", FIRST),  # two o'clock in Berlin is midnight in UTC
        ("s", "2024-05-01T00:00Z", FIRST),
        ("iso", "2024-05-01 02:00:00", FIRST),
        ("iso", FIRST, FIRST),
    ],
)
def test_times_are_read_as_those_of_the_log(
    manifests: dict[str, DatasetManifest], unit: str, value: str | float, expected: int
) -> None:
    column = pl.Series("timestamp", [value, None])
    assert log_times("history", column, manifests[unit]).to_list() == [expected, None]


def test_what_is_no_time_is_a_sentence_of_this_command(
    manifests: dict[str, DatasetManifest],
) -> None:
    for unit, value in (("ms", 1714521600), ("s", FIRST), ("ms", "171452160"), ("iso", "soon")):
        with pytest.raises(DataError, match="values are no times as the log has them") as caught:
            log_times("history", pl.Series("timestamp", [value]), manifests[unit])
        assert "options" not in str(caught.value)
    with pytest.raises(ConfigError, match="history, column timestamp=soon is no moment"):
        log_times("history", pl.Series("timestamp", ["soon"]), manifests["ms"])
