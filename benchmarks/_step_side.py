"""One process of `recsys bench step`: trains a system for some steps and times them.

``python _step_side.py <arguments as JSON>`` prints its figures as JSON. It is run beside the
sources of another revision too, so it takes of `recsys` only what all revisions have.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    try:  # what `recsys` does before torch is loaded; a revision before them does nothing
        from recsys.core.threads import keep_memory, set_threads

        set_threads()
        keep_memory()
    except ImportError:
        pass

import lightning
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

#: Parts of a step, in their order; each ends where a hook of Lightning is called.
PARTS = ("loader", "forward", "backward", "optimiser")
#: Fields of a batch that have an entry per example, for the systems whose batches have no rows.
_EXAMPLES = ("row_id", "later", "user")
#: Operations whose result's size is known only when it is computed, or that read a number.
_WAITING = {
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "masked_select",
    "nonzero",
    "segment_reduce",
    "_segment_reduce_backward",
    "unique_consecutive",
    "unique_dim",
}
_MASKED = {"index", "index_put", "index_put_", "_index_put_impl_"}
_NUMBER_BYTES = 4
_GIB = 2**30
_MATRIX = {"cpu": 1024, "cuda": 8192}
_COPIED_BYTES = {"cpu": 2**28, "cuda": 2**31}
_REPEATS = 5


class _Clock(lightning.Callback):
    """The moments between the parts of a step: of the wall, of all the process's threads, and on a
    GPU of its stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.events: list[torch.cuda.Event] = []
        self.rows: list[int] = []
        self.losses: list[Tensor] = []

    def _note(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(_cpu_seconds())
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.events.append(event)

    def on_train_start(self, *_: Any) -> None:
        self._note()

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, *_: Any) -> None:
        self._note()
        self.rows.append(_examples(batch))

    def on_before_backward(self, *_: Any) -> None:
        self._note()

    def on_after_backward(self, *_: Any) -> None:
        self._note()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self._note()
        self.losses.append(outputs["loss"].detach())

    def seconds(self, moments: list[float]) -> list[list[float]]:
        """Per step the differences of its parts' moments."""
        return [
            [moments[at + 1] - moments[at] for at in range(first, first + len(PARTS))]
            for first in range(0, len(moments) - 1, len(PARTS))
        ]

    def device_seconds(self) -> list[float]:
        """The moments on the GPU's stream, seconds after the first."""
        torch.cuda.synchronize()
        return [self.events[0].elapsed_time(event) / 1000 for event in self.events]


class _Counts(lightning.Callback):
    """Counts what one step does: operations, waits, operations of matrix products, table bytes."""

    def __init__(self, step: int, device: torch.device) -> None:
        self.step = step
        self.device = device
        self.counted: dict[str, float] = {}
        self._entered: ExitStack | None = None

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if trainer.global_step != self.step:
            return
        self._entered = ExitStack()
        self._tables = _TableBytes(module, self._entered)
        if self.device.type == "cuda":
            from torch.profiler import ProfilerActivity, profile

            activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
            self._profile = self._entered.enter_context(profile(activities=activities))
        else:
            self._operations = self._entered.enter_context(_Operations())
            self._products = self._entered.enter_context(
                FlopCounterMode(display=False, custom_mapping=_cpu_attention())
            )

    def on_train_batch_end(self, *_: Any) -> None:
        if self._entered is None:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self._entered.close()
        self._entered = None
        self.counted = {"table_bytes": self._tables.bytes}
        if self.device.type == "cuda":
            self.counted |= _of_profile(self._profile)
        else:
            self.counted |= {
                "operations": self._operations.operations,
                "waits": self._operations.waits,
                "flop": self._products.get_total_flops(),
            }


class _Operations(TorchDispatchMode):
    """Operations that compute or copy, forward and backward; views are none."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.waits = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function._schema.name.rpartition("::")[2]
        self.operations += not function.is_view
        masked = name in _MASKED and any(
            isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        # with its size given nobody has to be asked for it
        repeats = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        self.waits += name in _WAITING or masked or repeats
        return function(*args, **(kwargs or {}))


class _TableBytes:
    """Bytes of rows that a step moves: each lookup reads one, and its update reads the gradient and
    reads and writes the row once.
    """

    def __init__(self, module: nn.Module, entered: ExitStack) -> None:
        self.bytes = 0
        for child in module.modules():
            if type(child).__name__ in ("FusedCollection", "EmbeddingBagCollection"):
                entered.callback(child.register_forward_pre_hook(self._of_collection).remove)
            elif isinstance(child, nn.Embedding):
                entered.callback(child.register_forward_pre_hook(self._of_embedding).remove)

    def _of_collection(self, module: Any, arguments: tuple[Any, ...]) -> None:
        features = arguments[0]
        lengths = features.length_per_key()
        columns = dict(zip(features.keys(), lengths, strict=True))
        for config in module.embedding_bag_configs():
            lookups = sum(columns[name] for name in config.feature_names)
            self._add(lookups, config.embedding_dim)

    def _of_embedding(self, module: nn.Embedding, arguments: tuple[Tensor, ...]) -> None:
        self._add(arguments[0].numel(), module.embedding_dim)

    def _add(self, lookups: int, width: int) -> None:
        self.bytes += 4 * lookups * width * _NUMBER_BYTES


def _cpu_attention() -> dict[Any, Any]:
    """Torch's counter knows the fused attention of GPUs alone."""
    operators = torch.ops.aten

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return 5 * int(sdpa_flop_count(query, key, value)) // 2  # five products for two

    return {
        operators._scaled_dot_product_flash_attention_for_cpu: forward,
        operators._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }


def _of_profile(profile: Any) -> dict[str, float]:
    """Kernels of a step, and calls by which the host waited for the GPU."""
    events = profile.events()
    of_device = [one for one in events if one.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [one for one in of_device if not one.name.startswith(("Memcpy", "Memset"))]
    waits = [one for one in events if "Synchronize" in one.name and one not in of_device]
    # the last one is ours, at the end of the step
    return {"operations": len(kernels), "waits": max(0, len(waits) - 1)}


def _examples(batch: Any) -> int:
    for name in _EXAMPLES:
        if hasattr(batch, name):
            return len(getattr(batch, name))
    raise RuntimeError(f"a batch of {type(batch).__name__} has none of {_EXAMPLES}")


def _cpu_seconds() -> float:
    """Of all threads of the process and of the loader's workers that have ended."""
    own = time.process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own + children.ru_utime + children.ru_stime


def _peaks(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """What the machine does at best: operations per second of a product of matrices, and bytes per
    second of a copy, which reads and writes.
    """
    size, copied = _MATRIX[device.type], _COPIED_BYTES[device.type]
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    product = torch.empty_like(matrix)
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    seconds = {
        "flop": _fastest(lambda: torch.mm(matrix, matrix, out=product), device),
        "bytes": _fastest(lambda: target.copy_(source), device),
    }
    return {
        "peak_flop_per_second": 2 * size**3 / seconds["flop"],
        "peak_bytes_per_second": 2 * copied / seconds["bytes"],
    }


def _fastest(work: Any, device: torch.device) -> float:
    """Seconds; on a CPU those of a core."""
    clock = time.perf_counter if device.type == "cuda" else _cpu_seconds
    seconds = []
    for _ in range(_REPEATS):
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return min(seconds)


def _figures(arguments: dict[str, Any]) -> dict[str, Any]:
    from recsys.core.quiet import quieten
    from recsys.data.stores.dataset import PreparedDataset
    from recsys.systems.choice import compose_run
    from recsys.systems.registry import system_named

    quieten()
    device = torch.device(arguments["device"])
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    config = compose_run(arguments["overrides"])
    dataset = PreparedDataset.open(config.data.out_folder)
    lightning.seed_everything(config.seed, verbose=False)
    assembly = system_named(config.system).assemble(config, dataset, dataset.manifest)
    steps = arguments["warm_up"] + arguments["steps"]
    clock, counts = _Clock(device), _Counts(steps, device)
    trainer = lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=-1,
        max_steps=steps + 1,
        precision=config.trainer.precision,  # type: ignore[arg-type]
        gradient_clip_val=config.trainer.gradient_clip,
        deterministic=config.trainer.deterministic and device.type == "cpu",
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=Path(arguments["folder"]),
        callbacks=[clock, counts],
    )
    trainer.fit(assembly.model, assembly.data)
    taken = slice(arguments["warm_up"], steps)
    parts = clock.seconds(clock.device_seconds() if clock.events else clock.wall)
    reduced = config.trainer.precision == "bf16-mixed"
    return {
        "seconds": [sum(one) for one in clock.seconds(clock.wall)][taken],
        "cpu_seconds": [sum(one) for one in clock.seconds(clock.cpu)][taken],
        "parts": parts[taken],
        "rows": clock.rows[taken],
        "losses": [float(loss) for loss in clock.losses[taken]],
        "threads": torch.get_num_threads(),
        "gib": _peak_memory(device) / _GIB,
        **counts.counted,
        **_peaks(device, torch.bfloat16 if reduced else torch.float32),
    }


def _peak_memory(device: torch.device) -> int:
    """Bytes: the largest resident set, or what the GPU's allocator gave out."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(json.dumps(_figures(json.loads(sys.argv[1]))))
