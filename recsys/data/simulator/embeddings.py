"""What a content model would say about the simulated items: one embedding per item."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.data.content.item_embeddings import write_item_embeddings
from recsys.data.simulator.catalogue import Catalogue
from recsys.data.simulator.config import SimulatorConfig

Floats = NDArray[np.float32]

#: A stream of its own below the catalogue's, so that the log is the same with and without.
_STREAM = (0, 1)


def make_embeddings(config: SimulatorConfig, catalogue: Catalogue) -> Floats:
    """Topic, author and something of the item's own, [items, W].

    With z ~ N(0, I/W) for every topic k, author a and item i,

        e_i = topic · z_{k(i)} + author · z_{a(i)} + noise · z_i,

    so that two items of a topic have a cosine of about topic² / (topic² + author² + noise²).
    """
    c = config.post_embedding
    seed = np.random.SeedSequence(config.seed, spawn_key=_STREAM)
    rng = np.random.Generator(np.random.SFC64(seed))

    def draw(count: int) -> Floats:
        return rng.standard_normal((count, c.width), np.float32) / np.float32(np.sqrt(c.width))

    topics = np.float32(c.topic) * draw(config.catalogue.topics)
    authors = np.float32(c.author) * draw(config.catalogue.authors)
    own = np.float32(c.noise) * draw(len(catalogue.item_topic))
    return topics[catalogue.item_topic] + authors[catalogue.item_author] + own


def write_embeddings(
    config: SimulatorConfig,
    catalogue: Catalogue,
    path: Path,
    items: NDArray[np.int64] | None = None,
) -> None:
    """Write ``post_embeddings.parquet``; where no width is given, remove an earlier one.

    Args:
        config: the simulator's configuration.
        catalogue: with the items.
        path: the file.
        items: whose embeddings are written; None for all.
    """
    path.unlink(missing_ok=True)
    if config.post_embedding.width:
        ids = np.arange(len(catalogue.item_topic)) if items is None else items
        write_item_embeddings(path, ids, make_embeddings(config, catalogue)[ids])
