"""Embeddings of simulated items: what they share, and that the log does not depend on them."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.core.errors import ConfigError
from recsys.data.content.item_embeddings import ITEM_EMBEDDINGS_FILE, ItemEmbeddings
from recsys.data.simulator import simulate
from recsys.data.simulator.config import ItemEmbeddingConfig
from recsys.data.simulator.embeddings import make_embeddings
from recsys.data.stores.vocabulary import Vocabulary


def with_embeddings(config, **settings):
    return dataclasses.replace(config, post_embedding=ItemEmbeddingConfig(**settings))


def test_cosines_are_those_of_what_items_share(small_config, catalogue):
    settings = {"width": 256, "topic": 1.0, "author": 0.7, "noise": 1.0}
    embeddings = make_embeddings(with_embeddings(small_config, **settings), catalogue)
    assert embeddings.shape == (len(catalogue.item_topic), 256)
    assert embeddings.dtype == np.float32
    total = 1.0 + 0.49 + 1.0
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    assert (lengths**2).mean() == pytest.approx(total, rel=0.05)
    unit = embeddings / lengths[:, None]
    first, second = np.random.default_rng(0).integers(0, len(unit), (2, 200_000))
    pairs = first != second
    first, second = first[pairs], second[pairs]
    cosine = (unit[first] * unit[second]).sum(axis=1)
    topic = catalogue.item_topic[first] == catalogue.item_topic[second]
    author = catalogue.item_author[first] == catalogue.item_author[second]
    assert cosine[topic & ~author].mean() == pytest.approx(1 / total, abs=0.03)
    assert cosine[author & topic].mean() == pytest.approx(1.49 / total, abs=0.03)
    assert cosine[~author & ~topic].mean() == pytest.approx(0, abs=0.03)


def test_the_log_is_the_same_with_and_without(small_config, tmp_path):
    quick = dataclasses.replace(small_config, users=70)
    simulate(quick, tmp_path / "without")
    simulate(with_embeddings(quick, width=8), tmp_path / "with")
    for name in ("log", "requests"):
        one, two = (pl.read_parquet(tmp_path / p / name / "*.parquet") for p in ("without", "with"))
        assert_frame_equal(one, two)
    for name in ("items.parquet", "users.parquet"):
        one, two = ((tmp_path / p / name).read_bytes() for p in ("without", "with"))
        assert one == two
    assert not (tmp_path / "without" / ITEM_EMBEDDINGS_FILE).exists()
    # without a width, those of an earlier simulation go
    simulate(quick, tmp_path / "with")
    assert not (tmp_path / "with" / ITEM_EMBEDDINGS_FILE).exists()


def test_every_item_of_the_log_has_one_and_the_seed_decides(small_config, tmp_path):
    config = with_embeddings(dataclasses.replace(small_config, users=64), width=8)
    simulate(config, tmp_path)
    ids = pl.read_parquet(tmp_path / "items.parquet")["item_id"]
    seen = pl.DataFrame({"raw": ids, "first_seen": 0})
    items = ItemEmbeddings.load(tmp_path, Vocabulary.build(seen))
    assert items.known[1:].all() and items.width == 8
    before = (tmp_path / ITEM_EMBEDDINGS_FILE).read_bytes()
    simulate(config, tmp_path)
    assert (tmp_path / ITEM_EMBEDDINGS_FILE).read_bytes() == before
    simulate(dataclasses.replace(config, seed=config.seed + 1), tmp_path)
    assert (tmp_path / ITEM_EMBEDDINGS_FILE).read_bytes() != before


def test_a_negative_width_is_refused(small_config):
    with pytest.raises(ConfigError, match="width is -1, it must be"):
        with_embeddings(small_config, width=-1)
