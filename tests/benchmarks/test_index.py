"""The benchmark of indexes on a small corpus: its figures follow from what it measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.index import Config, globo, run
from recsys.index.faiss.kinds import IndexKind


def test_figures_of_a_small_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSYS_DATA_DIR", raising=False)
    config = Config(posts=2_000, width=16, clusters=20, users=50, repeats=1)
    result = run(config)
    figures = result["simulated"]
    assert set(result) == {"config", "cores", "simulated"}
    flat = figures[IndexKind.FLAT]
    assert flat["hits@10_kept"] == flat["speed_against_flat"] == flat["overlap@10"] == 1
    assert 0 < flat["hits@10"] < flat["hits@100"] <= 1
    assert 64 <= flat["bytes_per_item"] < 80 < figures[IndexKind.HNSW]["bytes_per_item"]
    assert figures[IndexKind.IVF_PQ]["overlap@100"] > 0.5
    for kind in IndexKind:
        one = figures[kind]
        assert one["hits@10_kept"] == pytest.approx(one["hits@10"] / flat["hits@10"])


def test_users_of_globo_are_the_mean_of_what_they_clicked_before_the_target(data_dir: Path) -> None:
    corpus = globo(data_dir / "globo", Config(users=20))
    assert len(corpus.users) == 20 and corpus.embedding.shape == (4_097, 250)
    for user, target, seen in zip(corpus.users, corpus.targets, corpus.seen, strict=True):
        assert target not in seen and len(seen) > 0
        assert 0 < np.linalg.norm(user) <= 1 + 1e-5
