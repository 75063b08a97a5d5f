"""`recsys bench serve`, briefly."""

from __future__ import annotations

from recsys.cli import bench

serve = bench._load("serve")


def test_lists_are_asked_for_and_counted() -> None:
    found = serve.run(serve.Config(workers=1, rates=(20,), seconds=1.0, alone=5))
    (asked,) = found["asked"]
    assert 0 < asked["p50_ms"] <= asked["p75_ms"] <= asked["p99_ms"]
    assert asked["per_second"] > 0
    assert found["alone"]["p50_ms"] > 0 and found["paced"]["p50_ms"] > 0
