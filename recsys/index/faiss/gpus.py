"""Learning centroids and sorting items into lists on GPUs, where FAISS has them.

What comes out is an index of the CPU, as without: searching stays there, where the score of an item
does not depend on who is searched for beside a user, as products of matrices on a GPU do.
"""

from __future__ import annotations

from importlib import metadata

import faiss
import numpy as np
from faiss.contrib.ivf_tools import add_preassigned
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.core.installation import FAISS_GPU, extra_command

AUTO, CPU, GPU = "auto", "cpu", "gpu"
DEVICES = (AUTO, CPU, GPU)

#: Items that are sorted into lists at a time.
_ITEMS_PER_STEP = 1_000_000


def uses_gpus(device: str) -> bool:
    """Whether an index is built on GPUs; ``auto`` takes them where they are.

    Raises:
        ConfigError: GPUs are asked for, and this FAISS has none.
    """
    if device == CPU:
        return False
    found = faiss.get_num_gpus()
    if device == GPU and found == 0:
        raise ConfigError(
            f"device=gpu, but {_distribution()} {faiss.__version__} has no GPU here. It takes a "
            f"GPU, its driver, and {FAISS_GPU} 1.15.1 in the place of faiss-cpu, which brings the "
            f"libraries of CUDA 12.6 or later ({extra_command('gpu-index')}; older ones are called "
            "faiss-gpu-cu12). There is none for CUDA 13, for which torch 2.13 is built: build the "
            "index in an environment of its own (docs/gpu.md), or with device=cpu."
        )
    return bool(found)


def on_gpus(index: faiss.Index) -> faiss.Index:
    """A flat index, copied to every GPU."""
    return faiss.index_cpu_to_all_gpus(index)


def train(index: faiss.IndexIVF, embeddings: NDArray[np.float32]) -> None:
    """Have the lists' centroids found on GPUs.

    Args:
        index: not trained.
        embeddings: [P, W] normalised.
    """
    index.clustering_index = on_gpus(faiss.IndexFlatIP(index.d))
    index.train(embeddings)
    index.clustering_index = None


def add(index: faiss.IndexIVF, embeddings: NDArray[np.float32], slots: NDArray[np.int64]) -> None:
    """Add items whose lists are found on GPUs.

    Args:
        index: trained.
        embeddings: [P, W] normalised.
        slots: [P] their numbers in the index.
    """
    centroids = on_gpus(faiss.downcast_index(index.quantizer))
    for start in range(0, len(embeddings), _ITEMS_PER_STEP):
        step = slice(start, start + _ITEMS_PER_STEP)
        _, lists = centroids.search(embeddings[step], 1)
        add_preassigned(index, embeddings[step], lists.ravel(), slots[step])


def _distribution() -> str:
    """The distribution that FAISS comes from."""
    return next(iter(metadata.packages_distributions().get("faiss", ["FAISS"])))
