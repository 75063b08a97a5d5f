"""Adopting a published user embedding in another model (DV365 §2.4).

Legend: B requests, N published vectors of width W, M vectors of width D that a model takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from recsys.core.bounds import Number, OneOf, Settings
from recsys.core.errors import ArtifactError
from recsys.nn.interaction.gate_net import EmbeddingGate


@dataclass(frozen=True)
class AdoptionConfig(Settings):
    """How a published user embedding comes into a model.

    Attributes:
        kind: ``projected``: M linear combinations of the vectors, beside a model's other
            embeddings; ``gated``: every vector behind a gate of its own values (GateNet), then
            combined; ``unprojected``: as it is; ``prepended``: as events before the recent ones.
        vectors: M.
    """

    kind: Annotated[str, OneOf(("projected", "gated", "unprojected", "prepended"))] = "projected"
    vectors: Annotated[int, Number(at_least=1, at_most=512)] = 8


class VectorCombinations(nn.Linear):
    """``W E``: each vector that comes out is a linear combination of those that come in."""

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, N, D] → [B, M, D]."""
        return torch.matmul(self.weight, vectors)


class AdoptedEmbedding(nn.Module):
    """Published vectors as a model takes them, with a learned one for users who have none.

    Args:
        config: how they are taken.
        shape: N and W.
        width: D of the model's own vectors.
    """

    def __init__(self, config: AdoptionConfig, shape: tuple[int, int], width: int) -> None:
        super().__init__()
        vectors, own_width = shape
        self.default = nn.Parameter(torch.zeros(vectors, own_width))
        self.gate = EmbeddingGate(own_width) if config.kind == "gated" else None
        self.num_vectors = config.vectors
        self.along_vectors = VectorCombinations(vectors, config.vectors, bias=False)
        self.along_width = nn.Linear(own_width, width, bias=False)
        self.register_load_state_dict_pre_hook(_refuse_another_shape)
        if own_width == width:
            # what an embedding says stays what it says, until something better is learned
            nn.init.eye_(self.along_width.weight)
        if config.kind == "unprojected":  # only ``filled`` is asked for
            self.along_vectors.requires_grad_(False)
            self.along_width.requires_grad_(False)

    def filled(self, embedding: Tensor, has_embedding: Tensor) -> Tensor:
        """[B, N, W] with the learned vectors where there is none."""
        return torch.where(has_embedding[:, None, None], embedding, self.default)

    def forward(self, embedding: Tensor, has_embedding: Tensor) -> Tensor:
        """[B, N, W] and [B] → [B, M, D]."""
        filled = self.filled(embedding, has_embedding)
        if self.gate is not None:
            filled = self.gate(filled)
        combined: Tensor = self.along_vectors(self.along_width(filled))
        return combined


def _refuse_another_shape(
    module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Refuse weights for published embeddings of another model.

    Raises:
        ArtifactError: the weights are for vectors of another number or width.
    """
    trained, own = state.get(f"{prefix}default"), module.get_parameter("default")
    if trained is not None and trained.shape != own.shape:
        shapes = [f"{vectors} x {width}" for vectors, width in (trained.shape, own.shape)]
        raise ArtifactError(
            f"The model was trained with published user embeddings of {shapes[0]} numbers, but "
            f"those of loader.user_embeddings.stores have {shapes[1]}: they are of another model. "
            "Name the stores it was trained with, or train anew."
        )
