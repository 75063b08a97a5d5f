"""The side of RecTools in `recsys bench sequence`; it runs in an environment of its own.

`python _rectools_side.py speed <arguments as JSON>` prints the moments at which training steps
ended; `quality` trains for some epochs and prints Hits@10 and NDCG@10 of the last items.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet


class _Clock(pl.Callback):
    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.moments.append(time.perf_counter())


def _dataset(path: str, left_out: int) -> Dataset:
    """The sequences without the last ``left_out`` items of every user."""
    arrays = np.load(path)
    offsets = arrays["offsets"]
    lengths = np.diff(offsets)
    user = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(len(user)) - offsets[user]
    kept = step < lengths[user] - left_out
    frame = pd.DataFrame(
        {
            Columns.User: user[kept],
            Columns.Item: arrays["item"][kept],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp(0) + pd.to_timedelta(step[kept], unit="s"),
        }
    )
    return Dataset.construct(frame)


def _model(arguments: dict[str, Any], trainer: dict[str, Any]) -> SASRecModel:
    def get_trainer() -> pl.Trainer:
        return pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **trainer,
        )

    return SASRecModel(
        n_factors=arguments["width"],
        n_blocks=arguments["blocks"],
        n_heads=arguments["heads"],
        dropout_rate=arguments["dropout"],
        session_max_len=arguments["max_length"],
        batch_size=arguments["batch_size"],
        loss=arguments["loss"],
        n_negatives=arguments["negatives"],
        lr=arguments["learning_rate"],
        dataloader_num_workers=0,
        item_net_block_types=(IdEmbeddingsItemNet,),
        get_trainer_func=get_trainer,
    )


def _speed(arguments: dict[str, Any]) -> list[float]:
    model = _model(arguments, {"max_steps": arguments["steps"], "callbacks": [_Clock()]})
    model.fit(_dataset(arguments["sequences"], left_out=2))
    # RecTools trains with a copy of the trainer, so with a copy of the clock
    [clock] = [one for one in model.fit_trainer.callbacks if isinstance(one, _Clock)]
    return clock.moments


def _quality(arguments: dict[str, Any]) -> dict[str, float]:
    model = _model(arguments, {"max_epochs": arguments["epochs"]})
    model.fit(_dataset(arguments["sequences"], left_out=2))
    arrays = np.load(arguments["sequences"])
    target = arrays["item"][arrays["offsets"][1:] - 1]
    users = np.arange(len(target))
    recommended = model.recommend(
        users, _dataset(arguments["sequences"], left_out=1), k=10, filter_viewed=True
    )
    found = recommended[recommended[Columns.Item] == target[recommended[Columns.User]]]
    gains = 1 / np.log2(1 + found[Columns.Rank].to_numpy())
    return {"hits@10": len(found) / len(target), "ndcg@10": float(gains.sum() / len(target))}


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    torch.set_num_threads(given["threads"])
    pl.seed_everything(0)
    result = _speed(given) if sys.argv[1] == "speed" else _quality(given)
    print(json.dumps(result))
