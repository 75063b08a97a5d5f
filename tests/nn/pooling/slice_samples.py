"""Random timelines and slice configurations for the tests of cells and pooling."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from recsys.data.contract.schema import ACTION_TYPES, MILLISECONDS_PER_DAY
from recsys.data.slices.families import (
    ActionFamily,
    DebiasedScoreFamily,
    EventKinds,
    Range,
    ShownFamily,
    SliceConfig,
    WatchRatioFamily,
    WatchTimeFamily,
)
from recsys.data.slices.slice_set import SliceSet

NOW = 1_700_000_000_000
ROWS = {"item": 30, "author": 20, "topic": 5}
MEDIA_TYPES = ["video", "photo"]
SURFACES = ["feed", "search"]
#: Values on the edges of ranges and windows are as likely as others.
DWELL = [float("nan"), 0.0, 1.0, 3.0, 7.5, 10.0, 15.0, 16.0, 30.0, 60.0, 200.0]
DURATION = [float("nan"), 0.0, 4.0, 10.0, 16.0, 20.0, 64.0, 150.0]
AGE_DAYS = [0.5, 1.0, 2.9, 3.0, 4.0, 7.0, 8.0, 300.0]


def timelines(lengths: list[int], seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Explicit and implicit timelines with ``lengths`` events per request (the latter reversed)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(choices: list[float], count: int) -> Tensor:
        return torch.tensor(choices)[torch.randint(len(choices), (count,), generator=generator)]

    def columns(lengths: list[int]) -> dict[str, Tensor]:
        count = sum(lengths)
        days = draw(AGE_DAYS, count).double()
        events = {
            "lengths": torch.tensor(lengths, dtype=torch.int64),
            "timestamp": NOW - (days * MILLISECONDS_PER_DAY).to(torch.int64),
            "media_type": torch.randint(-1, 2, (count,), generator=generator).to(torch.int8),
            "surface": torch.randint(0, 3, (count,), generator=generator).to(torch.int8),
        }
        for id_type in ROWS:  # more ids than rows: they are folded
            ids = torch.randint(0, 50, (count,), generator=generator, dtype=torch.int32)
            events[id_type] = ids
        return events

    explicit, implicit = columns(lengths), columns(lengths[::-1])
    count = sum(lengths)
    actions = torch.randint(1, len(ACTION_TYPES), (count,), generator=generator)
    explicit["action_type"] = actions.to(torch.int8)
    implicit["dwell_time"] = draw(DWELL, count)
    implicit["video_duration"] = draw(DURATION, count)
    return explicit, implicit, torch.full((len(lengths),), NOW, dtype=torch.int64)


def expand(config: SliceConfig) -> SliceSet:
    return SliceSet.from_config(config, SURFACES, MEDIA_TYPES, EventKinds(undwelled=True))


SMALL = SliceConfig(
    actions=[
        ActionFamily(actions=["liked", "click", "save"]),
        ActionFamily(actions=["hide"], engagement="negative", ids=["item"]),
        ActionFamily(actions=["liked"], media_types=MEDIA_TYPES, ids=["item"], windows=["all"]),
    ],
    watch_time=[
        WatchTimeFamily(ranges=[Range(3, 15), Range(15), Range(30)]),
        WatchTimeFamily(ranges=[Range(0, 3)], engagement="negative", windows=["all"]),
    ],
    watch_ratio=[WatchRatioFamily(exponents=[1.0, 0.5], ranges=[Range(0.5)])],
    debiased_score=[DebiasedScoreFamily(gammas=[0.5, 1.0], thresholds=[0.5, 0.8, 1.0])],
)


@st.composite
def configs(draw: st.DrawFn) -> SliceConfig:
    """Configurations of at least one slice, with edges that the sampled events lie on."""
    ids = st.lists(st.sampled_from(list(ROWS)), min_size=1, unique=True)
    windows = st.lists(st.sampled_from(["12h", "3d", "7d", "all"]), min_size=1, unique=True)
    sign = st.sampled_from(["positive", "negative"])
    sources = st.lists(st.sampled_from(["any", *MEDIA_TYPES]), min_size=1, unique=True)
    bounds = st.lists(
        st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0, 15.0, 30.0]), min_size=2, max_size=2, unique=True
    ).map(lambda pair: Range(*sorted(pair)))
    ranges = st.lists(bounds | bounds.map(lambda b: Range(b.lower)), min_size=1, unique=True)
    config = SliceConfig(
        actions=[
            ActionFamily(
                draw(sign), draw(ids), draw(sources), ["any"],
                draw(st.lists(st.sampled_from(ACTION_TYPES[1:]), max_size=4, unique=True)),
                draw(windows),
            )
        ],
        watch_time=[
            WatchTimeFamily(draw(sign), draw(ids), ["any"], draw(st.just(["any", "feed"])),
                            draw(ranges), draw(windows))
        ],
        watch_ratio=[
            WatchRatioFamily(draw(sign), draw(ids), ["any"], ["any"],
                             draw(st.sampled_from([[1.0], [0.5], [1.0, 0.5]])), draw(ranges))
        ],
        debiased_score=draw(
            st.just([])
            | st.builds(
                lambda sign, ids, gammas: [
                    DebiasedScoreFamily(sign, ids, ["any"], ["any"], gammas, [0.0, 0.7, 1.1])
                ],
                sign, ids, st.sampled_from([[1.0], [0.5, 2.0]]),
            )
        ),
        shown=[ShownFamily(draw(ids), draw(sources), ["any"], draw(windows))],
    )  # fmt: skip
    return config
