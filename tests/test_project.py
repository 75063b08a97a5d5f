"""What holds for the project as a whole: the order of rooms, and what may not be committed."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: A room imports only rooms of earlier tiers, and itself (docs/architecture.md).
TIERS: tuple[tuple[str, ...], ...] = (
    ("data",),
    ("nn",),
    ("evaluation", "optim"),
    ("distributed",),
    ("models",),
    ("training",),
    ("export",),
    ("retrieval",),
    ("serving",),
    ("cli",),
)
ROOMS = [room for tier in TIERS for room in tier]

#: Places on one machine, and hosts of package registries.
LOCAL_PATHS = re.compile(r"(?<![\w.$~-])/(?:work|opt|root|home/(?!recsys)\w+)/\w")
REGISTRY_HOSTS = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs")


def imported_rooms(source: str) -> set[str]:
    """Rooms of ``recsys`` that a module imports, at its top or inside a function."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("recsys.")}
    return rooms & set(ROOMS)


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("this is no git checkout")
    files = [ROOT / line for line in listing.stdout.splitlines()]
    return [path for path in files if path.is_file() and not path.is_symlink()]


def test_imported_rooms_sees_every_form_of_import() -> None:
    source = (
        "import recsys.nn.tables\n"
        "from recsys.data import batch\n"
        "from recsys import cli\n"
        "from recsys.errors import DataError\n"
        "def f():\n    from recsys.export.artifact import load\n"
    )
    assert imported_rooms(source) == {"nn", "data", "cli", "export"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_to_its_left(room: str) -> None:
    tier = next(position for position, rooms in enumerate(TIERS) if room in rooms)
    allowed = {room, *(earlier for rooms in TIERS[:tier] for earlier in rooms)}
    offenders = {
        str(path.relative_to(ROOT)): sorted(forbidden)
        for path in sorted((ROOT / "recsys" / room).rglob("*.py"))
        if (forbidden := imported_rooms(path.read_text()) - allowed)
    }
    assert not offenders


def test_modules_beside_the_rooms_import_no_room() -> None:
    for path in (ROOT / "recsys").glob("*.py"):
        assert not imported_rooms(path.read_text()), path.name


def test_every_room_that_needs_torch_says_how_to_install_it() -> None:
    for room in set(ROOMS) - {"cli"}:
        package = ROOT / "recsys" / room / "__init__.py"
        if package.is_file():
            assert "require_supported_set()" in package.read_text(), room


def test_tracked_files_name_no_machine_and_no_registry() -> None:
    offenders = []
    for path in tracked_files():
        if path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if LOCAL_PATHS.search(line) or REGISTRY_HOSTS.search(line):
                offenders.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not offenders


def test_tracked_files_are_small() -> None:
    large = [str(path.relative_to(ROOT)) for path in tracked_files() if path.stat().st_size > 2**20]
    assert not large
