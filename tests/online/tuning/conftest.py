from __future__ import annotations

from collections.abc import Callable

import pytest

from recsys.online.tuning.config import Range
from recsys.online.tuning.space import Space
from recsys.serving.funnel.config import FreshConfig, FunnelConfig, SourcesConfig, ValueConfig
from recsys.serving.funnel.rerank import Apart, AtMost, RerankConfig


@pytest.fixture(scope="session")
def funnel() -> FunnelConfig:
    return FunnelConfig(
        sources=SourcesConfig(fresh=FreshConfig(quota=30, weight=0.5, hours=12.0)),
        value=ValueConfig("1.0 * p(liked) + 0.5 * log1p(watch_time) - 8 * p(see_less)"),
        rerank=RerankConfig(apart=[Apart("author", 4)], at_most=[AtMost("topic", 0.5)]),
    )


@pytest.fixture(scope="session")
def make_space(funnel: FunnelConfig) -> Callable[..., Space]:
    def make(**ranges: tuple[float, float]) -> Space:
        """``liked`` and ``see_less`` stand for their terms, for the sake of keywords."""
        terms = {"liked": "p(liked)", "see_less": "p(see_less)", "places": "rerank.apart[0].places"}
        return Space(funnel, {terms.get(n, n): Range(*ends) for n, ends in ranges.items()})

    return make
