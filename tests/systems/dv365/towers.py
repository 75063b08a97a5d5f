"""Small towers, timelines, data sets and runs for the tests of exporting and publishing."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.data.contract.schema import ACTION_TYPES, MILLISECONDS_PER_DAY
from recsys.data.slices.families import (
    ActionFamily,
    DebiasedScoreFamily,
    Range,
    SliceConfig,
    WatchTimeFamily,
)
from recsys.data.slices.slice_set import SliceSet
from recsys.nn.encoders import EncoderConfig, build_encoder
from recsys.nn.pooling.cell_pooling import CellPooling
from recsys.nn.sequence.recent_events import RecentEvents, RecentEventsConfig
from recsys.nn.tables.collection import DEFAULT_SPREAD
from recsys.systems.dv365.net import UserTower

NOW = 20_000 * MILLISECONDS_PER_DAY
ROWS = {"item": 300, "author": 40, "topic": 8}

SLICE_CONFIG = SliceConfig(
    actions=[ActionFamily(actions=["liked", "click"], windows=["3d", "7d", "all"])],
    watch_time=[WatchTimeFamily(ranges=[Range(5.0), Range(30.0, 90.0)], windows=["7d", "all"])],
    debiased_score=[DebiasedScoreFamily(thresholds=[0.5])],
)
SLICES = SliceSet.from_config(SLICE_CONFIG, ("feed",), ("video",))
#: 33 slices → 17 + 3 vectors.
ENCODER = EncoderConfig(
    "funnel", compression_outputs=3, blocks=2, layers=1, stride=2, heads=1, feed_forward_factor=2
)


def small_tower(dimension: int = 32, seed: int = 0, recent: str = "none") -> UserTower:
    """An untrained tower whose tables are as spread out as trained ones."""
    torch.manual_seed(seed)
    pooling = CellPooling(SLICES, ROWS, dimension)
    encoder = build_encoder(ENCODER, len(SLICES.slices), dimension)
    events = None
    if recent != "none":
        config = RecentEventsConfig(recent, events=30)
        events = RecentEvents(config, ROWS, dimension, DEFAULT_SPREAD, ACTION_TYPES)
    tower = UserTower(pooling, encoder, events).eval()
    for name, weight in tower.named_parameters():
        if "embedding_bags" in name:
            torch.nn.init.normal_(weight)
    return tower


def timelines(
    lengths: list[int], seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Explicit and implicit timelines with ``lengths`` events per request, and request times."""
    generator = torch.Generator().manual_seed(seed)
    requests, events = len(lengths), sum(lengths)

    def codes(highest: int, dtype: torch.dtype) -> Tensor:
        return torch.randint(0, highest, (events,), generator=generator).to(dtype)

    def columns() -> dict[str, Tensor]:
        age = torch.randint(1, 12 * MILLISECONDS_PER_DAY, (events,), generator=generator)
        return {
            "lengths": torch.tensor(lengths, dtype=torch.int64),
            "timestamp": NOW - age,
            "item": codes(ROWS["item"], torch.int32),
            "author": codes(ROWS["author"], torch.int32),
            "topic": codes(ROWS["topic"], torch.int32),
            "media_type": codes(1, torch.int8),
            "surface": codes(1, torch.int8),
        }

    explicit = {**columns(), "action_type": codes(len(ACTION_TYPES), torch.int8)}
    implicit = columns() | {
        "video_duration": torch.rand(events, generator=generator) * 60 + 1,
        "dwell_time": torch.rand(events, generator=generator) * 120,
    }
    return explicit, implicit, torch.full((requests,), NOW, dtype=torch.int64)
