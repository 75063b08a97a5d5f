"""Building on GPUs, as far as a CPU can show: the copies to the GPUs are the indexes themselves."""

from __future__ import annotations

import faiss
import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ConfigError
from recsys.index.faiss import gpus
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import IndexConfig

ITEMS, WIDTH = 2000, 16


def built(kind: str, device: str) -> tuple[ItemIndex, np.ndarray]:
    rows = np.random.default_rng(0).standard_normal((ITEMS, WIDTH)).astype(np.float32)
    items = pl.DataFrame({"post_id": range(ITEMS)})
    return ItemIndex.build(items, rows, "a" * 64, IndexConfig(kind=kind), device)[0], rows


def test_gpus_that_are_not_there_are_a_sentence_with_the_versions_that_fit() -> None:
    if faiss.get_num_gpus():
        pytest.skip("this FAISS has GPUs")
    assert not gpus.uses_gpus("auto") and not gpus.uses_gpus("cpu")
    with pytest.raises(ConfigError, match=r"faiss-cpu .* faiss-gpu 1\.15\.1 .* none for CUDA 13"):
        built("flat", "gpu")


@pytest.mark.parametrize("kind", ["flat", "ivf_pq", "hnsw"])
def test_an_index_is_what_it_is_without_gpus(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[tuple[int, int]] = []

    def stay(index: faiss.Index) -> faiss.Index:
        copied.append((index.ntotal, index.d))
        return index

    plain, rows = built(kind, "cpu")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(gpus, "on_gpus", stay)
    monkeypatch.setattr(gpus, "_ITEMS_PER_STEP", 300)  # and a last step of 200
    other, _ = built(kind, "gpu")
    lists = plain.manifest.config.lists
    assert copied == ([(0, WIDTH), (lists, WIDTH)] if kind == "ivf_pq" else [])
    assert type(other.index) is type(plain.index) and other.index.ntotal == ITEMS
    ours, theirs = (index.search(rows[::40], k=10) for index in (other, plain))
    np.testing.assert_array_equal(ours.slot, theirs.slot)
    np.testing.assert_allclose(ours.score, theirs.score, atol=1e-6)
