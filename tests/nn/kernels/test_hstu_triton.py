"""The Triton kernels in Triton's interpreter on the CPU, in a process of their own.

Triton decides when a kernel is defined whether it is interpreted, so the environment variable
must be set before the import.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.nn.kernels import has_triton

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
def test_the_kernels_agree_with_plain_attention_in_the_interpreter() -> None:
    finished = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interpret_hstu.py"))],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("agrees") == 11
