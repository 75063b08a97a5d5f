"""Cell pooling: every event is looked up once per table and all slices are had from its cell.

``slice_sum = incidence @ cell_sum`` and ``mean = slice_sum / slice_weight``: exact, forward and
backward. ``recsys/nn/slice_pooling.py`` is the reference.

Legend: B requests, E events, L lookups, P partitions, C cells, S slices, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from recsys.data.schema import TimelineKind
from recsys.data.slices import IdType, SliceSet
from recsys.nn.cells import (
    AttributeBins,
    CellAssignment,
    CellLookup,
    CellPartition,
    TimelinePartitions,
    partition_cells,
)
from recsys.nn.tables import build_tables, hash_index, weighted_mean


class TimelineCells(nn.Module):
    """Sorts one timeline's events into the cells of all its partitions."""

    def __init__(self, partitions: TimelinePartitions) -> None:
        super().__init__()
        self.bins = nn.ModuleList(AttributeBins(bins) for bins in partitions.bins)
        self.assignments = nn.ModuleList(
            CellAssignment(partition, partitions.bins) for partition in partitions.partitions
        )

    def forward(
        self, events: dict[str, Tensor], request_time: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Group the events of a jagged timeline.

        Args:
            events: ``lengths`` [B] and columns [E].
            request_time: [B] int64, ms.

        Returns:
            Per partition: the order [L] of its events by (cell, request), their number [C, B] and
            their weights [L] (empty in plain partitions).
        """
        lengths = events["lengths"]
        requests = request_time.shape[0]
        request = torch.repeat_interleave(
            torch.arange(requests, device=request_time.device), lengths
        )
        moments = request_time[request]
        bins: list[Tensor] = []
        for attribute in self.bins:
            bins.append(attribute(events, moments))
        orders: list[Tensor] = []
        counts: list[Tensor] = []
        weights: list[Tensor] = []
        for assignment in self.assignments:
            order, count = assignment(bins, request, requests)
            orders.append(order)
            counts.append(count)
            if assignment.weighted:
                weights.append(assignment.weight(events, moments)[order])
            else:
                weights.append(torch.empty(0, device=order.device))
        return orders, counts, weights


def segment_sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of adjoining segments, deterministic and accumulated in float64.

    Args:
        values: [L] float32.
        lengths: [...] int64, sums to L.

    Returns:
        [...] float32.
    """
    total = torch.cumsum(values.to(torch.float64), dim=0)
    total = torch.cat([torch.zeros(1, dtype=torch.float64, device=values.device), total])
    ends = torch.cumsum(lengths.flatten(), dim=0)
    sums = total[ends] - total[ends - lengths.flatten()]
    return sums.to(torch.float32).view(lengths.shape)


class CellPooling(nn.Module):
    """Pools a slice set with one lookup per event, table and weighting.

    The bags of a table, one per (cell, request), are the batch of a single TorchRec feature: for
    a table of several features FBGEMM's CPU backward is neither vectorised nor parallel. All
    features of a collection have the batch of the table with the most cells; the bags in excess
    are empty.

    Args:
        slice_set: what is pooled.
        table_rows: rows of a table per id type; larger indices are folded in.
        dimension: width D.
        device: where the tables and buffers live.
    """

    incidence: Tensor
    weight_incidence: Tensor

    def __init__(
        self,
        slice_set: SliceSet,
        table_rows: Mapping[str, int],
        dimension: int,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        explicit = partition_cells(slice_set, TimelineKind.EXPLICIT)
        implicit = partition_cells(slice_set, TimelineKind.IMPLICIT)
        self.explicit_cells = TimelineCells(explicit)
        self.implicit_cells = TimelineCells(implicit)
        self.id_types = [id_type.value for id_type in IdType]
        self.rows = [int(table_rows.get(id_type, 1)) for id_type in self.id_types]

        features = {table.name: [table.name] for table in slice_set.tables}
        self.plain_tables = build_tables(
            slice_set.tables, features, table_rows, dimension, weighted=False, device=device
        )
        self.weighted_tables = build_tables(
            slice_set.tables, features, table_rows, dimension, weighted=True, device=device
        )
        partitions = explicit.partitions + implicit.partitions
        lookups = _lookups(explicit, implicit)
        self.plain_bags = TableBags(slice_set, partitions, lookups, dimension, weighted=False)
        self.weighted_bags = TableBags(slice_set, partitions, lookups, dimension, weighted=True)
        order = self.plain_bags.lookups + self.weighted_bags.lookups
        incidence, weight_incidence = _incidences(len(slice_set.slices), partitions, order)
        self.register_buffer("incidence", incidence, persistent=False)
        self.register_buffer("weight_incidence", weight_incidence, persistent=False)
        self.to(device)

    def forward(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor], request_time: Tensor
    ) -> Tensor:
        """Pool both timelines of every request.

        Args:
            explicit: jagged timeline, ``lengths`` [B] and columns [E] (``recsys.data.batch``).
            implicit: likewise.
            request_time: [B] int64, ms.

        Returns:
            [B, S, D]: the (weighted) mean of each slice's rows, zero where it holds no event.
        """
        orders, lengths, weights = self.explicit_cells(explicit, request_time)
        implicit_orders, implicit_lengths, implicit_weights = self.implicit_cells(
            implicit, request_time
        )
        orders.extend(implicit_orders)
        lengths.extend(implicit_lengths)
        weights.extend(implicit_weights)

        columns: list[Tensor] = []  # id types of the explicit timeline, then of the implicit one
        for events in (explicit, implicit):
            for position, id_type in enumerate(self.id_types):
                columns.append(hash_index(events[id_type], self.rows[position]))

        sums: list[Tensor] = []  # [B, C, D] each
        if self.plain_tables is not None:
            features = self.plain_bags(columns, orders, lengths, weights)
            pooled = self.plain_tables(features).values()
            sums.append(self.plain_bags.cell_sums(pooled))
        if self.weighted_tables is not None:
            features = self.weighted_bags(columns, orders, lengths, weights)
            pooled = self.weighted_tables(features).values()
            sums.append(self.weighted_bags.cell_sums(pooled))

        cell_weights: list[Tensor] = []  # [C, B] each
        for length, weight in zip(lengths, weights):
            if weight.numel() == 0:
                cell_weights.append(length.to(torch.float32))
            else:
                cell_weights.append(segment_sums(weight, length))
        slice_sum = torch.matmul(self.incidence, torch.cat(sums, dim=1))  # [B, S, D]
        slice_weight = torch.matmul(self.weight_incidence, torch.cat(cell_weights))  # [S, B]
        return weighted_mean(slice_sum, slice_weight.t())


class TableBags(nn.Module):
    """Lays the events of all cells out as the bags of one collection, and reads the sums back.

    Args:
        slice_set: what is pooled.
        partitions: of both timelines.
        lookups: which table uses which partition.
        dimension: width D.
        weighted: which of the collections.
    """

    used: Tensor

    def __init__(
        self,
        slice_set: SliceSet,
        partitions: Sequence[CellPartition],
        lookups: Sequence[CellLookup],
        dimension: int,
        weighted: bool,
    ) -> None:
        super().__init__()
        self.weighted = weighted
        self.dimension = dimension
        self.keys = [table.name for table in slice_set.tables if table.weighted == weighted]
        self.lookups = [one for key in self.keys for one in lookups if one.table == key]
        self.partitions = [one.partition for one in self.lookups]
        self.columns = [one.column for one in self.lookups]
        cells = [
            sum(partitions[one.partition].cells for one in self.lookups if one.table == key)
            for key in self.keys
        ]
        self.bags = max(cells, default=0)  # per table and request
        # Empty bags that follow the last lookup of each table.
        last = {one.table: position for position, one in enumerate(self.lookups)}
        self.padding = [0] * len(self.lookups)
        for key, count in zip(self.keys, cells, strict=True):
            self.padding[last[key]] = self.bags - count
        used = [t * self.bags + c for t, count in enumerate(cells) for c in range(count)]
        self.register_buffer("used", torch.tensor(used, dtype=torch.int64), persistent=False)

    def forward(
        self,
        columns: list[Tensor],
        orders: list[Tensor],
        lengths: list[Tensor],
        weights: list[Tensor],
    ) -> KeyedJaggedTensor:
        """One feature per table with a batch of ``bags`` x B.

        Args:
            columns: [E] int32 ids, per timeline and id type.
            orders: per partition [L], positions of its events by (cell, request).
            lengths: per partition [C, B].
            weights: per partition [L], empty in plain partitions.
        """
        values: list[Tensor] = []
        bag_lengths: list[Tensor] = []
        event_weights: list[Tensor] = []
        for lookup, partition in enumerate(self.partitions):
            values.append(columns[self.columns[lookup]][orders[partition]])
            event_weights.append(weights[partition])
            length = lengths[partition].flatten()
            bag_lengths.append(length)
            requests = lengths[partition].shape[1]
            bag_lengths.append(length.new_zeros(self.padding[lookup] * requests))
        return KeyedJaggedTensor(
            keys=self.keys,
            values=torch.cat(values),
            weights=torch.cat(event_weights) if self.weighted else None,
            lengths=torch.cat(bag_lengths).to(torch.int32),
        )

    def cell_sums(self, pooled: Tensor) -> Tensor:
        """[bags * B, tables * D] -> [B, C, D], the cells of all lookups."""
        tables = len(self.keys)
        sums = pooled.view(self.bags, -1, tables, self.dimension)
        sums = sums.permute(1, 2, 0, 3).reshape(
            sums.shape[1], tables * self.bags, self.dimension
        )
        return sums.index_select(1, self.used)


def _lookups(explicit: TimelinePartitions, implicit: TimelinePartitions) -> list[CellLookup]:
    """The lookups of both timelines, partitions and id columns numbered over both."""
    return [
        *explicit.lookups,
        *(
            replace(
                one,
                partition=one.partition + len(explicit.partitions),
                column=one.column + len(IdType),
            )
            for one in implicit.lookups
        ),
    ]


def _incidences(
    num_slices: int, partitions: Sequence[CellPartition], lookups: Sequence[CellLookup]
) -> tuple[Tensor, Tensor]:
    """Constant 0/1 matrices [S, C]: over the cells of all lookups, and of all partitions.

    The lookups of one partition share its cells' weights, so the second one is smaller.
    """
    starts = np.cumsum([0, *(partition.cells for partition in partitions)])
    sums = []
    weights = np.zeros((num_slices, starts[-1]), np.float32)
    for one in lookups:
        partition = partitions[one.partition]
        block = np.zeros((num_slices, partition.cells), np.float32)
        block[list(one.slices)] = partition.incidence
        sums.append(block)
        weights[:, starts[one.partition] : starts[one.partition + 1]] += block
    return torch.from_numpy(np.concatenate(sums, axis=1)), torch.from_numpy(weights)
