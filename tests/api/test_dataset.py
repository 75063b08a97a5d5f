"""Preparing frames: what is found prepared, and what is another log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recsys
from recsys.core.errors import ConfigError, DataError

DAY = 86_400_000
START = 1_700_000_000_000


def log(seed: int = 0, events: int = 300) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user_id": generator.integers(1, 9, events),
            "item_id": generator.integers(1, 20, events),
            "timestamp": START + np.sort(generator.integers(0, 10 * DAY, events)),
            "action_type": generator.choice(["impression", "click"], events),
        }
    )


def test_a_frame_and_its_file_make_the_same_data_set(tmp_path: Path) -> None:
    log().write_parquet(tmp_path / "log.parquet")
    of_frame = recsys.prepare(log(), tmp_path / "frame")
    of_file = recsys.prepare(tmp_path / "log.parquet", tmp_path / "file")
    assert of_frame.manifest.counts == of_file.manifest.counts
    for name in ("user", "item"):
        file = Path("vocabulary") / f"{name}.parquet"
        assert (of_frame.path / file).read_bytes() == (of_file.path / file).read_bytes()


def test_the_same_frame_is_found_prepared_and_another_is_refused(tmp_path: Path) -> None:
    first = recsys.prepare(log(), tmp_path / "out")
    changed = first.path.stat().st_mtime_ns
    assert recsys.prepare(log().lazy(), tmp_path / "out").manifest == first.manifest
    assert recsys.open_dataset(tmp_path / "out").path.stat().st_mtime_ns == changed
    with pytest.raises(DataError, match="was prepared from other files"):
        recsys.prepare(log(seed=1), tmp_path / "out")
    again = recsys.prepare(log(seed=1), tmp_path / "out", overwrite=True)
    assert again.manifest.fingerprint != first.manifest.fingerprint


def test_columns_are_named_and_days_appended(tmp_path: Path) -> None:
    frame = log().rename({"user_id": "member"})
    dataset = recsys.prepare(frame, tmp_path / "out", columns={"user_id": "member"})
    later = frame.with_columns(pl.col("timestamp") + 11 * DAY, pl.col("member") + 100)
    grown = recsys.append(later, tmp_path / "out")
    assert grown.manifest.counts["events"] == 2 * dataset.manifest.counts["events"]


def test_options_that_cannot_be_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean `options\.columns`"):
        recsys.prepare(log(), tmp_path / "out", column={"user_id": "member"})
    with pytest.raises(DataError, match="the frame has no column user_id"):
        recsys.prepare(log().drop("user_id"), tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        recsys.prepare(tmp_path / "nothing.parquet", tmp_path / "out")


def test_a_pandas_frame_is_taken(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    dataset = recsys.prepare(log().to_pandas(), tmp_path / "out")
    assert dataset.manifest.counts["events"] == 300


def test_a_pandas_frame_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    frame = log().to_pandas()
    repeated = frame.set_axis(
        ["user_id", "item_id", "timestamp", "item_id"][: frame.shape[1]], axis=1
    )
    mixed = frame.assign(user_id=[7, "007"] * (len(frame) // 2))
    halves = frame.assign(user_id=frame["user_id"] + 0.5)
    for one, sentence in (
        (repeated[["user_id", "timestamp", "item_id"]], "frame of pandas cannot be read"),
        (mixed, "frame of pandas cannot be read"),
        (halves, "column user_id: ids are whole numbers or text, found Float64"),
    ):
        with pytest.raises(DataError, match=sentence):
            recsys.prepare(one, tmp_path / "out")


def test_only_what_is_public_is_there() -> None:
    assert set(recsys.__all__) <= set(dir(recsys))
    assert all(getattr(recsys, name) is not None for name in recsys.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        recsys.nothing  # noqa: B018


def test_a_run_is_asked_for_lists_of_ids(tmp_path: Path) -> None:
    from recsys.api.run import _listed, _series

    for one in ("42", 42, None):
        with pytest.raises(ConfigError, match=r"users is .*; give a list of ids"):
            _listed("users", one)  # type: ignore[arg-type]
    assert _series([1, np.int64(2)]).to_list() == [1, 2]
    assert _series([1, "a"]).to_list() == ["1", "a"]
