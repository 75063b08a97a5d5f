"""Rows of a funnel's ledger by hand, a play prepared end to end, and ledgers that are none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.cli.main import invoke
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.ledger import PLAYED
from recsys.data.contract.schema import Split, Task, TaskKind
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.simulator import simulate
from recsys.data.sources.ledger import LedgerOptions, LedgerSource, SimulationOptions
from recsys.data.sources.ledger_rows import scored_rows, shown_rows
from recsys.data.stores.dataset import PreparedDataset
from recsys.online.compare import OnlineConfig, compare_online
from tests.data.simulator.conftest import load_config
from tests.data.simulator.world.conftest import TINY

NAN = float("nan")

#: Three requests. Of the first the second stage scored four of five candidates; its list is item
#: 10, then 14, which was drawn for its place, and 12. The second was answered with nothing, of the
#: third the only candidate has predictions and no value.
REQUESTS = pl.DataFrame(
    {
        "user": [1, 2, 1],
        "moment": [1_000, 1_000, 9_000],
        "item": [[10, 11, 12, 13, 14], [], [10]],
        "position": [[1, 0, 3, 0, 2], [], [1]],
        "propensity": [[NAN, NAN, NAN, NAN, 0.25], [], [NAN]],
        "value": [[5.0, 1.0, 2.0, NAN, 2.0], [], [NAN]],
        "second": [[0.5, 9, 0.1, 1, 0.2, NAN, NAN, NAN, 0.2, 2], [], [0.5, 3]],
    },
    schema_overrides={"item": pl.List(pl.Int64), "position": pl.List(pl.Int32)},
)

TASKS = (Task("liked"), Task("video_complete"), Task("watch_time", TaskKind.REGRESSION))


def event(user: int, item: int, asked: int, action: str, **more: Any) -> dict[str, Any]:
    plain = {"dwell_time": None, "video_duration": 30.0, "surface": "feed", "position": 0}
    names = {"user_id": user, "item_id": item, "request_time": asked, "action_type": action}
    return {**plain, "propensity": None, **names, **more}


#: User 1 looked at the first two of the first list, and liked an item of another request.
EVENTS = pl.DataFrame(
    [
        event(1, 10, 1_000, "impression", dwell_time=7.0),
        event(1, 14, 1_000, "impression", dwell_time=2.0, video_duration=None, position=1),
        event(1, 10, 9_000, "impression", dwell_time=1.0, surface="search"),
        event(1, 10, 1_000, "video_complete"),
        event(1, 14, 1_000, "save"),
        event(1, 10, 9_000, "liked"),
        event(3, 10, 1_000, "liked"),
    ]
)


def test_candidates_that_were_scored_are_rows_with_what_became_of_them() -> None:
    rows = scored_rows(REQUESTS, EVENTS, tasks=2)
    assert rows.rows() == [
        (1, 1_000, 10, 1.0, 1.0, "feed"),
        (1, 1_000, 11, 0.0, 0.0, "feed"),
        (1, 1_000, 12, 1.0, pytest.approx(1 / 3), "feed"),
        (1, 1_000, 14, 0.0, pytest.approx(1 / 3), "feed"),
        (1, 9_000, 10, 1.0, None, "search"),
    ]
    assert rows.columns[3:5] == ["label_selected", "label_value_rank"]


def test_what_was_shown_is_a_row_with_what_was_done() -> None:
    rows = shown_rows(REQUESTS, EVENTS, TASKS)
    named = [f"label_{task.name}" for task in TASKS]
    assert rows.columns[:3] == ["user_id", "request_time", "item_id"]
    assert rows.select("item_id", *named, "surface", "position", "propensity").rows() == [
        (10, 0.0, 1.0, 7.0, "feed", 0, None),
        (14, 0.0, None, 2.0, "feed", 1, 0.25),
        (10, 1.0, 0.0, 1.0, "search", 0, None),
    ]


@st.composite
def funnels(draw: st.DrawFn) -> pl.DataFrame:
    """Requests of one task: candidates scored or not, of equal values too, in the list or not."""
    rows = []
    for number in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, 6))
        value = draw(
            st.lists(st.sampled_from([NAN, -1.0, 0.0, 2.0]), min_size=count, max_size=count)
        )
        scored = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        place = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
        drawn = draw(st.lists(st.sampled_from([NAN, 0.5]), min_size=count, max_size=count))
        value = [one if asked else NAN for one, asked in zip(value, scored, strict=True)]
        second = [0.5 if asked else NAN for asked in scored]
        rows.append((number % 2, number, list(range(count)), place, drawn, value, second))
    return pl.DataFrame(rows, schema=REQUESTS.schema, orient="row")


@given(requests=funnels())
def test_rows_of_scored_candidates_are_those_of_a_loop(requests: pl.DataFrame) -> None:
    expected = []
    for user, moment, items, places, drawn, values, second in requests.rows():
        known = [value for value in values if not np.isnan(value)]
        for item, place, share, value, score in zip(
            items, places, drawn, values, second, strict=True
        ):
            if np.isnan(score):
                continue
            rank = None
            if not np.isnan(value):
                rank = sum(one < value for one in known) / (len(known) - 1) if known[1:] else 1
            selected = float(place > 0 and np.isnan(share))
            expected.append((user, moment, item, selected, rank and pytest.approx(rank), None))
    assert scored_rows(requests, EVENTS.clear(), tasks=1).rows() == expected


def test_scores_of_another_number_of_tasks_are_one_sentence() -> None:
    with pytest.raises(DataError, match="12 scores of the second stage of 6 candidates, not 3"):
        scored_rows(REQUESTS, EVENTS, tasks=3)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the log of a tiny world, and the ledger of a play after it."""
    folder = tmp_path_factory.mktemp("played")
    simulate(load_config("explore_small", *TINY), folder / "log")
    asked = {"simulation": str(folder / "log"), "policy": "explore", "against": "random"}
    compare_online(OnlineConfig(**asked, ledger=str(folder / "ledger")))
    return folder


def settings(played: Path, out: Path, rows: str) -> PrepareConfig:
    options = {"simulation": {"path": str(played / "log")}, "rows": rows}
    ledger = str(played / "ledger")
    return PrepareConfig(source="ledger", path=ledger, out=str(out), options=options)


def test_a_play_is_prepared_with_the_log_before_it(played: Path, tmp_path: Path) -> None:
    where = (f"path={played / 'ledger'}", f"options.simulation.path={played / 'log'}")
    assert invoke(["data", "prepare", "data=ledger", *where, f"out={tmp_path / 'shown'}"]) == 0
    dataset = PreparedDataset.open(tmp_path / "shown")
    events = [
        pl.read_parquet(played / name / "*.parquet") for name in ("log/log", "ledger/played/log")
    ]
    assert dataset.manifest.counts["events"] == sum(map(len, events))
    happened = events[1]
    shown = happened.filter(pl.col("action_type") == "impression")
    stores = [dataset.requests(split) for split in Split]
    assert sum(store.num_rows for store in stores) == shown.height
    liked = list(stores[0].tasks).index("liked")
    labels = np.concatenate([store.labels for store in stores])
    assert labels[:, liked].sum() == (happened["action_type"] == "liked").sum() > 0
    propensity = np.concatenate([store.propensity for store in stores])
    drawn = shown["propensity"].is_not_nan()
    assert np.isfinite(propensity).sum() == drawn.sum() > 0
    watched = labels[:, list(stores[0].tasks).index("watch_time")]
    assert watched.sum() == pytest.approx(shown["dwell_time"].sum(), rel=1e-5)


def test_scored_candidates_are_prepared_without_their_places(played: Path, tmp_path: Path) -> None:
    manifest = prepare(settings(played, tmp_path / "scored", "scored"))
    assert [task.name for task in manifest.tasks] == ["selected", "value_rank"]
    assert "position" not in {feature.name for feature in manifest.features}
    store = PreparedDataset.open(tmp_path / "scored").requests(Split.FIT)
    assert store.num_rows == 100 * len(store)  # conf/funnel/explore.yaml scores 100
    selected = np.add.reduceat(store.labels[:, 0], store.offsets[:-1])
    assert set(selected.tolist()) == {22.0}  # a list of 24, 2 of them explored
    again = prepare(settings(played, tmp_path / "scored", "scored"))
    assert again == manifest


def rows_of(played: Path, **options: Any) -> pl.DataFrame:
    return pl.concat(source_of(played, **options).requests())


def source_of(played: Path, **options: Any) -> LedgerSource:
    simulation = SimulationOptions(str(played / "log"))
    return LedgerSource(played / "cached", LedgerOptions(simulation=simulation, **options))


def test_rows_with_a_gap_are_left_out_or_as_of_when_they_were_scored(
    played: Path, tmp_path: Path
) -> None:
    asked = {"simulation": str(played / "log"), "policy": "explore", "against": "random"}
    cache = ["cache.policy=stale", "cache.max_age_hours=8"]
    compare_online(OnlineConfig(**asked, changes=cache, ledger=str(played / "cached")))
    fresh, viewed = rows_of(played, max_gap_hours=0.0), rows_of(played)
    some, scored = rows_of(played, max_gap_hours=4.0), rows_of(played, features="scored")
    assert 0 < len(fresh) < len(some) < len(viewed) == len(scored)
    assert scored.drop("request_time", "hour_of_day", "log_item_age").equals(
        viewed.drop("request_time", "hour_of_day", "log_item_age")
    )
    gap = (viewed["request_time"] - scored["request_time"]).to_numpy() / 3_600_000
    assert gap.min() == 0 and 4 < gap.max() <= 8
    assert (gap == 0).sum() == len(fresh) and (gap <= 4).sum() == len(some)
    # what models are chosen and measured by is the same
    _, end = source_of(played).split_bounds["fit"]
    is_later = viewed["request_time"] >= end
    later = viewed.filter(is_later)
    assert len(later)
    for rows in (fresh, some):
        assert rows.filter(pl.col("request_time") >= end).equals(later)
    assert scored.filter(is_later).equals(later)
    age, then = (np.expm1(one["log_item_age"].to_numpy()) for one in (viewed, scored))
    assert np.allclose(age - then, gap, atol=1e-3)
    assert (scored["hour_of_day"] == scored["request_time"] // 3_600_000 % 24).all()
    of = settings(played, tmp_path / "scored", "shown")
    options = of.options | {"features": "scored"}
    manifest = prepare(replace(of, path=str(played / "cached"), options=options))
    stores = [PreparedDataset.open(tmp_path / "scored").requests(split) for split in Split]
    assert sum(store.num_rows for store in stores) == len(scored) and manifest.tasks
    with pytest.raises(DataError, match="has no column gap_hours"):  # of a funnel without a cache
        prepare(replace(of, options=options, out=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="are of rows=shown"):
        LedgerOptions(rows="scored", max_gap_hours=1.0)


def altered(played: Path, folder: Path) -> Path:
    """A copy whose ledger may be spoilt."""
    shutil.copytree(played, folder)
    return folder


def only_file(folder: Path) -> Path:
    (file,) = (folder / "ledger").glob("*.parquet")
    return file


def without_scores(folder: Path) -> None:
    nothing = pl.col("second").list.eval(pl.element() * NAN)
    pl.read_parquet(only_file(folder)).with_columns(nothing).write_parquet(only_file(folder))


def without_the_column(folder: Path) -> None:
    pl.read_parquet(only_file(folder)).drop("second").write_parquet(only_file(folder))


def of_another_world(folder: Path) -> None:
    shutil.rmtree(folder / "log")
    simulate(load_config("explore_small", *TINY, "seed=9"), folder / "log")


def of_no_world(folder: Path) -> None:
    shutil.rmtree(folder / "log")
    small = ("users=20", "days=4", "fit_days=1", "choose_days=1", "report_days=1")
    simulate(load_config("demo", *small), folder / "log")


def of_another_play(folder: Path) -> None:
    for part in (folder / "ledger" / PLAYED / "log").glob("*.parquet"):
        frame = pl.read_parquet(part)
        frame.with_columns(pl.col("request_time") + 1).write_parquet(part)


def damaged(folder: Path) -> None:
    only_file(folder).write_bytes(only_file(folder).read_bytes()[:-400])


@pytest.mark.parametrize(
    ("spoil", "rows", "sentence"),
    [
        (without_scores, "scored", "no candidate in .* has a score of the second stage"),
        (without_the_column, "scored", "has no column second"),
        (of_another_world, "shown", "was played in another world than that of"),
        (of_no_world, "shown", "was played in another world than that of"),
        (of_another_play, "shown", "was shown in .*played: these are not of one play"),
        (damaged, "scored", "parquet"),
        (lambda folder: only_file(folder).unlink(), "scored", "holds no request yet"),
        (lambda folder: (folder / "ledger/funnel.json").unlink(), "shown", "name the folder of"),
        (lambda folder: (folder / "ledger/played/play.json").unlink(), "shown", "play it with"),
    ],
)
def test_a_ledger_that_cannot_be_prepared_is_one_sentence(
    played: Path, tmp_path: Path, spoil: Any, rows: str, sentence: str
) -> None:
    folder = altered(played, tmp_path / "altered")
    spoil(folder)
    with pytest.raises(DataError, match=sentence) as error:
        prepare(settings(folder, tmp_path / "out", rows))
    assert "\n" not in str(error.value)
