"""`recsys checkpoint inspect`, `unshard` and `reshard` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys.cli.main import invoke
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.checkpoint.plugins import write_file

TABLE = "tower.tables.embedding_bags.item.weight"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint of one file."""
    path = tmp_path / "one.ckpt"
    state = {"item.weight": {"item.weight.momentum_1": torch.rand(1000)}}
    content = {
        "state_dict": {TABLE: torch.rand(1000, 8), "layer.weight": torch.rand(3, 2)},
        "fused_tables": {"tower": {"tables": {"state": state}}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.rand(3, 2)}}}],
        "global_step": 42,
    }
    write_file(content, path)
    return path


def test_there_and_back(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, again = tmp_path / "two.ckpt", tmp_path / "again.ckpt"
    settings = [f"path={file}", f"out={folder}", "world_size=2", "sharding_type=column_wise"]
    assert invoke(["checkpoint", "reshard", *settings]) == 0
    assert invoke(["checkpoint", "inspect", f"path={folder}"]) == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if TABLE in line and "state of" not in line)
    assert "1,000 x 8" in line and "float32" in line and "0.03" in line
    assert "written by 2 process(es)" in printed and "step 42" in printed
    assert "It is whole; every checksum fits." in printed
    assert "1 tensors" in printed  # the dense optimiser's

    assert invoke(["checkpoint", "unshard", f"path={folder}", f"out={again}"]) == 0
    ours, expected = open_checkpoint(again).weights(), open_checkpoint(file).weights()
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    assert invoke(["checkpoint", "unshard", f"path={folder}", f"out={again}"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_file_is_inspected_too(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["checkpoint", "inspect", f"path={file}", "verify=false"]) == 0
    assert "one file of step 42" in capsys.readouterr().out


def test_damage_is_a_sentence(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "two.ckpt"
    invoke(["checkpoint", "reshard", f"path={file}", f"out={folder}", "world_size=2"])
    shard = folder / "__0_0.distcp"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert invoke(["checkpoint", "inspect", f"path={folder}"]) == 2
    assert "__0_0.distcp is damaged" in capsys.readouterr().err
    for verb, settings in (("unshard", []), ("reshard", ["world_size=1"])):
        out = tmp_path / "out.ckpt"
        assert invoke(["checkpoint", verb, f"path={folder}", f"out={out}", *settings]) == 2
        assert not out.exists()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [("world_size=0", "from 1 to 65,536"), ("sharding_type=diagonal", "one of table_wise")],
)
def test_impossible_settings_are_refused(
    file: Path, tmp_path: Path, setting: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"world_size": "2"} | dict([setting.split("=")])
    given = [f"{name}={value}" for name, value in settings.items()]
    out = f"out={tmp_path / 'out.ckpt'}"
    assert invoke(["checkpoint", "reshard", f"path={file}", out, *given]) == 2
    assert sentence in capsys.readouterr().err


def test_out_within_the_checkpoint_is_refused(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, link = tmp_path / "two.ckpt", tmp_path / "last.ckpt"
    invoke(["checkpoint", "reshard", f"path={file}", f"out={folder}", "world_size=2"])
    link.symlink_to(folder.name)
    there = sorted(path.name for path in folder.iterdir())
    for path, place in ((folder, folder), (link, folder / "deeper"), (folder, link)):
        for verb, settings in (("unshard", []), ("reshard", ["world_size=1"])):
            given = [f"path={path}", f"out={place / 'x'}", *settings]
            assert invoke(["checkpoint", verb, *given]) == 2
            assert "cannot be written while" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == there
    beside = ["checkpoint", "unshard", f"path={folder}", f"out={tmp_path / 'two.ckpt.x'}"]
    assert invoke(beside) == 0


def test_every_verb_has_its_example(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("inspect", "unshard", "reshard"):
        assert invoke(["checkpoint", verb, "--help"]) == 0
        assert f"Example: recsys checkpoint {verb} path=" in capsys.readouterr().out
