"""Triton's kernels, compiled for A100 and H100 in all that their launches make.

Where a kernel's registers do not do, a thread stores some in memory: ``SPILLED`` is what is stored
now, at most; lower it with every kernel that is bettered.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recsys.nn.kernels import has_triton
from recsys.nn.softmax.exclusions import Exclusions, Owned

pytestmark = [
    pytest.mark.skipif(not has_triton(), reason="Triton is not installed"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),
]

#: Bytes of shared memory that a block may ask for, by GPU.
SHARED = {80: 163 * 1024, 90: 227 * 1024}
#: Bytes that a thread of a kernel spills, at most, by GPU, type and how float32 is multiplied.
SPILLED = {
    (80, torch.bfloat16, "highest"): 264,
    (80, torch.float16, "highest"): 264,
    (80, torch.float32, "highest"): 444,
    (80, torch.float32, "high"): 140,
    (90, torch.bfloat16, "highest"): 184,
    (90, torch.float16, "highest"): 184,
    (90, torch.float32, "highest"): 324,
    (90, torch.float32, "high"): 0,
}
#: The same of HSTU's attention.
SPILLED_BY_HSTU = {
    (80, torch.bfloat16, "highest"): 428,
    (80, torch.float16, "highest"): 428,
    (80, torch.float32, "highest"): 656,
    (80, torch.float32, "high"): 16,
    (90, torch.bfloat16, "highest"): 36,
    (90, torch.float16, "highest"): 36,
    (90, torch.float32, "highest"): 736,
    (90, torch.float32, "high"): 24,
}
WIDTHS = (16, 50, 64, 128, 200, 256)
HEAD_WIDTHS = (16, 50, 64, 128)
KERNELS = ["forward_kernel", "queries_kernel", "columns_kernel"]
HSTU_KERNELS = ["forward_kernel", "queries_kernel", "keys_kernel", "biases_kernel"]


@pytest.fixture(autouse=True)
def new_compilations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing from an earlier run, and the precision of other tests back afterwards."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def launch(rows: int, columns: int, width: int, dtype: torch.dtype, owners: int) -> None:
    """Forward and backward; with owners also a bias."""
    from recsys.nn.kernels.pool_softmax_triton import logsumexp_of_negatives

    queries = torch.zeros(rows, width, dtype=dtype, requires_grad=True)
    pool = torch.zeros(columns, width, dtype=dtype, requires_grad=True)
    exclusions, bias = Exclusions(torch.zeros(rows, dtype=torch.int64)), None
    if owners:
        owner = torch.arange(owners).repeat_interleave(columns // owners)
        owned = Owned.from_pairs(owner, torch.arange(len(owner)), owners)
        exclusions = Exclusions(exclusions.target, torch.zeros_like(exclusions.target), owned)
        bias = torch.zeros(columns)
    logsumexp_of_negatives(queries, pool, bias, exclusions, 1.0).sum().backward()


def launch_hstu(width: int, dtype: torch.dtype, has_times: bool = True) -> None:
    """Forward and backward of two heads, cut from one projection."""
    from recsys.nn.kernels.hstu_triton import Sequences, silu_attention
    from recsys.nn.sequence.hstu import TIME_BUCKET_WIDTH, TIME_BUCKETS

    lengths, heads, longest = torch.full((100,), 37), 2, 200
    steps = int(lengths.sum())
    whole = torch.zeros(steps, 4 * heads * width, dtype=dtype, requires_grad=True)
    _, values, queries, keys = whole.chunk(4, 1)
    by_position = torch.zeros(longest, requires_grad=True)
    by_time = torch.zeros(TIME_BUCKETS, requires_grad=True) if has_times else None
    sequences = Sequences.of(
        lengths,
        torch.zeros(steps, dtype=torch.int64) if has_times else None,
        longest,
        TIME_BUCKET_WIDTH,
        steps,
        Sequences.block_size(width, dtype),
    )
    silu_attention(queries, keys, values, by_position, by_time, sequences, heads).sum().backward()


def check_hstu(
    capability: int, dtype: torch.dtype, precision: str, width: int, folder: Path, has_times: bool
) -> None:
    from tests.cuda_without_gpu.compiled import compiling_for

    torch.set_float32_matmul_precision(precision)
    with compiling_for(capability, folder) as compiled:
        launch_hstu(width, dtype, has_times)
    assert [kernel.name for kernel in compiled] == HSTU_KERNELS
    for kernel in compiled:
        assert kernel.shared <= SHARED[capability], kernel
        assert kernel.spilled <= SPILLED_BY_HSTU[capability, dtype, precision], kernel


def test_the_usual_launch_of_hstu_compiles(tmp_path: Path) -> None:
    check_hstu(90, torch.bfloat16, "highest", 16, tmp_path, has_times=False)


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "dtype", "precision"), SPILLED_BY_HSTU)
@pytest.mark.parametrize("width", HEAD_WIDTHS)
def test_hstu_compiles_in_every_type_and_width(
    capability: int, dtype: torch.dtype, precision: str, width: int, tmp_path: Path
) -> None:
    check_hstu(capability, dtype, precision, width, tmp_path, has_times=True)


def check(capability: int, dtype: torch.dtype, precision: str, width: int, folder: Path) -> None:
    from tests.cuda_without_gpu.compiled import compiling_for

    torch.set_float32_matmul_precision(precision)
    with compiling_for(capability, folder) as compiled:
        launch(1000, 700, width, dtype, owners=3)
    assert [kernel.name for kernel in compiled] == KERNELS
    for kernel in compiled:
        assert kernel.shared <= SHARED[capability], kernel
        assert kernel.spilled <= SPILLED[capability, dtype, precision], kernel


def test_the_usual_launch_compiles(tmp_path: Path) -> None:
    check(90, torch.bfloat16, "highest", 64, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "dtype", "precision"), SPILLED)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_type_and_width_compiles(
    capability: int, dtype: torch.dtype, precision: str, width: int, tmp_path: Path
) -> None:
    check(capability, dtype, precision, width, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 1024])
@pytest.mark.parametrize("columns", [1, 4096])
@pytest.mark.parametrize("owners", [0, 1])
def test_sizes_that_triton_makes_constants_of_compile(
    rows: int, columns: int, owners: int, tmp_path: Path
) -> None:
    """1 becomes a constant, and of a multiple of 16 it is known."""
    from tests.cuda_without_gpu.compiled import compiling_for

    with compiling_for(90, tmp_path) as compiled:
        launch(rows, columns, 64, torch.bfloat16, owners)
    assert [kernel.name for kernel in compiled] == KERNELS
