"""What may not be committed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Places on one machine, and hosts of package registries.
LOCAL_PATHS = re.compile(r"(?<![\w.$~-])/(?:work|opt|root|home/(?!recsys)\w+)/\w")
REGISTRY_HOSTS = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs")


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("this is no git checkout")
    files = [ROOT / line for line in listing.stdout.splitlines()]
    return [path for path in files if path.is_file() and not path.is_symlink()]


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
