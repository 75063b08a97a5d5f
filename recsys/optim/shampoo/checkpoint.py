"""What a checkpoint holds of Shampoo's state, and how it is taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

from recsys.core.errors import ArtifactError
from recsys.optim.shampoo.group import ParameterGroup
from recsys.optim.shampoo.settings import TYPED

#: Steps of the group; the rest of a parameter's state is ``block_<number>.<name>``.
STEP = "step"


def without_typed(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group without the settings that are objects."""
    return {name: value for name, value in group.items() if name not in TYPED}


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A parameter's state as tensors of their own on the CPU."""
    return {name: _local(value).detach().cpu().clone() for name, value in state.items()}


def merged(parts: Sequence[Any]) -> dict[Any, dict[str, Tensor]]:
    """The states of all ranks as one."""
    whole: dict[Any, dict[str, Tensor]] = {}
    for part in parts:
        for parameter, state in part.items():
            whole.setdefault(parameter, {}).update(state)
    return whole


def load(
    param_groups: Sequence[dict[str, Any]],
    groups: Sequence[ParameterGroup],
    state: Mapping[Any, Mapping[str, Tensor]],
    saved: Mapping[str, Any],
) -> None:
    """Copy a saved state into the state of this rank.

    Args:
        param_groups: of the optimiser; they take the saved settings.
        groups: their blocks.
        state: of this rank, by parameter; its tensors are written to.
        saved: as ``state_dict`` gave it, on any number of ranks.

    Raises:
        ArtifactError: it is of other parameters or settings.
    """
    sizes = [
        [len(group["params"]) for group in one] for one in (saved["param_groups"], param_groups)
    ]
    if sizes[0] != sizes[1]:
        raise ArtifactError(
            f"The saved state of Shampoo has groups of {sizes[0]} parameters, the optimiser of "
            f"{sizes[1]}; load it into an optimiser of the same model."
        )
    names = chain.from_iterable(group["params"] for group in saved["param_groups"])
    for group in groups:
        for position, parameter in enumerate(group.parameters):
            content = saved["state"].get(next(names), {})
            _take(state[parameter], content, group.names[position])
    for settings, values in zip(param_groups, saved["param_groups"], strict=True):
        kept = ("params", "param_names", *TYPED)
        settings.update({name: value for name, value in values.items() if name not in kept})


def _take(own: Mapping[str, Tensor], saved: Mapping[str, Tensor], parameter: str) -> None:
    """Copy the state of this rank's blocks of a parameter; saved ones of other ranks are left."""
    blocks = {name.partition(".")[0] for name in own}
    of_own_blocks = {name for name in saved if name.partition(".")[0] in blocks}
    differing = sorted(of_own_blocks ^ set(own)) or sorted(
        name for name in own if saved[name].shape != own[name].shape
    )
    if differing:
        raise ArtifactError(
            f"The saved state of {parameter} does not fit at {differing[0]}: it was saved with "
            "other settings of Shampoo (betas, grafting, momentum, root_inverse or "
            "max_preconditioner_dim), by another optimiser, or by one rank of several alone."
        )
    for name, tensor in own.items():
        _local(tensor).copy_(_local(saved[name]))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
