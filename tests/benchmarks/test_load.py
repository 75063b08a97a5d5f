"""`recsys bench load`, briefly and without Ray Serve."""

from __future__ import annotations

from recsys.cli import bench

load = bench._load("load")


def test_it_is_overloaded_swapped_and_goes_on() -> None:
    found = load.run(
        load.Config(
            workers=1,
            users=20,
            p99_ms=60_000.0,
            rates=[4, 8],
            seconds=1.0,
            overload_seconds=1.0,
            ray=False,
        )
    )
    assert [one["rate"] for one in found["rates"]["no cache"]] == [4, 8]
    for name in ("calm", "swap", "overload", "afterwards"):
        assert found["beside"][name]["failed"] == 0
        assert found["beside"][name]["per_second"] > 0
    # 100 candidates of ten tasks: 64 bytes each, and what pages leave free
    assert 6_400 < found["bytes_per_user"] < 3 * 6_400
