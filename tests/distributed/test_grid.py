"""Tables in grids, rows over the ranks of a node and columns over the nodes, are one process'."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys.distributed.checkpoint.load import open_checkpoint

from .ranks import module_of, run_ranks

PROCESS = Path(__file__).with_name("grid_process.py")
grid = module_of(PROCESS)


@pytest.mark.slow  # four ranks
def test_grids_over_two_nodes_are_one_process(tmp_path: Path) -> None:
    ranks = run_ranks(PROCESS, tmp_path, grid.NODES)
    one = grid.in_one_process(tmp_path / "one")
    [plan] = ranks[0]["plan"]
    in_grids = [table for table in plan.tables if table.sharding_type == "grid_shard"]
    assert in_grids and {shard.rank for table in in_grids for shard in table.shards} == {0, 1, 2, 3}
    for rank in ranks:
        assert rank["losses"] == pytest.approx(one["losses"], rel=1e-5)
    ours, expected = (open_checkpoint(run["path"]).whole() for run in (ranks[0], one))
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, rtol=1e-4, atol=5e-5, msg=name)
