"""Globo.com "News Portal User Interactions" (Souza Moreira et al., 2018): clicks on news articles.

Files, as their owners name them: ``clicks_hour_*.csv`` (in ``clicks/`` or beside it) and, where it
is there, ``articles_metadata.csv``; or one Parquet file of the same clicks, whose columns
``article_id`` and ``timestamp_ms`` hold what the owners' files call ``click_article_id`` and
``click_timestamp``. Days are Brasília time: the log begins at its midnight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.files import column_names, read_chunks, read_table
from recsys.data.contract.rejected import DETAIL, REASON
from recsys.data.contract.schema import LOG_SCHEMA, Column, Feature, FeatureKind, FeatureSide
from recsys.data.sources.base import Source
from recsys.data.sources.days import split_days
from recsys.data.sources.typed import typed_columns

TIME_ZONE = "America/Sao_Paulo"
ACTION = "click"

#: What a click says about its user, by the name of the feature.
USER_CATEGORIES = {
    "environment": "click_environment",
    "device_group": "click_deviceGroup",
    "os": "click_os",
    "country": "click_country",
    "region": "click_region",
}
REFERRER = "click_referrer_type"

_ITEM_COLUMNS = ("click_article_id", "article_id")
_TIME_COLUMNS = ("click_timestamp", "timestamp_ms")
_ARTICLES_FILE = "articles_metadata.csv"
_ARTICLE_TYPES: dict[str, pl.DataType] = {
    "article_id": pl.Int64(),
    "category_id": pl.Int64(),
    "publisher_id": pl.Int64(),
}
_WHERE_FROM = (
    "The log is published at https://www.kaggle.com/gspmoreira/news-portal-user-interactions-by-"
    "globocom: unpack clicks.zip so that clicks_hour_*.csv lie in that folder, or "
    "say where it lies: path=, data_dir= or RECSYS_DATA_DIR"
)


@dataclass(frozen=True)
class GloboOptions:
    """Which days are which split; dates in Brasília time.

    Attributes:
        fit_from: first day that is trained on; the log begins with it.
        choose_from: first day of the choose period.
        report_from: first day of the report period.
        report_until: the day after the report period.
    """

    fit_from: str = "2017-10-01"
    choose_from: str = "2017-10-03"
    report_from: str = "2017-10-04"
    report_until: str = "2017-10-05"


class GloboSource(Source):
    """Reads Globo's clicks: each is an explicit ``click``; there are no impressions.

    An event's surface is the click's referrer type. A user's features are those of the user's
    first click. They are no look into the future: a query about a later click has the first one in
    its history, and at the first click they describe the request itself, sent by that device from
    that place. Where there is ``articles_metadata.csv``, an article's topic is its category and
    its author its publisher.

    Args:
        folder: the folder with the files.
        options: the splits.
    """

    name = "globo"
    tasks = ()
    features = tuple(
        Feature(name, FeatureSide.USER, FeatureKind.CATEGORICAL) for name in USER_CATEGORIES
    )

    def __init__(self, folder: Path, options: GloboOptions | None = None) -> None:
        self.folder = folder
        self.split_bounds = split_days(options or GloboOptions(), ZoneInfo(TIME_ZONE))

    def files(self) -> list[Path]:
        """The clicks, in name order, and the article file where there is one."""
        articles = self.folder / _ARTICLES_FILE
        return [*self._click_files(), *([articles] if articles.is_file() else [])]

    def events(self) -> Iterator[pl.DataFrame]:
        """The clicks, file by file."""
        for clicks in self._clicks():
            columns = {
                Column.USER: pl.col("user_id"),
                Column.ITEM: pl.col("item"),
                Column.TIMESTAMP: pl.col("time"),
                Column.AUTHOR: pl.lit(None),
                Column.TOPIC: pl.lit(None),
                Column.MEDIA_TYPE: pl.lit(None),
                Column.SURFACE: pl.col(REFERRER),
                Column.ACTION_TYPE: pl.lit(ACTION),
                Column.DWELL_TIME: pl.lit(None),
                Column.VIDEO_DURATION: pl.lit(None),
            }
            yield clicks.select(
                *(column.cast(LOG_SCHEMA[name]).alias(name) for name, column in columns.items()),
                REASON,
                DETAIL,
            )

    def requests(self) -> Iterator[pl.DataFrame]:
        """Nothing: the log does not say what was shown."""
        return iter(())

    def users(self) -> pl.DataFrame:
        """The categories of each user's first click."""
        first = pl.DataFrame(schema=_user_schema())
        for clicks in self._clicks():
            good = clicks.filter(pl.col(REASON).is_null(), pl.col("time").is_not_null())
            found = good.select(Column.USER, "time", *USER_CATEGORIES.values()).rename(
                {column: name for name, column in USER_CATEGORIES.items()}
            )
            first = (
                pl.concat([first, found.cast(_user_schema())])  # type: ignore[arg-type]
                .sort("time", maintain_order=True)
                .unique(Column.USER, keep="first", maintain_order=True)
            )
        return first.drop("time")

    def items(self) -> pl.DataFrame | None:
        """Category and publisher of each article, where there is an article file."""
        path = self.folder / _ARTICLES_FILE
        if not path.is_file():
            return None
        return read_table(path, _ARTICLE_TYPES).select(
            pl.col("article_id").alias(Column.ITEM),
            pl.col("publisher_id").alias(Column.AUTHOR),
            pl.col("category_id").alias(Column.TOPIC),
        )

    def _clicks(self) -> Iterator[pl.DataFrame]:
        """Chunks of ``user_id``, ``item``, ``time`` (ms) and the categories, as text.

        Rows with a value that does not fit its column have ``rejection_reason``.
        """
        for path in self._click_files():
            present = column_names(path)
            item = _present(path, present, _ITEM_COLUMNS)
            time = _present(path, present, _TIME_COLUMNS)
            types: dict[str, pl.DataType] = {
                "user_id": pl.Int64(),
                item: pl.Int64(),
                time: pl.Int64(),
                **dict.fromkeys((*USER_CATEGORIES.values(), REFERRER), pl.String()),
            }
            for chunk in read_chunks(path, types):
                yield typed_columns(path, chunk, types).rename({item: "item", time: "time"})

    def _click_files(self) -> list[Path]:
        places = (self.folder / "clicks", self.folder)
        for place in places:
            found = sorted(place.glob("clicks_hour_*.csv"))
            if found:
                return found
        found = sorted(self.folder.glob("clicks*.parquet"))
        if not found:
            raise DataError(
                f"{self.folder} has no clicks_hour_*.csv and no clicks*.parquet. {_WHERE_FROM}."
            )
        return found


def _user_schema() -> dict[str, pl.DataType]:
    return {
        Column.USER: pl.Int64(),
        "time": pl.Int64(),
        **dict.fromkeys(USER_CATEGORIES, pl.String()),
    }


def _present(path: Path, present: list[str], names: tuple[str, ...]) -> str:
    for name in names:
        if name in present:
            return name
    raise DataError(
        f"{path} has no column {' or '.join(names)} (it has {', '.join(present)}). {_WHERE_FROM}."
    )
