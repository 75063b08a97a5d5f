"""The side of RePlay in `recsys bench sequence`; it runs in an environment of its own.

`python _replay_side.py <arguments as JSON>` prints the moments at which training steps ended. The
model and its batches are those of `recsys bench own_log`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch

from benchmarks._peers.sasrec_by_replay import fit


class _Clock(lightning.Callback):
    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.moments.append(time.perf_counter())


def _write_training_sequences(arrays: dict[str, np.ndarray], path: Path) -> None:
    """A row a user: the sequence without the last two items; items count from 0, not from 1."""
    sequences = np.split(arrays["item"].astype(np.int64), arrays["offsets"][1:-1])
    rows = [sequence[:-2] - 1 for sequence in sequences if len(sequence) > 2]
    pd.DataFrame({"user_id": range(len(rows)), "item_id": rows}).to_parquet(path)


def _moments(arguments: dict[str, Any]) -> list[float]:
    sequences = Path(arguments["sequences"])
    arrays = dict(np.load(sequences))
    path = sequences.with_name("train.parquet")
    _write_training_sequences(arrays, path)
    clock = _Clock()
    fit(
        str(path),
        int(arrays["item"].max()),
        arguments,
        max_steps=arguments["steps"],
        callbacks=[clock],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return clock.moments


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    lightning.seed_everything(0, verbose=False)
    print(json.dumps(_moments(given)))
