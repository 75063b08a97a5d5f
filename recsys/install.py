"""Install `recsys` with exact versions: ``python -m recsys.install``, from a bare Python on.

Uses the standard library alone. In an environment that already holds torch (CPU or CUDA) it keeps
that torch and installs the FBGEMM and TorchRec that match; otherwise it installs the default
torch. It may be interrupted and run again; once everything is in place a run changes nothing.

``RECSYS_TORCH_INDEX_URL`` names a further package index for torch and FBGEMM, for example the
one of torch's publishers that holds CPU builds, or builds for another CUDA version.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from recsys.core.errors import InstallationError
from recsys.core.installation import (
    EXTRAS,
    EXTRAS_OF_DEV,
    FAISS_CPU,
    FAISS_GPU,
    FBGEMM_CPU,
    FBGEMM_CUDA,
    PYTHON_MINORS,
    SUPPORTED_SETS,
    Environment,
    SupportedSet,
    fbgemm_distribution,
    problems,
    read_environment,
    supported_set,
)
from recsys.core.paths import PACKAGE, requirements_dir

DEFAULT_TORCH = "2.13"
TORCH_INDEX_URL = "RECSYS_TORCH_INDEX_URL"

#: In ``sys.prefix``: the fingerprint of what is installed, or IN_PROGRESS.
STAMP = ".recsys-installed"
IN_PROGRESS = "in progress"


def main() -> None:
    """Entry point of ``python -m recsys.install``."""
    arguments = _parse_arguments()
    try:
        _require_python()
        if arguments.venv is not None:
            python = ensure_venv(arguments.venv)
            forwarded = ["--torch", arguments.torch] if arguments.torch else []
            forwarded += ["--dev"] if arguments.dev else []
            forwarded += ["--cuda"] if arguments.cuda else []
            forwarded += [word for extra in arguments.extra for word in ("--extra", extra)]
            os.execv(python, [str(python), "-m", "recsys.install", *forwarded])
        install(arguments.torch, arguments.dev, arguments.cuda, arguments.extra)
    except InstallationError as error:
        sys.exit(f"recsys: {error}")


def ensure_venv(folder: Path) -> Path:
    """The Python of the virtual environment ``folder``, which is made where it is absent or broken.

    Raises:
        InstallationError: ``folder`` holds something else, or Python lacks ``venv``.
    """
    with _exclusive(PACKAGE.parent):
        python = folder.absolute() / "bin" / "python"
        if _has_pip(python):
            return python
        if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
            raise InstallationError(f"{folder} exists and is no virtual environment: remove it.")
        _say(f"Making the virtual environment {folder}")
        try:
            venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(folder)
        except subprocess.CalledProcessError as error:
            raise InstallationError(
                "Python cannot make virtual environments with pip: install its `venv` and "
                "`ensurepip` modules (on Debian the package python3-venv)."
            ) from error
        return python


def install(torch: str | None, dev: bool, cuda: bool = False, extras: Sequence[str] = ()) -> None:
    """Bring the running Python's environment to the lock; do nothing where it is there already.

    Args:
        torch: minor version to install (``2.13``); ``None`` takes the one found, or the default.
        dev: install the tools of the tests and of ``make lint`` too, and the extras that fit every
            machine.
        cuda: install for NVIDIA GPUs also where no driver is, to build an image; what is installed
            cannot be tried out then.
        extras: what only some users need, names of ``EXTRAS``.

    Raises:
        InstallationError: the torch found is not supported, pip failed, or the result does not run.
    """
    extras = sorted({*extras, *(EXTRAS_OF_DEV if dev else ())})
    with _exclusive(Path(sys.prefix)):
        environment = _read_environment(cuda)
        wanted = _choose_set(environment, torch)
        if cuda and environment.torch is not None:
            _require_cuda_build(environment)
        stamp = Path(sys.prefix) / STAMP
        previous = stamp.read_text() if stamp.is_file() else ""
        current = fingerprint(wanted, dev, extras)
        if previous == current and is_complete(environment):
            _say(f"Up to date: {_describe(environment)}")
            return
        if not _has_pip(Path(sys.executable)):
            raise InstallationError(f"{sys.executable} has no pip: run it with `-m ensurepip`.")
        if previous == IN_PROGRESS:
            remove_half_installed(Path(sysconfig.get_path("purelib")))
        stamp.write_text(IN_PROGRESS)
        _install_packages(environment, wanted, dev, cuda, extras)
        if cuda and not read_environment().nvidia_driver:
            _say("Not tried out, for no NVIDIA driver is here: `recsys doctor` does where one is")
        else:
            _verify()
        stamp.write_text(current)
        _say(f"Installed: {_describe(_read_environment(cuda))}")


def is_complete(environment: Environment) -> bool:
    """Whether torch, TorchRec and the FBGEMM of this machine are all there and match."""
    other = FBGEMM_CPU if fbgemm_distribution(environment) == FBGEMM_CUDA else FBGEMM_CUDA
    return not problems(environment) and other not in _installed_fbgemm(environment)


def read_lock(path: Path) -> dict[str, str]:
    """The pins of a lock file: distribution name to exact version."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


def pins(
    wanted: SupportedSet, fbgemm: str, dev: bool, extras: Sequence[str] = ()
) -> dict[str, str]:
    """Everything to install beside torch, which has its own step.

    torch 2.12 has no lock of its own: it takes the default lock with its own FBGEMM and TorchRec.
    """
    locked = read_lock(_lock_path(wanted))
    for name in ("torch", FBGEMM_CPU):
        del locked[name]
    for name in [*(["dev"] if dev else []), *extras]:
        locked |= read_lock(requirements_dir() / f"{name}.txt")
    if FAISS_GPU in locked:
        del locked[FAISS_CPU]  # which has the same files
    return locked | {fbgemm: wanted.fbgemm, "torchrec": wanted.torchrec}


def fingerprint(wanted: SupportedSet, dev: bool, extras: Sequence[str] = ()) -> str:
    """A hash of everything that decides what is installed, the place of the checkout included."""
    decided = (wanted, dev, sys.version_info[:2], str(PACKAGE), *extras)
    digest = hashlib.sha256(repr(decided).encode())
    files = [_lock_path(wanted)]
    files += [requirements_dir() / name for name in ("dev.txt", "triton.txt")]
    files += [requirements_dir() / f"{extra}.txt" for extra in extras]
    files += [PACKAGE.parent / "setup.cfg", Path(__file__)]
    for path in files:
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def remove_half_installed(site_packages: Path) -> None:
    """Remove the metadata of packages whose installation was interrupted.

    pip writes RECORD last; without it pip takes the package for installed but cannot replace it.
    """
    for metadata_folder in site_packages.glob("*.dist-info"):
        if not (metadata_folder / "RECORD").is_file():
            shutil.rmtree(metadata_folder)


def _install_packages(
    environment: Environment, wanted: SupportedSet, dev: bool, cuda: bool, extras: Sequence[str]
) -> None:
    if environment.torch is None:
        version = read_lock(_lock_path(wanted))["torch"]
        _say(f"Installing torch {version}")
        if not os.environ.get(TORCH_INDEX_URL) and not environment.nvidia_driver:
            _say(f"({TORCH_INDEX_URL} can name an index with CPU builds, which are smaller)")
        _pip("install", f"torch=={version}", "--constraint", str(_lock_path(wanted)))
        environment = _read_environment(cuda)
    if cuda:
        _require_cuda_build(environment)
    fbgemm = fbgemm_distribution(environment)
    found = _installed_fbgemm(environment)
    if found and found != [fbgemm]:
        _say(f"Removing {' and '.join(found)}, to be replaced by {fbgemm}")
        _pip("uninstall", "--yes", *found)
    chosen = pins(wanted, fbgemm, dev, extras)
    other = FAISS_CPU if FAISS_GPU in chosen else FAISS_GPU
    if _version(other) is not None:
        _say(f"Removing {other}, whose files another FAISS has too")
        _pip("uninstall", "--yes", other)
    if dev and environment.torch_cuda is None:
        chosen |= read_lock(requirements_dir() / "triton.txt")
    _say(f"Installing {len(chosen)} pinned packages for torch {environment.torch}")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.writelines(f"{name}=={version}\n" for name, version in chosen.items())
        requirements.flush()
        # Without dependencies: the lock is complete, and TorchRec's metadata would bring in the
        # CUDA build of FBGEMM beside the CPU build and an old torchmetrics.
        _pip("install", "--no-deps", "--requirement", requirements.name)
    if (PACKAGE.parent / "setup.cfg").is_file():
        _pip("install", "--no-deps", "--no-build-isolation", "--editable", str(PACKAGE.parent))


def _verify() -> None:
    _say("Checking the installation (recsys doctor)")
    if subprocess.run([sys.executable, "-m", "recsys.cli.doctor"]).returncode != 0:
        raise InstallationError("the packages are installed but do not work; see the lines above.")


def _choose_set(environment: Environment, torch: str | None) -> SupportedSet:
    known = ", ".join(known.torch for known in SUPPORTED_SETS)
    if environment.torch is None:
        wanted = supported_set(torch or DEFAULT_TORCH)
        if wanted is None or not _own_lock(wanted).is_file():
            locked = ", ".join(s.torch for s in SUPPORTED_SETS if _own_lock(s).is_file())
            raise InstallationError(
                f"there is no lock for torch {torch}, only for {locked}; of {known} any that is "
                "already installed is kept."
            )
        return wanted
    found = supported_set(environment.torch)
    if found is None:
        raise InstallationError(
            f"this environment holds torch {environment.torch}; recsys is tested with {known}: "
            "uninstall torch, or use a fresh environment."
        )
    if torch is not None and found != supported_set(torch):
        raise InstallationError(
            f"this environment holds torch {environment.torch}, not {torch}: remove it "
            "(`make clean-venv`), or use another one (`make setup VENV=…`)."
        )
    return found


def _require_cuda_build(environment: Environment) -> None:
    if environment.torch_cuda is None:
        raise InstallationError(
            f"torch {environment.torch} is a CPU build, and --cuda needs one for CUDA: use a fresh "
            f"environment and an index that has it ({TORCH_INDEX_URL}), or leave --cuda out."
        )


def _lock_path(wanted: SupportedSet) -> Path:
    own = _own_lock(wanted)
    return own if own.is_file() else requirements_dir() / f"torch-{DEFAULT_TORCH}.txt"


def _own_lock(wanted: SupportedSet) -> Path:
    return requirements_dir() / f"torch-{wanted.torch}.txt"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _installed_fbgemm(environment: Environment) -> list[str]:
    versions = {FBGEMM_CPU: environment.fbgemm_cpu, FBGEMM_CUDA: environment.fbgemm_cuda}
    return [name for name, version in versions.items() if version is not None]


def _read_environment(cuda: bool) -> Environment:
    """What is installed by now, with a driver where it is to be taken for given."""
    importlib.invalidate_caches()
    environment = read_environment()
    return replace(environment, nvidia_driver=True) if cuda else environment


def _describe(environment: Environment) -> str:
    fbgemm = f"{FBGEMM_CPU} {environment.fbgemm_cpu}"
    if environment.fbgemm_cuda is not None:
        fbgemm = f"{FBGEMM_CUDA} {environment.fbgemm_cuda}"
    return f"torch {environment.torch}, {fbgemm}, torchrec {environment.torchrec}"


def _pip(verb: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", verb, "--disable-pip-version-check", *arguments]
    if not sys.stderr.isatty():
        command.append("--quiet")
    if verb == "install" and os.environ.get(TORCH_INDEX_URL):
        command += ["--extra-index-url", os.environ[TORCH_INDEX_URL]]
    if subprocess.run(command).returncode != 0:
        raise InstallationError(
            f"`pip {verb}` failed, its last lines say why; running this again goes on from here."
        )


def _has_pip(python: Path) -> bool:
    if not python.is_file():
        return False
    finished = subprocess.run([python, "-m", "pip", "--version"], capture_output=True)
    return finished.returncode == 0


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Let one installation at a time work on ``folder``; a second one waits."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _require_python() -> None:
    major, minor = sys.version_info[:2]
    if major != 3 or minor not in PYTHON_MINORS:
        known = " or ".join(f"3.{minor}" for minor in PYTHON_MINORS)
        raise InstallationError(
            f"{sys.executable} is Python {major}.{minor}; recsys needs Python {known} "
            "(`make setup PYTHON=/path/to/python3.11`)."
        )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recsys.install",
        description="Install recsys with exact versions.",
        epilog="example: python -m recsys.install --venv .venv --dev",
    )
    parser.add_argument("--venv", type=Path, help="make (or mend) this environment and use it")
    parser.add_argument("--torch", help="minor version of torch, where none is installed (2.13)")
    parser.add_argument(
        "--dev", action="store_true", help="the tools of `make test` and `lint` too"
    )
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        choices=tuple(EXTRAS),
        help="what only some users need: " + "; ".join(f"{k}: {v}" for k, v in EXTRAS.items()),
    )
    parser.add_argument(
        "--cuda", action="store_true", help="for NVIDIA GPUs, also where no driver is (an image)"
    )
    return parser.parse_args()


def _say(line: str) -> None:
    print(f"recsys: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
