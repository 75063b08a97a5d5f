"""What models with TorchRec tables share: placing them, their learning rate, their checkpoint."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import lightning

from recsys.distributed.checkpoint.tensors import TABLE_STATE
from recsys.distributed.schedules import schedule_of
from recsys.nn.tables.inputs import TableInputs
from recsys.optim.dense import ScheduleConfig
from recsys.optim.fused import FusedOptimizerConfig, PlacedTables
from recsys.optim.placement import OneProcess, TablePlacement


class TableModule(lightning.LightningModule):
    """A LightningModule with TorchRec tables, which have optimisers of their own.

    All tables are updated after every backward, also within an accumulated step, and are not
    clipped; their learning rate follows the schedule of the run.

    Attributes:
        placement: puts the tables in their place; a strategy that shards them sets its own.
        tables: placed, by the child they are in; empty before ``configure_model``.
        ready_inputs: inputs of the tables for the next batch of :meth:`inputs_of`, where a
            strategy has them already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.placement: TablePlacement = OneProcess()
        self.tables: Mapping[str, PlacedTables] = {}
        self.ready_inputs: TableInputs | None = None

    @abstractmethod
    def table_optimizers(self) -> dict[str, FusedOptimizerConfig]:
        """How the tables of a child are updated, by the child's name."""

    @abstractmethod
    def table_schedule(self) -> ScheduleConfig:
        """The curve of their learning rate."""

    @abstractmethod
    def table_inputs(self, batch: Any) -> TableInputs:
        """What the tables are asked for a batch."""

    def inputs_of(self, batch: Any) -> TableInputs:
        """``table_inputs``, or what a strategy had ready of it."""
        ready, self.ready_inputs = self.ready_inputs, None
        return self.table_inputs(batch) if ready is None else ready

    def configure_model(self) -> None:
        """Place the tables; Lightning calls it before a run."""
        if not self.tables:
            self.tables = self.placement.place(self, self.table_optimizers())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the tables' learning rate, for the backward updates them."""
        fraction = schedule_of(self, self.table_schedule())(self.trainer.global_step)
        for tables in self.tables.values():
            tables.set_learning_rate(tables.config.learning_rate * fraction)

    def on_after_backward(self) -> None:
        """Update the tables that the backward leaves to us."""
        for tables in self.tables.values():
            tables.after_backward()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the tables' optimisers."""
        checkpoint[TABLE_STATE] = {name: one.state_dict() for name, one in self.tables.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the state of the tables' optimisers back."""
        for name, tables in self.tables.items():
            tables.load_state_dict(checkpoint[TABLE_STATE][name])
