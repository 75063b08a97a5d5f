"""Small logs as a user may have them, none in the columns of this project: the same at every call.

Each has something to learn: a user belongs to a group of items and mostly goes from one item of the
group to the next one in a ring.
"""

from __future__ import annotations

import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.contract.parquet import write_frame

#: Thursday, 1 February 2024, 08:00 UTC, in seconds.
START = 1_706_774_400
_DAY = 86_400

_GROUPS = 6
_ITEMS_PER_GROUP = 20
_TOPICS = ("sport", "politics", "science", "music", "travel", "food")
_WORDS = (
    "match goal team league season player",
    "vote law minister party budget debate",
    "star cell energy planet robot study",
    "song album stage guitar festival chorus",
    "island train hotel coast border map",
    "soup bread oven spice market garden",
)


@dataclass(frozen=True)
class OwnLog:
    """Files of a log and the arguments by which `recsys data infer` is told of them.

    Attributes:
        path: of the log.
        items: of the table of items; None where there is none.
    """

    path: Path
    items: Path | None = None

    @property
    def arguments(self) -> list[str]:
        """Of `recsys data infer`, but ``out``."""
        items = [f"items={self.items}"] if self.items is not None else []
        return [f"path={self.path}", *items]


def walks(users: int, events: int, seed: int) -> pl.DataFrame:
    """Users' ways through their items: ``user``, ``item``, ``time`` (s), in the order of time.

    Args:
        users: number of users.
        events: of each user on average.
        seed: of all that is drawn.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        group = int(generator.integers(_GROUPS))
        place = int(generator.integers(_ITEMS_PER_GROUP))
        number = int(generator.integers(events // 2, 2 * events - events // 2))
        times = START + np.sort(generator.integers(0, 20 * _DAY, number))
        for time in times.tolist():
            step = generator.random()
            place = int(generator.integers(_ITEMS_PER_GROUP)) if step > 0.8 else place + 1
            of_group = int(generator.integers(_GROUPS)) if step > 0.9 else group
            place %= _ITEMS_PER_GROUP
            rows.append((user, of_group * _ITEMS_PER_GROUP + place, time))
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    return frame.sort("time", maintain_order=True)


def click_log(folder: Path, users: int = 150, events: int = 16) -> OwnLog:
    """Three columns: who clicked what when, times in seconds, as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    log = walks(users, events, 1).select(
        (pl.col("user") * 7 + 1001).alias("visitorid"),
        (pl.col("item") + 5000).alias("itemid"),
        pl.col("time").alias("ts"),
    )
    log.write_csv(folder / "clicks.csv")
    return OwnLog(folder / "clicks.csv")


def shop_log(folder: Path, users: int = 150, events: int = 16) -> OwnLog:
    """Views, carts and purchases, text ids and ISO times; products with a category and a price.

    Whoever looks at the next product of the ring buys it more often.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(2)
    rows = []
    for user, item, time in walks(users, events, 2).iter_rows():
        likes = 0.5 if item % 2 == user % 2 else 0.1
        names = ["view"]
        if generator.random() < likes:
            names.append("addtocart")
            if generator.random() < 0.5:
                names.append("purchase")
        for later, name in enumerate(names):
            rows.append((f"u-{user:04d}", f"P{item:05d}", time + 60 * later, name))
    log = pl.DataFrame(rows, schema=["customer", "product", "time", "event"], orient="row")
    log = log.sort("time", maintain_order=True).select(
        pl.from_epoch("time", "s").dt.strftime("%Y-%m-%d %H:%M:%S").alias("event_time"),
        pl.col("event").alias("event_type"),
        "product",
        "customer",
    )
    with gzip.open(folder / "events.csv.gz", "wb") as file:
        file.write(log.write_csv().encode())
    items = pl.DataFrame(
        {
            "sku": [f"P{item:05d}" for item in _items()],
            "title": [_title(item) for item in _items()],
            "category": [_TOPICS[item // _ITEMS_PER_GROUP] for item in _items()],
            "price": [round(4.99 + 3 * (item % 7) + item / 10, 2) for item in _items()],
            "colour": [("red", "green", "blue")[item % 3] for item in _items()],
        }
    )
    items.write_csv(folder / "products.csv")
    return OwnLog(folder / "events.csv.gz", folder / "products.csv")


def rating_log(folder: Path, users: int = 150, events: int = 16) -> OwnLog:
    """Ratings and films in the layout of RecBole's atomic files."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(3)
    log = walks(users, events, 3).unique(["user", "item"], keep="first", maintain_order=True)
    log = log.select(
        (pl.col("user") + 1).alias("user_id:token"),
        (pl.col("item") + 1).alias("item_id:token"),
        pl.Series(generator.integers(1, 6, log.height)).cast(pl.Float64).alias("rating:float"),
        pl.col("time").cast(pl.Float64).alias("timestamp:float"),
    )
    log.write_csv(folder / "films.inter", separator="\t")
    items = pl.DataFrame(
        {
            "item_id:token": [item + 1 for item in _items()],
            "movie_title:token_seq": [_title(item) for item in _items()],
            "release_year:token": [1980 + item % 40 for item in _items()],
            "class:token_seq": [
                " ".join(dict.fromkeys((_TOPICS[item // _ITEMS_PER_GROUP], _TOPICS[item % 5])))
                for item in _items()
            ],
        }
    )
    items.write_csv(folder / "films.item", separator="\t")
    return OwnLog(folder / "films.inter")


def news_log(folder: Path, users: int = 150, events: int = 16) -> OwnLog:
    """Articles shown and read, times as datetimes in Parquet, and the articles' texts as TSV."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(4)
    walk = walks(users, events, 4)
    shown = walk.with_columns(pl.lit("exposure").alias("behavior"))
    liked = generator.random(walk.height) < 0.4
    read = walk.filter(liked).with_columns(pl.col("time") + 5, pl.lit("clk").alias("behavior"))
    log = pl.concat([shown, read]).sort("time", maintain_order=True)
    log = log.select(
        pl.format("U{}", "user").alias("reader"),
        pl.format("N{}", "item").alias("news_id"),
        pl.from_epoch("time", "s").dt.cast_time_unit("ms").alias("impression_ts"),
        "behavior",
    )
    write_frame(folder / "behaviors.parquet", log)
    articles = pl.DataFrame(
        {
            "news_id": [f"N{item}" for item in _items()],
            "category": [_TOPICS[item // _ITEMS_PER_GROUP] for item in _items()],
            "headline": [_title(item) for item in _items()],
            "abstract": [_text(item) for item in _items()],
            "image_url": [f"https://pictures.example/{item}.jpg" for item in _items()],
        }
    )
    articles.write_csv(folder / "news.tsv", separator="\t")
    return OwnLog(folder / "behaviors.parquet", folder / "news.tsv")


def _items() -> range:
    return range(_GROUPS * _ITEMS_PER_GROUP)


def _title(item: int) -> str:
    words = _WORDS[item // _ITEMS_PER_GROUP].split()
    return f"The {words[item % 6]} and the {words[(item // 2) % 6]} no {item}"


def _text(item: int) -> str:
    words = np.random.default_rng(item).choice(_WORDS[item // _ITEMS_PER_GROUP].split(), 12)
    return f"{' '.join(words)}."


#: Makers of the logs, by their names.
OWN_LOGS = {
    "clicks": click_log,
    "shop": shop_log,
    "films": rating_log,
    "news": news_log,
}

if __name__ == "__main__":  # python -m tests.own_logs <folder>: docs/results/own_logs.md
    for _name, _make in OWN_LOGS.items():
        _folder = Path(sys.argv[1]) / _name
        _folder.mkdir(parents=True)
        _make(_folder)
