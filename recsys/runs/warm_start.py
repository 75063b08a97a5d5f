"""Weights and table states of another run's checkpoint, taken into a new model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import lightning
import torch
from omegaconf import MISSING
from torch import Tensor, nn

from recsys.core.bounds import Settings
from recsys.core.errors import ConfigError
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.checkpoint.offline import is_table, table_of_state
from recsys.distributed.checkpoint.tensors import (
    TABLE_STATE,
    WEIGHTS,
    HeldTensor,
    StoredTensor,
    state_part,
    tensors_in,
)
from recsys.distributed.checkpoint.weights import held_weights
from recsys.distributed.table_module import TableModule
from recsys.nn.tables.first_rows import rows_awaited
from recsys.optim.fused import PlacedTables


@dataclass(frozen=True)
class RenamedConfig(Settings):
    """A part of a model that has another name now.

    Attributes:
        old: in the checkpoint: a weight, or the beginning of names up to a dot.
        new: in the model.
    """

    old: str = MISSING
    new: str = MISSING


@dataclass(frozen=True)
class WarmStartConfig(Settings):
    """Where a new run's weights come from.

    Attributes:
        checkpoint: a file or a folder, or its URL; None starts from random weights.
        names: parts that have another name now; of a weight the first that fits holds.
        ignore: names, with ``*`` and ``?`` for any characters, of the model or of the checkpoint,
            that are not taken and need not be there.
        grown: whether tables may have more rows than in the checkpoint. The new rows start as they
            do in a model without a warm start. They may in any case where the checkpoint's run had
            an earlier generation of this data set.
        table_state: whether the state of the tables' optimisers is taken too.
    """

    checkpoint: str | None = None
    names: list[RenamedConfig] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    grown: bool = False
    table_state: bool = False

    def ignores(self, name: str) -> bool:
        """Whether a weight is left out."""
        return any(fnmatchcase(name, pattern) for pattern in self.ignore)

    def renamed(self, old: str) -> str:
        """A weight's name in the model."""
        for one in self.names:
            if old == one.old or old.startswith(one.old + "."):
                return one.new + old.removeprefix(one.old)
        return old


@dataclass
class Taken:
    """What a warm start has done, by names of the model's weights.

    Attributes:
        same: taken under their own name.
        renamed: taken under another, with the old one.
        grown: of them, tables that have more rows now, with the old number.
        ignored: left as they were, and the checkpoint's that were not taken.
        states: tables whose optimiser's state was taken.
    """

    same: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    grown: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)


@torch.no_grad()
def take_weights(model: lightning.LightningModule, config: WarmStartConfig) -> Taken:
    """Take weights of a checkpoint into a model whose tables are placed.

    Raises:
        ArtifactError: the checkpoint is not there or damaged.
        ConfigError: a weight has no counterpart, or one of another size, and is not ignored.
    """
    checkpoint = open_checkpoint(Path(str(config.checkpoint)))
    checkpoint.check()
    stored = checkpoint.tensors()
    sources = {str(place[1]): one for place, one in stored.items() if place[0] == WEIGHTS}
    old_names = _old_names(sources, config)
    held, growing = held_weights(model), _tables(model)
    _refuse_mismatches(sources, old_names, held, growing, config)
    taken = Taken(ignored=_ignored(sources, old_names, held, config))
    rows_of: dict[str, int] = {}  # that were taken
    for new, old in old_names.items():
        if new not in held:
            continue  # ignored
        rows = min(sources[old].size[0], held[new].size[0]) if held[new].size else None
        for begin, part in held[new].shards:
            _copy_rows(sources[old], rows, begin, part)
        if new == old:
            taken.same.append(new)
        else:
            taken.renamed[new] = old
        if rows is not None:
            rows_of[new] = rows
        if rows is not None and rows < held[new].size[0]:
            taken.grown[new] = f"{rows:,} to {held[new].size[0]:,} rows"
    if rows_awaited():
        _start_others(model, held, rows_of)
    if config.table_state:
        states = {table_of_state(place): one for place, one in stored.items() if _is_state(place)}
        taken.states = _take_table_state(model, states, old_names, sources)
    return taken


def _old_names(sources: Mapping[str, Any], config: WarmStartConfig) -> dict[str, str]:
    """The model's name of every weight that is to be taken, with the checkpoint's."""
    old_names: dict[str, str] = {}
    for old in sources:
        new = config.renamed(old)
        if config.ignores(old) or config.ignores(new):
            continue
        if new in old_names:
            raise ConfigError(
                f"warm_start.names gives {old} and {old_names[new]} of the checkpoint the same "
                f"name {new}; take one of them out by warm_start.ignore."
            )
        old_names[new] = old
    return old_names


def _refuse_mismatches(
    sources: Mapping[str, StoredTensor],
    old_names: Mapping[str, str],
    held: Mapping[str, HeldTensor],
    growing: Collection[str],
    config: WarmStartConfig,
) -> None:
    """Refuse what has no counterpart, or one of another size, and say all of it at once.

    Raises:
        ConfigError: something has.
    """
    missing = [name for name in held if name not in old_names and not config.ignores(name)]
    unused = [old for new, old in old_names.items() if new not in held]
    sizes: list[str] = []
    grown: list[str] = []
    for new, old in sorted(old_names.items()):
        if new not in held or tuple(sources[old].size) == held[new].size:
            continue
        may_grow = new in growing and _has_more_rows(held[new].size, tuple(sources[old].size))
        if may_grow and config.grown:
            continue
        (grown if may_grow else sizes).append(
            f"{old} has the size {list(sources[old].size)} in the checkpoint, {new} has "
            f"{list(held[new].size)} in the model"
        )
    rename = (
        "say what they are called by warm_start.names=[{old: …, new: …}], or leave them out by "
        "warm_start.ignore=[…]"
    )
    leave_out = "leave them out by warm_start.ignore=[…]"
    problems = [
        (missing, "not in the checkpoint but in the model: ", ", ", rename),
        (unused, "in the checkpoint but not in the model: ", ", ", rename),
        (grown, "", "; ", f"allow them to grow by warm_start.grown=true, or {leave_out}"),
        (sizes, "", "; ", leave_out),
    ]
    said = [
        f"{problem}{between.join(sorted(names))}; {mend}."
        for names, problem, between, mend in problems
        if names
    ]
    if said:
        raise ConfigError(
            f"The warm start from {config.checkpoint} does not fit: {' And '.join(said)}"
        )


def _ignored(
    sources: Mapping[str, Any],
    old_names: Mapping[str, str],
    held: Mapping[str, Any],
    config: WarmStartConfig,
) -> list[str]:
    """Names that are left as they were, and the checkpoint's that are not taken."""
    of_checkpoint = [old for old in sources if old not in old_names.values()]
    return sorted({*of_checkpoint, *(name for name in held if config.ignores(name))})


def _has_more_rows(size: Sequence[int], old: Sequence[int]) -> bool:
    """Whether a table has more rows than it had, and the same width."""
    same_width = len(size) == len(old) > 0 and tuple(size[1:]) == tuple(old[1:])
    return same_width and size[0] > old[0]


def _tables(model: nn.Module) -> set[str]:
    """Names of weights that have a row per id: tables, and what a module names ``rows_of_ids``."""
    plain = {
        f"{name}.weight" for name, child in model.named_modules() if isinstance(child, nn.Embedding)
    }
    plain |= {
        f"{name}.{one}"
        for name, child in model.named_modules()
        for one in getattr(child, "rows_of_ids", ())
    }
    return plain | {name for name in model.state_dict() if is_table((WEIGHTS, name))}


def _copy_rows(source: StoredTensor, rows: int | None, begin: Sequence[int], part: Tensor) -> None:
    """Copy the part of the first ``rows`` rows that lies in a shard."""
    if rows is None:
        part.copy_(source.whole())
        return
    count = min(len(part), rows - begin[0])
    if count > 0:
        part[:count].copy_(source.read(begin, (count, *part.shape[1:])))


def _start_others(
    model: lightning.LightningModule, held: Mapping[str, HeldTensor], rows_of: Mapping[str, int]
) -> None:
    """Draw the first rows of tables that were not taken, and those that have grown."""
    for child, tables in _tables_of(model).items():
        for name, first_rows in tables.first_rows().items():
            weight = held[f"{child}.{name}"]
            taken = rows_of.get(f"{child}.{name}", 0)
            for (row, column), part in weight.shards:
                left = max(taken - row, 0)
                first_rows.fill(part[left:], (row + left, column), weight.size)


def _tables_of(model: lightning.LightningModule) -> Mapping[str, PlacedTables]:
    return model.tables if isinstance(model, TableModule) else {}


def _is_state(place: Sequence[Any]) -> bool:
    return place[0] == TABLE_STATE


def _take_table_state(
    model: lightning.LightningModule,
    states: Mapping[str, StoredTensor],
    old_names: Mapping[str, str],
    sources: Mapping[str, StoredTensor],
) -> list[str]:
    """Take the state of the tables that are taken, grown rows left at their beginning."""
    tables = _tables_of(model)
    state = {TABLE_STATE: {child: one.state_dict() for child, one in tables.items()}}
    taken = []
    for place, value in tensors_in(state):
        name = table_of_state(place)
        if name not in old_names:
            continue
        held = value if isinstance(value, HeldTensor) else HeldTensor.of(value)
        _copy_state(name, held, model, states, old_names[name], sources)
        taken.append(name)
    for child, one in tables.items():
        if any(isinstance(value, Tensor) for _, value in _of_child(state, child)):
            one.load_state_dict(state[TABLE_STATE][child])
    return taken


def _of_child(state: dict[str, Any], child: str) -> Iterator[tuple[Any, Any]]:
    return (one for one in tensors_in(state) if one[0][1] == child)


def _copy_state(
    name: str,
    held: HeldTensor,
    model: lightning.LightningModule,
    states: Mapping[str, StoredTensor],
    old: str,
    sources: Mapping[str, StoredTensor],
) -> None:
    stored = states.get(old)
    if stored is None or len(stored.size) != len(held.size):
        raise ConfigError(
            f"warm_start.table_state: the checkpoint has no state of {old} that the optimiser of "
            f"{name} could take; choose the optimiser it was trained with, or leave the state out."
        )
    old_rows, rows = int(sources[old].size[0]), held_weights(model)[name].size[0]
    by_row = len(held.size) == 1  # a number per row and column shard
    for begin, part in held.shards:
        column, row = divmod(begin[0], rows) if by_row else (0, begin[0])
        count = min(len(part), old_rows - row)
        if count > 0:
            place = (column * old_rows + row, *begin[1:])
            shards = held.size[0] // rows if by_row else 1
            size = (count, *part.shape[1:])
            part[:count].copy_(state_part(stored, old_rows, shards, place, size))
