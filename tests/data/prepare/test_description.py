"""A description is enough for every verb: ``data=mine.yaml``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recsys
from recsys.cli.main import invoke
from recsys.cli.plan import configure as configure_plan
from recsys.cli.prepare import configure
from recsys.cli.study import configure as configure_study
from recsys.core.composition import load, save
from recsys.core.errors import ConfigError
from recsys.data.contract.parquet import write_frame
from recsys.data.prepare.prepare import PrepareConfig
from recsys.systems.choice import compose_run
from recsys.systems.registry import system_named

DAY = 86_400_000

DESCRIPTION = """\
source: log
name: shop
path: log.parquet
out: prepared/shop
options:
  columns: {user_id: member, item_id: thing}
  attribution_hours: 12
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``shop`` with a log and its description, seen from the folder around it."""
    generator = np.random.default_rng(0)
    shop = tmp_path / "shop"
    shop.mkdir()
    log = pl.DataFrame(
        {
            "member": generator.integers(1, 20, 500),
            "thing": generator.integers(1, 30, 500),
            "timestamp": 1_714_521_600_000 + np.sort(generator.integers(0, 30 * DAY, 500)),
            "action_type": generator.choice(["impression", "click"], 500),
        }
    )
    write_frame(shop / "log.parquet", log)
    (shop / "mine.yaml").write_text(DESCRIPTION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_DATA_DIR", raising=False)
    return shop


def edited(folder: Path, old: str, new: str) -> str:
    (folder / "edited.yaml").write_text(DESCRIPTION.replace(old, new))
    return str(folder / "edited.yaml")


def prepared(*settings: str) -> PrepareConfig:
    return configure(settings)


def of_a_run(*settings: str) -> PrepareConfig:
    mine, *others = settings
    given = [f"data.{one}" for one in others]
    return compose_run(["system=sequence", f"data={mine}", *given]).data


def of_a_plan(*settings: str) -> PrepareConfig:
    mine, *others = settings
    return configure_plan([f"data={mine}", *(f"data.{one}" for one in others)])[1].data


@pytest.mark.parametrize("configured", [prepared, of_a_run, of_a_plan])
def test_each_verb_takes_what_a_description_says(
    folder: Path, configured: Callable[..., PrepareConfig]
) -> None:
    config = configured("shop/mine.yaml", "options.columns.user_id=buyer", "out=prepared/other")
    assert config == PrepareConfig(
        name="shop",
        path=str(folder / "log.parquet"),
        out="prepared/other",
        options={
            "columns": {"user_id": "buyer", "item_id": "thing"},
            "attribution_hours": 12,
        },
    )


def test_out_lies_beside_the_description_wherever_the_command_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = prepared("shop/mine.yaml").out
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert prepared(str(folder / "mine.yaml")).out == here
    assert here == str(folder / "prepared" / "shop")


def test_a_description_goes_before_what_an_experiment_chooses(folder: Path) -> None:
    config = compose_run(["experiment=dv365_kuairand", "data=shop/mine.yaml"])
    assert (config.data.source, config.data.title) == ("log", "shop")


def test_the_runs_of_a_study_are_given_it(folder: Path) -> None:
    config = configure_study(["study=encoders", "data=shop/mine.yaml"])
    assert config.overrides[-1] == "data=shop/mine.yaml"


def test_the_configuration_of_a_run_is_read_without_it(folder: Path) -> None:
    config = compose_run(["system=sequence", "data=shop/mine.yaml"])
    save(config, folder / "config.yaml")
    (folder / "mine.yaml").unlink()
    assert load(folder / "config.yaml", system_named("sequence").config) == config


def test_paths_of_a_description_are_those_of_its_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "log.parquet").write_bytes(b"another one")
    assert configure(["shop/mine.yaml"]).path == str(folder / "log.parquet")
    monkeypatch.chdir(folder)
    assert configure(["mine.yaml"]).path == str(folder / "log.parquet")
    elsewhere = edited(folder, "log.parquet", "of_the_data_dir.parquet")
    assert configure([elsewhere]).path == "of_the_data_dir.parquet"
    assert configure(["mine.yaml", "path=typed.parquet"]).path == "typed.parquet"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("name:", "nam:", "shop/edited.yaml: unknown key `nam`; did you mean `name`?"),
        ("columns:", "colums:", "shop/edited.yaml: options.colums .* did you mean `opt.*columns`"),
        ("12", "-1", "shop/edited.yaml: options.attribution_hours is -1.0, it must be"),
        ("source: log", "source: lgo", "shop/edited.yaml: source is 'lgo', it must be one of log"),
        ("shop\n", "${oc.env:HOME}\n", "edited.yaml, line 2: .* is an interpolation"),
        ("12", "[", "shop/edited.yaml is damaged: it is no YAML"),
        (DESCRIPTION, "- a list\n", "shop/edited.yaml has no settings"),
        (DESCRIPTION, "", "shop/edited.yaml is damaged: it is empty"),
        ("member", '"???"', "`options.columns.user_id=…` is needed .* or shop/edited.yaml"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(
    folder: Path, old: str, new: str, sentence: str
) -> None:
    edited(folder, old, new)
    with pytest.raises(ConfigError, match=sentence):
        configure(["shop/edited.yaml"])


def test_what_a_description_leaves_open_may_be_typed(folder: Path) -> None:
    edited(folder, "member", '"???"')
    config = configure(["shop/edited.yaml", "options.columns.user_id=member"])
    assert config.options["columns"]["user_id"] == "member"


def test_a_description_in_a_wrong_place_is_a_sentence(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"a description is given as `data=shop/mine\.yaml`"):
        compose_run(["shop/mine.yaml"])
    with pytest.raises(ConfigError, match=r"shop/none\.yaml cannot be read"):
        configure(["shop/none.yaml"])
    with pytest.raises(ConfigError, match="give one of the two"):
        configure(["shop/mine.yaml", "data=log"])


def test_prepared_from_the_command_line_and_from_python(folder: Path) -> None:
    assert invoke(["data", "prepare", "shop/mine.yaml"]) == 0
    dataset = recsys.prepare(description="shop/mine.yaml")
    assert dataset.manifest.name == "shop"
    assert dataset.manifest.counts["events"] == 500
    frame = pl.DataFrame({"member": ["a"] * 20, "thing": range(20), "timestamp": range(20)})
    moments = pl.col("timestamp") * DAY + 1_714_521_600_000
    log = frame.with_columns(moments, pl.Series("action_type", ["impression", "click"] * 10))
    other = recsys.prepare(log, "prepared/b", description="shop/mine.yaml", tasks=["click"])
    assert other.manifest.counts["events"] == 20
    with pytest.raises(ConfigError, match=r"`options\.columns\.user_id` is yet to be filled in"):
        recsys.prepare(description=edited(folder, "member", '"???"'))


def test_a_description_stands_for_the_folder_it_is_prepared_into(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["data", "prepare", "shop/mine.yaml"]) == 0
    for words in (["describe", "shop/mine.yaml"], ["check", "dataset=shop/mine.yaml"]):
        assert invoke(["data", *words]) == 0, capsys.readouterr().err
    assert invoke(["data", "compact", "shop/mine.yaml"]) == 0
    assert invoke(["data", "delete", "user=3", "shop/mine.yaml"]) == 0
    assert "events removed from the timelines" in capsys.readouterr().err
    assert invoke(["data", "describe", "shop/none.yaml"]) == 2
