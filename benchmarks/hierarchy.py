"""Latency of a descent on one core, beside its matrix products alone and beside FAISS.

Items are simulated, in clusters of very unequal size, and lie in nodes by k-means; networks are as
they start: what a query takes does not depend on their weights. What is counted of candidates is
handed in. The limit of a descent are the products of its networks for exactly the nodes and items
that it scores, none filled up. FAISS searches the same embeddings of items, with the settings that
`recsys index build` gives an index of so many (IVF those of IVF-PQ): it finds the nearest by a
product and not the best by a network, so the two are compared in time here, and in hits only where
models are trained. All sides are measured in turn, one query each; seconds are those of the
processor.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from benchmarks._demo import prepare_demo
from benchmarks._hierarchy_corpus import Corpus, open_tower
from benchmarks._products import timed
from recsys.core.bounds import Count
from recsys.core.console import output_console
from recsys.core.progress import track
from recsys.core.threads import one_thread
from recsys.index.faiss.kinds import IndexConfig, IndexKind

DESCRIPTION = "latency of descents of a tree, beside their matrix products and FAISS"

#: What a query of ten times the items is to take at most, times that of the items.
AIM = 2.0

IVF, IVF_PQ, HNSW = PEERS = ("ivf", "ivf_pq", "hnsw")

Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        items: of each corpus.
        clusters: of the items' embeddings.
        codes: of the first level, and of each below it.
        node_items: levels are added until a node has so many items on average.
        size: of the items' network, by its name in ``model.net.sizes``.
        node_size: of the nodes' networks.
        beams: nodes of each level that are kept; peers are held against the first.
        k: items that a query asks for.
        peers: indexes of FAISS.
        rounds: how often each side is measured, in turn.
        users: of the demo's log, of which a request is taken.
        snapshots: how often a generation is written and opened.
    """

    items: list[Count] = field(default_factory=lambda: [100_000])
    clusters: Count = 2_000
    codes: list[Count] = field(default_factory=lambda: [64, 32])
    node_items: Count = 64
    size: str = "S"
    node_size: str = "M"
    beams: list[Count] = field(default_factory=lambda: [8, 1, 32])
    k: Count = 100
    peers: list[str] = field(default_factory=lambda: list(PEERS))
    rounds: Count = 30
    users: Count = 100
    snapshots: Count = 3


def run(config: Config) -> dict[str, object]:
    """Measure, print tables, and return the figures."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, one_thread(), torch.no_grad():
            return _measured(config, Path(folder))
    finally:
        faiss.omp_set_num_threads(threads)


def _measured(config: Config, folder: Path) -> dict[str, object]:
    out = prepare_demo(config.users, folder).data.out_folder
    settings = [
        "experiment=hsnn_demo",
        f"data.path={folder / 'log'}",
        f"data.out={out}",
        f"model.net.size={config.size}",
    ]
    sides: dict[str, Callable[[], object]] = {}
    corpora: dict[int, dict[str, Any]] = {}
    for items in track(config.items, "Building trees and indexes"):
        levels = ",".join(
            f"{{codes:{one},size:{config.node_size}}}" for one in _codes(config, items)
        )
        sizes = [*settings, f"model.net.levels=[{levels}]"]
        corpus = Corpus(sizes, items, config.clusters, config.rounds)
        corpora[items] = _generation(config, corpus, folder / f"{items}.pt")
        corpora[items] |= {"beams": {}, "peers": {}}
        _add_descents(config, corpus, folder / f"{items}.pt", sides, corpora[items])
        _add_peers(config, corpus, sides, corpora[items])
    seconds: Seconds = {name: [] for name in sides}
    for number in track(range(config.rounds + 1), "Searching"):
        for name, search in sides.items():
            spent, _ = timed(search)
            if number:  # the first time is to warm up
                seconds[name].append(spent)
    for items, corpus_figures in corpora.items():
        _add_times(config, items, corpus_figures, seconds)
    growth = _growth(config, seconds)
    _print(config, corpora, growth)
    figures = {"load": os.getloadavg()[0], "corpora": corpora, "growth": growth}
    return {"config": asdict(config)} | figures


def _codes(config: Config, items: int) -> list[int]:
    first, below = config.codes[0], config.codes[-1]
    codes = [min(first, items)]
    while items / np.prod(codes) > config.node_items:
        codes.append(min(below, items))
    return codes


def _generation(config: Config, corpus: Corpus, path: Path) -> dict[str, Any]:
    """What is kept per item, and how long a generation takes to be written and to be opened."""
    times: dict[str, list[float]] = {"snapshot": [], "swap": []}
    for _ in range(config.snapshots):
        times["snapshot"].append(timed(lambda: corpus.write(path))[1])
        times["swap"].append(timed(lambda: open_tower(path))[1])
    return {
        "codes": corpus.codes,
        "nodes": [len(one) for one in corpus.placed.tree.codes],
        "bytes_per_item": corpus.bytes_per_item,
        "file_bytes": path.stat().st_size,
        "wall_seconds": {name: float(np.median(one)) for name, one in times.items()},
    }


def _add_descents(
    config: Config,
    corpus: Corpus,
    path: Path,
    sides: dict[str, Callable[[], object]],
    figures: dict[str, Any],
) -> None:
    tower, items = open_tower(path), len(corpus.embeddings)
    for beam in config.beams:
        products, scored = corpus.products(beam, config.k)
        sides[_side(items, f"beam_{beam}")] = lambda beam=beam: corpus.query(  # type: ignore[misc]
            tower, beam, config.k
        )
        sides[_side(items, f"products_{beam}")] = products.again
        figures["beams"][beam] = {
            "scored": scored.tolist(),
            "share_scored": float(scored.sum() / items),
            "operations": products.operations,
        }


def _add_peers(
    config: Config, corpus: Corpus, sides: dict[str, Callable[[], object]], figures: dict[str, Any]
) -> None:
    embeddings = corpus.embeddings
    for name in config.peers:
        found: list[faiss.Index] = []
        build = timed(lambda name=name, found=found: found.append(_index(name, embeddings)))  # type: ignore[misc]
        [one] = found
        queries = iter(np.resize(np.arange(len(corpus.users)), config.rounds + 1).tolist())
        sides[_side(len(embeddings), name)] = lambda one=one, queries=queries: one.search(  # type: ignore[misc]
            corpus.users[[next(queries)]], config.k
        )
        figures["peers"][name] = {
            "build_seconds": build[0],
            "bytes_per_item": len(faiss.serialize_index(one)) / len(embeddings),
        }


def _index(name: str, embeddings: NDArray[np.float32]) -> faiss.Index:
    """An index of FAISS with the project's settings for so many items."""
    items, width = embeddings.shape
    kind = IndexKind.HNSW if name == HNSW else IndexKind.IVF_PQ
    sizes = IndexConfig(kind=kind.value).resolve(items, width)
    described = {
        IVF: f"IVF{sizes.lists},Flat",
        IVF_PQ: f"IVF{sizes.lists},PQ{sizes.code_bytes}",
        HNSW: f"HNSW{sizes.neighbours},Flat",
    }[name]
    index = faiss.index_factory(width, described, faiss.METRIC_INNER_PRODUCT)
    if name == HNSW:
        index.hnsw.efConstruction = sizes.construction_candidates
        index.hnsw.efSearch = sizes.search_candidates
    else:
        index.nprobe = sizes.probes
    index.train(embeddings)
    index.add(embeddings)
    return index


def _side(items: int, name: str) -> str:
    return f"{items}/{name}"


def _add_times(config: Config, items: int, figures: dict[str, Any], seconds: Seconds) -> None:
    """Medians, and ratios within a round with their spread."""
    of = {name: np.array(seconds[_side(items, name)]) for name in _names(config)}
    for beam, one in figures["beams"].items():
        query = of[f"beam_{beam}"]
        one["cpu_ms"] = float(np.median(query) * 1e3)
        one["queries_per_second"] = float(1 / np.median(query))
        one["products_cpu_ms"] = float(np.median(of[f"products_{beam}"]) * 1e3)
        one["over_products"] = _spread(query / of[f"products_{beam}"])
    first = of[f"beam_{config.beams[0]}"]
    for name, one in figures["peers"].items():
        one["cpu_ms"] = float(np.median(of[name]) * 1e3)
        one["descent_over_peer"] = _spread(first / of[name])


def _names(config: Config) -> list[str]:
    beams = [f"{part}_{beam}" for beam in config.beams for part in ("beam", "products")]
    return [*beams, *config.peers]


def _growth(config: Config, seconds: Seconds) -> dict[str, list[float]]:
    """What a query of the largest corpus takes over one of the smallest, by beam."""
    small, large = min(config.items), max(config.items)
    if small == large:
        return {}
    return {
        f"beam_{beam}": _spread(
            np.array(seconds[_side(large, f"beam_{beam}")])
            / np.array(seconds[_side(small, f"beam_{beam}")])
        )
        for beam in config.beams
    }


def _spread(ratios: NDArray[np.float64]) -> list[float]:
    """The median, and from where to where eight of ten lie."""
    found: list[float] = np.quantile(ratios, [0.5, 0.1, 0.9]).tolist()
    return found


def _print(
    config: Config, corpora: dict[int, dict[str, Any]], growth: dict[str, list[float]]
) -> None:
    console = output_console()
    for items, figures in corpora.items():
        nodes = " and ".join(f"{one:,}" for one in figures["nodes"])
        title = f"{items:,} items below {nodes} nodes, one core; load {os.getloadavg()[0]:.1f}"
        table = Table(
            *("beam", "scored", "%", "ms", "queries/s", "products, ms", "ratio"), title=title
        )
        for beam, one in figures["beams"].items():
            table.add_row(
                f"{beam}",
                " + ".join(f"{number:,}" for number in one["scored"]),
                f"{100 * one['share_scored']:.2f}",
                f"{one['cpu_ms']:.2f}",
                f"{one['queries_per_second']:,.0f}",
                f"{one['products_cpu_ms']:.2f}",
                _shown(one["over_products"]),
            )
        console.print(table)
        peers = Table("", "ms", f"beam {config.beams[0]} over it", "bytes an item", "build, s")
        wall = figures["wall_seconds"]
        peers.add_row("tree", "", "", f"{figures['bytes_per_item']:,.0f}", "")
        for name, one in figures["peers"].items():
            peers.add_row(
                name,
                f"{one['cpu_ms']:.2f}",
                _shown(one["descent_over_peer"]),
                f"{one['bytes_per_item']:,.0f}",
                f"{one['build_seconds']:,.0f}",
            )
        console.print(peers)
        console.print(
            f"A generation of {figures['file_bytes'] / 2**20:,.0f} MiB is written in "
            f"{wall['snapshot']:.2f} s and opened in {wall['swap']:.2f} s."
        )
    for name, one in growth.items():
        console.print(
            f"{name}: {max(config.items):,} items take {_shown(one)} times what "
            f"{min(config.items):,} take; aim: {AIM:g}."
        )


def _shown(spread: list[float]) -> str:
    middle, low, high = spread
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"
