"""The benchmark of descents on small corpora: its figures follow from what it measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks._hierarchy_corpus import Corpus, Networks
from benchmarks.hierarchy import Config, run
from recsys.index.hierarchy.descent import Allowed, descend


@pytest.fixture
def corpora(monkeypatch: pytest.MonkeyPatch) -> list[Corpus]:
    """What a run has made."""
    made: list[Corpus] = []
    begin = Corpus.__init__

    def noted(self: Corpus, *arguments: object) -> None:
        begin(self, *arguments)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(Corpus, "__init__", noted)
    return made


def test_figures_of_small_corpora(corpora: list[Corpus]) -> None:
    config = Config(
        items=[300, 900],
        clusters=20,
        codes=[6, 4],
        node_items=20,
        node_size="XS",
        beams=[1, 200],
        k=10,
        peers=["hnsw"],
        rounds=2,
        users=12,
        snapshots=1,
    )
    figures = run(config)
    assert set(figures["growth"]) == {"beam_1", "beam_200"}  # type: ignore[call-overload]
    for items, corpus in zip(config.items, corpora, strict=True):
        one = figures["corpora"][items]  # type: ignore[index]
        assert one["codes"] == [6, 4, 4][: len(one["codes"])]
        assert items / np.prod(one["codes"]) <= 20 < items / np.prod(one["codes"][:-1])
        narrow, wide = one["beams"][1], one["beams"][200]
        assert wide["scored"] == [*one["nodes"], items]
        assert sum(narrow["scored"]) / items == narrow["share_scored"] < wide["share_scored"]
        assert 0 < narrow["operations"] < wide["operations"]
        # an embedding of 40 numbers, where it lies, and its node of each level; more for the nodes
        assert one["bytes_per_item"] > 4 * 40 + 8 + 8 * len(one["nodes"])
        assert one["peers"]["hnsw"]["bytes_per_item"] > 4 * 40
        with torch.no_grad():
            assert _best(corpus) == set(corpus.query(corpus.tower, 200, 10).tolist())


def _best(corpus: Corpus) -> set[int]:
    """Of all items, by the networks on exactly as many rows."""
    reached = descend(corpus.placed.tree, 1, Networks(corpus), None, 1, Allowed())
    return set(reached.item[:10].tolist())
