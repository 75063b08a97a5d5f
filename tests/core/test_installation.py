"""Which versions fit together, the locks, the installer and the wheel."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.core.errors import InstallationError
from recsys.core.installation import (
    EXTRAS,
    FBGEMM_CPU,
    FBGEMM_CUDA,
    SUPPORTED_SETS,
    Environment,
    fbgemm_distribution,
    problems,
    read_environment,
    supported_set,
)
from recsys.install import (
    STAMP,
    ensure_venv,
    fingerprint,
    install,
    is_complete,
    pins,
    read_lock,
    remove_half_installed,
)

ROOT = Path(__file__).resolve().parents[2]
CPU = Environment(
    python=(3, 11), torch="2.13.0+cpu", torch_cuda=None, fbgemm_cpu="1.8.0", torchrec="1.8.0"
)
CUDA = Environment(
    python=(3, 12),
    torch="2.13.0",
    torch_cuda="13.0",
    fbgemm_cuda="1.8.0",
    torchrec="1.8.0",
    nvidia_driver=True,
)
OLDER = Environment(
    python=(3, 11), torch="2.11.0", torch_cuda="13.0", fbgemm_cpu="1.6.0", torchrec="1.6.1"
)


def run_python(*arguments: str, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Python without this environment's packages (-S), but with the modules under ``path``."""
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": f"{path}:{ROOT}"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("environment", [CPU, CUDA, OLDER], ids=["cpu", "cuda", "older"])
def test_matching_sets_have_no_problems(environment: Environment) -> None:
    assert problems(environment) == []
    assert is_complete(environment)


def test_this_environment_matches() -> None:
    assert problems(read_environment()) == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (replace(CPU, python=(3, 13)), "Python 3.13"),
        (replace(CPU, torch=None), "torch is not installed"),
        (replace(CPU, torch="2.14.1"), "tested with torch 2.11, 2.12, 2.13"),
        (replace(CPU, fbgemm_cpu=None), "FBGEMM is not installed"),
        (replace(CPU, fbgemm_cpu="1.6.0"), "fbgemm-gpu-cpu 1.6.0 does not match torch 2.13.0"),
        (replace(CPU, fbgemm_cuda="1.8.0"), "both installed"),
        (replace(CPU, fbgemm_cpu=None, fbgemm_cuda="1.8.0"), "torch is a CPU build"),
        (replace(CUDA, nvidia_driver=False), "no NVIDIA driver loads"),
        (replace(CPU, torchrec=None), "TorchRec is not installed"),
        (replace(OLDER, torchrec="1.8.0"), "needs 1.6.1"),
    ],
)
def test_each_problem_is_one_sentence_that_says_how_to_mend_it(
    environment: Environment, words: str
) -> None:
    (sentence,) = problems(environment)
    assert words in sentence
    assert "python -m recsys.install" in sentence or "use one of them" in sentence


def test_local_versions_count_as_their_public_version() -> None:
    found = replace(CUDA, torch="2.13.1+cu126", torch_cuda="12.6", fbgemm_cuda="1.8.0+cu126")
    assert problems(found) == []


@pytest.mark.parametrize(
    ("torch", "fbgemm"), [("2.11.0", "1.6.0"), ("2.12.1+cu130", "1.7.0"), ("2.13.0", "1.8.0")]
)
def test_supported_set_ignores_patch_and_local_version(torch: str, fbgemm: str) -> None:
    found = supported_set(torch)
    assert found is not None
    assert found.fbgemm == fbgemm


def test_unknown_torch_has_no_set() -> None:
    assert supported_set("2.1.0") is None
    assert supported_set("2.130.0") is None


def test_fbgemm_for_cuda_needs_a_cuda_torch_and_a_driver() -> None:
    assert fbgemm_distribution(CUDA) == FBGEMM_CUDA
    assert fbgemm_distribution(replace(CUDA, nvidia_driver=False)) == FBGEMM_CPU
    assert fbgemm_distribution(replace(CPU, nvidia_driver=True)) == FBGEMM_CPU


def test_a_cpu_fbgemm_is_incomplete_once_there_is_a_gpu() -> None:
    without_driver = replace(CUDA, fbgemm_cpu="1.8.0", fbgemm_cuda=None, nvidia_driver=False)
    assert is_complete(without_driver)
    assert not is_complete(replace(without_driver, nvidia_driver=True))


def test_environment_is_read_without_importing_torch(tmp_path: Path) -> None:
    torch = tmp_path / "torch"
    torch.mkdir()
    (torch / "__init__.py").write_text("raise ImportError('must not be imported')")
    (torch / "version.py").write_text("from typing import Optional\ncuda: Optional[str] = '12.8'\n")
    fake_distributions(tmp_path, torch="2.12.1", torchrec="1.7.0")
    program = (
        "from recsys.core.installation import *; e = read_environment(); print(e.torch_cuda, e)"
    )
    finished = run_python("-c", program, path=tmp_path)
    assert finished.stdout.startswith("12.8"), finished.stderr
    assert "torch='2.12.1'" in finished.stdout
    assert "fbgemm_cpu=None" in finished.stdout


def test_importing_a_room_without_torch_says_how_to_install_it() -> None:
    finished = run_python("-c", "import recsys.nn")
    assert finished.returncode == 1
    last_line = finished.stderr.splitlines()[-1]
    assert "InstallationError: torch is not installed" in last_line
    assert "python -m recsys.install" in last_line


def test_both_builds_of_fbgemm_are_seen(tmp_path: Path) -> None:
    distributions = {"torch": "2.13.0", FBGEMM_CPU: "1.8.0", FBGEMM_CUDA: "1.8.0"}
    fake_distributions(tmp_path, **distributions)
    finished = run_python("-c", "import recsys.nn", path=tmp_path)
    assert "both installed" in finished.stderr.splitlines()[-1]


def test_locks_agree_with_the_supported_sets() -> None:
    locks = sorted((ROOT / "requirements").glob("torch-*.txt"))
    assert [path.stem for path in locks] == ["torch-2.11", "torch-2.13"]
    for path in locks:
        lock = read_lock(path)
        expected = supported_set(lock["torch"])
        assert expected is not None
        assert path.stem == f"torch-{expected.torch}"
        assert lock[FBGEMM_CPU] == expected.fbgemm
        assert lock["torchrec"] == expected.torchrec
        assert not [name for name in lock if name.startswith(("nvidia", "cuda", "triton"))]
    # a CUDA build of torch pins its own Triton, which the tools must not replace
    assert "triton" not in read_lock(ROOT / "requirements" / "dev.txt")
    assert list(read_lock(ROOT / "requirements" / "triton.txt")) == ["triton"]


def test_locks_hold_every_requirement() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = setup["options"]["install_requires"].split("\n")
    needed += ["sweeps"]
    for name in ("torchrec.in", "sweeps.in"):
        needed += (ROOT / "requirements" / name).read_text().split("\n")
    names = {line.split(">")[0].strip() for line in needed if line and line[0] != "#"} - {""}
    for path in (ROOT / "requirements").glob("torch-*.txt"):
        assert names <= set(read_lock(path)), path.name


def test_every_extra_has_a_lock_of_what_it_needs() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    assert set(extras) == set(EXTRAS)
    for extra in EXTRAS:
        lock = read_lock(ROOT / "requirements" / f"{extra}.txt")
        needed = {line.split(">")[0].strip() for line in extras[extra].split("\n") if line}
        assert needed <= set(lock)
        for path in (ROOT / "requirements").glob("torch-*.txt"):
            assert not set(lock) & set(read_lock(path)), "the core installation has it already"


@pytest.mark.parametrize("wanted", SUPPORTED_SETS, ids=lambda wanted: wanted.torch)
def test_pins_hold_one_fbgemm_and_leave_torch_alone(wanted) -> None:
    chosen = pins(wanted, FBGEMM_CUDA, dev=False)
    assert chosen[FBGEMM_CUDA] == wanted.fbgemm
    assert chosen["torchrec"] == wanted.torchrec
    assert FBGEMM_CPU not in chosen
    assert "torch" not in chosen
    assert "pytest" not in chosen
    assert "lightgbm" not in chosen
    assert "pytest" in pins(wanted, FBGEMM_CPU, dev=True)
    assert "lightgbm" in pins(wanted, FBGEMM_CPU, dev=False, extras=["boosting"])
    assert "faiss-cpu" in chosen and "faiss-gpu" not in chosen
    on_gpus = pins(wanted, FBGEMM_CUDA, dev=False, extras=["gpu-index"])
    assert "faiss-gpu" in on_gpus and "faiss-cpu" not in on_gpus


def test_fingerprint_changes_with_what_is_installed() -> None:
    fingerprints = {fingerprint(wanted, dev) for wanted in SUPPORTED_SETS for dev in (True, False)}
    assert len(fingerprints) == 2 * len(SUPPORTED_SETS)
    with_extra = {fingerprint(wanted, False, ["boosting"]) for wanted in SUPPORTED_SETS}
    assert len(with_extra | fingerprints) == 3 * len(SUPPORTED_SETS)


def test_ensure_venv_refuses_a_folder_that_is_no_environment(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(InstallationError, match="no virtual environment"):
        ensure_venv(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "keep me"


@pytest.mark.slow
def test_an_interrupted_installation_is_mended(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    environment.mkdir()
    (environment / "pyvenv.cfg").write_text("")  # as far as an interrupted run had come
    python = ensure_venv(environment)
    created = (environment / "pyvenv.cfg").stat().st_mtime_ns
    assert ensure_venv(environment) == python
    assert (environment / "pyvenv.cfg").stat().st_mtime_ns == created

    install = [python, "-m", "pip", "install", "--no-index", "--no-deps", tiny_wheel(tmp_path)]
    subprocess.run(install, check=True, capture_output=True)
    (site_packages,) = (environment / "lib").glob("python*/site-packages")
    (site_packages / "tiny-1.0.dist-info" / "RECORD").unlink()
    (site_packages / "tiny.py").unlink()
    # pip takes it for installed ...
    subprocess.run(install, check=True, capture_output=True)
    assert not (site_packages / "tiny.py").is_file()
    # ... until its metadata is gone.
    remove_half_installed(site_packages)
    subprocess.run(install, check=True, capture_output=True)
    assert (site_packages / "tiny.py").is_file()
    assert (site_packages / "pip").is_dir()


def test_an_installed_wheel_holds_the_configuration(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("recsys", "conf", "requirements"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run([*pip, *wheel], check=True, capture_output=True)
    (built,) = tmp_path.glob("recsys-*.whl")
    install = ["install", "--no-deps", "--no-index", "--target", site, built]
    subprocess.run([*pip, *install], check=True, capture_output=True)

    program = (
        "from recsys.core.paths import conf_dir, requirements_dir; "
        "print(conf_dir(), len(list(conf_dir().rglob('*.yaml'))), "
        "(requirements_dir() / 'torch-2.13.txt').is_file())"
    )
    finished = subprocess.run(
        [sys.executable, "-S", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    files = len(list((ROOT / "conf").rglob("*.yaml")))
    assert finished.stdout.split() == [str(site / "recsys" / "conf"), str(files), "True"]


def test_cuda_is_not_promised_to_a_cpu_build_of_torch() -> None:
    if read_environment().torch_cuda is not None:
        pytest.skip("torch is a CUDA build here")
    stamp = Path(sys.prefix) / STAMP
    before = stamp.read_text() if stamp.is_file() else None
    with pytest.raises(InstallationError, match="is a CPU build, and --cuda needs one for CUDA"):
        install(None, dev=True, cuda=True)
    assert (stamp.read_text() if stamp.is_file() else None) == before


def fake_distributions(folder: Path, **versions: str) -> None:
    """Metadata of installed packages, as pip would leave it."""
    for name, version in versions.items():
        metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")


def tiny_wheel(folder: Path) -> Path:
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr(
            "tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return path
