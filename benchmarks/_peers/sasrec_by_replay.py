"""SASRec by RePlay, as its users write it: log.csv to recommendations.csv."""

import json
import sys
from typing import Any

import lightning as L
import pandas as pd
from replay.data import FeatureHint, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorSchema
from replay.data.nn.utils import groupby_sequences
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import PandasTopItemsCallback
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.sequential import SasRec
from replay.nn.transform.template import make_default_sasrec_transforms
from replay.preprocessing import LabelEncoder, LabelEncodingRule
from replay.splitters import LastNSplitter


def fit(path: str, items: int, size: dict[str, Any], **trainer: Any) -> tuple[LightningModule, Any]:
    """The trained model, and the transforms of its batches."""
    schema = TensorSchema(
        [
            TensorFeatureInfo(
                name="item_id",
                is_seq=True,
                padding_value=items,
                cardinality=items,
                embedding_dim=size["width"],
                feature_type=FeatureType.CATEGORICAL,
                feature_hint=FeatureHint.ITEM_ID,
            )
        ]
    )
    model = LightningModule(
        SasRec.from_params(
            schema,
            embedding_dim=size["width"],
            num_heads=size["heads"],
            num_blocks=size["blocks"],
            max_sequence_length=size["max_length"],
            dropout=size["dropout"],
        ),
    )
    transforms = make_default_sasrec_transforms(schema)
    data = ParquetModule(
        batch_size=size["batch_size"],
        train_path=path,
        metadata={"train": {"item_id": {"padding": items, "shape": size["max_length"] + 1}}},
        transforms=transforms,
    )
    L.Trainer(limit_val_batches=0, **trainer).fit(model, datamodule=data)
    return model, transforms


if __name__ == "__main__":
    size = json.loads(sys.argv[1])
    log = pd.read_csv("log.csv", dtype={"user_id": str, "item_id": str})
    encoder = LabelEncoder([LabelEncodingRule("user_id"), LabelEncodingRule("item_id")])
    log = encoder.fit_transform(log)
    splitter = LastNSplitter(
        N=1, divide_column="user_id", query_column="user_id", strategy="interactions"
    )
    history, _ = splitter.split(log)
    train, _ = splitter.split(history)
    for name, events in {"train": train, "history": history}.items():
        sequences = groupby_sequences(events, groupby_col="user_id", sort_col="timestamp")
        sequences["seen"] = sequences["item_id"]
        sequences.to_parquet(f"{name}.parquet")

    items = len(encoder.mapping["item_id"])
    quiet: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    model, transforms = fit("train.parquet", items, size, max_epochs=size["epochs"], **quiet)
    best = PandasTopItemsCallback(
        top_k=10,
        query_column="user_id",
        item_column="item_id",
        rating_column="score",
        postprocessors=[SeenItemsFilter(item_count=items, seen_items_column="seen")],
    )
    padded = {"padding": items}
    longest = int(log.groupby("user_id").size().max())
    data = ParquetModule(
        batch_size=size["batch_size"],
        predict_path="history.parquet",
        metadata={
            "predict": {
                "user_id": {},
                "item_id": {**padded, "shape": size["max_length"]},
                "seen": {**padded, "shape": longest},
            }
        },
        transforms=transforms,
    )
    L.Trainer(callbacks=[best], inference_mode=True, **quiet).predict(
        model, datamodule=data, return_predictions=False
    )
    frame = encoder.inverse_transform(best.get_result())
    frame["rank"] = frame.groupby("user_id")["score"].rank(method="first", ascending=False)
    frame[["user_id", "item_id", "rank"]].to_csv("recommendations.csv", index=False)
