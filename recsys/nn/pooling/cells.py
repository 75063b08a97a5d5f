"""Cells: classes of events that belong to exactly the same slices.

Slices overlap, so per-slice pooling looks an event up once for every slice that holds it. The
slices of a table are unions of disjoint cells; an event is looked up once, summed into its cell,
and the slices are sums over cells. ``docs/slices.md`` has a worked example.

Legend: B requests, E events of a timeline, C cells, S slices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import TimelineKind
from recsys.data.slices.families import IdType
from recsys.data.slices.rules import UNKNOWN, Attribute, AttributeKind, CategoryCondition, Condition
from recsys.data.slices.slice_set import SliceSet

#: More combinations of bins than this are refused: the lookup table should stay in cache.
MAX_CODES = 2**22
#: Categorical codes are int8 (``recsys.data.batches.requests``).
_CODES = 256
_CODE_SHIFT = 128
#: Bins of one attribute are counted in a byte.
_MAX_BINS = 256


@dataclass(frozen=True)
class Bins:
    """Disjoint bins of an attribute such that every condition is a union of them.

    Attributes:
        attribute: what is binned.
        edges: ascending. Categorical: the codes asked for; bin 0 is any other code, bin i+1 is
            ``edges[i]``. Numbers: bin i is ``[edges[i-1], edges[i])``, or with ``open_below``
            ``(edges[i-1], edges[i]]``.
        open_below: which side of a bin is closed.
    """

    attribute: Attribute
    edges: tuple[float, ...]
    open_below: bool

    @classmethod
    def of(cls, attribute: Attribute, conditions: Sequence[Condition]) -> "Bins":
        """The coarsest bins for the conditions on one attribute."""
        edges: set[float] = set()
        open_below = set()
        for condition in conditions:
            if isinstance(condition, CategoryCondition):
                edges.update({condition.code} - {-1})
            else:
                edges.update({condition.lower, condition.upper} - {math.inf})
                open_below.add(condition.open_below)
        if len(open_below) > 1:
            raise ValueError(f"conditions on {attribute} disagree about their closed side")
        return cls(attribute, tuple(sorted(edges)), True in open_below)

    @property
    def count(self) -> int:
        """Number of bins."""
        return len(self.edges) + 1

    def holds(self, condition: Condition) -> NDArray[np.bool_]:
        """[count] bool: the bins a condition is the union of."""
        if isinstance(condition, CategoryCondition):
            return np.array([False, *(edge == condition.code for edge in self.edges)])
        lower = np.array([-math.inf, *self.edges])
        upper = np.array([*self.edges, math.inf])
        return (condition.lower <= lower) & (upper <= condition.upper)


@dataclass(frozen=True)
class CellPartition:
    """The cells of slices that are looked up together.

    Attributes:
        weight: the attribute that weighs an event, ``None`` in plain slices.
        attributes: positions of the timeline's bins that the slices' conditions ask for.
        cell_of_code: mixed-radix code of these bins (first attribute most significant) -> cell,
            ``cells`` for events of no slice.
        incidence: [S, C] bool, which slice is the union of which cells.
    """

    weight: Attribute | None
    attributes: tuple[int, ...]
    cell_of_code: NDArray[np.int64]
    incidence: NDArray[np.bool_]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return int(self.incidence.shape[1])


@dataclass(frozen=True)
class CellLookup:
    """One table's use of a partition.

    Attributes:
        table: its name.
        column: position of its id type in ``IdType``.
        partition: position of the partition.
        slices: positions in the slice set, in the order of the incidence's rows.
    """

    table: str
    column: int
    partition: int
    slices: tuple[int, ...]


@dataclass(frozen=True)
class TimelinePartitions:
    """The bins of one timeline's attributes, the partitions made of them, and who uses these."""

    bins: tuple[Bins, ...]
    partitions: tuple[CellPartition, ...]
    lookups: tuple[CellLookup, ...]


def partition_cells(slice_set: SliceSet, timeline: TimelineKind) -> TimelinePartitions:
    """Partition a timeline's events, once per table group and weighting.

    The tables of a group differ in their id type alone, so they share one partition.

    Raises:
        ConfigError: the conditions of a group make too many combinations of bins.
    """
    slices = slice_set.slices
    conditions: dict[Attribute, list[Condition]] = {}
    for one in slices:
        if one.timeline is timeline:
            for condition in one.conditions:
                conditions.setdefault(condition.attribute, []).append(condition)
    bins = tuple(Bins.of(attribute, asked) for attribute, asked in conditions.items())

    # Tables whose slices have the same weight and the same conditions share a partition.
    positions: dict[tuple[Attribute | None, tuple[tuple[Condition, ...], ...]], int] = {}
    partitions: list[CellPartition] = []
    lookups: list[CellLookup] = []
    for table in slice_set.tables:
        if table.timeline is not timeline:
            continue
        for weight in dict.fromkeys(slices[position].weight for position in table.slices):
            members = tuple(p for p in table.slices if slices[p].weight == weight)
            rules = tuple(slices[p].conditions for p in members)
            if (weight, rules) not in positions:
                positions[weight, rules] = len(partitions)
                partitions.append(_partition(table.name, weight, rules, bins))
            column = list(IdType).index(table.id_type)
            lookups.append(CellLookup(table.name, column, positions[weight, rules], members))
    return TimelinePartitions(bins, tuple(partitions), tuple(lookups))


def _partition(
    table: str,
    weight: Attribute | None,
    rules: tuple[tuple[Condition, ...], ...],
    bins: tuple[Bins, ...],
) -> CellPartition:
    """The quotient of the cross product of bins by equality of membership vectors."""
    asked = {condition.attribute for rule in rules for condition in rule}
    attributes = tuple(i for i, one in enumerate(bins) if one.attribute in asked)
    shape = tuple(bins[i].count for i in attributes)
    codes = math.prod(shape)
    if codes > MAX_CODES:
        raise ConfigError(
            f"The slices of table {table} make {codes} combinations of bins, at most "
            f"{MAX_CODES} are allowed; give them fewer ranges, exponents or windows."
        )
    bin_of_code = dict(zip(attributes, np.unravel_index(np.arange(codes), shape), strict=True))
    position = {one.attribute: i for i, one in enumerate(bins)}
    member = np.ones((len(rules), codes), np.bool_)  # [S, codes]
    for row, rule in zip(member, rules, strict=True):
        for condition in rule:
            index = position[condition.attribute]
            row &= bins[index].holds(condition)[bin_of_code[index]]
    classes, class_of_code = np.unique(member, axis=1, return_inverse=True)
    used = classes.any(axis=0)
    cell_of_class = np.where(used, np.cumsum(used) - 1, used.sum())
    return CellPartition(
        weight, attributes, cell_of_class[class_of_code.reshape(-1)], classes[:, used]
    )


class AttributeValues(nn.Module):
    """Evaluates one attribute on a timeline's columns: equations 3 to 6 on tensors."""

    def __init__(self, attribute: Attribute) -> None:
        super().__init__()
        self.kind = attribute.kind.value
        self.parameter = float(attribute.parameter)
        self.unknown = UNKNOWN  # TorchScript reads no module constants

    def forward(self, events: dict[str, Tensor], moments: Tensor) -> Tensor:
        """Values of the attribute.

        Args:
            events: timeline columns [E].
            moments: [E] int64, ms, the request time of each event's request.

        Returns:
            [E]: codes, age in ms, or float32 (``UNKNOWN`` where it is not known).
        """
        if self.kind == "age":
            return moments - events["timestamp"]
        if self.kind == "dwell_time":
            return events["dwell_time"].nan_to_num(self.unknown)
        if self.kind == "watch_ratio" or self.kind == "debiased_score":
            dwell, duration = events["dwell_time"], events["video_duration"]
            if self.kind == "watch_ratio":
                denominator = duration.pow(self.parameter)
                value = dwell / denominator
            else:
                value = torch.log1p(dwell) / torch.log1p(self.parameter * duration)
            # A comparison with NaN is false, and a missing dwell time makes the value NaN.
            return torch.where(duration > 0, value, self.unknown).nan_to_num(self.unknown)
        return events[self.kind]


class AttributeBins(nn.Module):
    """Values and bins of one attribute on tensors."""

    bin_of_code: Tensor
    # TorchScript cannot tell what an empty list would hold
    age_edges: list[int]
    edges: list[float]

    def __init__(self, bins: Bins) -> None:
        super().__init__()
        if bins.count > _MAX_BINS:
            raise ConfigError(
                f"The slices ask for {bins.count} different bounds of {bins.attribute.kind}, at "
                f"most {_MAX_BINS} are allowed."
            )
        self.attribute = AttributeValues(bins.attribute)
        self.categorical = bins.attribute.is_categorical
        self.open_below = bins.open_below
        self.shift = _CODE_SHIFT
        self.is_age = bins.attribute.kind is AttributeKind.AGE
        # Compared with a float, an age in ms would become a float32, 64 ms apart at 7 days.
        self.age_edges = [int(edge) for edge in bins.edges]
        self.edges = [float(edge) for edge in bins.edges]
        bin_of_code = torch.zeros(_CODES, dtype=torch.uint8)
        if self.categorical:
            for position, code in enumerate(bins.edges):
                bin_of_code[int(code) + _CODE_SHIFT] = position + 1
        self.register_buffer("bin_of_code", bin_of_code, persistent=False)

    def forward(self, events: dict[str, Tensor], moments: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate and bin.

        Args:
            events: timeline columns [E].
            moments: [E] int64, ms, the request time of each event's request.

        Returns:
            The values [E] of ``AttributeValues`` and their bins [E] uint8.
        """
        values = self.attribute(events, moments)
        if self.categorical:
            return values, self.bin_of_code.index_select(0, values.to(torch.int32) + self.shift)
        # A handful of comparisons costs a fifth of torch.bucketize's binary search.
        bins = torch.zeros_like(values, dtype=torch.uint8)
        if self.is_age:
            for age in self.age_edges:
                bins += (values > age).to(torch.uint8)
            return values, bins
        for edge in self.edges:
            if self.open_below:
                bins += (values > edge).to(torch.uint8)
            else:
                bins += (values >= edge).to(torch.uint8)
        return values, bins


class CellAssignment(nn.Module):
    """Sorts a timeline's events into the cells of one partition."""

    cell_of_code: Tensor
    attributes: list[int]  # which TorchScript must be told, for a list may be empty
    radices: list[int]

    def __init__(self, partition: CellPartition, bins: Sequence[Bins]) -> None:
        super().__init__()
        self.cells = partition.cells
        self.attributes = list(partition.attributes)
        self.radices = [bins[i].count for i in partition.attributes]
        # Torch sorts fewer numbers by comparing them, more by their bytes, in a tenth of the time.
        self.sorted_by_bytes = 32_768
        self.worth_filling_up = 6_000
        # Keys of one byte are sorted in one pass of a radix sort.
        dtype = torch.uint8 if self.cells < 256 else torch.int32
        self.register_buffer(
            "cell_of_code", torch.from_numpy(partition.cell_of_code).to(dtype), persistent=False
        )

    def forward(
        self, bins: list[Tensor], request: Tensor, requests: int, ones: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Group the events by (cell, request).

        Args:
            bins: [E] uint8 per attribute of the timeline.
            request: [E] int32, ascending: the request of each event.
            requests: B.
            ones: [E] int32, what each event counts.

        No size depends on what the events are, so a device need not be waited for.

        Returns:
            order: [E] int64, positions of the events by cell, then request, then time; those of
                no cell come last.
            lengths: [C, B] int32, events per cell and request; sums to L.
        """
        code = bins[self.attributes[0]].to(torch.int32)
        for position in range(1, len(self.attributes)):
            code = code * self.radices[position] + bins[self.attributes[position]]
        cell = self.cell_of_code.index_select(0, code)
        # Stable, and events lie by request already: sorting by cell sorts by (cell, request).
        order = self._by_cell(cell)
        place = torch.add(request, cell, alpha=requests).to(torch.int64)
        # one more cell than there are holds the events of none
        lengths = ones.new_zeros((self.cells + 1) * requests).scatter_add(0, place, ones)
        return order, lengths.view(self.cells + 1, requests)[: self.cells]

    def _by_cell(self, cell: Tensor) -> Tensor:
        """[E]: positions by cell, the events of a cell in their order."""
        events = cell.shape[0]
        if cell.device.type == "cpu" and self.worth_filling_up <= events < self.sorted_by_bytes:
            # with events of no cell, which come last
            cell = torch.cat([cell, cell.new_full([self.sorted_by_bytes - events], self.cells)])
        return torch.sort(cell, stable=True)[1][:events]
