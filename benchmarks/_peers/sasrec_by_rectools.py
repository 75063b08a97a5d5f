"""SASRec by RecTools, as its users write it: log.csv to recommendations.csv."""

import json
import sys

import pandas as pd
from pytorch_lightning import Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet

size = json.loads(sys.argv[1])
log = pd.read_csv("log.csv", dtype={"user_id": str, "item_id": str})
log = log.rename(
    columns={"user_id": Columns.User, "item_id": Columns.Item, "timestamp": Columns.Datetime}
)
log[Columns.Datetime] = pd.to_datetime(log[Columns.Datetime], unit="ms")
log[Columns.Weight] = 1.0
from_the_end = log.groupby(Columns.User)[Columns.Datetime].rank(ascending=False)
train, history = log[from_the_end > 2], log[from_the_end > 1]

model = SASRecModel(
    n_factors=size["width"],
    n_blocks=size["blocks"],
    n_heads=size["heads"],
    dropout_rate=size["dropout"],
    session_max_len=size["max_length"],
    batch_size=size["batch_size"],
    epochs=size["epochs"],
    loss="softmax",
    item_net_block_types=(IdEmbeddingsItemNet,),
    get_trainer_func=lambda: Trainer(
        accelerator="cpu",
        max_epochs=size["epochs"],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ),
)
model.fit(Dataset.construct(train))
best = model.recommend(
    users=history[Columns.User].unique(),
    dataset=Dataset.construct(history),
    k=10,
    filter_viewed=True,
    on_unsupported_targets="ignore",
)
best[[Columns.User, Columns.Item, Columns.Rank]].to_csv("recommendations.csv", index=False)
