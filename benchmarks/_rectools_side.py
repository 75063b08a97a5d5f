"""The side of RecTools in `recsys bench sequence`; it runs in an environment of its own.

`python _rectools_side.py speed <arguments as JSON>` prints the moments at which training steps
ended; `quality` trains for some epochs and prints Hits@10 and NDCG@10 of the last items by the
number of epochs. A full run takes hours: the model is kept after every few epochs, and a process
that is started again goes on from there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet

#: Epochs between two measurements of the quality, each kept with the model.
_EPOCHS_A_TURN = 10


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


def _trainer(**options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def _model(arguments: dict[str, Any], trainer: Callable[[], pl.Trainer]) -> SASRecModel:
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
        get_trainer_func=trainer,
    )


def _speed(arguments: dict[str, Any]) -> list[float]:
    model = _model(arguments, lambda: _trainer(max_steps=arguments["steps"], callbacks=[_Clock()]))
    model.fit(_dataset(arguments["sequences"], left_out=2))
    # RecTools trains with a copy of the trainer, so with a copy of the clock
    [clock] = [one for one in model.fit_trainer.callbacks if isinstance(one, _Clock)]
    return clock.moments


def _quality(arguments: dict[str, Any]) -> dict[int, dict[str, float]]:
    folder = Path(arguments["kept"])
    folder.mkdir(parents=True, exist_ok=True)
    file, by_epoch = folder / "quality.json", {}
    # a trainer that RecTools finds by its name, so that it can be kept with the model
    model = _model(arguments, _trainer)
    if file.is_file():
        by_epoch = {int(done): values for done, values in json.loads(file.read_text()).items()}
        model = SASRecModel.load(folder / f"epoch_{max(by_epoch)}.pkl")
    for done in range(max(by_epoch, default=0), arguments["epochs"], _EPOCHS_A_TURN):
        turn = min(_EPOCHS_A_TURN, arguments["epochs"] - done)
        model.fit_partial(_dataset(arguments["sequences"], left_out=2), turn, turn)
        by_epoch[done + turn] = _hits_of_last_items(model, arguments["sequences"])
        model.save(folder / f"epoch_{done + turn}.pkl")
        file.write_text(json.dumps(by_epoch))
    return by_epoch


def _hits_of_last_items(model: SASRecModel, sequences: str) -> dict[str, float]:
    arrays = np.load(sequences)
    target = arrays["item"][arrays["offsets"][1:] - 1]
    users = np.arange(len(target))
    recommended = model.recommend(users, _dataset(sequences, left_out=1), k=10, filter_viewed=True)
    found = recommended[recommended[Columns.Item] == target[recommended[Columns.User]]]
    gains = 1 / np.log2(1 + found[Columns.Rank].to_numpy())
    return {"hits@10": len(found) / len(target), "ndcg@10": float(gains.sum() / len(target))}


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    torch.set_num_threads(given["threads"])
    pl.seed_everything(0)
    result = _speed(given) if sys.argv[1] == "speed" else _quality(given)
    print(json.dumps(result))
