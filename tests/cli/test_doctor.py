"""`recsys doctor`: each check works here, can fail, and says how to mend what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recsys.cli import doctor
from recsys.core.installation import Environment, read_environment

ROOT = Path(__file__).resolve().parents[2]
CPU = Environment(python=(3, 11), torch="2.13.0+cpu", fbgemm_cpu="1.8.0", torchrec="1.8.0")
CUDA = Environment(python=(3, 11), torch="2.13.0", torch_cuda="13.0", nvidia_driver=True)


def test_every_check_passes_here() -> None:
    checks = doctor.run_checks()
    failed = [check for check in checks if check.outcome == doctor.Outcome.FAILED]
    assert not failed
    assert [check.name for check in checks] == [
        "versions",
        "requirements",
        "imports",
        "threads",
        "lookup",
        "fused update",
        "4-bit rows",
        "TorchScript",
        "GPU",
    ]


def test_without_packages_it_says_what_to_do_and_exits_with_1() -> None:
    finished = subprocess.run(
        [sys.executable, "-S", "-m", "recsys.cli.doctor"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1
    assert "torch is not installed: run `python -m recsys.install`" in finished.stdout
    assert "skipped lookup" in finished.stdout
    assert "recsys does not work here: versions failed." in finished.stdout
    assert finished.stderr == ""


def test_a_wrong_update_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    table = doctor._fused_collection("cpu")
    monkeypatch.setattr(doctor, "_fused_collection", lambda device: table)
    monkeypatch.setattr(doctor, "LEARNING_RATE", 2 * doctor.LEARNING_RATE)  # of the formula alone
    with pytest.raises(AssertionError):
        doctor.check_fused_update("cpu")


def test_a_wrong_lookup_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = torch.tensor([1, 3, 5, 3]), torch.tensor([0, 3, 4])
    made = doctor._keyed_jagged
    monkeypatch.setattr(doctor, "_keyed_jagged", lambda *_: made(*swapped))
    with pytest.raises(AssertionError):
        doctor.check_lookup("cpu")


@pytest.mark.parametrize(
    ("error", "environment", "words"),
    [
        (
            RuntimeError("CUDA error: no kernel image is available for execution on the device"),
            CUDA,
            "no code for this GPU",
        ),
        (
            RuntimeError("CUDA driver version is insufficient for CUDA runtime version"),
            CUDA,
            "the NVIDIA driver is too old for CUDA 13.0",
        ),
        (
            RuntimeError("The NVIDIA driver on your system is too old (found version 12040)."),
            CUDA,
            "the NVIDIA driver is too old",
        ),
        (ModuleNotFoundError("No module named 'tensordict'", name="tensordict"), CPU, "tensordict"),
        (
            OSError("libcudart.so.13: cannot open shared object file: No such file or directory"),
            CPU,
            "libcudart.so.13 is missing",
        ),
        (OSError("Could not load this library: fbgemm_gpu_config.so"), CPU, "another torch"),
    ],
)
def test_known_errors_are_explained(error: Exception, environment: Environment, words: str) -> None:
    sentence = doctor.explain(error, environment)
    assert words in sentence
    assert "RECSYS_TORCH_INDEX_URL" in sentence or "python -m recsys.install" in sentence


def test_the_cause_of_a_library_error_is_read() -> None:
    error = OSError("Could not load this library: fbgemm_gpu_py.so")
    error.__cause__ = OSError("libnvidia-ml.so.1: cannot open shared object file")
    assert "libnvidia-ml.so.1 is missing" in doctor.explain(error, CUDA)


def test_a_gpu_beside_a_cpu_torch_is_mentioned() -> None:
    driver = Environment(python=(3, 11), torch="2.13.0+cpu", nvidia_driver=True)
    assert "although this machine has an NVIDIA driver" in doctor.check_gpu(driver)
    assert doctor.check_gpu(CPU) == "not used: torch is a CPU build"


@pytest.mark.gpu
def test_gpu_check_runs_on_the_gpu() -> None:
    assert "all work" in doctor.check_gpu(read_environment())
