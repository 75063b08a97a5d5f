from __future__ import annotations

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.core.location import find_data_dir, find_path
from recsys.data.contract.input_files import load_input_files
from recsys.data.contract.schema import ACTION_TYPES, TimelineKind
from recsys.data.prepare.append import AppendConfig, Appended, append
from recsys.data.prepare.describe import summarise_splits, summarise_timelines
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.sources import SOURCES
from recsys.data.stores.dataset import PreparedDataset

START = 1_700_000_000_000
HOUR = 3_600_000
FOREVER = 1 << 60


def make_log(seed: int = 0, rows: int = 3_000, start: int = START, users: int = 40) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    action = generator.choice(
        ["impression", "click", "liked", "hide"], rows, p=[0.6, 0.2, 0.1, 0.1]
    )
    item = generator.integers(0, 60, rows)
    impression = action == "impression"
    return pl.DataFrame(
        {
            "user_id": generator.integers(0, users, rows),
            "item_id": item,
            "timestamp": start + generator.permutation(rows) * (HOUR // 10),
            "author_id": item % 7,
            "surface": generator.choice(["feed", "search"], rows),
            "action_type": action,
            "dwell_time": np.where(impression, generator.exponential(5, rows), np.nan),
        }
    )


@pytest.fixture
def config(tmp_path: Path) -> PrepareConfig:
    log = tmp_path / "log"
    log.mkdir()
    make_log().write_parquet(log / "1.parquet")
    return PrepareConfig(path=str(log), out=str(tmp_path / "out"), partitions=3)


def changed(config: PrepareConfig, **changes: object) -> PrepareConfig:
    return PrepareConfig(**(vars(config) | changes))  # type: ignore[arg-type]


def append_to(config: PrepareConfig) -> Appended:
    """Append what the log of a data set has that is new."""
    return append(AppendConfig(path=config.path, out=config.out, partitions=3))


def vocabulary(config: PrepareConfig, name: str) -> pl.DataFrame:
    return PreparedDataset.open(config.out_folder).vocabulary(name).table


def test_timelines_hold_exactly_the_log(config: PrepareConfig) -> None:
    manifest = prepare(config)
    log = make_log()
    dataset = PreparedDataset.open(config.out_folder)
    assert dataset.manifest == manifest
    users = dict(vocabulary(config, "user").select("raw", "index").iter_rows())
    items = dict(vocabulary(config, "item").select("index", "raw").iter_rows())
    authors = dict(vocabulary(config, "author").select("index", "raw").iter_rows())
    for raw, index in users.items():
        for kind in TimelineKind:
            found = dataset.timelines.history(index, FOREVER, kind)
            is_impression = pl.col("action_type") == "impression"
            wanted = is_impression if kind is TimelineKind.IMPLICIT else ~is_impression
            expected = log.filter(pl.col("user_id") == raw, wanted).sort("timestamp")
            assert found["timestamp"].tolist() == expected["timestamp"].to_list()
            assert [items[i] for i in found["item"]] == expected["item_id"].to_list()
            assert [authors[i] for i in found["author"]] == expected["author_id"].to_list()
            surfaces = [manifest.surfaces[code] for code in found["surface"]]
            assert surfaces == expected["surface"].to_list()
            if kind is TimelineKind.EXPLICIT:
                actions = [ACTION_TYPES[code] for code in found["action_type"]]
                assert actions == expected["action_type"].to_list()
            else:
                np.testing.assert_allclose(found["dwell_time"], expected["dwell_time"], rtol=1e-6)
    assert manifest.counts["events"] == log.height
    assert sum(manifest.counts[f"{kind}_events"] for kind in TimelineKind) == log.height


def test_every_impression_is_a_row_of_the_split_of_its_time(config: PrepareConfig) -> None:
    manifest = prepare(config)
    dataset = PreparedDataset.open(config.out_folder)
    impressions = make_log().filter(pl.col("action_type") == "impression")
    for split, (first, last) in manifest.split_bounds.items():
        times = dataset.requests(split).request_time
        assert times.min() >= first and times.max() < last
        expected = impressions.filter(pl.col("timestamp").is_between(first, last, closed="left"))
        assert (
            dataset.requests(split).num_rows == expected.height == manifest.counts[f"rows_{split}"]
        )
    assert manifest.split_bounds["fit"][1] == manifest.split_bounds["choose"][0]
    assert [task.name for task in manifest.tasks] == ["click", "liked", "hide", "watch_time"]


def test_indices_go_by_time_and_the_fit_threshold_parts_old_from_new(config: PrepareConfig) -> None:
    manifest = prepare(config)
    fit_end = manifest.split_bounds["fit"][1]
    for name, column in (("user", "user_id"), ("item", "item_id"), ("author", "author_id")):
        table = vocabulary(config, name)
        assert table["first_seen"].is_sorted()
        expected = make_log().group_by(column).agg(pl.col("timestamp").min())
        assert dict(table.select("raw", "first_seen").iter_rows()) == dict(expected.iter_rows())
        known = manifest.counts[f"fit_vocabulary_{name}"]
        assert known == (table["first_seen"] < fit_end).sum() + 1


def test_feature_arrays_begin_with_the_ids(config: PrepareConfig) -> None:
    manifest = prepare(config)
    dataset = PreparedDataset.open(config.out_folder)
    assert [f.name for f in manifest.features][:4] == [
        "user_id",
        "item_id",
        "author_id",
        "topic_id",
    ]
    categorical = dataset.item_features.categorical
    assert categorical[:, 0].tolist() == list(range(manifest.vocabulary_sizes["item"]))
    raw_item = dict(vocabulary(config, "item").select("index", "raw").iter_rows())
    raw_author = dict(vocabulary(config, "author").select("index", "raw").iter_rows())
    for index, author in enumerate(categorical[1:, 1], start=1):
        assert raw_author[author] == raw_item[index] % 7
    assert (categorical[:, 2] == 0).all()  # the log has no topics
    for feature in manifest.features:
        if feature.name == "surface":
            codes = dataset.requests("fit").context_categorical[:, 0]
            assert set(codes.tolist()) == {1, 2} and feature.cardinality == 3


def test_bad_and_duplicated_rows_are_counted_and_written_aside(
    tmp_path: Path, config: PrepareConfig
) -> None:
    log = make_log()
    bad = log[:3].with_columns(dwell_time=pl.Series([-1.0, -2.0, -3.0]))
    pl.concat([log, bad, log[10:14]]).sample(fraction=1, shuffle=True, seed=1).write_parquet(
        tmp_path / "log" / "1.parquet"
    )
    manifest = prepare(config)
    assert manifest.rejected == {"dwell_time is negative": 3, "event: duplicated row": 4}
    assert manifest.counts["events"] == log.height
    written = pl.read_parquet(config.out_folder / "rejected" / "event_duplicated_row.parquet")
    key = ["user_id", "item_id", "timestamp"]
    values = [*key, "surface", "media_type", "action_type"]
    again = log[10:14].with_columns(media_type=pl.lit(None))
    expected = again.select(pl.col(values).cast(pl.String)).sort(key)
    assert written.select(values).sort(key).equals(expected)
    negative = pl.read_parquet(config.out_folder / "rejected" / "dwell_time_is_negative.parquet")
    assert written.columns == negative.columns


def test_a_log_in_many_chunks_and_partitions_prepares_the_same(
    tmp_path: Path, config: PrepareConfig
) -> None:
    prepare(config)
    small = changed(config, out=str(tmp_path / "small"), partitions=11, options={"chunk_rows": 101})
    prepare(small)
    whole, parts = (PreparedDataset.open(c.out_folder) for c in (config, small))
    assert summarise_timelines(whole) == summarise_timelines(parts)
    assert summarise_splits(whole) == summarise_splits(parts)
    for name in ("user", "item", "author", "topic"):
        assert vocabulary(config, name).equals(vocabulary(small, name))
    np.testing.assert_array_equal(whole.requests("fit").labels, parts.requests("fit").labels)


def test_string_ids_prepare_like_numbers(tmp_path: Path, config: PrepareConfig) -> None:
    numbers = prepare(config)
    text = tmp_path / "text.parquet"
    make_log().with_columns(
        pl.format("u{}", "user_id").alias("user_id"), pl.format("i{}", "item_id").alias("item_id")
    ).write_parquet(text)
    strings = prepare(changed(config, path=str(text), out=str(tmp_path / "strings")))
    assert strings.counts == numbers.counts
    raw = vocabulary(changed(config, out=str(tmp_path / "strings")), "user")["raw"]
    assert raw.to_list() == [f"u{number}" for number in vocabulary(config, "user")["raw"]]


def test_hashed_ids_stay_below_the_buckets_and_collisions_are_counted(
    config: PrepareConfig,
) -> None:
    manifest = prepare(changed(config, ids="hashed", hash_buckets=20))
    dataset = PreparedDataset.open(config.out_folder)
    assert manifest.vocabulary_sizes == dict.fromkeys(("user", "item", "author", "topic"), 20)
    assert manifest.counts["collisions_item"] >= 60 - 19
    assert dataset.user_features.categorical.shape == (20, 1)
    assert dataset.requests("fit").item.max() < 20


def test_preparing_again_finds_the_same_and_refuses_what_differs(
    tmp_path: Path, config: PrepareConfig
) -> None:
    first = prepare(config)
    made = (config.out_folder / "dataset.json").stat().st_mtime_ns
    assert prepare(config).fingerprint == first.fingerprint
    assert (config.out_folder / "dataset.json").stat().st_mtime_ns == made
    other = changed(config, options={"attribution_hours": 1.0})
    with pytest.raises(
        DataError, match=r"options.attribution_hours is 1.0, it was 24.0.*overwrite"
    ):
        prepare(other)
    assert prepare(changed(other, overwrite=True)).fingerprint != first.fingerprint
    make_log(seed=5).write_parquet(tmp_path / "log" / "2.parquet")
    with pytest.raises(DataError, match="overwrite=true"):
        prepare(other)


def test_a_copy_of_the_log_is_the_same_data_set(tmp_path: Path, config: PrepareConfig) -> None:
    first = prepare(config)
    made = (config.out_folder / "dataset.json").stat().st_mtime_ns
    file = tmp_path / "log" / "1.parquet"
    os.utime(file, ns=(0, 0))
    assert prepare(config).fingerprint == first.fingerprint
    assert (config.out_folder / "dataset.json").stat().st_mtime_ns == made
    assert [one.modified for one in load_input_files(config.out_folder)] == [0]

    copied = changed(config, path=str(tmp_path / "copied"), out=str(tmp_path / "elsewhere"))
    shutil.copytree(tmp_path / "log", tmp_path / "copied")
    assert prepare(copied).fingerprint == first.fingerprint


def test_a_changed_log_of_the_same_size_is_another(tmp_path: Path, config: PrepareConfig) -> None:
    csv = tmp_path / "log" / "1.csv"
    (tmp_path / "log" / "1.parquet").unlink()
    make_log().write_csv(csv)
    prepare(config)
    csv.write_text(csv.read_text().replace("feed", "mail"))
    with pytest.raises(DataError, match="from other files"):
        prepare(config)


def test_an_interrupted_preparation_changes_nothing(
    tmp_path: Path, config: PrepareConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(config)

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recsys.data.prepare.split_requests.write_spilled", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare(changed(config, overwrite=True, options={"attribution_hours": 1.0}))
    assert PreparedDataset.open(config.out_folder).manifest == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]


def test_a_crash_between_the_renames_is_mended(config: PrepareConfig) -> None:
    first = prepare(config)
    config.out_folder.rename(config.out_folder.with_name(".out.previous"))
    assert prepare(config) == first
    assert config.out_folder.is_dir()


def test_options_spelt_out_are_the_same_preparation(config: PrepareConfig) -> None:
    manifest = prepare(config)
    spelt_out = {"columns": {"user_id": "user_id"}, "attribution_hours": 24, "tasks": None}
    assert prepare(changed(config, options=spelt_out)) == manifest
    with pytest.raises(DataError, match="prepared with another configuration"):
        prepare(changed(config, options={"attribution_hours": 12}))


def test_a_log_with_nothing_to_predict_is_refused(tmp_path: Path) -> None:
    log = make_log().filter(action_type="impression").drop("dwell_time")
    log.write_parquet(tmp_path / "log.parquet")
    config = PrepareConfig(path=str(tmp_path / "log.parquet"), out=str(tmp_path / "out"))
    with pytest.raises(DataError, match="nothing to predict"):
        prepare(config)


def test_a_log_of_actions_alone_has_sequences_but_no_request_rows(tmp_path: Path) -> None:
    log = make_log().filter(pl.col("action_type") == "click").drop("dwell_time")
    log.write_parquet(tmp_path / "log.parquet")
    config = PrepareConfig(path=str(tmp_path / "log.parquet"), out=str(tmp_path / "out"))
    manifest = prepare(config)
    assert manifest.tasks == () and not (config.out_folder / "requests").exists()
    assert manifest.counts["explicit_events"] == log.height
    assert not any(feature.side == "context" for feature in manifest.features)
    with pytest.raises(DataError, match="no request rows"):
        PreparedDataset.open(config.out_folder).requests("fit")


def test_items_keep_their_author_when_days_are_appended(
    tmp_path: Path, config: PrepareConfig
) -> None:
    """The added events name three items, one of them new, and one without its author."""
    before = prepare(config)
    old = PreparedDataset.open(config.out_folder).item_features.categorical.copy()
    new = pl.DataFrame(
        {
            "user_id": [0, 0, 0],
            "item_id": [5, 6, 1000],
            "timestamp": before.counts["last_timestamp"] + np.arange(1, 4),
            "author_id": [5, None, 3],
        }
    )
    new.write_parquet(tmp_path / "log" / "2.parquet")
    append_to(config)
    dataset = PreparedDataset.open(config.out_folder)
    now = dataset.item_features.categorical
    np.testing.assert_array_equal(now[: len(old)], old)
    authors = dict(vocabulary(config, "author").select("raw", "index").iter_rows())
    assert now[len(old) :, 1].tolist() == [authors[3]]
    user = dict(vocabulary(config, "user").select("raw", "index").iter_rows())[0]
    events = dataset.timelines.history(user, FOREVER, TimelineKind.IMPLICIT)
    assert events["author"][-3:].tolist() == [authors[5], authors[6], authors[3]]


def test_appending_days_adds_events_without_touching_the_old_ones(
    tmp_path: Path, config: PrepareConfig
) -> None:
    before = prepare(config)
    old_blocks = {
        path.name: path.stat().st_ino for path in (config.out_folder / "timelines").glob("*.block")
    }
    old_users = vocabulary(config, "user")
    old_store = PreparedDataset.open(config.out_folder).timelines
    later = before.counts["last_timestamp"] + 1
    new = make_log(seed=2, rows=500, start=later, users=55)
    new.write_parquet(tmp_path / "log" / "2.parquet")
    after = append_to(config).manifest
    dataset = PreparedDataset.open(config.out_folder)
    assert after == dataset.manifest
    assert after.counts["events"] == before.counts["events"] + 500
    assert after.rejected["not after the last event of the data set"] == before.counts["events"]
    kept = {p.name: p.stat().st_ino for p in (config.out_folder / "timelines").glob("*.block")}
    assert old_blocks.items() <= kept.items() and len(kept) > len(old_blocks)
    assert vocabulary(config, "user")[: old_users.height].equals(old_users)
    assert after.vocabulary_sizes["user"] > before.vocabulary_sizes["user"]
    assert len(dataset.user_features.categorical) == after.vocabulary_sizes["user"]
    for user in old_users["index"]:
        for kind in TimelineKind:
            old = old_store.history(user, FOREVER, kind)
            now = dataset.timelines.history(user, later, kind)
            for name, column in old.items():
                np.testing.assert_array_equal(column, now[name])
    # the same files prepared at once have the same events
    whole = changed(config, out=str(tmp_path / "whole"))
    prepare(whole)
    at_once = PreparedDataset.open(whole.out_folder)
    assert summarise_timelines(at_once) == summarise_timelines(dataset)
    assert summarise_splits(at_once) == summarise_splits(dataset)
    assert at_once.manifest.split_bounds == after.split_bounds
    assert at_once.manifest.counts == after.counts
    assert prepare(config).fingerprint == after.fingerprint


def test_two_at_once_prepare_the_same_folder_once(tmp_path: Path, config: PrepareConfig) -> None:
    # the lock belongs to the open file, so two threads stand for two processes
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(prepare, [config, config])
    assert first == second
    dataset = PreparedDataset.open(config.out_folder)
    assert dataset.timelines.num_segments == 1
    assert dataset.manifest.counts["events"] == 3_000
    assert not list(tmp_path.glob(".*.partial"))


def test_what_cannot_be_prepared_is_a_sentence(tmp_path: Path, config: PrepareConfig) -> None:
    with pytest.raises(ConfigError, match="needs path="):
        prepare(changed(config, path=None))
    with pytest.raises(ConfigError, match="source is 'nowhere', it must be one of log"):
        prepare(changed(config, source="nowhere"))
    with pytest.raises(ConfigError, match="ids is 'guessed'"):
        prepare(changed(config, ids="guessed"))
    with pytest.raises(ConfigError, match="hash_buckets is 1"):
        prepare(changed(config, ids="hashed", hash_buckets=1))
    with pytest.raises(DataError, match="is not a prepared data set"):
        append_to(config)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    for refused in (config, changed(config, overwrite=True)):
        with pytest.raises(ConfigError, match="is not a prepared data set"):
            prepare(refused)
    with pytest.raises(ConfigError, match="is not a prepared data set"):
        append_to(config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_the_configuration_names_every_source() -> None:
    text = (Path(__file__).parents[3] / "conf" / "prepare.yaml").read_text()
    [comment] = re.findall(r"^source: log # the adapter: (.+)$", text, re.MULTILINE)
    assert re.split(", | or ", comment) == list(SOURCES)


def test_a_log_without_a_usable_row_says_why(tmp_path: Path, config: PrepareConfig) -> None:
    make_log().with_columns(timestamp=pl.lit(17)).write_parquet(tmp_path / "log" / "1.parquet")
    with pytest.raises(
        DataError, match=r"3,000 of 3,000 rows .* \(timestamp is out of range: 3,000\)"
    ):
        prepare(config)
    assert not config.out_folder.exists()


def test_more_surfaces_than_codes_is_a_sentence(tmp_path: Path, config: PrepareConfig) -> None:
    make_log().with_columns(
        surface=pl.format("surface {}", pl.int_range(pl.len()) % 200)
    ).write_parquet(tmp_path / "log" / "1.parquet")
    with pytest.raises(DataError, match="column surface has more than 127"):
        prepare(config)


def test_the_data_folder_is_looked_for_in_three_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "environment"))
    assert find_data_dir("given", "ml") == Path("given/ml")
    assert find_data_dir(None, "ml") == tmp_path / "environment" / "ml"
    monkeypatch.delenv("RECSYS_DATA_DIR")
    assert find_data_dir(None, "ml") == Path("data/ml")
    assert find_data_dir(None, str(tmp_path)) == tmp_path
    assert find_path("given", "ml") == Path("given/ml")
    monkeypatch.chdir(tmp_path)
    Path("ml").mkdir()
    assert find_path("given", "ml") == Path("ml")
