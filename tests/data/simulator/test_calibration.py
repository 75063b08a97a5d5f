from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.simulator.calibration import likeness, measure_kuairand, repeats, rhythm


def test_rhythm_on_hand_made_gaps():
    hour = 3_600_000
    rows = pl.DataFrame({"user_id": [1, 1, 1, 2], "time": [0, hour // 4, 3 * hour, 19 * hour]})
    result = rhythm(rows)
    assert result["share of gaps below 30 min (thinned)"] == 0.5
    assert result["gap between sessions, quantile 0.5 (h, thinned)"] == pytest.approx(2.75)
    assert result["share from 18 to 24 o'clock"] == 0.25


def test_pairs_of_users_with_a_propensity_are_alike():
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(2_000), 20)
    chance = np.where(np.arange(2_000) % 2, 0.05, 0.45)[user]
    columns = {
        name: (rng.random(len(user)) < chance).astype(int)
        for name in ("liked", "profile_visit", "skip", "video_complete")
    }
    rows = pl.DataFrame(
        {"user_id": user, "item_id": np.arange(len(user)), "topic_id": user * 0, **columns}
    )
    rows = rows.with_columns(topic_id=pl.Series(rng.integers(0, 3, len(user))))
    expected = np.log((0.05**2 + 0.45**2) / 2 / 0.25**2)
    for value in likeness(rows).values():
        assert value == pytest.approx(expected, abs=0.06)


def test_repeats_count_topics_of_the_history():
    history = pl.DataFrame({"user_id": [1, 2], "item_id": [0, 0], "topic_id": [7, 8]})
    rows = pl.DataFrame({"user_id": [1, 2], "topic_id": [7, 8], "liked": [1, 1]})
    assert repeats(rows, history)["topic of a liked item in the last 50 (thinned)"] == 1


def test_kuairand_figures_behind_the_frozen_configuration(make_config):
    data_dir = os.environ.get("RECSYS_DATA_DIR")
    folder = Path(data_dir or "data") / "kuairand_pure"
    if not folder.is_dir():
        pytest.skip("KuaiRand-Pure is not under RECSYS_DATA_DIR")
    figures, config = measure_kuairand(folder), make_config("default")
    assert figures["ln duration: sd"] == pytest.approx(config.catalogue.log_duration_sd, abs=0.03)
    slope = figures["ln dwell by ln duration: slope"]
    assert slope == pytest.approx(config.dwell.duration_exponent, abs=0.02)
    assert figures["rate of liked"] == pytest.approx(0.019, abs=0.001)


def test_missing_kuairand_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="KuaiRand"):
        measure_kuairand(tmp_path)
