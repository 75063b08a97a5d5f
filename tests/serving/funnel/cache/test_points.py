"""Operating points: what a file says of the cache, over what the funnel has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recsys.core.errors import ConfigError
from recsys.serving.funnel.cache.config import CacheConfig, PrefetchConfig, read_points


def test_a_point_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "operating_points.yaml"
    file.write_text(
        "points:\n  calm: {max_age_hours: 0.5, prefetch: {visit: 0.3}}\n  rush: {policy: list}\n"
    )
    cache = CacheConfig("stale", 4.0, prefetch=PrefetchConfig("models.json", 0.6, 700.0))
    found = read_points(file, cache)
    calm = replace(cache, max_age_hours=0.5, prefetch=replace(cache.prefetch, visit=0.3))
    assert found == {"calm": calm, "rush": replace(cache, policy="list")}
    assert list(found) == ["calm", "rush"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("points: {}", "holds no operating point"),
        ("points: {calm: {max_age: 1}}", "unknown key `points.calm.max_age`"),
        ("points: {calm: {max_age_hours: -1}}", "max_age_hours is -1"),
        ("points: {calm: {prefetch: {visit: 2}}}", "visit is 2"),
        ("calm: {max_age_hours: 1}", "calm"),
        ("[]", "has no settings"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "operating_points.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=sentence):
        read_points(file, CacheConfig())
