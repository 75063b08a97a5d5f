from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from recsys.core.errors import ConfigError
from recsys.data.contract.moments import to_milliseconds, to_text

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
