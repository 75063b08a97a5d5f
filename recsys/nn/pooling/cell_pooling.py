"""Cell pooling: every event is looked up once per table and all slices are had from its cell.

``slice_sum = incidence @ cell_sum`` and ``mean = slice_sum / slice_weight``: exact, forward and
backward. ``recsys/nn/pooling/slice_pooling.py`` is the reference.

Legend: B requests, E events, L lookups, P partitions, C cells, S slices, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from recsys.data.contract.schema import TimelineKind
from recsys.data.slices.families import IdType
from recsys.data.slices.slice_set import SliceSet
from recsys.nn.pooling.cells import (
    AttributeBins,
    CellAssignment,
    CellLookup,
    CellPartition,
    TimelinePartitions,
    partition_cells,
)
from recsys.nn.pooling.slice_means import SliceMeans
from recsys.nn.tables.collection import DEFAULT_SPREAD, IdSpread, build_tables, hash_index


class TimelineCells(nn.Module):
    """Sorts one timeline's events into the cells of all its partitions."""

    def __init__(self, partitions: TimelinePartitions) -> None:
        super().__init__()
        self.bins = nn.ModuleList(AttributeBins(bins) for bins in partitions.bins)
        self.assignments = nn.ModuleList(
            CellAssignment(partition, partitions.bins) for partition in partitions.partitions
        )
        attributes = [bins.attribute for bins in partitions.bins]
        # Position of the attribute that weighs a partition's events, -1 in plain partitions.
        self.weight_attributes = [
            -1 if partition.weight is None else attributes.index(partition.weight)
            for partition in partitions.partitions
        ]

    def forward(
        self, events: dict[str, Tensor], request_time: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Group the events of a jagged timeline.

        Args:
            events: ``lengths`` [B] and columns [E].
            request_time: [B] int64, ms.

        Returns:
            Per partition: the order [E] of the events by (cell, request), those of no cell last;
            their number [C, B]; and the weight of each event [E] (empty in plain partitions).
        """
        requests = request_time.shape[0]
        positions = torch.arange(requests, dtype=torch.int32, device=request_time.device)
        # with the size given no device has to be asked for it
        request = torch.repeat_interleave(
            positions, events["lengths"], output_size=events["timestamp"].shape[0]
        )
        moments = request_time.index_select(0, request)
        values: list[Tensor] = []
        bins: list[Tensor] = []
        for attribute in self.bins:
            value, bin_index = attribute(events, moments)
            values.append(value)
            bins.append(bin_index)
        orders: list[Tensor] = []
        lengths: list[Tensor] = []
        weights: list[Tensor] = []
        ones = torch.ones_like(request)
        for position, assignment in enumerate(self.assignments):
            order, length = assignment(bins, request, requests, ones)
            orders.append(order)
            lengths.append(length)
            weight_attribute = self.weight_attributes[position]
            if weight_attribute >= 0:
                weights.append(values[weight_attribute])
            else:
                weights.append(torch.empty(0, device=order.device))
        return orders, lengths, weights


def events_of_cells(
    orders: list[Tensor], lengths: list[Tensor], weights: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Leave out the events of no cell. Only here has a device to be waited for, once for all.

    Args:
        orders: [E] per partition, of ``TimelineCells``, as the others.
        lengths: [C, B] per partition, sums to L.
        weights: [E] or [0] per partition.

    Returns:
        Per partition: the order [L] of its cells' events and, in this order, their weights [L]
        (empty in plain partitions).
    """
    if len(lengths) == 0:
        return orders, weights
    totals: list[int] = torch.stack([length.sum() for length in lengths]).tolist()
    kept: list[Tensor] = []
    kept_weights: list[Tensor] = []
    for partition, total in enumerate(totals):
        order = orders[partition][:total]
        weight = weights[partition]
        kept.append(order)
        kept_weights.append(weight if weight.numel() == 0 else weight.index_select(0, order))
    return kept, kept_weights


def segment_sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of adjoining segments, each by itself and accumulated in float64.

    No sum depends on the segments beside it, so a user's embedding does not depend, bit for bit,
    on the batch it is computed in.

    Args:
        values: [L] float32.
        lengths: [...] int32, sums to L.

    Returns:
        [...] float32.
    """
    # unsafe: the lengths are not checked, for which a device would be waited for
    sums = torch.segment_reduce(
        values.to(torch.float64),
        "sum",
        lengths=lengths.flatten().to(torch.int64),
        unsafe=True,
        initial=0,
    )
    return sums.to(torch.float32).view(lengths.shape)


class CellPooling(nn.Module):
    """Pools a slice set with one lookup per event, table and weighting.

    Args:
        slice_set: what is pooled.
        table_rows: rows of a table per id type; larger indices are folded in.
        dimension: width D.
        counted: whether the vector of a slice tells how much was pooled (``SliceMeans``).
        spread: of the tables' rows at the start.
        device: where the tables and buffers live.
    """

    incidence: Tensor
    weight_incidence: Tensor

    def __init__(
        self,
        slice_set: SliceSet,
        table_rows: Mapping[str, int],
        dimension: int,
        counted: bool = False,
        spread: IdSpread = DEFAULT_SPREAD,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.dimension = dimension
        self.means = SliceMeans(len(slice_set.slices), dimension, counted)
        explicit = partition_cells(slice_set, TimelineKind.EXPLICIT)
        implicit = partition_cells(slice_set, TimelineKind.IMPLICIT)
        self.explicit_cells = TimelineCells(explicit)
        self.implicit_cells = TimelineCells(implicit)
        self.id_types = [id_type.value for id_type in IdType]
        self.rows = [int(table_rows.get(id_type, 1)) for id_type in self.id_types]

        partitions = explicit.partitions + implicit.partitions
        lookups = _in_feature_order(slice_set, explicit, implicit)
        self.num_plain = sum(1 for one in lookups if partitions[one.partition].weight is None)
        self.lookup_partitions = [one.partition for one in lookups]
        self.lookup_columns = [one.column for one in lookups]
        features: dict[str, list[str]] = {}
        for one in lookups:
            cells = range(partitions[one.partition].cells)
            features.setdefault(one.table, []).extend(
                f"{one.table}/{one.partition}/{cell}" for cell in cells
            )
        plain = {table.name for table in slice_set.tables if not table.weighted}
        self.plain_keys = [k for name, keys in features.items() if name in plain for k in keys]
        self.weighted_keys = [
            k for name, keys in features.items() if name not in plain for k in keys
        ]
        self.plain_tables, self.weighted_tables = build_tables(
            slice_set.tables, features, table_rows, dimension, spread, device
        )
        incidence, weight_incidence = _incidences(len(slice_set.slices), partitions, lookups)
        self.register_buffer("incidence", incidence, persistent=False)
        self.register_buffer("weight_incidence", weight_incidence, persistent=False)
        self.to(device)

    def forward(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor], request_time: Tensor
    ) -> Tensor:
        """Pool both timelines of every request.

        Args:
            explicit: jagged timeline, ``lengths`` [B] and columns [E] (``JaggedTimeline``).
            implicit: likewise.
            request_time: [B] int64, ms.

        Returns:
            [B, S, D]: the (weighted) mean of each slice's rows (``SliceMeans``).
        """
        plain, weighted, slice_weights = self.lookups(explicit, implicit, request_time)
        return self.pool(plain, weighted, slice_weights)

    def lookups(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor], request_time: Tensor
    ) -> tuple[KeyedJaggedTensor | None, KeyedJaggedTensor | None, Tensor]:
        """What is looked up in the plain and in the weighted tables, and [B, S] how much.

        The arguments are those of :meth:`forward`; no weight of the model matters here.
        """
        orders, lengths, weights = self._partitioned(explicit, implicit, request_time)
        columns: list[Tensor] = []  # id types of the explicit timeline, then of the implicit one
        for events in (explicit, implicit):
            for position, id_type in enumerate(self.id_types):
                columns.append(hash_index(events[id_type], self.rows[position]))

        values: list[Tensor] = []
        lookup_lengths: list[Tensor] = []
        lookup_weights: list[Tensor] = []
        for lookup, partition in enumerate(self.lookup_partitions):
            column = columns[self.lookup_columns[lookup]]
            values.append(column.index_select(0, orders[partition]))
            lookup_lengths.append(lengths[partition].flatten())
            lookup_weights.append(weights[partition])

        split = self.num_plain
        plain: KeyedJaggedTensor | None = None
        weighted: KeyedJaggedTensor | None = None
        if self.plain_tables is not None:
            plain = KeyedJaggedTensor(
                keys=self.plain_keys,
                values=torch.cat(values[:split]),
                lengths=torch.cat(lookup_lengths[:split]),
            )
        if self.weighted_tables is not None:
            weighted = KeyedJaggedTensor(
                keys=self.weighted_keys,
                values=torch.cat(values[split:]),
                weights=torch.cat(lookup_weights[split:]),
                lengths=torch.cat(lookup_lengths[split:]),
            )
        return plain, weighted, self._slice_weights(lengths, weights)

    def pool(
        self,
        plain: KeyedJaggedTensor | None,
        weighted: KeyedJaggedTensor | None,
        slice_weights: Tensor,
    ) -> Tensor:
        """Look up what :meth:`lookups` says, and pool it: [B, S, D]."""
        sums: list[Tensor] = []  # [B, C, D] each
        if self.plain_tables is not None and plain is not None:
            sums.append(self._cell_sums(self.plain_tables(plain).values()))
        if self.weighted_tables is not None and weighted is not None:
            sums.append(self._cell_sums(self.weighted_tables(weighted).values()))
        slice_sum = torch.matmul(self.incidence, torch.cat(sums, dim=1))  # [B, S, D]
        return self.means(slice_sum, slice_weights)

    def slice_weights(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor], request_time: Tensor
    ) -> Tensor:
        """[B, S]: how many events each slice holds, or the sum of their weights."""
        _, lengths, weights = self._partitioned(explicit, implicit, request_time)
        return self._slice_weights(lengths, weights)

    def _partitioned(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor], request_time: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """What ``TimelineCells`` says of both timelines, without the events of no cell."""
        orders, lengths, weights = self.explicit_cells(explicit, request_time)
        implicit_orders, implicit_lengths, implicit_weights = self.implicit_cells(
            implicit, request_time
        )
        orders.extend(implicit_orders)
        lengths.extend(implicit_lengths)
        weights.extend(implicit_weights)
        orders, weights = events_of_cells(orders, lengths, weights)
        return orders, lengths, weights

    def _slice_weights(self, lengths: list[Tensor], weights: list[Tensor]) -> Tensor:
        cell_weights: list[Tensor] = []  # [C, B] each
        for partition, length in enumerate(lengths):
            if weights[partition].numel() == 0:  # plain, or without events
                cell_weights.append(length.to(torch.float64))
            else:
                cell_weights.append(segment_sums(weights[partition], length).to(torch.float64))
        # float64 is what autocast leaves alone: bfloat16 cannot count beyond 256
        slice_weights = torch.matmul(self.weight_incidence, torch.cat(cell_weights))  # [S, B]
        return slice_weights.t().to(torch.float32)

    def _cell_sums(self, pooled: Tensor) -> Tensor:
        """[B, C * D] -> [B, C, D]."""
        return pooled.view(pooled.shape[0], -1, self.dimension)


def _in_feature_order(
    slice_set: SliceSet, explicit: TimelinePartitions, implicit: TimelinePartitions
) -> list[CellLookup]:
    """The lookups in the order of the tables, partitions and id columns numbered over both."""
    shift = len(explicit.partitions)
    lookups = [
        *explicit.lookups,
        *(
            replace(one, partition=one.partition + shift, column=one.column + len(IdType))
            for one in implicit.lookups
        ),
    ]
    tables = sorted(slice_set.tables, key=lambda table: table.weighted)  # stable: plain first
    return [one for table in tables for one in lookups if one.table == table.name]


def _incidences(
    num_slices: int, partitions: Sequence[CellPartition], lookups: Sequence[CellLookup]
) -> tuple[Tensor, Tensor]:
    """Constant 0/1 matrices [S, C]: over the cells of all lookups, and of all partitions.

    The lookups of one partition share its cells' weights, so the second one is smaller.
    """
    starts = np.cumsum([0, *(partition.cells for partition in partitions)])
    sums = []
    weights = np.zeros((num_slices, starts[-1]), np.float64)
    for one in lookups:
        partition = partitions[one.partition]
        block = np.zeros((num_slices, partition.cells), np.float32)
        block[list(one.slices)] = partition.incidence
        sums.append(block)
        weights[:, starts[one.partition] : starts[one.partition + 1]] += block
    return torch.from_numpy(np.concatenate(sums, axis=1)), torch.from_numpy(weights)
