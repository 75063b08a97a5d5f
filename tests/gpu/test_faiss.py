"""An index that is learned and filled on a GPU finds what one of the CPU does."""

from __future__ import annotations

import faiss
import numpy as np
import polars as pl
import pytest

from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import IndexConfig

pytestmark = pytest.mark.gpu


@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="needs the extra gpu-index and a GPU")
def test_a_gpu_s_lists_are_as_good_as_the_cpu_s() -> None:
    rows = np.random.default_rng(0).standard_normal((200_000, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    items = pl.DataFrame({"post_id": range(len(rows))})
    config = IndexConfig(kind="ivf_pq")
    queries = rows[::1000]
    exact = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
    recall = {}
    for device in ("cpu", "gpu"):
        index, _ = ItemIndex.build(items, rows, "a" * 64, config, device)
        found = index.search(queries, k=10).slot
        hits = [len(set(one) & set(best)) for one, best in zip(found, exact, strict=True)]
        recall[device] = np.mean(hits) / 10
    assert recall["gpu"] > recall["cpu"] - 0.02
