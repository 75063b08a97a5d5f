"""Which versions of torch, FBGEMM and TorchRec work together, and which are installed here.

Standard library only: ``recsys.install`` reads it before anything is installed, and the rooms
check themselves through it before they import what may be missing.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from recsys.core.errors import InstallationError

#: Minor versions of Python 3 that are tested.
PYTHON_MINORS = (11, 12)

#: Two distributions of one module, ``fbgemm_gpu``: installed together they overwrite each other.
FBGEMM_CPU = "fbgemm-gpu-cpu"
FBGEMM_CUDA = "fbgemm-gpu"

#: Extras of the installation, each with a lock of its own, and what it is for.
EXTRAS = {
    "boosting": "LightGBM on counts beside rankers",
    "tensorboard": "the logger of that name",
    "prometheus": "the logger of that name",
    "serve": "a funnel over HTTP",
    "tables": "logs in tables of Delta Lake and Iceberg",
    "tune": "Optuna, which proposes what is played next when a funnel is tuned",
    "ray": "preparing and checking data sets by several processes or machines",
    "gpu-index": "FAISS for GPUs in the place of faiss-cpu",
}
#: Those that fit every machine.
EXTRAS_OF_DEV = ("boosting", "tensorboard", "prometheus", "serve", "tables", "tune", "ray")

#: FAISS without and with GPUs: two distributions of one module, ``faiss``.
FAISS_CPU = "faiss-cpu"
FAISS_GPU = "faiss-gpu"

MEND = "run `python -m recsys.install` (in a checkout: `make setup`)"


@dataclass(frozen=True)
class SupportedSet:
    """Versions that belong together; any patch release of ``torch`` will do."""

    torch: str
    fbgemm: str
    torchrec: str


SUPPORTED_SETS = (
    SupportedSet(torch="2.11", fbgemm="1.6.0", torchrec="1.6.1"),
    SupportedSet(torch="2.12", fbgemm="1.7.0", torchrec="1.7.0"),
    SupportedSet(torch="2.13", fbgemm="1.8.0", torchrec="1.8.0"),
)


@dataclass(frozen=True)
class Environment:
    """What is installed where this Python runs; ``None`` stands for absent.

    Attributes:
        python: major and minor version.
        torch: version of torch, local part included (``2.13.0+cpu``).
        torch_cuda: CUDA version torch was built for, ``None`` for a CPU build.
        fbgemm_cpu: version of the distribution ``fbgemm-gpu-cpu``.
        fbgemm_cuda: version of the distribution ``fbgemm-gpu``.
        torchrec: version of TorchRec.
        nvidia_driver: whether the driver's libraries load; FBGEMM's CUDA build fails on import
            without them.
    """

    python: tuple[int, int]
    torch: str | None = None
    torch_cuda: str | None = None
    fbgemm_cpu: str | None = None
    fbgemm_cuda: str | None = None
    torchrec: str | None = None
    nvidia_driver: bool = False

    @property
    def runs_cuda(self) -> bool:
        """Whether torch can use an NVIDIA GPU here."""
        return self.torch_cuda is not None and self.nvidia_driver


def read_environment() -> Environment:
    """What is installed, read from package metadata; imports none of it."""
    return Environment(
        python=(sys.version_info[0], sys.version_info[1]),
        torch=_version("torch"),
        torch_cuda=_cuda_of_torch(),
        fbgemm_cpu=_version(FBGEMM_CPU),
        fbgemm_cuda=_version(FBGEMM_CUDA),
        torchrec=_version("torchrec"),
        nvidia_driver=_nvidia_driver_loads(),
    )


def supported_set(torch: str) -> SupportedSet | None:
    """The set a version of torch belongs to (``2.13.0+cpu`` to that of 2.13)."""
    minor = ".".join(torch.split(".")[:2])
    return next((known for known in SUPPORTED_SETS if known.torch == minor), None)


def fbgemm_distribution(environment: Environment) -> str:
    """The FBGEMM that fits the torch found: CUDA only where torch and the driver both have it."""
    return FBGEMM_CUDA if environment.runs_cuda else FBGEMM_CPU


def problems(environment: Environment) -> list[str]:
    """What keeps ``recsys`` from working, each in a sentence that ends with how to mend it.

    An empty list means that the versions fit; only ``recsys doctor`` tries them out.
    """
    found = _python_problems(environment)
    if environment.torch is None:
        return [*found, f"torch is not installed: {MEND}."]
    expected = supported_set(environment.torch)
    if expected is None:
        known = ", ".join(known.torch for known in SUPPORTED_SETS)
        return [
            *found,
            f"torch {environment.torch} is installed, but recsys is tested with torch {known}: "
            f"uninstall torch (or use a fresh environment), then {MEND}.",
        ]
    return [
        *found,
        *_fbgemm_problems(environment, expected),
        *_torchrec_problems(environment, expected),
    ]


@functools.cache
def require_supported_set() -> None:
    """Refuse to go on without a matching torch, FBGEMM and TorchRec; every room calls it.

    Raises:
        InstallationError: a package is missing or does not match the others.
    """
    found = problems(read_environment())
    if found:
        raise InstallationError(" ".join(found))
    quiet_fbgemm()


def quiet_fbgemm() -> None:
    """Drop FBGEMM's remark that it does not know its own version.

    FBGEMM 1.6 logs it a dozen times on import; what it is about has been checked here.
    """
    logging.getLogger().addFilter(_is_no_compatibility_remark)


def _is_no_compatibility_remark(record: logging.LogRecord) -> bool:
    return "_fbgemm_torch_compat_table has no entry" not in record.getMessage()


def extra_command(extra: str) -> str:
    """How an extra is installed."""
    return f"`python -m recsys.install --extra {extra}`"


def _python_problems(environment: Environment) -> list[str]:
    major, minor = environment.python
    if major == 3 and minor in PYTHON_MINORS:
        return []
    known = " and ".join(f"3.{minor}" for minor in PYTHON_MINORS)
    return [f"This is Python {major}.{minor}, recsys is tested on {known}: use one of them."]


def _fbgemm_problems(environment: Environment, expected: SupportedSet) -> list[str]:
    cpu, cuda = environment.fbgemm_cpu, environment.fbgemm_cuda
    if cpu is None and cuda is None:
        return [f"FBGEMM is not installed: {MEND}."]
    if cpu is not None and cuda is not None:
        return [
            f"{FBGEMM_CPU} {cpu} and {FBGEMM_CUDA} {cuda} are both installed and overwrite each "
            f"other's files: {MEND}, which removes both and installs the right one."
        ]
    name, version = (FBGEMM_CPU, cpu) if cpu is not None else (FBGEMM_CUDA, cuda)
    if _public(version) != expected.fbgemm:
        return [
            f"{name} {version} does not match torch {environment.torch}, which needs "
            f"{expected.fbgemm}: {MEND}."
        ]
    if name == FBGEMM_CUDA and not environment.runs_cuda:
        reason = "torch is a CPU build" if not environment.torch_cuda else "no NVIDIA driver loads"
        return [f"{FBGEMM_CUDA} {cuda} is installed but {reason}: {MEND}."]
    return []


def _torchrec_problems(environment: Environment, expected: SupportedSet) -> list[str]:
    if environment.torchrec is None:
        return [f"TorchRec is not installed: {MEND}."]
    if _public(environment.torchrec) != expected.torchrec:
        return [
            f"TorchRec {environment.torchrec} does not match torch {environment.torch}, which "
            f"needs {expected.torchrec}: {MEND}."
        ]
    return []


def _public(version: str | None) -> str:
    """A version without its local part (``1.8.0+cu130`` is 1.8.0 built for CUDA 13.0)."""
    return (version or "").split("+")[0]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cuda_of_torch() -> str | None:
    """CUDA version of the installed torch, read from its source: importing it takes seconds."""
    specification = importlib.util.find_spec("torch")
    if specification is None or specification.origin is None:
        return None
    version_file = Path(specification.origin).parent / "version.py"
    if not version_file.is_file():
        return None
    match = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", version_file.read_text(), re.MULTILINE)
    return match[1] if match else None


def _nvidia_driver_loads() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True
