"""Two ranks on one GPU, where NCCL cannot be used."""

from __future__ import annotations

import pytest

from tests.gpu.two_processes import check

pytestmark = pytest.mark.gpu


def test_two_ranks_on_one_gpu_lose_what_one_process_on_the_cpu_does() -> None:
    check("cuda")
