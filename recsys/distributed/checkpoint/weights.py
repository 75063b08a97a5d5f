"""Stored weights into a model, of which this process may hold but shards."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

from recsys.core.errors import ArtifactError
from recsys.distributed.checkpoint.tensors import HeldTensor, StoredTensor, TensorInFile

#: Names that a message lists.
_LISTED = 5


def held_weights(module: nn.Module) -> dict[str, HeldTensor]:
    """What this process holds of a module's weights and buffers, by name."""
    return {
        name: HeldTensor.of(value)
        for name, value in module.state_dict().items()
        if isinstance(value, (Tensor, ShardedTensor))
    }


@torch.no_grad()
def load_weights(module: nn.Module, stored: Mapping[str, StoredTensor | Tensor]) -> None:
    """Take the stored weights.

    Raises:
        ArtifactError: they are of another model: other names, or other sizes.
    """
    held = held_weights(module)
    refuse_other_weights(held, stored)
    for name, parts in held.items():
        value = stored[name]
        source = TensorInFile(value) if isinstance(value, Tensor) else value
        source.copy_to(parts.shards)


def refuse_other_weights(
    held: Mapping[str, HeldTensor], stored: Mapping[str, StoredTensor | Tensor]
) -> None:
    """Check that both have the same names and sizes.

    Raises:
        ArtifactError: they have not.
    """
    refuse_other_names(held, stored)
    for name, parts in held.items():
        value = stored[name]
        size = value.shape if isinstance(value, Tensor) else value.size
        if tuple(size) != parts.size:
            raise ArtifactError(
                f"The checkpoint's {name} is of size {list(size)}, the model's of "
                f"{list(parts.size)}; go on with the configuration it was trained with."
            )


def refuse_other_names(
    held: Mapping[str, HeldTensor], stored: Mapping[str, StoredTensor | Tensor]
) -> None:
    """Check that both have the same names.

    Raises:
        ArtifactError: they have not.
    """
    if held.keys() != stored.keys():
        different = sorted(held.keys() ^ stored.keys())
        more = f" and {len(different) - _LISTED} more" if len(different) > _LISTED else ""
        raise ArtifactError(
            "The checkpoint is of another model: only one of both has "
            f"{', '.join(different[:_LISTED])}{more}; go on with the configuration it was trained "
            "with."
        )
