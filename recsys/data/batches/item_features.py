"""What an item is made of, as tensors.

Legend: P items, n tokens and I images over all items (jagged), F and D_p features, W_i width of a
given image embedding, W_g of a given embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from recsys.data.batches.tensor_batch import TensorBatch


@dataclass
class ItemFeatures(TensorBatch):
    """Features of P items: a batch, or, a row per item index, the whole corpus.

    Attributes:
        text: [n] int64, tokens or hashed n-grams of ``recsys.data.content.text``.
        text_lengths: [P] int64; 0 for an item without text.
        images: [I, W_i] float32, embeddings of the items' images.
        image_lengths: [P] int64; 0 for an item without images.
        categorical: [P, F] int64, 0 where unknown.
        dense: [P, D_p] float32, standardised.
        has_dense: [P] bool, whether any dense feature of an item is known.
        given: [P, W_g] float32, embeddings that came with the items.
        has_given: [P] bool, whether an item has one.
    """

    text: Tensor
    text_lengths: Tensor
    images: Tensor
    image_lengths: Tensor
    categorical: Tensor
    dense: Tensor
    has_dense: Tensor
    given: Tensor
    has_given: Tensor

    def columns(self) -> dict[str, Tensor]:
        """Its tensors by name, as a batch of something else carries them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def select(self, items: Tensor) -> Self:
        """The features of some items [Q] int64, in their order, repetitions allowed."""
        text, text_lengths = _select_jagged(self.text, self.text_lengths, items)
        images, image_lengths = _select_jagged(self.images, self.image_lengths, items)
        return type(self)(
            text=text,
            text_lengths=text_lengths,
            images=images,
            image_lengths=image_lengths,
            categorical=self.categorical[items],
            dense=self.dense[items],
            has_dense=self.has_dense[items],
            given=self.given[items],
            has_given=self.has_given[items],
        )


def _select_jagged(values: Tensor, lengths: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The values of some rows of a jagged tensor, and their lengths."""
    starts = torch.cumsum(lengths, dim=0) - lengths
    chosen = lengths[rows]
    begin = torch.cumsum(chosen, dim=0) - chosen
    shift = torch.repeat_interleave(starts[rows] - begin, chosen)
    return values[torch.arange(len(shift), device=values.device) + shift], chosen
