"""What models share whose user embedding is ranked against item embeddings."""

from __future__ import annotations

from collections.abc import Callable

import lightning
import torch
from torch import Tensor

from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.distributed.gather import gather_rows, mean_over_ranks
from recsys.distributed.processes import on_first_rank

#: User embeddings of all choose queries [Q, W], in order of ``query_id`` and on the device of the
#: model → metrics by name.
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
        # weighed by each rank's queries, which is what a rank's loss is measured against
        loss = mean_over_ranks(self.label_loss(users, batch))
        self.log("val/loss", loss, batch_size=len(batch.user), sync_dist=True)
        self._validated.append((batch.query_id, users.float()))

    def on_validation_epoch_end(self) -> None:
        """Measure the user embeddings of the choose split, those of all ranks on the first."""
        if self.validate is not None:
            query_id, users = (
                gather_rows(torch.cat(part)) for part in zip(*self._validated, strict=True)
            )
            in_order = users[query_id.argsort()]
            validate = self.validate
            metrics = on_first_rank(lambda: validate(in_order))
            self.log_dict({f"val/{name}": value for name, value in metrics.items()})
        self._validated = []

    def predict_step(self, batch: SequenceBatch, _: int) -> dict[str, Tensor]:
        """``query_id`` [B] and ``user_embedding`` [B, W] float32."""
        return {"query_id": batch.query_id, "user_embedding": self(batch).float()}
