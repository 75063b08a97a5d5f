from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from recsys.core.errors import ConfigError
from recsys.data.contract.moments import parse_moment, to_milliseconds, to_text

DAY = 86_400_000


def test_a_moment_is_utc_unless_it_says_otherwise() -> None:
    assert to_milliseconds("as_of", "1970-01-02") == DAY
    assert to_milliseconds("as_of", "1970-01-02T08:00:00+08:00") == DAY
    shanghai = ZoneInfo("Asia/Shanghai")
    assert to_milliseconds("as_of", "1970-01-02T08:00:00", shanghai) == DAY
    assert to_milliseconds("as_of", "1970-01-02T00:00:00+00:00", shanghai) == DAY
    assert to_text(DAY) == "1970-01-02T00:00:00+00:00"


def test_what_names_no_moment_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="as_of=tomorrow is no moment; write it like 2024-05-01"):
        to_milliseconds("as_of", "tomorrow")


def test_a_date_without_hyphens_is_no_number_of_milliseconds() -> None:
    assert parse_moment("as_of", "20240520") == parse_moment("as_of", "2024-05-20")
    assert parse_moment("as_of", "1716163200000") == parse_moment("as_of", "2024-05-20")
    for text in ("20241320", "2024", "1716163200", "0", "-5", "1" * 30):
        with pytest.raises(ConfigError, match=f"as_of={text} is"):
            parse_moment("as_of", text)
