"""A sharded checkpoint is gone on with on the same ranks, on others, and with tables cut anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.checkpoint.plugins import OneFileCheckpoints
from recsys.distributed.checkpoint.tensors import TENSOR_PARTS, tensors_in
from recsys.optim.fused import merged_columns

from ..ranks import module_of, run_script

PROCESS = Path(__file__).with_name("resume_process.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all runs of ``resume_process.py`` have saved."""
    folder = tmp_path_factory.mktemp("runs")
    run_script(PROCESS, folder, timeout=600)
    return folder


def saved(folder: Path, name: str) -> dict[str, Any]:
    """A run's checkpoint, checked; the state of column shards merged as for a whole table."""
    stored = open_checkpoint(folder / f"{name}.ckpt")
    stored.check()
    content = stored.whole()
    for collections in content["fused_tables"].values():
        for collection in collections.values():
            for table in collection["state"].values():
                for key, value in table.items():
                    if value.ndim == 1:
                        rows = _rows(content["state_dict"], key.removesuffix(".momentum_1"))
                        table[key] = merged_columns(value, value[:rows])
    return content


def _rows(weights: dict[str, torch.Tensor], table: str) -> int:
    [rows] = {len(value) for name, value in weights.items() if name.endswith(f".{table}")}
    return rows


def assert_same(first: dict[str, Any], second: dict[str, Any], rtol: float = 0) -> None:
    """Weights and optimiser states are the same."""
    ours, expected = dict(tensors_in(first)), dict(tensors_in(second))
    assert {place[0] for place in expected} <= set(TENSOR_PARTS)
    torch.testing.assert_close(ours, expected, rtol=rtol, atol=0)


def test_a_run_that_was_stopped_equals_the_one_that_was_not(folder: Path) -> None:
    """Bit for bit; the latter two also wrote in the background."""
    assert_same(saved(folder, "resumed"), saved(folder, "whole"))
    with pytest.raises(AssertionError):
        assert_same(saved(folder, "half"), saved(folder, "whole"))


@pytest.mark.parametrize("name", ["two_on_one", "replicated"])
def test_another_number_of_ranks_or_replicas_has_the_same_state(folder: Path, name: str) -> None:
    assert_same(saved(folder, name), saved(folder, "half"))


def test_cut_by_columns_on_three_ranks_each_part_starts_with_the_whole_tables_state(
    folder: Path,
) -> None:
    """The mean of the parts, which are alike, is the state there was but for rounding."""
    assert_same(saved(folder, "two_on_three_by_columns"), saved(folder, "half"), rtol=1e-6)
    stored = open_checkpoint(folder / "two_on_three_by_columns.ckpt")
    assert stored.world_size == 3
    columns = {
        place[-1]: one.size[0]
        for place, one in stored.tensors().items()
        if place[0] == "fused_tables"
    }
    whole = {
        place[-1]: one.size[0]
        for place, one in open_checkpoint(folder / "half.ckpt").tensors().items()
        if place[0] == "fused_tables"
    }
    assert columns == {name: 2 * rows for name, rows in whole.items()}  # width 8, four a shard


@pytest.mark.parametrize("name", ["one_on_two", "two_on_two_by_columns"])
def test_adagrad_does_not_care_how_tables_are_cut(folder: Path, name: str) -> None:
    assert_same(saved(folder, name), saved(folder, "one"))


def test_an_optimiser_spread_over_the_ranks_is_saved_where_it_lies(folder: Path) -> None:
    """Shampoo: each rank writes the state of its blocks; others take what is theirs."""
    assert_same(saved(folder, "shampoo_resumed"), saved(folder, "shampoo_whole"))
    for name in ("shampoo_on_three", "shampoo_on_one"):
        assert_same(saved(folder, name), saved(folder, "shampoo_half"))


def test_no_file_holds_the_tables_of_all_ranks(folder: Path) -> None:
    tensors = open_checkpoint(folder / "half.ckpt").tensors()
    files = {
        place[1]: one.files()  # type: ignore[attr-defined]
        for place, one in tensors.items()
        if "embedding_bags" in str(place[1])
    }
    assert set.union(*files.values()) == {"__0_0.distcp", "__1_0.distcp"}
    assert all(len(one) == 1 for one in files.values())  # table-wise: each on its rank


def test_one_process_without_the_strategy_goes_on(folder: Path, tmp_path: Path) -> None:
    process = module_of(PROCESS)
    trainer = lightning.Trainer(
        max_epochs=1,
        max_steps=process.SAVED,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        accelerator="cpu",
        devices=1,
        plugins=[OneFileCheckpoints()],
        default_root_dir=tmp_path,
    )
    model = process.make_model("rowwise_adagrad")
    loader = process.samples.loader([process.samples.make_batch(step) for step in range(4)])
    trainer.fit(model, loader, ckpt_path=folder / "half.ckpt", weights_only=True)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert_same(open_checkpoint(tmp_path / "one.ckpt").whole(), saved(folder, "half"))
