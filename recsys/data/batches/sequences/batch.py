"""What the loader hands to a sequence model.

Legend: B queries, E events over all histories, L labels, F and D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from recsys.data.batches.tensor_batch import ON_HOST, TensorBatch


@dataclass
class SequenceBatch(TensorBatch):
    """Histories of B queries side by side, each oldest event first, and what came next.

    Every event of a history is strictly before its query's ``request_time``, and no label is ever
    in it. Items first seen after the fit period keep their index: models with learned item ids
    must treat indices from ``counts.fit_vocabulary_item`` of the manifest on as unknown.

    Attributes:
        user: [B] int64 user index.
        request_time: [B] int64, ms: the moment of the first label.
        lengths: [B] int64 events of each history, possibly 0; sums to E.
        item: [E] int64 item index.
        action_type: [E] int64 position in the manifest's ``action_types``.
        surface: [E] int64 position in the manifest's ``surfaces``.
        timestamp: [E] int64, ms.
        label_lengths: [B] int64 labels of each query; sums to L.
        label_item: [L] int64 items of the next events, in their order.
        user_categorical: [B, F_u] int64, columns in the order of the manifest's features; ids
            first seen after the fit period are 0.
        user_dense: [B, D_u] float32, standardised.
        query_id: [B] int64: position of the query in its split; in training the user index.
        pools: the distinct items of ``item`` or ``label_item``, ascending, by the column's name,
            where the loader has found them (``find_pools``).
        host_lengths: ``lengths``, on the host wherever the batch is: by them the work on a device
            is cut out, and it need not be waited for.
    """

    user: Tensor
    request_time: Tensor
    lengths: Tensor
    item: Tensor
    action_type: Tensor
    surface: Tensor
    timestamp: Tensor
    label_lengths: Tensor
    label_item: Tensor
    user_categorical: Tensor
    user_dense: Tensor
    query_id: Tensor
    pools: dict[str, Tensor] = field(default_factory=dict)
    host_lengths: Tensor | None = field(default=None, metadata=ON_HOST)

    def __post_init__(self) -> None:
        """Keep the lengths where they are made, on the host; those of another batch count not."""
        if self.lengths.device.type == "cpu":
            self.host_lengths = self.lengths
        elif self.host_lengths is None:
            self.host_lengths = self.lengths.cpu()

    def pool_of(self, column: str) -> Tensor:
        """The distinct items of ``item`` or ``label_item`` [P], ascending.

        Where the loader has not found them, the device is asked how many there are.
        """
        pool = self.pools.get(column)
        items: Tensor = getattr(self, column)
        return items.unique() if pool is None else pool

    def find_pools(self, columns: Iterable[str]) -> None:
        """Have the distinct items of some columns travel with the batch."""
        self.pools = {column: self.pool_of(column) for column in columns}
