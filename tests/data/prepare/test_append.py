"""Days appended: what they add is what preparing all of them at once has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR as HOUR
from recsys.data.contract.schema import Split, TimelineKind
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.dataset import FEATURES, PreparedDataset
from recsys.data.stores.encoding import FeatureEncoding

START = 19_000 * DAY
BY_DAYS = {"choose_days": 1, "report_days": 1}


def steady(days: int, first: int = 0) -> pl.DataFrame:
    """An impression every three hours by user 9, so that every period has rows."""
    at = np.arange(8 * days)
    return pl.DataFrame(
        {
            "user_id": np.full(len(at), 9),
            "item_id": at % 5,
            "timestamp": START + first * DAY + at * 3 * HOUR,
            "action_type": "impression",
            "surface": "feed",
            "video_duration": (at % 4 + 1).astype(np.float32),
        }
    )


events = st.lists(
    st.tuples(
        st.integers(0, 3),  # user
        st.integers(0, 3),  # item
        st.integers(0, 6 * 48 - 1),  # half hour
        st.sampled_from(["impression", "impression", "click", "liked"]),
        st.sampled_from(["feed", "search"]),
        st.integers(0, 2),  # hours between request and impression
    ),
    max_size=60,
)


def frame_of(drawn: list[tuple[Any, ...]], requested: bool) -> pl.DataFrame:
    schema = {"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64}
    schema |= {"action_type": pl.String, "surface": pl.String, "lag": pl.Int64}
    frame = pl.DataFrame(drawn, schema, orient="row").with_columns(
        START + pl.col("timestamp") * (HOUR // 2),
        video_duration=(pl.col("item_id") + 1).cast(pl.Float32),
    )
    log = pl.concat(
        [frame, steady(6).with_columns(lag=pl.lit(0, pl.Int64))], how="diagonal_relaxed"
    )
    if requested:
        log = log.with_columns(request_time=pl.col("timestamp") - pl.col("lag") * HOUR)
    return log.drop("lag").sample(fraction=1, shuffle=True, seed=1)


def rows_of(dataset: PreparedDataset) -> dict[str, list[tuple[Any, ...]]]:
    """Request rows by split, with raw ids and values; None for a category that is not known."""
    encoding = FeatureEncoding.load(dataset.path / FEATURES)
    users, items = (raw_ids(dataset, name) for name in ("user", "item"))
    names = [f.name for f in dataset.manifest.features if f.side == "context"]
    known = [[None, *encoding.categories[n]] for n in names if n in encoding.categories]
    mean, std = encoding.dense["video_duration"]
    found = {}
    for split in Split:
        store = dataset.requests(split)
        owner = np.repeat(np.arange(len(store)), np.diff(store.offsets))
        found[str(split)] = [
            (
                users[store.user[request]],
                int(store.request_time[request]),
                items[store.item[row]],
                tuple(store.labels[row].tolist()),
                round(float(store.context_dense[row, 0]) * std + mean, 3),
                [one[c] for one, c in zip(known, store.context_categorical[row], strict=True)],
            )
            for row, request in enumerate(owner)
        ]
    return found


def raw_ids(dataset: PreparedDataset, name: str) -> dict[int, Any]:
    return dict(dataset.vocabulary(name).table.select("index", "raw").iter_rows())


def events_of(dataset: PreparedDataset) -> list[tuple[Any, ...]]:
    users, items = raw_ids(dataset, "user"), raw_ids(dataset, "item")
    surfaces = dataset.manifest.surfaces
    return [
        (raw, str(kind), items[item], time, surfaces[surface])
        for index, raw in sorted(users.items())
        for kind in TimelineKind
        for history in [dataset.timelines.history(index, 1 << 60, kind)]
        for item, time, surface in zip(
            *(history[name].tolist() for name in ("item", "timestamp", "surface")), strict=True
        )
    ]


def written(path: Path, frame: pl.DataFrame) -> str:
    frame.write_parquet(path)
    return str(path)


@settings(max_examples=10, deadline=None)
@given(
    drawn=events,
    requested=st.booleans(),
    # days of three hours: each has an event of user 9
    cuts=st.lists(st.integers(24, 47), min_size=1, max_size=2, unique=True).map(sorted),
    rule=st.sampled_from([BY_DAYS, {}, {"attribution_hours": 50.0}]),
    together=st.booleans(),
)
def test_days_appended_are_days_prepared_at_once(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[Any, ...]],
    requested: bool,
    cuts: Sequence[int],
    rule: dict[str, Any],
    together: bool,
) -> None:
    """Events, rows and labels, whether the new days come alone or with the old ones."""
    folder = tmp_path_factory.mktemp("append")
    log = frame_of(drawn, requested)
    options = {"tasks": ["click", "liked"], **rule}
    whole = PrepareConfig(path=written(folder / "all.parquet", log), out=str(folder / "whole"), partitions=2, options=options)  # fmt: skip # noqa: E501
    prepare(whole)
    moments = [START + cut * 3 * HOUR for cut in cuts]
    time = pl.col("timestamp")
    first = written(folder / "0.parquet", log.filter(time < moments[0]))
    out = str(folder / "grown")
    prepare(PrepareConfig(path=first, out=out, name="log", partitions=2, options=options))
    for number, (begin, end) in enumerate(zip(moments, [*moments[1:], 1 << 60], strict=True), 1):
        shown = time < end if together else time.is_between(begin, end, closed="left")
        day = written(folder / f"{number}.parquet", log.filter(shown))
        appended = append(AppendConfig(path=day, out=out, partitions=3))
        assert not appended.is_empty
    at_once, grown = (PreparedDataset.open(folder / name) for name in ("whole", "grown"))
    assert grown.manifest.generation == len(cuts)
    assert grown.manifest.split_bounds == at_once.manifest.split_bounds
    assert grown.manifest.counts == at_once.manifest.counts
    assert events_of(grown) == events_of(at_once)
    expected, found = rows_of(at_once), rows_of(grown)
    for split in Split:
        assert [row[:-1] for row in found[split]] == [row[:-1] for row in expected[split]]
        for (*_, known), (*_, all_known) in zip(found[split], expected[split], strict=True):
            assert all(one in (None, other) for one, other in zip(known, all_known, strict=True))
