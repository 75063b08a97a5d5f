from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.contract.schema import ACTION_TYPES, FeatureKind, FeatureSide, TimelineKind
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.sources.kuairand import USER_CATEGORIES, USER_NUMBERS, KuaiRandSource
from recsys.data.stores.dataset import PreparedDataset

HOUR = 3_600_000
# midnight of 4 May 2022 in China Standard Time
MAY_4 = 1_651_593_600_000
FLAGS = (
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "is_profile_enter",
)


def log_row(user: int, video: int, time_ms: int, **values: int) -> dict[str, int]:
    row = {
        "user_id": user,
        "video_id": video,
        "date": 20220504,
        "hourmin": 0,
        "time_ms": time_ms,
        **dict.fromkeys(FLAGS, 0),
        "play_time_ms": 0,
        "duration_ms": 10_000,
        "profile_stay_time": 0,
        "comment_stay_time": 0,
        "is_rand": 0,
        "tab": 1,
    }
    return row | values


LOG = [
    log_row(1, 5, MAY_4 - HOUR, is_click=1, long_view=1, play_time_ms=8_500),
    log_row(1, 6, MAY_4 - 1, is_hate=1, tab=0, duration_ms=0),
    log_row(1, 6, MAY_4 - 1, is_hate=1, tab=0, duration_ms=0),  # the same row again
    log_row(2, 5, MAY_4, is_like=1, is_follow=1, is_comment=1, is_forward=1, is_profile_enter=1),
    log_row(2, 9, MAY_4 + 24 * HOUR, is_click=1, play_time_ms=1_000),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "kuairand"
    path.mkdir()
    pl.DataFrame(LOG).write_csv(path / "log_standard_4_22_to_5_08_pure.csv")
    random = log_row(2, 6, MAY_4 + HOUR, is_rand=1)
    pl.DataFrame([random]).write_csv(path / "log_random_4_22_to_5_08_pure.csv")
    users = {
        "user_id": [1, 2],
        **{name: ["a", "b"] for name in USER_CATEGORIES},
        **{name: [0, 99] for name in USER_NUMBERS},
    }
    pl.DataFrame(users).write_csv(path / "user_features_pure.csv")
    pl.DataFrame(
        {
            "video_id": [5, 6, 9],
            "author_id": [50, 60, 50],
            "video_type": ["NORMAL", "AD", "NORMAL"],
            "upload_dt": ["2022-04-10", None, "2022-04-12"],
            "upload_type": ["Web", "Web", "Kmovie"],
            "visible_status": [0.0] * 3,
            "video_duration": [10_000.0, None, 20_000.0],
            "server_width": [720.0] * 3,
            "server_height": [1280.0] * 3,
            "music_id": [1, 2, 3],
            "music_type": [9.0, None, 4.0],
            "tag": ["39,8", None, "2"],
        }
    ).write_csv(path / "video_features_basic_pure.csv")
    pl.DataFrame(
        {
            "user_id": [1],
            "history_len": [3],
            "last_time_ms": [MAY_4 - 300 * HOUR],
            "watch_seq": [[9, 6, 9]],
            "like_seq": [[9]],
            "long_watch_seq": [[6]],
        },
        schema_overrides={
            name: pl.List(pl.Int64) for name in ("watch_seq", "like_seq", "long_watch_seq")
        },
    ).write_parquet(path / "last_50_video_ids_4_08_to_4_24.parquet")
    return path


@pytest.fixture
def dataset(folder: Path, tmp_path: Path) -> PreparedDataset:
    out = tmp_path / "out"
    prepare(PrepareConfig(source="kuairand", path=str(folder), out=str(out), partitions=2))
    return PreparedDataset.open(out)


def index_of(dataset: PreparedDataset, name: str, raw: int) -> int:
    table = dataset.vocabulary(name).table
    return table.filter(pl.col("raw") == raw)["index"].item()


def explicit_of(dataset: PreparedDataset, user: int) -> list[tuple[int, int, str]]:
    history = dataset.timelines.history(
        index_of(dataset, "user", user), 1 << 60, TimelineKind.EXPLICIT
    )
    raw = dict(dataset.vocabulary("item").table.select("index", "raw").iter_rows())
    return [
        (time, raw[item], ACTION_TYPES[action])
        for time, item, action in zip(
            history["timestamp"].tolist(),
            history["item"].tolist(),
            history["action_type"].tolist(),
            strict=True,
        )
    ]


def test_flags_become_actions_and_undated_videos_enter_at_the_last_time(
    dataset: PreparedDataset,
) -> None:
    undated = MAY_4 - 300 * HOUR
    assert sorted(explicit_of(dataset, 1)) == sorted(
        [
            (undated, 9, "click"),
            (undated, 6, "click"),
            (undated, 9, "liked"),
            (undated, 6, "long_view"),
            (MAY_4 - HOUR, 5, "click"),
            (MAY_4 - HOUR, 5, "long_view"),
            (MAY_4 - 1, 6, "hide"),
        ]
    )
    actions = {action for _, video, action in explicit_of(dataset, 2) if video == 5}
    assert actions == {"liked", "follow", "comment", "reshare", "profile_visit"}


def test_impressions_carry_seconds_surface_author_and_topic(dataset: PreparedDataset) -> None:
    user = index_of(dataset, "user", 1)
    history = dataset.timelines.history(user, 1 << 60, TimelineKind.IMPLICIT)
    assert history["dwell_time"].tolist() == [8.5, 0.0]
    np.testing.assert_array_equal(history["video_duration"], np.float32([10.0, np.nan]))
    manifest = dataset.manifest
    assert [manifest.surfaces[code] for code in history["surface"]] == ["1", "0"]
    assert [manifest.media_types[code] for code in history["media_type"]] == ["NORMAL", "AD"]
    assert history["author"].tolist() == [
        index_of(dataset, "author", 50),
        index_of(dataset, "author", 60),
    ]
    assert history["topic"].tolist() == [index_of(dataset, "topic", 39), 0]


def test_random_exposures_are_events_but_no_rows(dataset: PreparedDataset) -> None:
    user = index_of(dataset, "user", 2)
    history = dataset.timelines.history(user, 1 << 60, TimelineKind.IMPLICIT)
    assert len(history["timestamp"]) == 3
    assert dataset.manifest.counts["rows_choose"] == 1


def test_rows_are_split_by_day_in_china_and_duplicates_are_counted(
    dataset: PreparedDataset,
) -> None:
    counts = dataset.manifest.counts
    assert [counts[f"rows_{split}"] for split in ("fit", "choose", "report")] == [2, 1, 1]
    assert dataset.manifest.rejected == {
        "event: duplicated row": 2,
        "request row: duplicated row": 1,
    }
    tasks = [task.name for task in dataset.manifest.tasks]
    first = dict(zip(tasks, dataset.requests("fit").labels[0].tolist(), strict=True))
    assert first == dict.fromkeys(tasks, 0.0) | {
        "click": 1.0,
        "long_view": 1.0,
        "watch_time": 8.5,
    }


def test_features_are_learned_from_what_the_fit_period_knows(dataset: PreparedDataset) -> None:
    dense = dataset.manifest.select(FeatureSide.USER, FeatureKind.DENSE)
    assert [feature.name for feature in dense] == list(USER_NUMBERS)
    # user 2 comes after the fit period: categories and moments are those of user 1 alone
    users = dataset.user_features
    one, two = index_of(dataset, "user", 1), index_of(dataset, "user", 2)
    assert users.categorical[one, 1:].tolist() == [1] * len(USER_CATEGORIES)
    assert users.categorical[two, 1:].tolist() == [0] * len(USER_CATEGORIES)
    np.testing.assert_allclose(users.dense[two], np.log(100), rtol=1e-6)
    assert dataset.manifest.counts["fit_vocabulary_user"] == 2


def test_the_full_log_makes_the_undated_file_superfluous(folder: Path) -> None:
    pl.DataFrame(LOG[:1]).write_csv(folder / "log_standard_4_08_to_4_21_pure.csv")
    names = {path.name for path in KuaiRandSource(folder).files()}
    assert "log_standard_4_08_to_4_21_pure.csv" in names
    assert not any(name.startswith("last_50") for name in names)


@pytest.mark.parametrize("missing", ["log_standard_", "user_features_", "video_features_basic_"])
def test_a_missing_file_says_where_its_owners_publish_it(folder: Path, missing: str) -> None:
    for path in folder.glob(f"{missing}*"):
        path.unlink()
    with pytest.raises(DataError, match=f"has no {missing}.*kuairand.com.*path="):
        KuaiRandSource(folder).files()


def test_a_value_that_is_no_number_rejects_its_row_once(folder: Path, tmp_path: Path) -> None:
    path = folder / "log_standard_4_22_to_5_08_pure.csv"
    bad = [
        LOG[0] | {"time_ms": MAY_4 + 1, "is_like": "yes"},
        LOG[0] | {"time_ms": MAY_4 + 2, "play_time_ms": "a while", "tab": "feed"},
    ]
    rows = pl.concat(
        [pl.DataFrame(part, infer_schema_length=None).cast(pl.String) for part in (LOG, bad)]
    )
    rows.write_csv(path)
    out = tmp_path / "out"
    prepare(PrepareConfig(source="kuairand", path=str(folder), out=str(out), partitions=2))
    dataset = PreparedDataset.open(out)
    assert dataset.manifest.rejected == {
        "event: duplicated row": 2,
        "is_like is not a whole number": 1,
        "play_time_ms is not a whole number": 1,
        "request row: duplicated row": 1,
    }
    counts = dataset.manifest.counts
    assert [counts[f"rows_{split}"] for split in ("fit", "choose", "report")] == [2, 1, 1]
    aside = pl.read_parquet(out / "rejected" / "is_like_is_not_a_whole_number.parquet")
    assert aside["timestamp"].to_list() == [str(MAY_4 + 1)]
    assert aside["rejection_detail"].to_list() == ["yes"]


def test_a_column_of_another_kind_is_a_sentence(folder: Path) -> None:
    path = folder / "log_standard_4_22_to_5_08_pure.csv"
    pl.DataFrame(LOG).with_columns(time_ms=pl.lit("noon")).write_csv(path)
    with pytest.raises(DataError, match=r"column time_ms: expected a whole number.*'noon'"):
        list(KuaiRandSource(folder).events())


def test_undated_videos_that_are_no_lists_are_a_sentence(folder: Path) -> None:
    path = folder / "last_50_video_ids_4_08_to_4_24.parquet"
    pl.read_parquet(path).with_columns(like_seq=pl.lit("[9]")).write_parquet(path)
    with pytest.raises(DataError, match=r"column like_seq: expected lists of whole numbers"):
        list(KuaiRandSource(folder).events())


def test_the_real_log(data_dir: Path, tmp_path: Path) -> None:
    if not (data_dir / "kuairand_pure").is_dir():
        pytest.skip(f"{data_dir} holds no kuairand_pure")
    out = tmp_path / "out"
    manifest = prepare(PrepareConfig(source="kuairand", data_dir=str(data_dir), out=str(out)))
    log = pl.read_parquet(data_dir / "kuairand_pure" / "log_standard_4_25_to_5_08_pure.parquet")
    rows = sum(manifest.counts[f"rows_{split}"] for split in ("fit", "choose", "report"))
    assert rows + manifest.rejected["request row: duplicated row"] == log.height
    dataset = PreparedDataset.open(out)
    report = dataset.requests("report")
    for kind in TimelineKind:
        sample = slice(0, 2000)
        users, times = report.user[sample], report.request_time[sample]
        found = dataset.timelines.histories(users, times, kind)
        cutoffs = np.repeat(times, found["lengths"])
        assert len(cutoffs) and (found["timestamp"] < cutoffs).all()
