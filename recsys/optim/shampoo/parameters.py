"""Parameters as whole tensors: FSDP2 keeps shards of them, and Shampoo's blocks need the whole."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def whole(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A parameter or gradient in its merged shape; a view where it can be one.

    A collective of the ranks that share it, where it is sharded.
    """
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.detach().reshape(shape)


def can_be_viewed(parameter: Tensor) -> bool:
    """Whether the blocks of a parameter can be views of it."""
    return not isinstance(parameter, DTensor) and parameter.is_contiguous()


def add_whole(parameter: Tensor, update: Tensor, alpha: float) -> None:
    """Add a whole tensor to a parameter; each rank changes its shard alone."""
    update = update.to(parameter.dtype)
    if isinstance(parameter, DTensor):
        mesh = parameter.device_mesh
        replicated = DTensor.from_local(update, mesh, [Replicate()] * mesh.ndim, run_check=False)
        update = replicated.redistribute(mesh, parameter.placements)
    parameter.add_(update, alpha=alpha)
