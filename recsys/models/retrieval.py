"""What models share whose user embedding is ranked against item embeddings."""

from __future__ import annotations

from collections.abc import Callable

import lightning
import torch
from torch import Tensor

from recsys.data.sequences import SequenceBatch

#: User embeddings of all choose queries [Q, W], in order of ``query_id`` → metrics by name.
Validate = Callable[[Tensor], dict[str, float]]


class RetrievalModule(lightning.LightningModule):
    """A user tower: ``forward(batch)`` gives the user embeddings [B, W].

    Attributes:
        validate: measures the user embeddings of the choose split, where set; what it returns is
            logged as ``val/<name>`` after every validation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.validate: Validate | None = None
        self._validated: list[tuple[Tensor, Tensor]] = []

    def label_loss(self, users: Tensor, batch: SequenceBatch) -> Tensor:
        """Mean loss of the labels given the user embeddings [B, W], for ``val/loss``."""
        raise NotImplementedError

    def on_validation_epoch_start(self) -> None:
        """Forget the embeddings of the last validation."""
        self._validated = []

    def validation_step(self, batch: SequenceBatch, _: int) -> None:
        """Embed the queries of a batch, and note their loss."""
        users = self(batch)
        loss = self.label_loss(users, batch)
        self.log("val/loss", loss, batch_size=len(batch.user), sync_dist=True)
        self._validated.append((batch.query_id.cpu(), users.float().cpu()))

    def on_validation_epoch_end(self) -> None:
        """Measure the user embeddings of the choose split."""
        if self.validate is not None:
            query_id, users = map(torch.cat, zip(*self._validated, strict=True))
            metrics = self.validate(users[query_id.argsort()])
            self.log_dict({f"val/{name}": value for name, value in metrics.items()})
        self._validated = []

    def predict_step(self, batch: SequenceBatch, _: int) -> dict[str, Tensor]:
        """``query_id`` [B] and ``user_embedding`` [B, W] float32."""
        return {"query_id": batch.query_id, "user_embedding": self(batch).float()}
