"""A GPU that is only pretended: what a CPU can prove of where tensors lie and who waits for whom.

Within the block of a ``PretendedGpu`` everything is computed on the CPU, but ``"cuda"`` may be
asked for: a tensor that is made there or moved there is followed, and so is all that comes of it.
Such a tensor says that its device is ``cuda:0``, so the code under test takes the paths it takes on
a GPU. Two things are noted, each with the function of the project that did it:

- ``mixed``: an operation with tensors of both sides, which CUDA refuses;
- ``waits``: the host needs a value, or a size, that the device has yet to compute, or copies.

Forward, backward and optimisers are followed alike. Not followed is what C++ makes out of nothing:
it counts as lying where it is used. What only a GPU has (kernels of Triton and FBGEMM, streams,
CUDA itself) is not run here.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
HOST = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2] / "recsys"

#: Operations whose result's size, or whose check, the host has to know.
_WAITING = {
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "linalg_eigh",
    "_linalg_eigh",
    "masked_select",
    "nonzero",
    "_segment_reduce_backward",
    "unique_consecutive",
    "unique_dim",
    "unique_dim_consecutive",
}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
#: Operations that copy from one side to the other.
_COPYING = {"copy_", "_to_copy"}
#: Operations that take no number of the host beside tensors of the device.
_JOINING = {"cat", "stack"}

_GIVE_DEVICE = {Tensor.device.__get__, Tensor.is_cuda.__get__, Tensor.is_cpu.__get__}
_MOVE = {Tensor.to, Tensor.cpu, Tensor.cuda}
#: They take devices, and make no tensor.
_PLAIN = {torch.device, torch._C._nn._parse_to}
_READ = {Tensor.numpy, Tensor.tolist, Tensor.__array__}
#: They copy values of the host to where the tensor is made.
_FROM_VALUES = {torch.tensor, torch.as_tensor, Tensor.new_tensor}
_MAKE = {*_device_constructors(), torch.from_numpy, *_FROM_VALUES}


class Side(Enum):
    """Where a tensor would lie."""

    HOST = auto()
    DEVICE = auto()


class PretendedGpu:
    """Follows tensors until the block ends.

    Attributes:
        mixed: operations that CUDA would refuse, and how often: ``"add in recsys/nn/x.py f"``.
        waits: what the host would wait for the device for, and how often.
        operations: on tensors of the device, views left out: a kernel each, as a rule.
    """

    def __init__(self) -> None:
        self.mixed: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.operations = 0
        # by storage, which is kept: the address of one that is freed may be given out again
        self._sides: dict[int, tuple[Side, Any]] = {}
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        self._entered.enter_context(_grouped_as_pretended(self))
        self._entered.enter_context(_Operations(self))
        functions = self._entered.enter_context(_Functions(self))
        self._entered.enter_context(_backward_within(functions))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered.close()

    def side(self, tensor: Tensor) -> Side | None:
        """Where it lies; None where that is not known."""
        if tensor.layout != torch.strided:
            return None
        found = self._sides.get(tensor.untyped_storage()._cdata)
        return None if found is None else found[0]

    def put(self, tensor: Tensor, side: Side) -> None:
        """Take a tensor to lie there."""
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            self._sides[storage._cdata] = side, storage

    def note_mixed(self, what: str) -> None:
        """An operation that CUDA refuses."""
        self.mixed[f"{what} in {place()}"] += 1

    def note_wait(self, what: str) -> None:
        """The host waits for the device."""
        self.waits[f"{what} in {place()}"] += 1

    def take_waits(self) -> Counter[str]:
        """What was waited for since the last call."""
        taken, self.waits = self.waits, Counter()
        return taken


def place() -> str:
    """The innermost function of the project, or of a library if there is none."""
    frame, library = sys._getframe(2), ""
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(str(ROOT)):
            return f"{Path(path).relative_to(ROOT.parent)} {frame.f_code.co_qualname}"
        inside = path.rpartition("site-packages/")[2]
        if not library and inside != path and not inside.startswith("torch/"):
            library = f"{inside} {frame.f_code.co_qualname}"
        frame = frame.f_back
    return library or "torch"


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors of nested lists, tuples and dictionaries."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def tensors_of(module: nn.Module, name: str = "") -> dict[str, Tensor]:
    """All tensors that a module holds, whether it has registered them or not, by their place.

    Not those of FBGEMM's modules in it: they know themselves what they need on the host.
    """
    found = {}
    for attribute, value in vars(module).items():
        for number, leaf in enumerate(tree_leaves(value)):
            place = f"{name}.{attribute}.{number}"
            if isinstance(leaf, Tensor):
                found[place] = leaf
            elif isinstance(leaf, nn.Module) and not type(leaf).__module__.startswith("fbgemm"):
                found |= tensors_of(leaf, place)
    return found


class _Operations(TorchDispatchMode):
    """Every operation, of whatever is called from Python and of the backward."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        gpu, name = self.gpu, function._schema.name.rpartition("::")[2]
        given = tensors_in([args, kwargs])
        sides = [gpu.side(tensor) for tensor in given]
        if Side.DEVICE in sides:
            gpu.operations += not function.is_view
            self._judge(name, args, kwargs, list(zip(given, sides, strict=True)))
        result = function(*args, **kwargs)
        of_result = Side.DEVICE if Side.DEVICE in sides else Side.HOST if sides else None
        if of_result is not None and name != "copy_":
            for tensor in tensors_in(result):
                if gpu.side(tensor) is None:
                    gpu.put(tensor, of_result)
        return result

    def _judge(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        given: list[tuple[Tensor, Side | None]],
    ) -> None:
        host = [tensor for tensor, side in given if side is Side.HOST]
        if name in _COPYING:
            if host:
                self.gpu.note_wait(f"{name} between host and device")
            return
        if name in _INDEXING:
            self._judge_index(name, args)
            return
        if host and (name in _JOINING or any(tensor.ndim for tensor in host)):
            self.gpu.note_mixed(name)
        sized = kwargs.get("output_size") is not None
        checked = not kwargs.get("unsafe", False)
        if (
            name in _WAITING
            or (name == "repeat_interleave" and not sized)
            or (name == "segment_reduce" and checked)
        ):
            self.gpu.note_wait(name)

    def _judge_index(self, name: str, args: Sequence[Any]) -> None:
        """CUDA takes an index of the host, copies it and waits; not the other way round."""
        indices = tensors_in(args[1])
        on_host = [index for index in indices if self.gpu.side(index) is Side.HOST]
        if self.gpu.side(args[0]) is Side.HOST:
            self.gpu.note_mixed(name)
        elif on_host:
            self.gpu.note_wait(f"{name} by an index of the host")
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            number_of_host = name != "index" and args[2].ndim == 0
            if not number_of_host or self.gpu.side(args[2]) is Side.DEVICE:  # else it is a fill
                self.gpu.note_wait(f"{name} by a mask")


class _Functions(TorchFunctionMode):
    """Every function that Python calls: where it asks for tensors, and where it asks them."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs, gpu = kwargs or {}, self.gpu
        if function in _PLAIN or isinstance(function, torch._ops.OpOverload):
            return function(*args, **kwargs)  # an overload is C++'s own call
        first = args[0] if args and isinstance(args[0], Tensor) else None
        on_device = first is not None and gpu.side(first) is Side.DEVICE
        if function in _GIVE_DEVICE:
            return _device_of(function, first, on_device)
        if function in _READ and on_device:
            (gpu.note_wait if function is Tensor.tolist else gpu.note_mixed)(function.__name__)
        wanted = _wanted(function, args, kwargs, gpu)
        if function is Tensor.cuda:
            function, args, kwargs = Tensor.to, (args[0], HOST), {}
        result = function(*_on_host(args), **_on_host(kwargs))
        if not isinstance(result, Tensor):
            return result
        if function in _MOVE:
            return self._moved(first, result, wanted)
        if wanted is not None and (function in _MAKE or first is not None):
            gpu.put(result, wanted)
            if wanted is Side.DEVICE and function in _FROM_VALUES:
                gpu.note_wait(f"{function.__name__} of values of the host")
        return result

    def _moved(self, source: Any, result: Tensor, wanted: Side | None) -> Tensor:
        before = self.gpu.side(source) or Side.HOST
        if wanted is None or wanted is before:
            self.gpu.put(result, before)
            return result
        if result.untyped_storage()._cdata == source.untyped_storage()._cdata:
            result = result.clone()
        self.gpu.put(result, wanted)
        self.gpu.note_wait(f"copy to the {wanted.name.lower()}")
        return result


def _device_of(function: Any, tensor: Any, on_device: bool) -> Any:
    if function == Tensor.device.__get__:
        return GPU if on_device else function(tensor)
    return on_device == (function == Tensor.is_cuda.__get__)


def _wanted(
    function: Any, args: Sequence[Any], kwargs: dict[str, Any], gpu: PretendedGpu
) -> Side | None:
    """Where the caller wants the result: said, or what follows where nothing is said."""
    if function is Tensor.cpu:
        return Side.HOST
    if function is Tensor.cuda:
        return Side.DEVICE
    device = kwargs.get("device")
    if function is Tensor.to:
        others = [*args[1:], kwargs.get("other")]
        for other in others:
            if isinstance(other, Tensor):
                return gpu.side(other)
        device = device or next((o for o in others if isinstance(o, torch.device | str)), None)
    if device is not None:
        return Side.DEVICE if torch.device(device).type == "cuda" else Side.HOST
    if function is Tensor.new_tensor or (function is torch.as_tensor and tensors_in(args)):
        return gpu.side(args[0])
    return Side.HOST if function in _MAKE else None


def _on_host(tree: Any) -> Any:
    """The same arguments with the CPU for the GPU."""

    def replaced(leaf: Any) -> Any:
        if isinstance(leaf, torch.device) or (isinstance(leaf, str) and leaf.startswith("cuda")):
            return HOST
        return leaf

    return tree_map(replaced, tree)


def _backward_within(mode: TorchFunctionMode) -> Any:
    """``backward`` is a function whose inside a mode does not see; it is to see this one's."""
    original: Callable[..., Any] = torch.autograd._engine_run_backward

    def run(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return original(*args, **kwargs)

    return mock.patch.object(torch.autograd, "_engine_run_backward", run)


def _grouped_as_pretended(gpu: PretendedGpu) -> Any:
    """Optimisers and clipping have C++ group tensors by device, and it sees the CPU alone."""
    original: Callable[..., dict[Any, Any]] = torch._C._group_tensors_by_device_and_dtype

    def grouped(lists: Any, with_indices: bool = False) -> dict[Any, Any]:
        found = original(lists, with_indices)
        return {
            (GPU if gpu.side(members[0][0]) is Side.DEVICE else device, dtype): (members, indices)
            for (device, dtype), (members, indices) in found.items()
        }

    return mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", grouped)
