"""What approximate indexes of items keep of the exact search, and what they save.

Two corpora. Globo's articles (where RECSYS_DATA_DIR has them): a user is the mean of the
embeddings of all his clicks but the last, the target is the last, what he clicked before is left
out. And a simulated one of a million items in clusters of very unequal size: a user is the
embedding of his target, disturbed so far that the exact search finds it among the best 100 for
part of the users only.

All kinds of one corpus are searched in turns for the same users; flat looks at every item exactly
and is what the others are held against. A speed is the median over the turns.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import faiss
import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.table import Table

from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.data.content.item_embeddings import read_embeddings
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import IndexConfig, IndexKind
from recsys.index.faiss.search import NONE

DESCRIPTION = "Hits@K kept and queries per second of flat and approximate indexes of items"

K = (10, 100)

Figures = dict[IndexKind, dict[str, float]]


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        posts: items of the simulated corpus; 0 leaves it out.
        width: of their embeddings.
        clusters: their clusters, whose sizes follow Zipf's law.
        cluster_noise: length of what is added to a unit cluster centre, on average.
        query_noise: length of what is added to a unit target, on average.
        users: users searched for, of either corpus.
        kinds: of indexes beside flat.
        repeats: turns over all kinds.
        threads: of FAISS.
    """

    posts: int = 1_000_000
    width: int = 64
    clusters: int = 2_000
    cluster_noise: float = 0.7
    query_noise: float = 1.5
    users: int = 1_000
    kinds: list[str] = field(
        default_factory=lambda: [kind.value for kind in IndexKind if kind != IndexKind.FLAT]
    )
    repeats: int = 3
    threads: int = 1


@dataclass(frozen=True, eq=False)
class Corpus:
    """Items, users and their targets.

    Attributes:
        name: of the corpus.
        ids: [P] raw ids.
        embedding: [P, W].
        users: [Q, W].
        targets: [Q] raw ids.
        seen: per user the raw ids that are left out.
    """

    name: str
    ids: pl.Series
    embedding: NDArray[np.float32]
    users: NDArray[np.float32]
    targets: NDArray[np.int64]
    seen: list[NDArray[np.int64]]


def run(config: Config) -> dict[str, object]:
    """Measure, print a table per corpus, and return the figures."""
    faiss.omp_set_num_threads(config.threads)
    result: dict[str, object] = {"config": asdict(config), "cores": os.cpu_count()}
    corpora = []
    if (folder := _globo_folder()) is not None:
        corpora.append(globo(folder, config))
    else:
        output_console().print("RECSYS_DATA_DIR has no globo/: its articles are left out.")
    if config.posts:
        corpora.append(simulated(config))
    for corpus in corpora:
        figures = _measure(corpus, config)
        _print(corpus, figures)
        sizes: dict[str, object] = {"posts": len(corpus.ids), "users": len(corpus.users)}
        result[corpus.name] = sizes | {kind.value: one for kind, one in figures.items()}
    return result


def globo(folder: Path, config: Config) -> Corpus:
    """Articles, and users of at least two clicks on different articles, drawn evenly."""
    ids, rows = read_embeddings(folder / "article_embeddings.npz")
    embedding = rows.astype(np.float32)
    clicks = _clicks(folder)
    position = pl.DataFrame({"article": ids, "position": np.arange(len(ids))})
    histories = (
        clicks.join(position, on="article", maintain_order="left")
        .group_by("user", maintain_order=True)
        .agg("article", "position")
        .filter(pl.col("article").list.n_unique() >= 2)
    )
    drawn = histories.sample(min(config.users, len(histories)), seed=0)
    users, targets, seen = [], [], []
    for articles, positions in drawn.select("article", "position").iter_rows():
        users.append(_unit(embedding[positions[:-1]]).mean(axis=0))
        targets.append(articles[-1])
        seen.append(np.array(sorted(set(articles[:-1]) - {articles[-1]}), np.int64))
    return Corpus("globo", ids, embedding, np.array(users), np.array(targets), seen)


def simulated(config: Config) -> Corpus:
    """Items around cluster centres, and users around items."""
    random = np.random.default_rng(0)
    scale = 1 / np.sqrt(config.width)
    shape = (config.clusters, config.width)
    centres = _unit(random.standard_normal(shape, np.float32))
    shares = 1 / np.arange(1, config.clusters + 1)
    cluster = random.choice(config.clusters, config.posts, p=shares / shares.sum())
    noise = random.standard_normal((config.posts, config.width), np.float32)
    embedding = _unit(centres[cluster] + config.cluster_noise * scale * noise)
    targets = random.choice(config.posts, config.users, replace=False)
    noise = random.standard_normal((config.users, config.width), np.float32)
    users = embedding[targets] + config.query_noise * scale * noise
    nothing = [np.empty(0, np.int64)] * config.users
    return Corpus(
        "simulated", pl.Series(np.arange(config.posts)), embedding, users, targets, nothing
    )


def _measure(corpus: Corpus, config: Config) -> Figures:
    indexes: dict[IndexKind, ItemIndex] = {}
    figures: Figures = {}
    kinds = [IndexKind.FLAT, *(IndexKind(kind) for kind in config.kinds)]
    for kind in track(kinds, f"Building indexes of {corpus.name}"):
        start = time.perf_counter()
        items = pl.DataFrame({"post_id": corpus.ids})
        index, _ = ItemIndex.build(items, corpus.embedding, "", IndexConfig(kind=kind.value))
        figures[kind] = {"build_seconds": time.perf_counter() - start}
        figures[kind]["bytes_per_item"] = len(faiss.serialize_index(index.index)) / len(index)
        indexes[kind] = index
    seconds: dict[IndexKind, list[float]] = {kind: [] for kind in indexes}
    found: dict[IndexKind, NDArray[np.int64]] = {}
    excluded = {
        kind: [index.slots(pl.Series(ids, dtype=pl.Int64)) for ids in corpus.seen]
        for kind, index in indexes.items()
    }
    for _ in track(range(config.repeats), f"Searching {corpus.name}"):
        for kind, index in indexes.items():
            start = time.perf_counter()
            slots = index.search(corpus.users, max(K), exclude=excluded[kind]).slot
            seconds[kind].append(time.perf_counter() - start)
            found[kind] = _ids(index, slots)
    flat = found[IndexKind.FLAT]
    flat_speed = len(corpus.users) / statistics.median(seconds[IndexKind.FLAT])
    for kind, ids in found.items():
        speed = len(corpus.users) / statistics.median(seconds[kind])
        measured = figures[kind] | {
            "queries_per_second": speed,
            "speed_against_flat": speed / flat_speed,
        }
        for k in K:
            hits = float((ids[:, :k] == corpus.targets[:, None]).any(axis=1).mean())
            exact = float((flat[:, :k] == corpus.targets[:, None]).any(axis=1).mean())
            common = [
                len(np.intersect1d(a, b)) for a, b in zip(ids[:, :k], flat[:, :k], strict=True)
            ]
            measured |= {
                f"hits@{k}": hits,
                f"hits@{k}_kept": hits / exact if exact else float("nan"),
                f"overlap@{k}": float(np.mean(common)) / k,
            }
        figures[kind] = measured
    return figures


def _ids(index: ItemIndex, slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Raw ids of slots, −1 where there is none."""
    ids = np.full(slots.shape, NONE, np.int64)
    there = slots != NONE
    ids[there] = index.at(slots[there])["post_id"].to_numpy()
    return ids


def _clicks(folder: Path) -> pl.DataFrame:
    """``user`` and ``article`` of every click, in order of time."""
    path = folder / "clicks_with_embeddings.parquet"
    columns = {"user_id": "user", "article_id": "article", "timestamp_ms": "time"}
    clicks = pl.read_parquet(path, columns=list(columns)).rename(columns)
    return clicks.sort("time", maintain_order=True)


def _globo_folder() -> Path | None:
    data_dir = os.environ.get("RECSYS_DATA_DIR")
    folder = Path(data_dir) / "globo" if data_dir else None
    return folder if folder is not None and folder.is_dir() else None


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit


def _print(corpus: Corpus, figures: Figures) -> None:
    names = list(figures[IndexKind.FLAT])
    items, width = corpus.embedding.shape
    title = f"{corpus.name}: {items:,} items of width {width}, {len(corpus.users):,} users"
    table = Table("", *figures, title=title)
    for name in names:
        table.add_row(name, *(f"{figures[kind][name]:,.3f}" for kind in figures))
    output_console().print(table)
