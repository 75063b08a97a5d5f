"""Artifacts that the user does not know are not loaded, and what they may be made of."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.artifacts.open import open_artifact, trust_artifact
from recsys.artifacts.trust import VARIABLE, remember, trusted_list
from recsys.cli.main import invoke
from recsys.core.errors import ArtifactError
from tests.artifacts.test_sequence_tower import exported
from tests.rewritten import ARTIFACT_KIND, rewrite


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of the test's own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "settings" / "trusted"))
    return tmp_path / "settings" / "trusted"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust") / "artifact"
    exported(folder)
    return folder


@pytest.fixture
def foreign(made: Path, listed: Path, tmp_path: Path) -> Path:
    """An artifact that somebody else has exported."""
    return Path(shutil.copytree(made, tmp_path / "artifact"))


@pytest.fixture
def artifact(foreign: Path) -> Path:
    """One that this user trusts."""
    trust_artifact(foreign)
    return foreign


def test_an_export_is_the_users_own_wherever_it_is_copied_to(listed: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    exported(artifact)
    open_artifact(artifact)
    open_artifact(shutil.copytree(artifact, tmp_path / "copy"))
    [line] = listed.read_text().splitlines()
    checksum = hashlib.sha256((artifact / "manifest.json").read_bytes()).hexdigest()
    assert line == f"{checksum} exported to {artifact}"


def test_what_is_not_in_the_list_is_not_loaded(
    foreign: Path, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(torch.jit, "load", lambda *args, **kwargs: loaded.append(args))
    with pytest.raises(ArtifactError, match=r"`recsys trust artifact=.*trust=true loads it") as why:
        open_artifact(foreign)
    assert str(listed) in str(why.value)
    assert not loaded and not listed.exists()


def test_it_is_loaded_once_or_from_now_on(foreign: Path, listed: Path) -> None:
    open_artifact(foreign, trust=True)
    assert not listed.exists()
    assert trust_artifact(foreign) == listed
    open_artifact(foreign)
    trust_artifact(foreign)
    assert len(listed.read_text().splitlines()) == 1
    listed.write_text("")  # taken back
    with pytest.raises(ArtifactError, match="not among the artifacts"):
        open_artifact(foreign)


def test_the_command_adds_it(
    foreign: Path, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["trust", f"artifact={foreign}"]) == 0
    assert listed.name in capsys.readouterr().err
    open_artifact(foreign)
    assert invoke(["trust", f"artifact={foreign.parent}"]) == 2
    assert "no manifest.json in it" in capsys.readouterr().err


def test_another_manifest_is_another_artifact(artifact: Path) -> None:
    created = {"created": "2000-01-01T00:00:00+00:00"}
    rewrite(artifact / "manifest.json", ARTIFACT_KIND, created)
    with pytest.raises(ArtifactError, match="not among the artifacts"):
        open_artifact(artifact)


@pytest.mark.parametrize("place", ["../config.yaml", "/etc/hostname", "elsewhere/a.yaml"])
def test_a_manifest_names_files_of_its_folder_alone(place: str, artifact: Path) -> None:
    (artifact.parent / "config.yaml").write_text("{}")

    def renamed(content: dict[str, Any]) -> None:
        content["files"][place] = content["files"].pop("config.yaml")

    rewrite(artifact / "manifest.json", ARTIFACT_KIND, renamed)
    with pytest.raises(ArtifactError, match="is missing though the manifest names it"):
        open_artifact(artifact, trust=True)


@pytest.mark.parametrize("name", ["config.yaml", "user_tower.pt"])
def test_links_are_refused(name: str, artifact: Path, tmp_path: Path) -> None:
    (artifact / name).rename(tmp_path / "elsewhere")
    (artifact / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is a link; an artifact holds its own files"):
        open_artifact(artifact)


def test_an_export_goes_on_where_the_list_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "trusted"))
    exported(tmp_path / "artifact")
    said = " ".join(capsys.readouterr().err.split())
    assert f"set {VARIABLE} to a file that can be written to" in said
    with pytest.raises(ArtifactError, match="not among the artifacts"):
        open_artifact(tmp_path / "artifact")
    open_artifact(tmp_path / "artifact", trust=True)


def test_several_at_once_leave_a_line_each(listed: Path) -> None:
    listed.parent.mkdir()
    listed.write_text("0" * 64)  # written by hand, without an end of the line
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: remember(b"%d" % (n % 20), "remark\nof two\nlines"), range(60)))
    lines = listed.read_text().splitlines()
    assert len(lines) == len({line.split()[0] for line in lines}) == 21
    assert all(line.endswith("remark of two lines") for line in lines[1:])


def test_where_the_list_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert trusted_list() == Path("/somebody/.config/recsys/trusted_artifacts")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/settings")
    assert trusted_list() == Path("/settings/recsys/trusted_artifacts")
