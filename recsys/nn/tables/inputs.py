"""What a model asks its tables for a batch, before it asks them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torchrec import KeyedJaggedTensor


@dataclass
class TableInputs:
    """No weight of the model is needed to have it, so it can be had before the batch's turn.

    Attributes:
        features: what is looked up, by the path of the table collection in the model.
        slice_weights: [B, S], how much each slice holds (``CellPooling.lookups``); ``None`` for a
            model without timelines.
    """

    features: dict[str, KeyedJaggedTensor]
    slice_weights: Tensor | None = None
