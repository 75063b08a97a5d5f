"""Per-slice pooling: one TorchRec bag per slice, the reference of cell pooling.

Legend: B requests, E events, L lookups, S slices, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from recsys.data.contract.schema import TimelineKind
from recsys.data.slices.families import IdType
from recsys.data.slices.rules import Attribute, CategoryCondition, Condition
from recsys.data.slices.slice_set import Slice, SliceSet
from recsys.nn.pooling.cells import AttributeValues
from recsys.nn.pooling.slice_means import SliceMeans
from recsys.nn.tables.collection import DEFAULT_SPREAD, IdSpread, build_tables, hash_index


class _TimelineEvents:
    """One timeline of a batch; attributes, conditions and members are evaluated once."""

    def __init__(
        self, events: Mapping[str, Tensor], request_time: Tensor, rows: Mapping[str, int]
    ) -> None:
        self.events = dict(events)
        self.requests = len(request_time)
        positions = torch.arange(self.requests, device=request_time.device)
        self.request = torch.repeat_interleave(positions, events["lengths"])
        self.moments = request_time.index_select(0, self.request)
        self.ids = {name: hash_index(events[name], count) for name, count in rows.items()}
        self._values: dict[Attribute, Tensor] = {}
        self._holds: dict[Condition, Tensor] = {}
        self._members: dict[tuple[Condition, ...], tuple[Tensor, Tensor]] = {}

    def values(self, attribute: Attribute) -> Tensor:
        """[E]."""
        if attribute not in self._values:
            self._values[attribute] = AttributeValues(attribute)(self.events, self.moments)
        return self._values[attribute]

    def members(self, conditions: tuple[Condition, ...]) -> tuple[Tensor, Tensor]:
        """Positions [L] of the events that satisfy all conditions, and their number [B]."""
        if conditions not in self._members:
            held = self._condition(conditions[0])
            for condition in conditions[1:]:
                held = held & self._condition(condition)
            position = held.nonzero().squeeze(1)
            request = self.request.index_select(0, position)
            lengths = torch.bincount(request, minlength=self.requests)
            self._members[conditions] = position, lengths
        return self._members[conditions]

    def weights(self, one: Slice) -> tuple[Tensor, Tensor | None]:
        """Weight of a slice [B], and of its events [L] where they are weighted."""
        position, lengths = self.members(one.conditions)
        if one.weight is None:
            return lengths.to(torch.float32), None
        weights = self.values(one.weight).index_select(0, position)
        request = self.request.index_select(0, position)
        return weights.new_zeros(self.requests).index_add(0, request, weights), weights

    def _condition(self, condition: Condition) -> Tensor:
        if condition not in self._holds:
            value = self.values(condition.attribute)
            if isinstance(condition, CategoryCondition):
                held = (value == condition.code) & (condition.code >= 0)
            elif condition.open_below:
                held = (value > condition.lower) & (value <= condition.upper)
            else:
                held = (value >= condition.lower) & (value < condition.upper)
            self._holds[condition] = held
        return self._holds[condition]


class SlicePooling(nn.Module):
    """Pools a slice set with one TorchRec bag per slice; the arguments are ``CellPooling``'s.

    It holds the same tables under the same names, so weights load from one into the other.
    """

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
        self.slices = slice_set.slices
        self.dimension = dimension
        self.means = SliceMeans(len(slice_set.slices), dimension, counted)
        self.rows = {one.value: int(table_rows.get(one.value, 1)) for one in IdType}
        held = [table for table in slice_set.tables if any(map(self._may_hold, table.slices))]
        features: dict[str, list[str]] = {table.name: [] for table in slice_set.tables} | {
            table.name: [self.slices[position].name for position in table.slices] for table in held
        }
        self.plain_tables, self.weighted_tables = build_tables(
            slice_set.tables, features, table_rows, dimension, spread, device
        )
        plain, weighted = (
            [p for table in held if table.weighted == kind for p in table.slices]
            for kind in (False, True)
        )
        empty = [p for table in slice_set.tables if table not in held for p in table.slices]
        self.num_empty = len(empty)
        self.plain_slices = [self.slices[position] for position in plain]
        self.weighted_slices = [self.slices[position] for position in weighted]
        self.position = torch.argsort(torch.tensor(plain + weighted + empty))

    def forward(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor], request_time: Tensor
    ) -> Tensor:
        """[B, S, D]; arguments and result are ``CellPooling``'s."""
        plain, weighted, slice_weights = self.lookups(explicit, implicit, request_time)
        return self.pool(plain, weighted, slice_weights)

    def lookups(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor], request_time: Tensor
    ) -> tuple[KeyedJaggedTensor | None, KeyedJaggedTensor | None, Tensor]:
        """``CellPooling``'s."""
        timelines = self._timelines(explicit, implicit, request_time)
        plain, weighted = (
            self._features(slices, timelines) if tables is not None else None
            for tables, slices in (
                (self.plain_tables, self.plain_slices),
                (self.weighted_tables, self.weighted_slices),
            )
        )
        return plain, weighted, self._slice_weights(timelines)

    def pool(
        self,
        plain: KeyedJaggedTensor | None,
        weighted: KeyedJaggedTensor | None,
        slice_weights: Tensor,
    ) -> Tensor:
        """``CellPooling``'s."""
        sums = []
        for tables, features in (
            (self.plain_tables, plain),
            (self.weighted_tables, weighted),
        ):
            if tables is not None:
                looked_up = tables(features).values()  # [B, S · D] of the plain or weighted slices
                sums.append(looked_up.view(looked_up.shape[0], -1, self.dimension))
        sums.append(slice_weights.new_zeros(len(slice_weights), self.num_empty, self.dimension))
        position = self.position.to(slice_weights.device)
        return self.means(torch.cat(sums, dim=1)[:, position], slice_weights)

    def slice_weights(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor], request_time: Tensor
    ) -> Tensor:
        """[B, S]: ``CellPooling``'s."""
        timelines = self._timelines(explicit, implicit, request_time)
        return self._slice_weights(timelines)

    def _slice_weights(self, timelines: Mapping[TimelineKind, _TimelineEvents]) -> Tensor:
        return torch.stack([timelines[one.timeline].weights(one)[0] for one in self.slices], dim=1)

    def _timelines(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor], request_time: Tensor
    ) -> dict[TimelineKind, _TimelineEvents]:
        return {
            TimelineKind.EXPLICIT: _TimelineEvents(explicit, request_time, self.rows),
            TimelineKind.IMPLICIT: _TimelineEvents(implicit, request_time, self.rows),
        }

    def _may_hold(self, position: int) -> bool:
        """Whether any event of this log can satisfy a slice's conditions."""
        return not any(
            isinstance(condition, CategoryCondition) and condition.code < 0
            for condition in self.slices[position].conditions
        )

    def _features(
        self, slices: Sequence[Slice], timelines: Mapping[TimelineKind, _TimelineEvents]
    ) -> KeyedJaggedTensor:
        """What the plain or the weighted slices look up."""
        values, lengths, weights = [], [], []
        for one in slices:
            timeline = timelines[one.timeline]
            position, length = timeline.members(one.conditions)
            values.append(timeline.ids[one.id_type.value].index_select(0, position))
            lengths.append(length)
            _, event_weights = timeline.weights(one)
            if event_weights is not None:
                weights.append(event_weights)
        return KeyedJaggedTensor(
            keys=[one.name for one in slices],
            values=torch.cat(values),
            weights=torch.cat(weights) if weights else None,
            lengths=torch.cat(lengths).to(torch.int32),
        )
