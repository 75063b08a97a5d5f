"""How processes of this machine are started that begin with nothing of the one that starts them."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.context import ForkServerContext, SpawnContext


def process_context(*preloaded: str) -> ForkServerContext | SpawnContext:
    """Of ``forkserver``, or of ``spawn`` where torch is a CUDA build.

    A server of forks imports once what takes seconds, and every process that is started later has
    it. What it imports may look at the GPUs, and CUDA does not work in forks of a process that has
    looked.

    Args:
        preloaded: packages that the processes need; the first call decides.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda is not None:
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload(list(preloaded))
    return multiprocessing.get_context("forkserver")
