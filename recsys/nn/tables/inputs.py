"""What a model asks its tables for a batch, before it asks them."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor
from torchrec import KeyedJaggedTensor


@dataclass
class TableInputs:
    """No weight of the model is needed to have it, so it can be had before the batch's turn.

    Attributes:
        features: what is looked up, by the path of the table collection in the model.
        others: what is computed beside them and not looked up, by names of the model.
    """

    features: dict[str, KeyedJaggedTensor]
    others: dict[str, Tensor] = field(default_factory=dict)
