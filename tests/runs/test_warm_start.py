"""A model takes weights of another: the same, renamed, grown and ignored ones."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchrec import EmbeddingBagConfig, KeyedJaggedTensor

from recsys.core.errors import ArtifactError, ConfigError
from recsys.data.contract.manifest import GROWN_FROM
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.checkpoint.offline import reshard
from recsys.distributed.checkpoint.plugins import write_file
from recsys.distributed.table_module import TableModule
from recsys.nn.tables.collection import bag_collection, tables_without_memory, uniform_rows
from recsys.nn.tables.first_rows import rows_come_later
from recsys.optim.dense import ScheduleConfig
from recsys.optim.fused import FusedOptimizerConfig
from recsys.runs.checkpoints import CHECKPOINTS
from recsys.runs.config import TrainerConfig
from recsys.runs.warm_start import RenamedConfig, WarmStartConfig, take_weights
from recsys.runs.warm_start_callback import ids_differ, report
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.runs import load_run, train
from tests.manifests import EMPTY
from tests.small_runs import TINY_RUN

MANIFEST = EMPTY
STATE = "{0}.weight", "{0}.weight.momentum_1"


class Part(nn.Module):
    """A table of items."""

    def __init__(self, rows: int, table: str) -> None:
        super().__init__()
        self.tables = bag_collection(
            [
                EmbeddingBagConfig(
                    name=table,
                    embedding_dim=4,
                    num_embeddings=rows,
                    feature_names=[table],
                    init_fn=uniform_rows("item", 0.5),
                )
            ]
        )
        self.scale = nn.Parameter(torch.rand(()))


class Toy(TableModule):
    """A part with a table, and a layer."""

    def __init__(self, rows: int, seed: int, part: str = "part", table: str = "item") -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.part_name, self.table_name = part, table
        setattr(self, part, Part(rows, table))
        self.layer = nn.Linear(4, 2)
        self.configure_model()

    def table_optimizers(self) -> dict[str, FusedOptimizerConfig]:
        return {self.part_name: FusedOptimizerConfig(learning_rate=0.1)}

    def table_schedule(self) -> ScheduleConfig:
        return ScheduleConfig()

    def step(self) -> None:
        """Every row but the first gets a gradient, of its own size."""
        rows = self.weight.shape[0]
        features = KeyedJaggedTensor(
            keys=[self.table_name],
            values=torch.arange(1, rows),
            lengths=torch.ones(rows - 1, dtype=torch.int32),
        )
        pooled = getattr(self, self.part_name).tables(features).values()
        (pooled * torch.arange(1.0, rows).unsqueeze(1)).sum().backward()

    @property
    def weight(self) -> torch.Tensor:
        return self.state_dict()[f"{self.part_name}.tables.embedding_bags.{self.table_name}.weight"]

    @property
    def table_state(self) -> torch.Tensor:
        state = self.tables[self.part_name].state_dict()["tables"]["state"]
        outer, inner = (one.format(self.table_name) for one in STATE)
        value: torch.Tensor = state[outer][inner]
        return value.clone()


def saved(model: Toy, path: Path) -> str:
    """The model's checkpoint."""
    content: dict[str, Any] = {"state_dict": model.state_dict(), "global_step": 5}
    model.on_save_checkpoint(content)
    write_file(content, path)
    return str(path)


@pytest.fixture
def old() -> Toy:
    """A model of 7 rows, trained for a step."""
    model = Toy(7, seed=1)
    model.step()
    return model


def test_everything_that_is_the_same_is_taken(old: Toy, tmp_path: Path) -> None:
    model = Toy(7, seed=2)
    untouched = model.table_state
    taken = take_weights(model, WarmStartConfig(saved(old, tmp_path / "old.ckpt")))
    for name, value in old.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert sorted(taken.same) == sorted(old.state_dict())
    assert torch.equal(model.table_state, untouched)  # not asked for


@pytest.mark.parametrize("sharding_type", [None, "table_wise", "column_wise", "row_wise"])
def test_a_renamed_table_grows_with_its_state(
    old: Toy, tmp_path: Path, sharding_type: str | None
) -> None:
    path = tmp_path / "old.ckpt"
    saved(old, path)
    if sharding_type is not None:
        reshard(open_checkpoint(path), tmp_path / "folder.ckpt", 2, sharding_type)
        path = tmp_path / "folder.ckpt"
    model, fresh = Toy(9, 2, "tower", "item"), Toy(9, 2, "tower", "item")
    names = [
        RenamedConfig("part.tables.embedding_bags.item", "tower.tables.embedding_bags.item"),
        RenamedConfig("part", "tower"),
    ]
    config = WarmStartConfig(str(path), names, ["layer.bias"], grown=True, table_state=True)
    taken = take_weights(model, config)
    assert torch.equal(model.weight[:7], old.weight)
    assert torch.equal(model.weight[7:], fresh.weight[7:])
    assert torch.equal(model.table_state[:7], old.table_state)
    assert torch.equal(model.table_state[7:], torch.zeros(2))
    assert torch.equal(model.layer.weight, old.layer.weight)
    assert torch.equal(model.layer.bias, fresh.layer.bias)
    lines = "\n".join(report(taken, "old.ckpt"))
    assert "3 weights taken, 2 of them under another name and 1 grown; 1 ignored" in lines
    assert "grown: tower.tables.embedding_bags.item.weight, 7 to 9 rows" in lines
    assert "renamed: part.scale is tower.scale" in lines
    assert "ignored: layer.bias" in lines
    model.step()  # the table still learns, from the state it took
    assert (model.table_state[1:7] > old.table_state[1:7]).all()


def test_a_warm_start_draws_only_the_rows_it_does_not_take(old: Toy, tmp_path: Path) -> None:
    path = saved(old, tmp_path / "old.ckpt")
    fresh = Toy(9, seed=2)
    for config, taken_rows in (
        (WarmStartConfig(path, grown=True), 7),
        (WarmStartConfig(path, ignore=["*.item.weight"]), 0),
    ):
        with rows_come_later():
            with tables_without_memory():
                model = Toy(9, seed=2)
            assert model.weight.isnan().all()
            take_weights(model, config)
        assert torch.equal(model.weight[:taken_rows], old.weight[:taken_rows])
        assert torch.equal(model.weight[taken_rows:], fresh.weight[taken_rows:])


def test_what_does_not_match_is_named(old: Toy, tmp_path: Path) -> None:
    path = saved(old, tmp_path / "old.ckpt")
    with pytest.raises(ConfigError, match=r"not in the checkpoint but in the model: tower\.scale"):
        take_weights(Toy(7, 2, "tower"), WarmStartConfig(path))
    with pytest.raises(ConfigError, match=r"in the checkpoint but not in the model: part\.scale"):
        take_weights(Toy(7, 2, "tower"), WarmStartConfig(path, ignore=["tower*"]))
    with pytest.raises(ConfigError, match=r"\[7, 4\] in the checkpoint.*\[9, 4\].*grown=true"):
        take_weights(Toy(9, 2), WarmStartConfig(path))
    with pytest.raises(ConfigError, match=r"\[7, 4\] in the checkpoint.*\[6, 4\].*warm_start.ig"):
        take_weights(Toy(6, 2), WarmStartConfig(path, grown=True))
    everything = (
        r"but in the model: layer\.bias, layer\.weight; .*"
        r"not in the model: layer\.bias, layer\.weight; .*"
        r"And .*\[7, 4\] in the checkpoint.*\[9, 4\].*grown=true"
    )
    with pytest.raises(ConfigError, match=everything):
        take_weights(Toy(9, 2), WarmStartConfig(path, [RenamedConfig("layer", "head")]))
    with pytest.raises(ConfigError, match=r"the same name layer\.weight"):
        names = [RenamedConfig("layer.bias", "layer.weight")]
        take_weights(Toy(7, 2), WarmStartConfig(path, names))
    with pytest.raises(ArtifactError, match="is not there"):
        take_weights(Toy(7, 2), WarmStartConfig(path + ".no"))


def test_a_run_starts_from_another(
    data_overrides: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One step from the best weights of a run is near them, and at another learning rate."""
    from recsys.core.composition import compose

    def trained(name: str, *overrides: str) -> Path:
        steps = ("trainer.max_steps=1", f"run_dir={tmp_path / name}")
        return train(
            compose("train", DV365RunConfig, [*TINY_RUN, *data_overrides, *steps, *overrides])
        )

    first = load_run(trained("first")).model.state_dict()
    still = ("optim.dense.learning_rate=1e-9", "seed=5", "optim.dense.weight_decay=0")
    tables = ("optim.slice_tables.learning_rate=1e-9", "optim.feature_tables.learning_rate=1e-9")
    checkpoint = f"warm_start.checkpoint={tmp_path / 'first' / 'checkpoints' / 'best.ckpt'}"
    second = load_run(trained("second", checkpoint, *still, *tables)).model.state_dict()
    assert "Warm start from" in capsys.readouterr().err
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-6, msg=name)
    # cut off before its first checkpoint, it starts anew, and from the same weights
    shutil.rmtree(tmp_path / "second" / CHECKPOINTS)
    anew = trained("second", checkpoint, *still, *tables, "resume=true")
    again = load_run(anew).model.state_dict()
    assert "Warm start from" in capsys.readouterr().err
    for name, value in second.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=1e-6, msg=name)


def test_other_ids_are_noticed(tmp_path: Path) -> None:
    for name, fingerprint, grown_from in (("old", "a", []), ("new", "b", ["a"]), ("else", "c", [])):
        (tmp_path / name).mkdir()
        manifest = replace(MANIFEST, fingerprint=fingerprint, preparation={GROWN_FROM: grown_from})
        manifest.save(tmp_path / name)
    checkpoint = tmp_path / "old" / "checkpoints" / "best.ckpt"
    assert not ids_differ(checkpoint, tmp_path / "old")
    assert not ids_differ(checkpoint, tmp_path / "new")
    assert ids_differ(checkpoint, tmp_path / "else")
    assert not ids_differ(tmp_path / "alone.ckpt", tmp_path / "else")


def test_settings_of_checkpoints_are_checked() -> None:
    with pytest.raises(ConfigError, match="keep_best is 0"):
        TrainerConfig(keep_best=0)
