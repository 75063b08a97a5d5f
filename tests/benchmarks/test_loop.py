"""A recurring training that is killed serves what one serves that is let alone."""

from __future__ import annotations

import pytest

from recsys.cli import bench

loop = bench._load("loop")


@pytest.mark.slow  # four cycles, and what the kills leave to be done again
def test_a_killed_loop_serves_what_the_other_serves() -> None:
    figures = loop.run(loop.Config(users=40, first_days=7, days=1, kills=3, seed=3))
    assert figures["days"] == figures["days_with_the_same_embeddings"] == 2
    assert figures["days_with_the_same_ne"] == 2
    assert figures["every_day_published_once"]
    assert sum(figures["killed_in"].values()) == figures["kills"] <= 3
    assert figures["reads"] > 0 and figures["problems"] == []
    assert figures["generations_read"] == figures["generations_read_as_let_alone"] > 0
