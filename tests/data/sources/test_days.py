from __future__ import annotations

import pytest

from recsys.core.errors import ConfigError
from recsys.data.contract.moments import to_milliseconds
from recsys.data.sources import complete_options
from recsys.data.sources.days import OtherDays, other_days

OWNERS = {"fit": (1_000, 2_001), "choose": (2_001, 3_003), "report": (3_003, 4_000)}
MAY_1, MAY_2, MAY_4 = (to_milliseconds("", f"2024-05-0{day}") for day in (1, 2, 4))


def test_moments_that_are_not_given_are_the_owners() -> None:
    assert other_days(OtherDays(), OWNERS) == OWNERS
    later = {"fit": (MAY_1, MAY_2), "choose": (MAY_2, MAY_4), "report": (MAY_4, MAY_4 + 1)}
    assert other_days(OtherDays(choose_from="1970-01-01T00:00:01.500"), OWNERS) == {
        "fit": (1_000, 1_500),
        "choose": (1_500, 3_003),
        "report": (3_003, 4_000),
    }
    earlier = OtherDays(choose_from="2024-05-01T12:00:00")
    assert other_days(earlier, later)["fit"] == (MAY_1, MAY_1 + 12 * 3_600_000)


def test_moments_that_do_not_rise_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="must rise; found 1970-01-01T00:00:01"):
        other_days(OtherDays(report_until="1970-01-01"), OWNERS)
    with pytest.raises(ConfigError, match=r"options\.fit_from=soon is no moment"):
        other_days(OtherDays(fit_from="soon"), OWNERS)


@pytest.mark.parametrize("source", ["simulated", "ebnerd"])
def test_owners_days_and_none_given_are_the_same_data_set(source: str) -> None:
    assert complete_options(source, {}) == complete_options(source, {"fit_from": None}) == {}
    assert complete_options(source, {"fit_from": "2024-05-01"}) == {"fit_from": "2024-05-01"}
