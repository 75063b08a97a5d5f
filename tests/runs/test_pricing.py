"""`recsys plan` on a tiny prepared data set."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from recsys.cli.main import USER_ERROR, invoke
from recsys.core.errors import ConfigError, DataError
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.runs.pricing import PlanConfig, RowsConfig, price
from recsys.runs.sharding_plan import plan_report, short_name
from recsys.systems.dv365.system import DV365RunConfig, DV365System


@pytest.fixture
def prepared(run_config: DV365RunConfig) -> DV365RunConfig:
    """A run whose data set is prepared."""
    return replace(run_config, data=open_or_prepare(run_config.data)[1])


def test_every_table_of_the_model_is_in_the_plan(prepared: DV365RunConfig) -> None:
    priced = price(PlanConfig(world_size=16), DV365System(), prepared)
    assert priced.problem is None
    assert len(priced.plan.bytes_per_rank()) == 16
    parts = [table.name.split(".")[0] for table in priced.plan.tables]
    assert {"backbone", "tower"} == set(parts)
    items = next(table for table in priced.plan.tables if table.name.endswith("item_id"))
    dataset = open_or_prepare(prepared.data)[0]
    assert items.rows == dataset.manifest.vocabulary_sizes["item"]


def test_a_narrow_terminal_gets_whole_names(prepared: DV365RunConfig) -> None:
    plan = price(PlanConfig(world_size=16), DV365System(), prepared).plan
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan_report(plan, console.width))
    lines = console.export_text().splitlines()
    assert all(len(line) <= 80 for line in lines)
    for table in plan.tables:
        assert any(line.startswith(f"{short_name(table)} ") for line in lines)


@pytest.mark.slow
def test_rows_of_a_vocabulary_that_is_not_there_yet(prepared: DV365RunConfig) -> None:
    model = replace(prepared.model, dimension=256)
    encoder = replace(prepared.encoder, heads=1)
    run = replace(prepared, model=model, encoder=encoder)
    config = PlanConfig(world_size=64, rows=RowsConfig(item=2_000_000_000))
    priced = price(config, DV365System(), run)
    assert priced.problem is not None and "do not fit" in priced.problem
    rows = {table.name.rpartition(".")[2]: table.rows for table in priced.plan.tables}
    assert rows["item_id"] == rows["explicit_positive_item_plain_any"] == 2_000_000_000
    assert max(priced.plan.bytes_per_rank()) > priced.machine.device_bytes


def test_the_command_prints_what_a_rank_needs(
    prepared: DV365RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["experiment=demo", f"data.path={prepared.data.path}", f"data.out={prepared.data.out}"]
    run += ["data.name=tiny", "model.dimension=8"]
    assert invoke(["plan", *run, "world_size=2", "device=cpu"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "backbone/item_id" in printed
    assert "It fits: the fullest process needs 0.0 of 128.0 GiB" in printed
    assert "Balance, the most of a rank over the mean: memory 1." in printed
    assert "at 600 GiB/s in a node and 12.5 GiB/s between nodes" in printed
    assert "first numbers of tables on a rank" in printed
    rows = ["rows.item=2000000000", "model.dimension=256", "encoder.heads=1"]
    assert invoke(["plan", *run, *rows, "world_size=2", "device=l4"]) == USER_ERROR
    assert "The tables do not fit" in capsys.readouterr().err


def test_what_cannot_be_priced(prepared: DV365RunConfig, tmp_path) -> None:  # type: ignore[no-untyped-def]
    elsewhere = replace(prepared.data, out=str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="is no prepared data set, whose sizes the plan needs"):
        price(PlanConfig(), DV365System(), replace(prepared, data=elsewhere))
    for make in (
        lambda: PlanConfig(device="abacus"),
        lambda: PlanConfig(world_size=0),
        lambda: PlanConfig(host_memory_gib=0),
        lambda: RowsConfig(item=0),
    ):
        with pytest.raises(ConfigError):
            make()
