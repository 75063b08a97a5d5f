"""The text of an item as one vector.

Legend: P items, n tokens over all items (jagged), T tokens of the longest text, D width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.data.content.text import require_transformers
from recsys.nn.sequence.base import longest, padded_slots, to_jagged, to_padded
from recsys.nn.sequence.pooling import MeanPooling


class HashedText(nn.Module):
    """The mean of the rows of a text's hashed n-grams; needs no download.

    Args:
        buckets: rows of the table.
        width: D.
    """

    def __init__(self, buckets: int, width: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(buckets, width, mode="mean")

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        """[n] n-grams and [P] → [P, D]; zeros for an item without text."""
        pooled: Tensor = self.bag(text, torch.cumsum(lengths, dim=0) - lengths)
        return pooled


class PretrainedText(nn.Module):
    """A Hugging Face encoder such as XLM-R, trained on with the tower: mean of its last states.

    Args:
        path: local folder with the encoder's configuration and weights.
        width: D.

    Raises:
        InstallationError: the package transformers is not installed.
        ConfigError: the folder holds no encoder that transformers can load.
    """

    def __init__(self, path: str | Path, width: int) -> None:
        super().__init__()
        transformers = require_transformers(path)
        try:
            self.encoder = transformers.AutoModel.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} holds no encoder that transformers can load "
                f"({str(error).splitlines()[0]}); give a folder written by save_pretrained."
            ) from error
        pooler = getattr(self.encoder, "pooler", None)
        if pooler is not None:  # what it makes of the first token is not looked at
            pooler.requires_grad_(False)
        self.pooling = MeanPooling()
        self.projection = nn.Linear(self.encoder.config.hidden_size, width)

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        """[n] tokens of the encoder's own tokeniser and [P] → [P, D]."""
        projected = text.new_zeros([len(lengths), self.projection.out_features]).float()
        has_text = torch.nonzero(lengths).squeeze(1)
        lengths = lengths[has_text]
        if len(has_text) == 0:
            # a text that nobody has, so that every weight has a gradient: other ranks wait for it
            text, lengths = text.new_zeros(1), lengths.new_ones(1)
        length = longest(lengths)
        slots = padded_slots(lengths, len(text), length)
        tokens = to_padded(text.unsqueeze(1), slots, len(lengths), length).squeeze(2)  # [P', T]
        real = torch.arange(length, device=text.device) < lengths.unsqueeze(1)
        states = self.encoder(input_ids=tokens, attention_mask=real.long()).last_hidden_state
        pooled = self.pooling(to_jagged(states, slots), lengths)
        found = self.projection(pooled).to(projected.dtype)  # under autocast it is half precision
        return projected.index_copy(0, has_text, found[: len(has_text)])
