"""`recsys bench online` on a few users."""

from __future__ import annotations

from recsys.cli import bench

online = bench._load("online")


def test_visits_are_played_and_timed() -> None:
    found = online.run(online.Config(simulator="explore_small", users=60, days=2))
    assert found["impressions"] >= found["visits"] > 10
    assert found["visits_per_second"] > 0 and found["items"] > 1000
