from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from recsys.core.errors import ConfigError
from recsys.data.contract.actions import ActionTypes
from recsys.data.contract.schema import (
    ACTION_TYPES,
    MILLISECONDS_PER_DAY,
    NEGATIVE_ACTION_TYPES,
    TimelineKind,
)
from recsys.data.slices.families import (
    ActionFamily,
    DebiasedScoreFamily,
    EventKinds,
    OwnActionFamily,
    Range,
    ShownFamily,
    SliceConfig,
    WatchRatioFamily,
    WatchTimeFamily,
)
from recsys.data.slices.slice_set import SliceSet

CONF = Path(__file__).parents[3] / "conf" / "slices"
NOW = 1_700_000_000_000
DAY = MILLISECONDS_PER_DAY


def load(name: str) -> SliceConfig:
    schema = OmegaConf.structured(SliceConfig)
    config = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.load(CONF / f"{name}.yaml")))
    assert isinstance(config, SliceConfig)
    return config


def expand(config: SliceConfig) -> SliceSet:
    return SliceSet.from_config(config, ["feed"], ["video", "photo"])


def implicit(dwell: list[float], duration: list[float], age: list[int] | None = None) -> dict:
    ages = np.array(age if age is not None else [DAY] * len(dwell))
    return {
        "timestamp": NOW - ages,
        "dwell_time": np.array(dwell, np.float32),
        "video_duration": np.array(duration, np.float32),
        "media_type": np.zeros(len(dwell), np.int8),
        "surface": np.zeros(len(dwell), np.int8),
    }


def members(slice_set: SliceSet, events: dict, name: str) -> list[bool]:
    timeline = TimelineKind(name.split("/")[0])
    position = [one.name for one in slice_set.slices].index(name)
    return slice_set.membership(timeline, events, np.int64(NOW))[position].tolist()


def test_full_set_has_200_slices_in_the_papers_groups():
    slice_set = expand(load("full"))
    assert len(slice_set.slices) == 200
    assert "implicit/watch_time[15,inf)/author/7d" in {one.name for one in slice_set.slices}
    tables = {table.name: table for table in slice_set.tables}
    assert tables["implicit_positive_item_weighted_any"].weighted
    assert not tables["implicit_negative_topic_plain_any"].weighted
    assert "explicit_positive_item_plain_video" in tables
    # Every slice is in exactly one table, and the tables' slices agree with their group.
    held = sorted(position for table in tables.values() for position in table.slices)
    assert held == list(range(200))
    for table in tables.values():
        for position in table.slices:
            one = slice_set.slices[position]
            assert (one.id_type, one.timeline) == (table.id_type, table.timeline)
            assert (one.weight is not None) == table.weighted


def test_demo_set_has_48_slices():
    assert len(expand(load("demo")).slices) == 48


def test_only_plain_action_and_watch_time_slices_have_windows():
    for one in expand(load("full")).slices:
        if "watch_ratio" in one.name or "debiased_score" in one.name:
            assert one.name.endswith("/all")


def test_number_and_order_do_not_depend_on_the_data_set():
    config = load("full")
    other = SliceSet.from_config(config, [], ["article"])
    assert [one.name for one in other.slices] == [one.name for one in expand(config).slices]
    events = implicit([20.0], [30.0])
    assert members(other, events, "implicit/watch_time[15,inf)@video/item/all") == [False]
    assert members(expand(config), events, "implicit/watch_time[15,inf)@video/item/all") == [True]


def test_adjoining_ranges_share_no_event_at_the_edge():
    family = WatchTimeFamily(ranges=[Range(0, 3), Range(3, 15), Range(15)], ids=["item"])
    slice_set = expand(SliceConfig(watch_time=[family]))
    events = implicit([0.0, 3.0, 15.0, math.nan, 1e6], [10.0] * 5)
    assert members(slice_set, events, "implicit/watch_time[0,3)/item/all") == [
        True, False, False, False, False,
    ]  # fmt: skip
    assert members(slice_set, events, "implicit/watch_time[3,15)/item/all") == [
        False, True, False, False, False,
    ]  # fmt: skip
    assert members(slice_set, events, "implicit/watch_time[15,inf)/item/all") == [
        False, False, True, False, True,
    ]  # fmt: skip


def test_window_holds_its_edge_and_nothing_from_the_future():
    family = WatchTimeFamily(ranges=[Range(0)], ids=["item"])
    slice_set = expand(SliceConfig(watch_time=[family]))
    ages = [1, 3 * DAY, 3 * DAY + 1, 7 * DAY, 7 * DAY + 1, 0, -1]
    events = implicit([5.0] * 7, [10.0] * 7, ages)
    name = "implicit/watch_time[0,inf)/item/"
    assert members(slice_set, events, name + "3d") == [True, True] + [False] * 5
    assert members(slice_set, events, name + "7d") == [True] * 4 + [False] * 3
    assert members(slice_set, events, name + "all") == [True] * 5 + [False] * 2


def test_watch_ratio_by_hand():
    families = [
        WatchRatioFamily(exponents=[1.0], ranges=[Range(0.5, 1)], ids=["item"]),
        WatchRatioFamily(exponents=[0.5], ranges=[Range(2.5)], ids=["item"]),
    ]
    slice_set = expand(SliceConfig(watch_ratio=families))
    # ratios 0.5, 0.625, 1, and not known three times
    events = implicit([8, 10, 16, 8, math.nan, 8], [16, 16, 16, 0, 16, math.nan])
    assert members(slice_set, events, "implicit/watch_ratio(beta=1)[0.5,1)/item/all") == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    # dwell / sqrt(16): 2, 2.5, 4
    assert members(slice_set, events, "implicit/watch_ratio(beta=0.5)[2.5,inf)/item/all") == [
        False, True, True, False, False, False,
    ]  # fmt: skip


def test_debiased_score_is_strictly_above_its_threshold():
    family = DebiasedScoreFamily(gammas=[1.0, 0.5], thresholds=[1.0], ids=["item"])
    slice_set = expand(SliceConfig(debiased_score=[family]))
    # gamma 1: ln(11)/ln(11) = 1; ln(21)/ln(11) = 1.27. gamma 0.5: ln(11)/ln(6) = 1.34
    events = implicit([10, 20, 10, math.nan], [10, 10, 0, 10])
    assert members(slice_set, events, "implicit/debiased_score(gamma=1)>1/item/all") == [
        False, True, False, False,
    ]  # fmt: skip
    assert members(slice_set, events, "implicit/debiased_score(gamma=0.5)>1/item/all") == [
        True, True, False, False,
    ]  # fmt: skip


OWN = ActionTypes((*ACTION_TYPES, "cart", "abuse"), NEGATIVE_ACTION_TYPES | {"abuse"})


@pytest.mark.parametrize("name", ["demo", "full"])
def test_own_actions_and_unknown_dwell_times_come_behind_the_declared_slices(name):
    config = load(name)
    declared = expand(config).slices
    both = SliceSet.from_config(config, ["feed"], ["video", "photo"], EventKinds(OWN, True)).slices
    assert both[: len(declared)] == declared  # a log without them has these and no others
    new = both[len(declared) :]
    windows = {"demo": ["7d", "all"], "full": ["3d", "7d", "all"]}[name]
    assert [one.name for one in new] == [
        f"explicit/{action}/{id_type}/{window}"
        for action in ("cart", "abuse")
        for id_type in ("item", "author", "topic")
        for window in windows
    ] + [
        f"implicit/shown/{id_type}/{window}"
        for id_type in ("item", "author", "topic")
        for window in ("3d", "7d", "all")
    ]
    tables = {one.table for one in declared}
    assert {one.table for one in new} - tables == {
        f"implicit_shown_{id_type}_plain_any" for id_type in ("item", "author", "topic")
    }
    assert {one.table for one in new if "abuse" in one.name} == {
        f"explicit_negative_{id_type}_plain_any" for id_type in ("item", "author", "topic")
    }


def test_own_actions_are_told_from_each_other_and_may_be_declared():
    config = SliceConfig(
        actions=[ActionFamily(actions=["cart"], ids=["item"], windows=["all"])],
        own_actions=[OwnActionFamily(ids=["item"], windows=["all"])],
    )
    slice_set = SliceSet.from_config(config, [], [], EventKinds(OWN))
    assert [one.name for one in slice_set.slices] == [
        "explicit/cart/item/all",
        "explicit/abuse/item/all",
    ]
    events = {
        "timestamp": np.full(3, NOW - DAY),
        "action_type": np.array([OWN.names.index(name) for name in ("cart", "abuse", "click")]),
    }
    held = slice_set.membership(TimelineKind.EXPLICIT, events, np.array(NOW))
    assert held.tolist() == [[True, False, False], [False, True, False]]
    with pytest.raises(ConfigError, match=r"explicit actions are click.*skip\.$"):
        SliceSet.from_config(config, [], [])


def test_shown_is_where_the_dwell_time_is_unknown():
    config = SliceConfig(
        watch_time=[WatchTimeFamily(ranges=[Range(0)], ids=["item"], windows=["all"])],
        shown=[ShownFamily(ids=["item"])],
    )
    slice_set = SliceSet.from_config(config, [], [], EventKinds(undwelled=True))
    events = implicit([math.nan, 0.0, math.nan, math.nan], [10.0] * 4)
    events["timestamp"] = NOW - np.array([DAY, DAY, 5 * DAY, 9 * DAY])
    assert members(slice_set, events, "implicit/shown/item/3d") == [True, False, False, False]
    assert members(slice_set, events, "implicit/shown/item/7d") == [True, False, True, False]
    assert members(slice_set, events, "implicit/shown/item/all") == [True, False, True, True]
    assert members(slice_set, events, "implicit/watch_time[0,inf)/item/all") == [
        False, True, False, False,
    ]  # fmt: skip
    assert len(SliceSet.from_config(config, [], []).slices) == 1


def test_slice_counts_per_timeline_and_request():
    config = SliceConfig(
        actions=[ActionFamily(actions=["liked"], ids=["item"], windows=["3d"])],
        watch_time=[WatchTimeFamily(ranges=[Range(15)], ids=["author"], windows=["all"])],
    )
    explicit = {
        "lengths": np.array([1, 2]),
        "timestamp": np.array([NOW - DAY, NOW - DAY, NOW]),
        "action_type": np.array([ACTION_TYPES.index(a) for a in ("liked", "hide", "liked")]),
    }
    events = implicit([20.0, 1.0], [30.0, 30.0]) | {"lengths": np.array([0, 2])}
    # The second request is three days and one ms after the second like.
    counts = expand(config).slice_counts(explicit, events, np.array([NOW, NOW + 3 * DAY + 1]))
    assert counts.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (SliceConfig(), "declares no slice"),
        (SliceConfig(actions=[ActionFamily(actions=["likes"])]), "explicit actions are click"),
        (SliceConfig(actions=[ActionFamily(actions=["impression"])]), "explicit actions are"),
        (SliceConfig(actions=[ActionFamily(actions=["liked"] * 2)]), "twice"),
        (SliceConfig(actions=[ActionFamily(actions=["liked"], windows=["3w"])]), "window '3w'"),
        (SliceConfig(actions=[ActionFamily(actions=["liked"], ids=["user"])]), "id type 'user'"),
        (SliceConfig(actions=[ActionFamily(actions=["liked"], engagement="+")]), "engagement '+'"),
        (SliceConfig(watch_time=[WatchTimeFamily(ranges=[Range(3, 3)])]), "from 3 to 3"),
    ],
)
def test_unusable_configuration_is_one_sentence(config: SliceConfig, sentence: str):
    with pytest.raises(ConfigError, match=sentence.replace("+", r"\+")):
        expand(config)


def test_unknown_key_and_wrong_type_are_named():
    schema = OmegaConf.structured(SliceConfig)
    with pytest.raises(ConfigKeyError, match="gamma"):
        OmegaConf.merge(schema, {"debiased_score": [{"gamma": [1.0]}]})
    with pytest.raises(ValidationError, match="soon"):
        OmegaConf.merge(schema, {"watch_time": [{"ranges": [{"lower": "soon"}]}]})
