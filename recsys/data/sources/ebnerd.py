"""EB-NeRD (Kruse et al., RecSys Challenge 2024): news of Ekstra Bladet, every size.

Layout, as its owners publish it: ``train/{history,behaviors}.parquet``,
``validation/{history,behaviors}.parquet`` and, in the sizes with article data,
``articles.parquet``. Times carry no zone and are read as UTC.

A reading of an article reaches us by up to three roads: as an entry of ``history``, as a row of
``behaviors`` that was made on the article's page (its ``article_id``), and as the click that led
there. The first two carry the same time, the click a slightly earlier one (in the demo 99 % of
the clicks that are in the next week's history lie at most 9 minutes before it).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.files import column_names
from recsys.data.contract.parquet import read_schema, scan_parquet
from recsys.data.contract.schema import (
    IMPRESSION,
    LOG_SCHEMA,
    MILLISECONDS_PER_DAY,
    MILLISECONDS_PER_HOUR,
    Column,
    Feature,
    FeatureKind,
    FeatureSide,
    Split,
    Task,
)
from recsys.data.sources.base import DividedSource
from recsys.data.sources.days import OtherDays, other_days
from recsys.data.sources.log_rows import HOUR_OF_DAY, WATCH_TIME, hour_of_day

CLICK = Task("click")
PARTS = ("train", "validation")
MEDIA_TYPE = "article"

#: A click and a later reading of the same article by the same user are one event if they lie at
#: most this far apart.
SAME_VISIT = MILLISECONDS_PER_HOUR // 2

#: What the owners' ``behaviors`` say about the user and the page at the moment of the request.
CONTEXT_CATEGORIES = (
    "device_type",
    "is_sso_user",
    "gender",
    "postcode",
    "age",
    "is_subscriber",
    "on_article_page",
)

#: What the columns that are read must hold: numbers (whole ones or any), moments, or lists of them.
_WHOLE, _NUMBER, _MOMENT = "whole numbers", "numbers", "datetimes"
_COLUMNS: dict[str, dict[str, str]] = {
    "history": {
        "user_id": _WHOLE,
        "article_id_fixed": f"lists of {_WHOLE}",
        "impression_time_fixed": f"lists of {_MOMENT}",
        "read_time_fixed": f"lists of {_NUMBER}",
        "scroll_percentage_fixed": f"lists of {_NUMBER}",
    },
    "behaviors": {
        "user_id": _WHOLE,
        "article_id": _WHOLE,
        "impression_time": _MOMENT,
        "read_time": _NUMBER,
        "scroll_percentage": _NUMBER,
        "article_ids_inview": f"lists of {_WHOLE}",
        "article_ids_clicked": f"lists of {_WHOLE}",
        "next_read_time": _NUMBER,
        "next_scroll_percentage": _NUMBER,
        **{name: _NUMBER for name in CONTEXT_CATEGORIES if name != "on_article_page"},
    },
    "articles": {"article_id": _WHOLE, "category": _WHOLE},
}

_READ_TO_THE_END = 100.0  # per cent of the page scrolled
_WHERE_FROM = (
    "EB-NeRD is published at https://recsys.eb.dk: unpack ebnerd_demo, ebnerd_small or "
    "ebnerd_large so that train/ and validation/ (history.parquet and behaviors.parquet in each) "
    "lie in that folder, or "
    "say where it lies: path=, data_dir= or RECSYS_DATA_DIR"
)
_BYTES_PER_GROUP = 100 << 20


class EbnerdSource(DividedSource):
    """Reads EB-NeRD: one request row per article in view.

    Timelines: the readings of ``history`` (of both parts, each once) and of ``behaviors``, each
    an impression with its read time as dwell time and an explicit ``click``; a reading that
    scrolled through the whole page is a ``long_view`` too. Articles in view that were not opened
    are no events. Two readings are one if user, article and time agree (the longer read time
    stays); a click is left out if the user has a reading of the article within the next half
    hour.

    Rows: ``click`` is 1 for clicked articles; ``watch_time`` is ``next_read_time`` of the clicked
    article, null for the others and where several were clicked. Rows of behaviours with the same
    user and time are one request. Fit: the train week without its last day; choose: that day;
    report: the validation week.

    Args:
        folder: the folder with ``train`` and ``validation``.
        options: other splits than these.
    """

    name = "ebnerd"
    tasks = (CLICK, WATCH_TIME)
    features = (
        *(Feature(n, FeatureSide.CONTEXT, FeatureKind.CATEGORICAL) for n in CONTEXT_CATEGORIES),
        HOUR_OF_DAY,
    )

    def __init__(self, folder: Path, options: OtherDays | None = None) -> None:
        self.folder = folder
        self._options = options or OtherDays()
        self._bounds: dict[str, tuple[int, int]] | None = None

    @property
    def split_bounds(self) -> dict[str, tuple[int, int]]:  # type: ignore[override]
        """The owners' weeks, the last day of the train week set apart, or as the options say."""
        if self._bounds is None:
            (first, train_end), (validation, end) = (
                self._scan(part, "behaviors")
                .select(_milliseconds("impression_time"))
                .select(
                    pl.col("impression_time").min().alias("first"),
                    pl.col("impression_time").max().alias("last") + 1,
                )
                .collect()
                .row(0)
                for part in PARTS
            )
            validation -= validation % MILLISECONDS_PER_HOUR  # the owners' weeks begin at 7:00
            choose = validation - MILLISECONDS_PER_DAY
            if not first < choose or train_end > validation:
                raise DataError(
                    f"{self.folder}: the weeks of train/ and validation/ do not follow each other; "
                    "fetch the files again from their owners."
                )
            weeks: dict[str, tuple[int, int]] = {
                Split.FIT: (first, choose),
                Split.CHOOSE: (choose, validation),
                Split.REPORT: (validation, end),
            }
            self._bounds = other_days(self._options, weeks)
        return self._bounds

    def files(self) -> list[Path]:
        """Histories, behaviours and, where there is one, the article file."""
        files = [self._path(part, name) for part in PARTS for name in ("history", "behaviors")]
        for path in files:
            if not path.is_file():
                raise DataError(f"{path} is missing. {_WHERE_FROM}.")
        articles = self.folder / "articles.parquet"
        files += [articles] if articles.is_file() else []
        for path in files:
            _check_columns(path)
        return files

    def event_blocks(self, rows: int) -> range:
        """The groups of users."""
        return range(self._num_groups())

    def events_of(self, block: int) -> Iterator[pl.DataFrame]:
        """The readings of a group."""
        yield _visits_to_events(self._visits(self._in_group(block)))

    def request_blocks(self) -> range:
        """The groups of users."""
        return range(self._num_groups())

    def requests_of(self, block: int) -> Iterator[pl.DataFrame]:
        """The articles in view of a group."""
        for part in PARTS:
            yield self._rows(part, self._in_group(block))

    def items(self) -> pl.DataFrame | None:
        """The category of each article as its topic, where there is an article file."""
        path = self.folder / "articles.parquet"
        if not path.is_file():
            return None
        articles = scan_parquet([path]).select(
            pl.col("article_id").cast(pl.Int64).alias(Column.ITEM),
            pl.lit(None, pl.Int64).alias(Column.AUTHOR),
            pl.col("category").cast(pl.Int64).alias(Column.TOPIC),
        )
        return articles.collect()

    def _visits(self, in_group: pl.Expr) -> pl.DataFrame:
        """Readings: ``user``, ``item``, ``time``, ``read_time``, ``scroll``, each once."""
        readings = pl.concat(
            [self._history(part, in_group) for part in PARTS]
            + [self._pages(part, in_group) for part in PARTS]
        )
        readings = readings.group_by("user", "item", "time").agg(
            pl.col("read_time").max(), pl.col("scroll").max()
        )
        clicks = pl.concat([self._clicks(part, in_group) for part in PARTS])
        clicks = clicks.group_by("user", "item", "time").agg(
            pl.col("read_time").max(), pl.col("scroll").max()
        )
        visited, clicked = pl.collect_all([readings.sort("time"), clicks.sort("time")])
        matched = clicked.join_asof(
            visited.select("user", "item", "time", pl.col("time").alias("reading_time")),
            on="time",
            by=["user", "item"],
            strategy="forward",
            tolerance=SAME_VISIT,
            check_sortedness=False,  # sorted above; polars cannot tell within groups
        )
        alone = matched.filter(pl.col("reading_time").is_null()).drop("reading_time")
        return pl.concat([visited, alone.select(visited.columns)])

    def _history(self, part: str, in_group: pl.Expr) -> pl.LazyFrame:
        lists = {
            "article_id_fixed": "item",
            "impression_time_fixed": "time",
            "read_time_fixed": "read_time",
            "scroll_percentage_fixed": "scroll",
        }
        history = self._scan(part, "history").filter(in_group).select("user_id", *lists)
        return _typed_visits(history.explode(*lists).drop_nulls("article_id_fixed").rename(lists))

    def _pages(self, part: str, in_group: pl.Expr) -> pl.LazyFrame:
        pages = self._scan(part, "behaviors").filter(in_group, pl.col("article_id").is_not_null())
        return _typed_visits(
            pages.select(
                "user_id",
                pl.col("article_id").alias("item"),
                pl.col("impression_time").alias("time"),
                "read_time",
                pl.col("scroll_percentage").alias("scroll"),
            )
        )

    def _clicks(self, part: str, in_group: pl.Expr) -> pl.LazyFrame:
        behaviors = self._scan(part, "behaviors").filter(in_group)
        single = pl.col("article_ids_clicked").list.len() == 1
        return _typed_visits(
            behaviors.select(
                "user_id",
                pl.col("article_ids_clicked").alias("item"),
                pl.col("impression_time").alias("time"),
                pl.when(single).then("next_read_time").alias("read_time"),
                pl.when(single).then("next_scroll_percentage").alias("scroll"),
            )
            .explode("item")
            .drop_nulls("item")
        )

    def _rows(self, part: str, in_group: pl.Expr) -> pl.DataFrame:
        clicked = pl.col("article_ids_inview").is_in(pl.col("article_ids_clicked"))
        single = pl.col("article_ids_clicked").list.len() == 1
        behaviors = (
            self._scan(part, "behaviors")
            .filter(in_group)
            .with_columns(pl.col("article_id").is_not_null().alias("on_article_page"))
            .select(
                pl.col("user_id").cast(pl.Int64),
                _milliseconds("impression_time").alias(Column.REQUEST_TIME),
                "article_ids_inview",
                "article_ids_clicked",
                pl.when(single).then("next_read_time").alias("read_time"),
                *(pl.col(name).cast(pl.Int64).cast(pl.String) for name in CONTEXT_CATEGORIES),
            )
            .explode("article_ids_inview")
            .drop_nulls("article_ids_inview")
        )
        keys = [Column.USER, Column.REQUEST_TIME, Column.ITEM]
        return (
            behaviors.select(
                pl.col("user_id").alias(Column.USER),
                pl.col("article_ids_inview").cast(pl.Int64).alias(Column.ITEM),
                Column.REQUEST_TIME,
                clicked.cast(pl.Float32).alias(CLICK.column),
                pl.when(clicked).then("read_time").cast(pl.Float32).alias(WATCH_TIME.column),
                *CONTEXT_CATEGORIES,
            )
            .group_by(keys, maintain_order=True)
            .agg(
                pl.col(CLICK.column).max(),
                pl.col(WATCH_TIME.column).max(),
                pl.col(CONTEXT_CATEGORIES).first(),
            )
            .with_columns(hour_of_day(pl.col(Column.REQUEST_TIME)))
            .collect()
        )

    def _in_group(self, group: int) -> pl.Expr:
        return (pl.col("user_id").hash(seed=0) % self._num_groups()) == group

    def _num_groups(self) -> int:
        """So many groups of users that one fits into memory well."""
        total = sum(path.stat().st_size for path in self.files())
        return -(-total // _BYTES_PER_GROUP)

    def _scan(self, part: str, name: str) -> pl.LazyFrame:
        return scan_parquet([self._path(part, name)])

    def _path(self, part: str, name: str) -> Path:
        return self.folder / part / f"{name}.parquet"


def _check_columns(path: Path) -> None:
    """Refuse a file that is damaged, lacks a column, or has one of another type."""
    present = column_names(path)
    types = read_schema(path)
    for name, expected in _COLUMNS[path.stem].items():
        if name not in present:
            raise DataError(
                f"{path} has no column {name} (it has {', '.join(present)}). {_WHERE_FROM}."
            )
        if not _holds(types[name], expected):
            raise DataError(
                f"{path}, column {name}: expected {expected}, found {types[name]}; convert the "
                "column or fetch the file again from its owners."
            )


def _holds(dtype: pl.DataType, expected: str) -> bool:
    if dtype == pl.Null():  # no value at all
        return True
    if expected.startswith("lists of "):
        return isinstance(dtype, pl.List) and _holds(
            dtype.inner,  # type: ignore[arg-type]
            expected.removeprefix("lists of "),
        )
    if expected == _MOMENT:
        return isinstance(dtype, pl.Datetime)
    if expected == _WHOLE:
        return dtype.is_integer()
    return dtype.is_numeric() or dtype == pl.Boolean()


def _milliseconds(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Datetime("ms")).cast(pl.Int64)


def _typed_visits(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame.select(
        pl.col("user_id").cast(pl.Int64).alias("user"),
        pl.col("item").cast(pl.Int64),
        _milliseconds("time"),
        pl.col("read_time").cast(pl.Float32),
        pl.col("scroll").cast(pl.Float32),
    )


def _visits_to_events(visits: pl.DataFrame) -> pl.DataFrame:
    """Each reading as an impression and a click, and a long view where it went to the end."""
    visits = visits.sort("user", "time", "item")
    kinds = {
        IMPRESSION: visits,
        "click": visits,
        "long_view": visits.filter(pl.col("scroll") >= _READ_TO_THE_END),
    }
    parts = []
    for action, rows in kinds.items():
        dwell = pl.col("read_time") if action == IMPRESSION else pl.lit(None)
        columns = {
            Column.USER: pl.col("user"),
            Column.ITEM: pl.col("item"),
            Column.TIMESTAMP: pl.col("time"),
            Column.AUTHOR: pl.lit(None),
            Column.TOPIC: pl.lit(None),
            Column.MEDIA_TYPE: pl.lit(MEDIA_TYPE),
            Column.SURFACE: pl.lit(None),
            Column.ACTION_TYPE: pl.lit(action),
            Column.DWELL_TIME: dwell,
            Column.VIDEO_DURATION: pl.lit(None),
        }
        parts.append(
            rows.select(c.cast(LOG_SCHEMA[name]).alias(name) for name, c in columns.items())
        )
    return pl.concat(parts)
