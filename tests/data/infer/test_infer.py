"""From files that nobody has described to a prepared data set, without an edit."""

from __future__ import annotations

import gzip
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recsys.cli.main import invoke
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.parquet import write_frame
from recsys.data.contract.schema import ACTION_TYPES
from recsys.data.infer.infer import InferConfig, Inferred, infer
from recsys.data.prepare.prepare import PrepareConfig
from recsys.data.stores.dataset import PreparedDataset
from tests.core.test_console import has_control
from tests.own_logs import OWN_LOGS

DAY = 86_400


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_DATA_DIR", raising=False)
    return tmp_path


def log(rows: int = 600, **columns: Any) -> pl.DataFrame:
    """A log of 30 days with a user, an item and a time, ``columns`` beside or instead of these."""
    generator = np.random.default_rng(0)
    frame = {
        "user_id": generator.integers(1, 40, rows),
        "item_id": generator.integers(1, 60, rows),
        "timestamp": 1_714_521_600 + np.sort(generator.integers(0, 30 * DAY, rows)),
    }
    return pl.DataFrame({**frame, **columns})


def inferred(frame: pl.DataFrame, **settings: Any) -> Inferred:
    frame.write_csv("log.csv")
    return infer(InferConfig(**{"path": "log.csv", "out": "mine.yaml", **settings}))


def options(found: Inferred) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(found.text)
    return dict(content["options"])


EXPECTED: dict[str, dict[str, Any]] = {
    "clicks": {
        "columns": {"user_id": "visitorid", "item_id": "itemid", "timestamp": "ts"},
        "time_unit": "s",
        "default_action": "click",
        "split": "time",
    },
    "shop": {
        "columns": {
            "user_id": "customer",
            "item_id": "product",
            "timestamp": "event_time",
            "action_type": "event_type",
        },
        "time_unit": "iso",
        "actions": {"view": "impression", "addtocart": "positive", "purchase": "positive"},
        "items": {
            "path": "files/products.csv",
            "id": "sku",
            "topic": "category",
            "title": "title",
            "categorical": ["colour"],
            "dense": ["price"],
        },
        "split": "time",
    },
    "films": {
        "columns": {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"},
        "time_unit": "s",
        "default_action": "click",
        "items": {
            "path": "files/films.item",
            "id": "item_id",
            "title": "movie_title",
            "dense": ["release_year"],
            "lists": ["class"],
        },
        "split": "last",
    },
    "news": {
        "columns": {
            "user_id": "reader",
            "item_id": "news_id",
            "timestamp": "impression_ts",
            "action_type": "behavior",
        },
        "actions": {"exposure": "impression", "clk": "click"},
        "items": {
            "path": "files/news.tsv",
            "id": "news_id",
            "topic": "category",
            "title": "headline",
            "image": "image_url",
            "texts": ["abstract"],
        },
        "split": "time",
    },
}


@pytest.mark.parametrize("name", OWN_LOGS)
def test_a_draft_is_prepared_as_it_is(name: str, folder: Path, capsys: Any) -> None:
    made = OWN_LOGS[name](folder / "files")
    assert invoke(["data", "infer", *made.arguments, f"out={name}.yaml"]) == 0
    printed = capsys.readouterr().out
    assert f"recsys data prepare {name}.yaml" in printed
    drafted = yaml.safe_load(Path(f"{name}.yaml").read_text())
    assert drafted["options"].items() >= EXPECTED[name].items()
    assert invoke(["data", "prepare", f"{name}.yaml"]) == 0
    manifest = PreparedDataset.open(f"prepared/{name}").manifest
    assert manifest.name == name
    assert manifest.rejected == {}
    assert (manifest.counts["users"], manifest.counts["items"]) == (150, 120)


def test_a_draft_that_was_edited_is_not_replaced(folder: Path) -> None:
    frame = log()
    first = inferred(frame)
    assert inferred(frame).text == first.text
    path = folder / "mine.yaml"
    path.write_text(path.read_text().replace("time_unit: s", "time_unit: ms"))
    with pytest.raises(ConfigError, match="was edited since it was drafted"):
        inferred(frame)
    path.write_text("mine: true\n")
    with pytest.raises(ConfigError, match="was not written by this command"):
        inferred(frame)
    assert path.read_text() == "mine: true\n"
    with pytest.raises(ConfigError, match=r"a description is a \.yaml file"):
        inferred(frame, out="log.csv")


def test_what_no_column_holds_is_left_open(folder: Path, capsys: Any) -> None:
    frame = pl.DataFrame({"a": np.random.default_rng(0).random(50), "b": ["x"] * 50})
    frame.write_csv("log.csv")
    assert invoke(["data", "infer", "path=log.csv", "out=mine.yaml"]) == 0
    assert "Fill in options.columns.user_id, options.columns.item_id" in capsys.readouterr().out
    assert invoke(["data", "prepare", "mine.yaml"]) == 2
    assert "`options.columns.item_id=…` is needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"user_id": ["me"] * 600}, "user_id has one value in all rows"),
        ({"user_id": range(600)}, "user_id goes up by one from row to row"),
        ({"user_id": [f"u{n}" for n in range(600)]}, "600 users in 600 rows"),
        ({"item_id": [" a", "b"] * 300}, "300 ids of item_id have blanks around them"),
        ({"item_id": [None, "b"] * 300}, "300 rows have nothing in item_id"),
        ({"timestamp": [1_714_521_600] * 600}, "all times in timestamp are 2024-05-01T00:00:00"),
        ({"timestamp": [1_714_521_600, 9_000_000_000] * 300}, "300 rows lie in the future"),
        ({"timestamp": ["2024-05-01", "2024-05-02"] * 300}, "names days without an hour"),
        ({"timestamp": [1_714_521_600, 5, 1_714_621_600] * 200}, "200 rows have no usable time"),
        ({"action_type": ["click", None] * 300}, "300 rows name no action"),
        ({"action_type": ["click", " "] * 300}, "300 rows have an action whose name is blank"),
        ({"action_type": ["hide", "view"] * 300}, "no action is positive"),
        ({"action_type": ["click", "buy"] * 300}, "dv365 has nothing to predict"),
        ({"action_type": ["view", "buy"] * 300}, "not from the 300 impressions (view)"),
        ({"is_click": [0, 1] * 300}, "from the 300 positive events, not from the 600 impressions"),
        ({"watch_time": [5_000, 70_000] * 300}, "watch_time seems to be in milliseconds"),
    ],
)
def test_what_is_odd_is_said(columns: dict[str, Any], sentence: str) -> None:
    found = inferred(log(**columns))
    assert any(sentence in one for one in found.draft.odd), found.draft.odd


def test_repeated_rows_are_counted() -> None:
    frame = log()
    found = inferred(pl.concat([frame, frame.head(7)]))
    assert "7 rows repeat another in all that is read of them." in found.draft.odd


def test_files_of_another_log_are_noticed(folder: Path) -> None:
    (folder / "logs").mkdir()
    log().write_csv("logs/one.csv")
    log().write_csv("logs/two.csv")
    log().rename({"item_id": "something"}).write_csv("logs/zzz.csv")
    found = infer(InferConfig(path="logs", out="logs/mine.yaml"))
    assert "1 of 3 files have no column item_id: are they of this log?" in found.draft.odd
    assert found.draft.log.survey.without_item == 600


def test_columns_named_as_ours_that_hold_something_else_are_not_read() -> None:
    found = inferred(log(dwell_time=[60_000, 5_000] * 300, topic_id=[0.5, 0.25] * 300))
    assert options(found)["columns"] == {
        "user_id": "user_id",
        "item_id": "item_id",
        "timestamp": "timestamp",
        "topic_id": None,
        "dwell_time": None,
    }
    assert invoke(["data", "prepare", "mine.yaml"]) == 0


def test_a_log_without_times_is_in_the_order_of_its_rows() -> None:
    found = inferred(log().drop("timestamp").with_columns(step=pl.int_range(600) % 30))
    assert options(found)["columns"]["timestamp"] is None
    assert options(found)["split"] == "last"
    assert invoke(["data", "prepare", "mine.yaml"]) == 0


def test_columns_of_the_log_that_belong_to_its_items() -> None:
    colours = log()["item_id"] % 3
    found = inferred(log(shade=colours.cast(pl.String), price=log()["item_id"] + 0.5))
    assert options(found)["items"] == {"categorical": ["shade"], "dense": ["price"]}
    assert invoke(["data", "prepare", "mine.yaml"]) == 0


def test_actions_that_no_description_can_name_are_known_ones() -> None:
    found = inferred(log(action_type=["on/off", "no", "click"] * 200))
    assert options(found)["actions"] == {"on/off": "click", "no": "positive"}
    assert invoke(["data", "prepare", "mine.yaml"]) == 0


def test_paths_in_a_draft_are_those_of_its_folder(folder: Path) -> None:
    found = inferred(log(), out="descriptions/deep/mine.yaml", name="deep")
    content = yaml.safe_load(found.text)
    assert (content["path"], content["name"]) == ("../../log.csv", "deep")
    assert invoke(["data", "prepare", "descriptions/deep/mine.yaml"]) == 0


def test_files_that_cannot_be_looked_at_are_a_sentence(folder: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        infer(InferConfig(path="none.csv", out="mine.yaml"))
    with pytest.raises(DataError, match="holds no rows"):
        inferred(log().head(0))
    with pytest.raises(DataError, match="give items= a"):
        inferred(log(), items="none.csv")
    assert not (folder / "mine.yaml").exists()


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet"])
def test_formats(ending: str) -> None:
    frame, path = log(), Path(f"log.{ending}")
    if ending == "parquet":
        write_frame(path, frame)
    elif ending == "csv.gz":
        path.write_bytes(gzip.compress(frame.write_csv().encode()))
    else:
        frame.write_csv(path, separator="\t" if ending == "tsv" else ",")
    found = infer(InferConfig(path=str(path), out="mine.yaml"))
    assert found.draft.log.survey.rows == 600
    assert invoke(["data", "prepare", "mine.yaml"]) == 0


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0$"), min_size=1, max_size=9))
@example("[/b] x")
@example("\x1b]0;gone\x07")
@example('a: "b" # c')
@example("- no")
@example("|")
@example(" ")
def test_columns_and_actions_of_any_name(folder: Path, text: str) -> None:
    generator = np.random.default_rng(0)
    columns = {
        f"u{text}": generator.integers(1, 40, 300),
        f"i{text}": generator.integers(1, 60, 300),
        "event": [text, "click", "view"] * 100,
    }
    write_frame(Path("log.parquet"), pl.DataFrame(columns))
    output = io.StringIO()
    with redirect_stdout(output):
        assert invoke(["data", "infer", "path=log.parquet", "out=mine.yaml"]) == 0
    assert not has_control(output.getvalue())
    drafted = PrepareConfig.read_file(Path("mine.yaml"))["options"]
    named = drafted["columns"]
    assert {named["user_id"], named["item_id"]} == {f"u{text}", f"i{text}"}
    assert text in {*drafted["actions"], *ACTION_TYPES} or not text.strip()


@pytest.mark.parametrize("name", ["???", "${x}", "\x85", " "])
def test_columns_that_no_description_can_name_are_not_read(name: str, capsys: Any) -> None:
    kinds = (log()["item_id"] % 3).cast(pl.String)
    write_frame(Path("log.parquet"), log().with_columns(kinds.alias(name)))
    write_frame(Path("items.parquet"), pl.DataFrame({"item_id": range(60), name: ["a", "b"] * 30}))
    arguments = ["path=log.parquet", "items=items.parquet", "out=mine.yaml"]
    assert invoke(["data", "infer", *arguments]) == 0
    assert capsys.readouterr().out.count("a name that no description can hold") >= 1
    assert "(a name that no description can hold)" in Path("mine.yaml").read_text()
    assert invoke(["data", "prepare", "mine.yaml"]) == 0


def test_actions_that_no_description_can_hold_are_said() -> None:
    found = inferred(log(event=["${x}", "???", "view"] * 200))
    assert options(found)["actions"] == {"???": "click", "view": "impression"}
    assert any("200 rows have the action '${x}', which no" in one for one in found.draft.odd)


def test_columns_of_one_name_are_not_read(folder: Path) -> None:
    text = log(x=["1", "2"] * 300, y=["3", "4"] * 300).write_csv().replace(",y\n", ",x\n", 1)
    (folder / "log.csv").write_text(text)
    found = infer(InferConfig(path="log.csv", out="mine.yaml"))
    assert "# not read: x (2 columns have this name)" in found.text
    assert any("column 'x' is not read" in one for one in found.draft.odd)
    assert invoke(["data", "prepare", "mine.yaml"]) == 0


def test_columns_without_a_name_and_of_durations(folder: Path) -> None:
    text = log().with_row_index("index").write_csv().replace("index", "", 1)
    (folder / "log.csv").write_text(text)
    found = infer(InferConfig(path="log.csv", out="mine.yaml"))
    assert "not read" not in found.text
    assert invoke(["data", "prepare", "mine.yaml"]) == 0
    lengths = log(length=pl.Series([1_000, 2_000] * 300).cast(pl.Duration("ms")))
    write_frame(Path("log.parquet"), lengths)
    found = infer(InferConfig(path="log.parquet", out="other.yaml"))
    assert "not read: length (something else" in found.text
    assert invoke(["data", "prepare", "other.yaml"]) == 0


def test_flags_are_said_to_be_flags(capsys: Any) -> None:
    log(is_liked=[0, 1] * 300).write_csv("log.csv")
    assert invoke(["data", "infer", "path=log.csv", "out=mine.yaml"]) == 0
    text = Path("mine.yaml").read_text()
    assert "- is_liked" in text
    assert "not read" not in text
    printed = capsys.readouterr().out
    (row,) = (line for line in printed.splitlines() if "is_liked" in line and "log" in line)
    assert "flag" in row
    assert "default_action: click" in " ".join(printed.split())


def test_decimal_commas_are_said(folder: Path) -> None:
    items = pl.DataFrame({"item_id": range(60), "price": ["4,1", "12", "0,125"] * 20})
    items.write_csv("items.csv")
    found = inferred(log(weight=["4,1", "1,234"] * 300), items="items.csv")
    said = [one for one in found.draft.odd if "looks like numbers with decimal commas" in one]
    assert [one.split(" looks")[0] for one in said] == ["log.csv: weight", "items.csv: price"]


def test_what_could_be_the_topic_is_said(folder: Path) -> None:
    items = pl.DataFrame({"item_id": range(60), "cuisine": ["thai", "greek", "none"] * 20})
    items.write_csv("items.csv")
    comment = "no topic, so no results by topic; cuisine could be it"
    assert comment in inferred(log(), items="items.csv").text
    items.with_columns(genre=pl.col("cuisine")).write_csv("items.csv")
    assert "could be it" not in inferred(log(), items="items.csv").text
    assert comment in inferred(log(cuisine=items["cuisine"].gather(log()["item_id"] % 60))).text
