"""Measures KuaiRand and a simulated log by the same statistics and prints them side by side.

``python -m recsys.data.simulator.calibration <simulation> [<folder with kuairand_pure>]``

KuaiRand-Pure holds the exposures of 7,583 videos only, 9 per user in two weeks where KuaiRand-27K
counts 5,500. Statistics that depend on that density (gaps, repeats) are taken on a simulated log
thinned to it, which needs a log of full density (``activity.scale=1``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.table import Table

from recsys.core.console import output_console
from recsys.core.errors import DataError
from recsys.data.contract.parquet import read_parquet, scan_parquet
from recsys.data.contract.schema import IMPRESSION, MILLISECONDS_PER_DAY, MILLISECONDS_PER_HOUR
from recsys.data.simulator.files import (
    ITEMS_FILE,
    LOG_FOLDER,
    PARTS,
    REQUESTS_FOLDER,
    read_description,
)

LABELS = ("liked", "follow", "comment", "reshare", "profile_visit", "skip", "video_complete")
#: Labels frequent enough in KuaiRand-Pure for statistics of pairs.
PAIRED_LABELS = ("liked", "profile_visit", "skip", "video_complete")
SKIP_SECONDS = 2.0
SESSION_GAP_MS = 30 * 60_000
HISTORY_LENGTH = 50
KUAIRAND_MAIN_FEED = 1
#: Exposures per user and day of KuaiRand-Pure.
KUAIRAND_DENSITY = 9.1 / 14
#: The denser rate at which the last 50 exposures before it were drawn (45.6 in 17 days).
HISTORY_DENSITY = 2.6
#: Rows of a user that enter statistics of pairs, so that the busiest users do not decide them.
PAIR_ROWS = 60
SEED = 0


def read_kuairand(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Exposures of the main feed, and up to 50 exposures per user before them.

    Raises:
        DataError: a file is missing.
    """
    names = (
        "log_standard_4_25_to_5_08_pure.parquet",
        "video_features_basic_pure.csv",
        "last_50_video_ids_4_08_to_4_24.parquet",
    )
    for name in names:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing; KuaiRand-Pure is at kuairand.com.")
    content = (folder / names[1]).read_bytes()
    videos = pl.read_csv(content, schema_overrides={"tag": pl.String}).select(
        item_id=pl.col("video_id"),
        topic_id=pl.col("tag").str.split(",").list.first(),
        published=pl.col("upload_dt").str.to_date(strict=False).dt.epoch("ms"),
    )
    log = read_parquet(folder / names[0]).filter(
        (pl.col("tab") == KUAIRAND_MAIN_FEED) & (pl.col("duration_ms") > 0)
    )
    dwell, duration = pl.col("play_time_ms") / 1000, pl.col("duration_ms") / 1000
    rows = log.select(
        "user_id",
        item_id=pl.col("video_id"),
        time=pl.col("time_ms") + 8 * MILLISECONDS_PER_HOUR,  # local time
        dwell=dwell,
        duration=duration,
        liked=pl.col("is_like"),
        follow=pl.col("is_follow"),
        comment=pl.col("is_comment"),
        reshare=pl.col("is_forward"),
        profile_visit=pl.col("is_profile_enter"),
        skip=(dwell < SKIP_SECONDS).cast(pl.Int8),
        video_complete=(dwell >= duration).cast(pl.Int8),
    )
    history = read_parquet(folder / names[2]).select("user_id", item_id="watch_seq")
    history = history.explode("item_id", empty_as_null=True).drop_nulls()
    return rows.join(videos, on="item_id"), history.join(videos, on="item_id")


def read_simulation(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Request rows of videos with their labels, and a sample of all impressions."""
    config = read_description(folder)["config"]
    items = read_parquet(folder / ITEMS_FILE).select(
        "item_id", "topic_id", published="published_at", duration="video_duration"
    )
    rows = (
        scan_parquet(sorted((folder / REQUESTS_FOLDER).glob(PARTS)))
        .select(
            "user_id",
            "item_id",
            time="request_time",
            dwell="label_watch_time",
            **{label: f"label_{label}" for label in LABELS},
        )
        .join(items.lazy(), on="item_id")
        .filter(pl.col("duration").is_not_null())
        .collect()
    )
    impressions = scan_parquet(sorted((folder / LOG_FOLDER).glob(PARTS))).filter(
        pl.col("action_type") == IMPRESSION
    )
    count = impressions.select(pl.len()).collect().item()
    kept = HISTORY_DENSITY * config["days"] * config["users"] / count
    one_in = max(1, round(1 / kept))
    sample = (
        impressions.filter(pl.struct("user_id", "timestamp").hash(SEED) % one_in == 0)
        .select("user_id", "item_id", "topic_id", time="timestamp")
        .collect(engine="streaming")
    )
    return rows, sample


def thin(frame: pl.DataFrame, share: float) -> pl.DataFrame:
    """Keep a random share of the rows."""
    return frame.filter(pl.Series(np.random.default_rng(SEED).random(len(frame)) < share))


def rates(rows: pl.DataFrame) -> dict[str, float]:
    """Task rates and the shape of the dwell time."""
    result = {f"rate of {label}": float(rows[label].mean()) for label in LABELS}  # type: ignore[arg-type]
    watched = rows.filter(pl.col("dwell") > 0)
    dwell = watched["dwell"].to_numpy()
    for level in (0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        result[f"dwell, quantile {level} (s)"] = float(np.quantile(dwell, level))
    ratio = dwell / watched["duration"].to_numpy()
    for level in (0.25, 0.5, 0.75):
        result[f"dwell / duration, quantile {level}"] = float(np.quantile(ratio, level))
    x = np.log(watched["duration"].cast(pl.Float64).to_numpy())
    y = np.log(np.maximum(dwell, 0.2).astype(np.float64))
    slope, intercept = np.polyfit(x, y, 1)
    result["ln dwell by ln duration: slope"] = float(slope)
    result["ln dwell by ln duration: residual sd"] = float(np.std(y - slope * x - intercept))
    result["ln duration: mean"], result["ln duration: sd"] = float(x.mean()), float(x.std())
    for label, low, high in (("5-15 s", 5, 15), ("40-90 s", 40, 90), ("200-400 s", 200, 400)):
        part = watched.filter(pl.col("duration").is_between(low, high))
        result[f"completion, videos of {label}"] = float(part["video_complete"].mean())  # type: ignore[arg-type]
    return result


def rhythm(rows: pl.DataFrame) -> dict[str, float]:
    """Gaps between a user's exposures at KuaiRand-Pure's density."""
    gaps = (
        rows.sort("user_id", "time")
        .select(gap=pl.col("time").diff().over("user_id"))["gap"]
        .drop_nulls()
        .to_numpy()
    )
    between = gaps[gaps > SESSION_GAP_MS] / MILLISECONDS_PER_HOUR
    result = {"share of gaps below 30 min (thinned)": float((gaps <= SESSION_GAP_MS).mean())}
    for level in (0.25, 0.5, 0.75):
        result[f"gap between sessions, quantile {level} (h, thinned)"] = float(
            np.quantile(between, level)
        )
    hours = (rows["time"] // MILLISECONDS_PER_HOUR % 24).to_numpy()
    result["share from 18 to 24 o'clock"] = float((hours >= 18).mean())
    return result


def ages(rows: pl.DataFrame) -> dict[str, float]:
    """Exposures of items aged 21 to 27 days over those of items aged 14 to 20 days."""
    age = (rows["time"] - rows["published"]).drop_nulls().to_numpy() / MILLISECONDS_PER_DAY
    older = ((age >= 21) & (age < 28)).sum()
    return {
        "exposures at 21-28 days / at 14-21 days": float(older / ((age >= 14) & (age < 21)).sum()),
        "age at exposure, median (days)": float(np.median(age)),
    }


def likeness(rows: pl.DataFrame) -> dict[str, float]:
    """ln(P(both) / P²) of a label over pairs of rows that share something.

    0 for independent rows. For a rare label it is the variance, on the logit scale, of what the
    pair shares: the user's propensity, with the topic also the user's interest in it.
    """
    columns = ["user_id", "item_id", "topic_id", *PAIRED_LABELS]
    chosen = rows.sample(fraction=1, shuffle=True, seed=SEED)
    chosen = chosen.filter(pl.int_range(pl.len()).over("user_id") < PAIR_ROWS)
    left = chosen.select(columns).with_row_index("row")
    pairs = left.join(left, on="user_id", suffix="_2").filter(pl.col("row") < pl.col("row_2"))
    same = pl.col("topic_id") == pl.col("topic_id_2")
    result = {}
    for name, part in (("user", pairs.filter(~same)), ("user and topic", pairs.filter(same))):
        for label in PAIRED_LABELS:
            both = part.select((pl.col(label) * pl.col(f"{label}_2")).mean()).item()
            mean = part.select((pl.col(label) + pl.col(f"{label}_2")).mean()).item() / 2
            result[f"pairs of one {name}: {label}"] = float(np.log(both / mean**2))
    return result


def repeats(rows: pl.DataFrame, history: pl.DataFrame) -> dict[str, float]:
    """How often a liked item's topic is among the user's last 50 exposures, and by chance."""
    last = history.group_by("user_id", maintain_order=True).tail(HISTORY_LENGTH)
    known = {user: set(topics) for user, topics in last.group_by("user_id").agg("topic_id").rows()}
    liked = rows.filter((pl.col("liked") == 1) & pl.col("user_id").is_in(list(known)))
    users, topics = liked["user_id"].to_list(), liked["topic_id"].to_list()
    shuffled = np.random.default_rng(SEED).permutation(len(topics))

    def share(of_row: NDArray[np.int64]) -> float:
        return float(np.mean([topics[j] in known[u] for u, j in zip(users, of_row, strict=True)]))

    return {
        "topic of a liked item in the last 50 (thinned)": share(np.arange(len(topics))),
        "the same for a random liked item": share(shuffled),
    }


def measure_kuairand(folder: Path) -> dict[str, float]:
    """All statistics of KuaiRand-Pure."""
    rows, history = read_kuairand(folder)
    return rates(rows) | rhythm(rows) | ages(rows) | likeness(rows) | repeats(rows, history)


def measure_simulation(folder: Path) -> dict[str, float]:
    """The same statistics of a simulated log."""
    rows, sample = read_simulation(folder)
    sparse = thin(sample, KUAIRAND_DENSITY / HISTORY_DENSITY)
    history = sample.filter(pl.col("time") < rows["time"].min()).sort("user_id", "time")
    return rates(rows) | rhythm(sparse) | ages(rows) | likeness(rows) | repeats(rows, history)


def main(simulation: Path, kuairand: Path) -> None:
    """Print the table of docs/results/data.md."""
    simulated, real = measure_simulation(simulation), measure_kuairand(kuairand)
    table = Table("statistic", "KuaiRand", "simulated")
    for name, value in real.items():
        table.add_row(name, f"{value:.4g}", f"{simulated[name]:.4g}")
    output_console().print(table)


if __name__ == "__main__":
    data_dir = Path(os.environ.get("RECSYS_DATA_DIR", "data"))
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else data_dir / "kuairand_pure")
