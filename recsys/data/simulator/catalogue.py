"""Topics, authors and items of a simulated log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_DAY, Column
from recsys.data.simulator.config import SimulatorConfig

#: Entries of a table that turns a uniform number into an author; its resolution is 1/size.
POPULARITY_TABLE_SIZE = 1 << 18
TOPIC_TABLE_SIZE = 1 << 12


def zipf(size: int, exponent: float) -> NDArray[np.float64]:
    """Probabilities proportional to rank^-exponent, [size]."""
    weights = np.arange(1, size + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def sampling_table(probabilities: NDArray[np.float64], size: int) -> NDArray[np.int32]:
    """Indices in shares of ``probabilities``: a uniform position in it is a draw, [size]."""
    levels = (np.arange(size) + 0.5) / size
    drawn = np.searchsorted(np.cumsum(probabilities), levels)
    return np.minimum(drawn, len(probabilities) - 1).astype(np.int32)


@dataclass(frozen=True)
class Catalogue:
    """Everything that can be shown; items of an author lie side by side, oldest first.

    Attributes:
        topic_popularity: [topics] shares.
        popular_authors: table of authors by popularity.
        topic_authors: [topics, TOPIC_TABLE_SIZE] table of authors per (first) topic.
        author_quality: [authors].
        author_items: [authors + 1] offsets of the authors' items.
        item_author: [items] int32; item_topic, item_media likewise.
        item_quality: [items] quality of author and item together.
        content_score: [items] what a ranker sees of the quality.
        item_duration: [items] seconds, NaN for media without a duration.
        item_log_length: [items] ln of the duration, or of the reading time.
        item_published: [items] ms since the start of the log (negative before it).
    """

    topic_popularity: NDArray[np.float64]
    popular_authors: NDArray[np.int32]
    topic_authors: NDArray[np.int32]
    author_quality: NDArray[np.float32]
    author_items: NDArray[np.int64]
    item_author: NDArray[np.int32]
    item_topic: NDArray[np.int32]
    item_media: NDArray[np.int8]
    item_quality: NDArray[np.float32]
    content_score: NDArray[np.float32]
    item_duration: NDArray[np.float32]
    item_log_length: NDArray[np.float32]
    item_published: NDArray[np.int64]

    def frame(self, config: SimulatorConfig) -> pl.DataFrame:
        """One row per item with its observable features: ``items.parquet``."""
        return pl.DataFrame(
            {
                Column.ITEM: np.arange(len(self.item_author)),
                Column.AUTHOR: self.item_author.astype(np.int64),
                Column.TOPIC: self.item_topic.astype(np.int64),
                Column.MEDIA_TYPE: np.array(config.media_types)[self.item_media],
                Column.VIDEO_DURATION: pl.Series(self.item_duration).fill_nan(None),
                "content_score": self.content_score,
                "log_length": self.item_log_length,
                "published_at": self.item_published + config.start_ms,
            }
        )


def make_catalogue(config: SimulatorConfig, rng: np.random.Generator) -> Catalogue:
    """Draw topics, authors and items.

    An author's items are spread evenly over the time axis, one per slot of equal length at a
    uniform moment of the slot, so that the item an author published at some age is found by a
    division.
    """
    c = config.catalogue
    topic_popularity = zipf(c.topics, c.topic_zipf)
    first_topic = rng.choice(c.topics, c.authors, p=topic_popularity)
    second_topic = rng.choice(c.topics, c.authors, p=topic_popularity)
    first_topic[: c.topics] = rng.permutation(c.topics)  # no topic without an author
    popularity = zipf(c.authors, c.author_zipf)[rng.permutation(c.authors)]
    author_quality = rng.normal(0, c.author_quality, c.authors)

    # Popular authors publish more, less than in proportion.
    output = np.sqrt(popularity)
    counts = np.maximum(1, np.round(c.items * output / output.sum())).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    items = int(offsets[-1])
    author = np.repeat(np.arange(c.authors), counts)
    slot = np.arange(items) - offsets[author]
    first = -c.warm_up_days * MILLISECONDS_PER_DAY
    span = (config.days + c.warm_up_days) * MILLISECONDS_PER_DAY
    published = first + (slot + rng.random(items)) / counts[author] * span
    published[offsets[:-1]] = first  # there is always an item that is out already

    media_shares = np.array(list(c.media_shares.values()))
    media = rng.choice(len(media_shares), items, p=media_shares / media_shares.sum())
    duration = np.exp(rng.normal(c.log_duration_mean, c.log_duration_sd, items))
    length = duration.copy()
    for code, name in enumerate(config.media_types):
        if name in c.reading_times:
            duration[media == code] = np.nan
            length[media == code] = c.reading_times[name]
    quality = author_quality[author] + rng.normal(0, c.item_quality, items)
    is_second = rng.random(items) < c.second_topic_share
    return Catalogue(
        topic_popularity=topic_popularity,
        popular_authors=sampling_table(popularity, POPULARITY_TABLE_SIZE),
        topic_authors=_authors_by_topic(first_topic, popularity, c.topics),
        author_quality=author_quality.astype(np.float32),
        author_items=offsets,
        item_author=author.astype(np.int32),
        item_topic=np.where(is_second, second_topic[author], first_topic[author]).astype(np.int32),
        item_media=media.astype(np.int8),
        item_quality=quality.astype(np.float32),
        content_score=(quality + rng.normal(0, c.content_noise, items)).astype(np.float32),
        item_duration=duration.astype(np.float32),
        item_log_length=np.log(length).astype(np.float32),
        item_published=published.astype(np.int64),
    )


def _authors_by_topic(
    first_topic: NDArray[np.int64], popularity: NDArray[np.float64], topics: int
) -> NDArray[np.int32]:
    tables = []
    for topic in range(topics):
        authors = np.flatnonzero(first_topic == topic)
        shares = popularity[authors] / popularity[authors].sum()
        tables.append(authors[sampling_table(shares, TOPIC_TABLE_SIZE)])
    return np.stack(tables).astype(np.int32)
