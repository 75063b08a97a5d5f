"""KuaiRand (Gao et al., CIKM 2022): Pure, 1K and 27K share one layout.

Files, as their owners name them (``.csv``, or ``.parquet`` of the same stem):
``log_standard_*``, ``log_random_*`` (the randomly exposed videos), ``user_features_*`` and
``video_features_basic_*``; the statistics files are not read, they count events of the whole
period, the reported days among them. ``last_50_video_ids_*`` stands in for the standard log of
8 to 21 April where that is absent.

Dates are China Standard Time, like ``date`` and ``hourmin`` of the log (in KuaiRand-Pure
``time_ms`` read in that zone gives the same ``date`` for 99.1 % of the rows; ``date`` is when the
server filed the row).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.file_names import is_data_file
from recsys.data.contract.files import read_chunks, read_table
from recsys.data.contract.rejected import DETAIL, REASON
from recsys.data.contract.schema import (
    IMPRESSION,
    LOG_SCHEMA,
    Column,
    Feature,
    FeatureKind,
    FeatureSide,
    Task,
)
from recsys.data.sources.base import DividedSource
from recsys.data.sources.days import split_days
from recsys.data.sources.log_rows import HOUR_OF_DAY, WATCH_TIME, hour_of_day
from recsys.data.sources.typed import typed_columns

TIME_ZONE = "Asia/Shanghai"
MILLISECONDS = 1_000

#: Column of the log to the action it records.
ACTIONS = {
    "is_click": "click",
    "long_view": "long_view",
    "is_like": "liked",
    "is_profile_enter": "profile_visit",
    "is_follow": "follow",
    "is_comment": "comment",
    "is_forward": "reshare",
    "is_hate": "hide",
}
#: Column of the last-50 file to the action it records.
UNDATED_ACTIONS = {"watch_seq": "click", "like_seq": "liked", "long_watch_seq": "long_view"}

USER_CATEGORIES = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
VIDEO_CATEGORIES = ("video_type", "upload_type", "music_type")

_LOG_TYPES: dict[str, pl.DataType] = {
    "user_id": pl.Int64(),
    "video_id": pl.Int64(),
    "time_ms": pl.Int64(),
    **{name: pl.Int64() for name in ACTIONS},
    "play_time_ms": pl.Int64(),
    "duration_ms": pl.Int64(),
    "tab": pl.Int64(),
}
_VIDEO_TYPES: dict[str, pl.DataType] = {
    "video_id": pl.Int64(),
    "author_id": pl.Int64(),
    "video_type": pl.String(),
    "upload_dt": pl.String(),
    "upload_type": pl.String(),
    "video_duration": pl.Float64(),
    "music_type": pl.String(),
    "tag": pl.String(),
}
_WHERE_FROM = (
    "KuaiRand is published at https://kuairand.com (files: "
    "https://zenodo.org/records/10439422): put log_standard_*.csv, user_features_*.csv and "
    "video_features_basic_*.csv of one version (Pure, 1K or 27K) into that folder, or "
    "say where it lies: path=, data_dir= or RECSYS_DATA_DIR"
)


@dataclass(frozen=True)
class KuaiRandOptions:
    """Which days are which split; dates in China Standard Time.

    Attributes:
        fit_from: first day whose rows are trained on.
        choose_from: first day of the choose period.
        report_from: first day of the report period.
        report_until: the day after the report period.
    """

    fit_from: str = "2022-04-08"
    choose_from: str = "2022-05-04"
    report_from: str = "2022-05-05"
    report_until: str = "2022-05-09"


class KuaiRandSource(DividedSource):
    """Reads KuaiRand: every row of the standard log is an impression and a request row.

    The random log's events enter the timelines, but its rows are no request rows: the videos were
    not chosen by the recommender. A video's topic is the first of its tags. The undated last 50
    videos of a user enter the explicit timeline at the user's ``last_time_ms``, each video once
    per action.

    Args:
        folder: the folder with the files.
        options: the splits.
    """

    name = "kuairand"
    tasks = (*(Task(action) for action in ACTIONS.values()), WATCH_TIME)
    features = (
        *(Feature(n, FeatureSide.USER, FeatureKind.CATEGORICAL) for n in USER_CATEGORIES),
        *(Feature(n, FeatureSide.USER, FeatureKind.DENSE) for n in USER_NUMBERS),
        *(Feature(n, FeatureSide.ITEM, FeatureKind.CATEGORICAL) for n in VIDEO_CATEGORIES),
        Feature(Column.VIDEO_DURATION, FeatureSide.ITEM, FeatureKind.DENSE),
        Feature("upload_day", FeatureSide.ITEM, FeatureKind.DENSE),
        Feature(Column.SURFACE, FeatureSide.CONTEXT, FeatureKind.CATEGORICAL),
        HOUR_OF_DAY,
    )

    def __init__(self, folder: Path, options: KuaiRandOptions | None = None) -> None:
        self.folder = folder
        self.split_bounds = split_days(options or KuaiRandOptions(), ZoneInfo(TIME_ZONE))
        self._videos: pl.DataFrame | None = None

    def files(self) -> list[Path]:
        """The log, user and video files."""
        return [
            *self._find("log_standard_", required=True),
            *self._find("log_random_"),
            *self._undated_files(),
            *self._find("user_features_", required=True),
            *self._find("video_features_basic_", required=True),
        ]

    def event_blocks(self, rows: int) -> list[Path]:
        """The logs with impressions and actions, then the undated actions."""
        logs = (*self._find("log_standard_", required=True), *self._find("log_random_"))
        return [*logs, *self._undated_files()]

    def events_of(self, block: Path) -> Iterator[pl.DataFrame]:
        """The events of a file."""
        if block in self._undated_files():
            for chunk in read_chunks(block, ["user_id", "last_time_ms", *UNDATED_ACTIONS]):
                _check_undated(block, chunk)
                yield self._undated_events(chunk)
            return
        for log in self._read_log(block):
            good = log.filter(pl.col(REASON).is_null())
            yield _log_to_events(good.drop(REASON, DETAIL))
            yield _unusable(log.filter(pl.col(REASON).is_not_null()))

    def request_blocks(self) -> list[Path]:
        """The files of the standard log."""
        return self._find("log_standard_", required=True)

    def requests_of(self, block: Path) -> Iterator[pl.DataFrame]:
        """The rows of a file."""
        for log in self._read_log(block):
            # a row with a value that does not fit is rejected once, as an event
            yield log.filter(pl.col(REASON).is_null()).select(
                pl.col("user_id").alias(Column.USER),
                pl.col("video_id").alias(Column.ITEM),
                pl.col("time_ms").alias(Column.REQUEST_TIME),
                *(
                    pl.col(name).cast(pl.Float32).alias(Task(action).column)
                    for name, action in ACTIONS.items()
                ),
                (pl.col("play_time_ms") / MILLISECONDS).cast(pl.Float32).alias(WATCH_TIME.column),
                pl.col("tab").cast(pl.String).alias(Column.SURFACE),
                hour_of_day(pl.col("time_ms"), TIME_ZONE),
            )

    def users(self) -> pl.DataFrame:
        """The user file; counts as logarithms."""
        types: dict[str, pl.DataType] = {
            "user_id": pl.Int64(),
            **{name: pl.String() for name in USER_CATEGORIES},
            **{name: pl.Float64() for name in USER_NUMBERS},
        }
        tables = [read_table(path, types) for path in self._find("user_features_", required=True)]
        counts = pl.col(USER_NUMBERS)
        return pl.concat(tables).with_columns(counts.clip(lower_bound=0).log1p())

    def items(self) -> pl.DataFrame:
        """The video file: author, first tag, categories, duration (log s) and day of upload."""
        return self._video_table().select(
            pl.col("video_id").alias(Column.ITEM),
            Column.AUTHOR,
            Column.TOPIC,
            *VIDEO_CATEGORIES,
            (pl.col("video_duration") / MILLISECONDS).log1p().alias(Column.VIDEO_DURATION),
            pl.col("upload_dt")
            .str.to_date("%Y-%m-%d", strict=False)
            .cast(pl.Int32)
            .alias("upload_day"),
        )

    def _read_log(self, path: Path) -> Iterator[pl.DataFrame]:
        """Chunks of a log with author, topic and type of the video.

        Rows with a value that does not fit its column have ``rejection_reason``.
        """
        videos = self._video_table().select("video_id", Column.AUTHOR, Column.TOPIC, "video_type")
        for chunk in read_chunks(path, _LOG_TYPES):
            typed = typed_columns(path, chunk, _LOG_TYPES)
            yield typed.join(videos, on="video_id", how="left", maintain_order="left")

    def _undated_events(self, chunk: pl.DataFrame) -> pl.DataFrame:
        videos = self._video_table().select("video_id", Column.AUTHOR, Column.TOPIC, "video_type")
        parts = []
        for name, action in UNDATED_ACTIONS.items():
            part = (
                chunk.select("user_id", "last_time_ms", pl.col(name).alias("video_id"))
                .with_columns(pl.col("video_id").list.unique(maintain_order=True))
                .explode("video_id")
                .drop_nulls("video_id")
                .join(videos, on="video_id", how="left", maintain_order="left")
            )
            parts.append(
                _in_contract(
                    part.with_columns(pl.col("last_time_ms").alias("time_ms")), action, dated=False
                )
            )
        return pl.concat(parts)

    def _undated_files(self) -> list[Path]:
        """The last-50 file; superfluous where the standard log has the first two weeks itself."""
        standard = self._find("log_standard_", required=True)
        if any(path.name.startswith("log_standard_4_08") for path in standard):
            return []
        return self._find("last_50_video_ids_")

    def _video_table(self) -> pl.DataFrame:
        if self._videos is None:
            tables = [
                read_table(path, _VIDEO_TYPES)
                for path in self._find("video_features_basic_", required=True)
            ]
            first_tag = pl.col("tag").str.split(",").list.first().cast(pl.Int64, strict=False)
            self._videos = pl.concat(tables).with_columns(first_tag.alias(Column.TOPIC))
        return self._videos

    def _find(self, prefix: str, required: bool = False) -> list[Path]:
        found: list[Path] = []
        if self.folder.is_dir():
            found = sorted(
                path
                for path in self.folder.iterdir()
                if path.name.startswith(prefix) and is_data_file(path)
            )
        if required and not found:
            raise DataError(f"{self.folder} has no {prefix}* file. {_WHERE_FROM}.")
        return found


def _check_undated(path: Path, chunk: pl.DataFrame) -> None:
    for name, dtype in chunk.schema.items():
        is_list = isinstance(dtype, pl.List)
        held = dtype.inner if isinstance(dtype, pl.List) else dtype
        if is_list != (name in UNDATED_ACTIONS) or not held.is_integer():  # type: ignore[union-attr]
            expected = "lists of whole numbers" if name in UNDATED_ACTIONS else "whole numbers"
            raise DataError(
                f"{path}, column {name}: expected {expected}, found {dtype}; write the file as "
                "Parquet with these types, or fetch it again from its owners."
            )


def _log_to_events(log: pl.DataFrame) -> pl.DataFrame:
    parts = [_in_contract(log, IMPRESSION)]
    parts += [
        _in_contract(log.filter(pl.col(name) == 1), action) for name, action in ACTIONS.items()
    ]
    return pl.concat(parts)


def _unusable(log: pl.DataFrame) -> pl.DataFrame:
    """Rows with values that do not fit, one event each, with their reason."""
    columns = _in_contract(log, IMPRESSION).get_columns()
    return pl.DataFrame([*columns, log[REASON], log[DETAIL]])


def _in_contract(rows: pl.DataFrame, action: str, dated: bool = True) -> pl.DataFrame:
    """Rows of a log as events of one action."""
    unknown = pl.lit(None)
    seconds = pl.col("play_time_ms") / MILLISECONDS if dated else unknown
    duration = pl.col("duration_ms") / MILLISECONDS if dated else unknown
    columns = {
        Column.USER: pl.col("user_id"),
        Column.ITEM: pl.col("video_id"),
        Column.TIMESTAMP: pl.col("time_ms"),
        Column.AUTHOR: pl.col(Column.AUTHOR),
        Column.TOPIC: pl.col(Column.TOPIC),
        Column.MEDIA_TYPE: pl.col("video_type"),
        Column.SURFACE: pl.col("tab") if dated else unknown,
        Column.ACTION_TYPE: pl.lit(action),
        Column.DWELL_TIME: seconds if action == IMPRESSION else unknown,
        # 0 stands for an unknown duration
        Column.VIDEO_DURATION: pl.when(duration > 0).then(duration) if dated else unknown,
    }
    return rows.select(
        column.cast(LOG_SCHEMA[name]).alias(name) for name, column in columns.items()
    )
