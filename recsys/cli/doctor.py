"""`recsys doctor`: what is installed, whether it fits together, and whether it works.

Every check imports what it tries, so that the doctor also speaks where packages are missing.
"""

from __future__ import annotations

import importlib.util
import logging
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from recsys.core.installation import FAISS_CPU, MEND, Environment, problems, read_environment
from recsys.core.threads import find_threads

#: Checks without which the later ones cannot run.
NEEDED = ("versions", "imports")

LEARNING_RATE = 0.1
EPSILON = 1e-8


class Outcome(StrEnum):
    """What came of a check."""

    OK = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table.

    Attributes:
        name: what was tried.
        outcome: whether it worked; a check is skipped when what it needs has failed.
        detail: what was found, or what is wrong and how to mend it.
    """

    name: str
    outcome: Outcome
    detail: str


def run() -> None:
    """Print every check.

    Raises:
        SystemExit: with code 1, when a check failed.
    """
    logging.disable(logging.WARNING)  # torch's and FBGEMM's remarks on their own internals
    checks = run_checks()
    for check in checks:
        print(f"{check.outcome:<8}{check.name:<16}{check.detail}")
    failed = [check.name for check in checks if check.outcome == Outcome.FAILED]
    if failed:
        print()
        print(f"recsys does not work here: {', '.join(failed)} failed.")
        sys.exit(1)
    print()
    print("recsys works here.")


def run_checks() -> list[Check]:
    """Judge the versions found, then try each part; what builds on a failed part is skipped."""
    environment = read_environment()
    checks = [_check_versions(environment), _check_requirements(environment)]
    steps: list[tuple[str, Callable[[], str]]] = [
        ("imports", check_imports),
        ("threads", check_threads),
        ("lookup", lambda: check_lookup("cpu")),
        ("fused update", lambda: check_fused_update("cpu")),
        ("4-bit rows", lambda: check_four_bit_rows("cpu")),
        ("TorchScript", check_torchscript),
        ("GPU", lambda: check_gpu(environment)),
    ]
    for name, step in steps:
        if any(check.outcome == Outcome.FAILED and check.name in NEEDED for check in checks):
            checks.append(Check(name, Outcome.SKIPPED, "needs the above"))
        else:
            checks.append(_try(name, step, environment))
    return checks


def check_requirements() -> str:
    """Every package named in setup.cfg is installed in an accepted version.

    Raises:
        AssertionError: a package is absent or in another version.
    """
    from packaging.requirements import Requirement

    for line in metadata.requires("recsys") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue  # of an extra
        name = requirement.name
        if name == FAISS_CPU and importlib.util.find_spec("faiss") is not None:
            name = next(iter(metadata.packages_distributions()["faiss"]))  # faiss-gpu will do
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise AssertionError(f"{name} is not installed") from None
        if not requirement.specifier.contains(version, prereleases=True):
            raise AssertionError(f"{name} {version} is not {requirement.specifier}")
    return f"recsys {metadata.version('recsys')} has what it needs"


def check_imports() -> str:
    """The compiled libraries load."""
    import fbgemm_gpu  # noqa: F401
    import torch  # noqa: F401
    import torchrec  # noqa: F401

    return "torch, fbgemm_gpu and torchrec load"


def check_threads() -> str:
    """How many threads torch uses, and what they follow from."""
    import torch

    used, found = torch.get_num_threads(), find_threads()
    return f"{used} in use; {found}" if used != found.count else str(found)


def check_lookup(device: str) -> str:
    """A pooled lookup by TorchRec and FBGEMM equals torch's own."""
    import torch
    import torch.nn.functional as F

    collection = _fused_collection(device)
    weight = collection.state_dict()["embedding_bags.rows.weight"].clone()
    indices, offsets = _bags(device)
    expected = F.embedding_bag(indices, weight, offsets[:-1], mode="sum")
    found = collection(_keyed_jagged(indices, offsets)).values()
    torch.testing.assert_close(found, expected)
    return "a pooled lookup equals torch.nn.functional.embedding_bag"


def check_fused_update(device: str) -> str:
    """One row-wise Adagrad update inside the backward equals its formula.

    With g the gradient of a row and no earlier step: state = mean(g²),
    row -= learning_rate · g / (sqrt(state) + epsilon).
    """
    import torch

    collection = _fused_collection(device)
    before = collection.state_dict()["embedding_bags.rows.weight"].clone()
    indices, offsets = _bags(device)
    pooled = collection(_keyed_jagged(indices, offsets)).values()
    output_gradient = torch.arange(1.0, pooled.numel() + 1, device=device).reshape(pooled.shape)
    pooled.backward(output_gradient)

    bags = torch.repeat_interleave(torch.arange(2, device=device), offsets.diff())
    gradient = torch.zeros_like(before).index_add_(0, indices, output_gradient[bags])
    state = gradient.square().mean(dim=1, keepdim=True)
    expected = before - LEARNING_RATE * gradient / (state.sqrt() + EPSILON)
    torch.testing.assert_close(collection.state_dict()["embedding_bags.rows.weight"], expected)
    return "one row-wise Adagrad step in the backward equals its formula"


def check_four_bit_rows(device: str) -> str:
    """FBGEMM's 4-bit rows give back every value within half a step."""
    import torch

    rows = torch.linspace(-1, 1, 2 * 256, device=device).reshape(2, 256)
    packed = torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(rows, 4)
    restored = torch.ops.fbgemm.FusedNBitRowwiseQuantizedSBHalfToFloat(packed, 4)
    step = (rows.amax(dim=1) - rows.amin(dim=1)) / 15
    error = (restored - rows).abs().amax(dim=1)
    # Scale and bias are float16, so a little more than half a step.
    if packed.shape[1] != 132 or bool((error > 0.51 * step).any()):
        raise AssertionError(f"{packed.shape[1]} bytes a row, error {error.max():.4f}")
    return "256 numbers in 132 bytes, and back within half a quantisation step"


def check_torchscript() -> str:
    """A scripted module with an FBGEMM operator gives the same output in a fresh process."""
    import torch

    rows = torch.linspace(-1, 1, 64).reshape(2, 32)
    module = torch.jit.script(_round_trip_module())
    with tempfile.TemporaryDirectory() as folder:
        saved, output = Path(folder) / "module.pt", Path(folder) / "output.pt"
        module.save(str(saved))
        program = (
            "import logging, sys; logging.disable(); import torch, fbgemm_gpu; "
            f"module = torch.jit.load({str(saved)!r}); "
            f"torch.save(module(torch.linspace(-1, 1, 64).reshape(2, 32)), {str(output)!r})"
        )
        finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        if finished.returncode != 0:
            raise AssertionError(f"a fresh process cannot load it: {finished.stderr[-300:]}")
        torch.testing.assert_close(torch.load(output), module(rows), rtol=0, atol=0)
    return "a scripted module gives the same numbers in a fresh process"


def check_gpu(environment: Environment) -> str:
    """On a GPU the same lookup, update and 4-bit round trip work; without one, say why."""
    import torch

    if environment.torch_cuda is None:
        present = (
            ", although this machine has an NVIDIA driver" if environment.nvidia_driver else ""
        )
        return f"not used: torch is a CPU build{present}"
    if not environment.nvidia_driver:
        return f"not used: torch is built for CUDA {environment.torch_cuda}, but no driver loads"
    torch.zeros(1, device="cuda")
    for check in (check_lookup, check_fused_update, check_four_bit_rows):
        check("cuda")
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    return f"{name} (sm_{capability[0]}{capability[1]}), CUDA {environment.torch_cuda}: all work"


def explain(error: BaseException, environment: Environment) -> str:
    """What is wrong and how to mend it, in one sentence."""
    text = " ".join(str(part) for part in (error, error.__cause__ or ""))
    summary = " ".join(text.split())[:300]
    if "no kernel image is available" in text:
        return (
            "torch or FBGEMM holds no code for this GPU's architecture: choose a torch whose "
            f"publishers list it ({_architectures()}), through RECSYS_TORCH_INDEX_URL."
        )
    if "driver version is insufficient" in text or "driver on your system is too old" in text:
        return (
            f"the NVIDIA driver is too old for CUDA {environment.torch_cuda}: update the driver, "
            "or take a torch for an older CUDA through RECSYS_TORCH_INDEX_URL."
        )
    missing_library = re.search(r"(lib[\w-]+\.so[.\d]*): cannot open shared object", text)
    if missing_library:
        return (
            f"the library {missing_library[1]} is missing: FBGEMM was built for another CUDA than "
            f"torch ({environment.torch_cuda or 'a CPU build'}), or for one that is not here; "
            f"{MEND}, with RECSYS_TORCH_INDEX_URL naming the index torch came from."
        )
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is missing: {MEND}."
    if "undefined symbol" in text or "Could not load this library" in text:
        return f"FBGEMM was built for another torch ({summary}): {MEND}."
    return f"{type(error).__name__}: {summary}; {MEND}."


def _check_versions(environment: Environment) -> Check:
    found = problems(environment)
    if found:
        return Check("versions", Outcome.FAILED, " ".join(found))
    build = f"CUDA {environment.torch_cuda}" if environment.torch_cuda else "CPU"
    fbgemm = f"fbgemm-gpu-cpu {environment.fbgemm_cpu}"
    if environment.fbgemm_cuda is not None:
        fbgemm = f"fbgemm-gpu {environment.fbgemm_cuda}"
    return Check(
        "versions",
        Outcome.OK,
        f"Python {platform.python_version()}, torch {environment.torch} ({build}), {fbgemm}, "
        f"torchrec {environment.torchrec}",
    )


def _check_requirements(environment: Environment) -> Check:
    try:
        metadata.version("recsys")
    except metadata.PackageNotFoundError:
        return Check(
            "requirements", Outcome.SKIPPED, f"recsys runs from a checkout, not installed: {MEND}"
        )
    return _try("requirements", check_requirements, environment)


def _try(name: str, step: Callable[[], str], environment: Environment) -> Check:
    try:
        return Check(name, Outcome.OK, step())
    except Exception as error:
        return Check(name, Outcome.FAILED, explain(error, environment))


def _fused_collection(device: str) -> Any:
    """One table of 8 rows and width 4 whose optimiser is fused into the backward."""
    import torch
    from torchrec import EmbeddingBagConfig
    from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

    torch.manual_seed(0)
    table = EmbeddingBagConfig(
        name="rows", num_embeddings=8, embedding_dim=4, feature_names=["rows"]
    )
    return FusedEmbeddingBagCollection(
        tables=[table],
        optimizer_type=RowWiseAdagrad,
        optimizer_kwargs={"lr": LEARNING_RATE, "eps": EPSILON},
        device=torch.device(device),
    )


def _bags(device: str) -> tuple[Any, Any]:
    """Two bags, of the rows 1, 3, 3 and of the row 5, as indices [4] and offsets [3]."""
    import torch

    indices = torch.tensor([1, 3, 3, 5], device=device)
    return indices, torch.tensor([0, 3, 4], device=device)


def _keyed_jagged(indices: Any, offsets: Any) -> Any:
    from torchrec import KeyedJaggedTensor

    return KeyedJaggedTensor(keys=["rows"], values=indices, offsets=offsets)


def _round_trip_module() -> Any:
    import torch

    class RoundTrip(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            packed = torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(rows, 4)
            return torch.ops.fbgemm.FusedNBitRowwiseQuantizedSBHalfToFloat(packed, 4)

    return RoundTrip()


def _architectures() -> str:
    import torch

    return f"this one has {', '.join(torch.cuda.get_arch_list()) or 'none'}"


if __name__ == "__main__":
    run()
