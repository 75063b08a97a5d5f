"""Recommendations of runs: whose items they are, what is asked for besides, and where they go."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recsys
from recsys.cli.main import invoke
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.moments import to_text
from tests.systems.own_log import DAY, ITEMS, LATE, START, RunOf, small_log

SEARCHING = ("sequence", "nxtpost", "two_tower", "wide_and_deep")
AS_OF = START + 25 * DAY


def seen_by(user: str, moment: int = AS_OF) -> set[str]:
    before = small_log().filter(pl.col("user_id") == user, pl.col("timestamp") < moment)
    return set(before["item_id"])


def told(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that must fail says."""
    assert invoke(command) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("system", SEARCHING)
def test_a_run_recommends_its_best_scores_from_the_command_line_as_from_python(
    run_of: RunOf, system: str, tmp_path: Path
) -> None:
    run = recsys.open_run(run_of(system))
    found = run.recommend(["u1", "u2"], k=4, as_of=AS_OF)
    assert found.columns == ["user_id", "rank", "item_id", "score", "title", "basis"]
    for user in ("u1", "u2"):
        items = [f"i{n}" for n in range(1, ITEMS + 1) if f"i{n}" not in seen_by(user)]
        scores = run.score(user, items, at=AS_OF).sort("score", descending=True)
        mine = found.filter(user_id=user)
        assert mine["item_id"].to_list() == scores["item_id"].head(4).to_list()
        np.testing.assert_allclose(mine["score"], scores["score"].head(4), rtol=1e-4, atol=1e-5)
    out = tmp_path / "items.parquet"
    given = [f"run_dir={run.folder}", "user=[u1,u2]", "k=4", f"as_of={AS_OF}", f"out={out}"]
    assert invoke(["recommend", *given]) == 0
    assert pl.read_parquet(out).equals(found)


def test_what_was_seen_can_be_given_again(run_of: RunOf, tmp_path: Path) -> None:
    run = recsys.open_run(run_of("sequence"))
    found = run.recommend(["u1"], k=ITEMS, as_of=AS_OF, keep_seen=True)
    assert seen_by("u1") and seen_by("u1") < set(found["item_id"])
    assert found["score"].is_sorted(descending=True)
    out = tmp_path / "again.parquet"
    given = ["user=u1", f"k={ITEMS}", f"as_of={AS_OF}", "keep_seen=true", f"out={out}"]
    assert invoke(["recommend", f"run_dir={run.folder}", *given]) == 0
    assert pl.read_parquet(out).equals(found)


def test_items_of_later_are_nobodys_whatever_finds_them(
    run_of: RunOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = run_of("nxtpost")
    run = recsys.open_run(run_dir)
    assert invoke(["export", f"run_dir={run_dir}", "measure=false"]) == 0
    posts, prepared = run.config.posts.path, run.config.data.out_folder
    index, out = tmp_path / "index", tmp_path / "items.parquet"
    build = [f"embeddings={posts}", f"dataset={prepared}", f"out={index}"]
    assert invoke(["index", "build", *build]) == 0
    by_index = ["recommend", f"artifact={run_dir / 'artifact'}", f"index={index}", "k=99"]
    for as_of, is_there in ((AS_OF, False), (START + 31 * DAY, True)):
        expected = run.recommend(["u1", "u2"], k=99, as_of=as_of)
        assert (LATE in expected["item_id"]) == is_there
        assert invoke([*by_index, "user=[u1,u2]", f"as_of={as_of}", f"out={out}"]) == 0
        found = pl.read_parquet(out)
        assert set(found["item_id"]) == set(expected["item_id"])
    capsys.readouterr()


def test_the_moment_is_the_end_of_the_log(run_of: RunOf) -> None:
    run = recsys.open_run(run_of("sequence"))
    end = small_log()["timestamp"].max() + 1
    assert run.recommend(["u1"]).equals(run.recommend(["u1"], as_of=end))
    assert run.score("u1", ["i1"]).equals(run.score("u1", ["i1"], at=end))
    assert not run.recommend(["u1"]).equals(run.recommend(["u1"], as_of="2024-05-10"))


def test_only_and_exclude_name_items(run_of: RunOf) -> None:
    run = recsys.open_run(run_of("sequence"))
    free = run.recommend(["u1", "u2"], k=99, as_of=AS_OF)
    some = free["item_id"].unique(maintain_order=True)[:6].to_list()
    only = run.recommend(["u1", "u2"], k=99, as_of=AS_OF, only=some)
    expected = free.filter(pl.col("item_id").is_in(some))
    np.testing.assert_allclose(only["score"], expected["score"], atol=1e-6)
    assert only.drop("rank", "score").equals(expected.drop("rank", "score"))
    less = run.recommend(["u1", "u2"], k=99, as_of=AS_OF, only=some, exclude=some[:2])
    assert set(less["item_id"]) == set(only["item_id"]) - set(some[:2])
    of_one = pl.DataFrame({"user_id": ["u1"], "item_id": [some[0]]})
    spared = run.recommend(["u1", "u2"], k=99, as_of=AS_OF, exclude=of_one)
    assert some[0] not in spared.filter(user_id="u1")["item_id"]
    with pytest.raises(DataError, match="None of the 1 items of only= can be recommended"):
        run.recommend(["u1"], only=["nothing"])
    with pytest.raises(DataError, match="has a column of users, but only= names the same items"):
        run.recommend(["u1"], only=of_one)


def test_a_beam_is_for_items_in_a_tree(run_of: RunOf, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["recommend", f"run_dir={run_of('sequence')}", "user=u1", "beam=3"]
    assert "beam=3 is for models whose items are in a tree" in told(command, capsys)


def test_a_ranker_ranks_the_items_that_are_named(
    run_of: RunOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recsys.open_run(run_of("dv365"))
    unseen = [f"i{n}" for n in range(1, ITEMS + 1) if f"i{n}" not in seen_by("u1")]
    scores = run.score("u1", unseen, at=AS_OF).sort("click", descending=True)
    found = run.recommend(["u1"], k=3, as_of=AS_OF, only=[*unseen, "nothing"])
    np.testing.assert_allclose(found["score"], scores["click"].head(3), rtol=1e-6)
    (tmp_path / "only.csv").write_text("item_id\n" + "\n".join(unseen) + "\nnothing\n")
    command = ["recommend", f"run_dir={run.folder}", "user=u1", f"as_of={AS_OF}"]
    assert invoke([*command, f"only={tmp_path / 'only.csv'}"]) == 0
    assert "does not know them: 1." in " ".join(capsys.readouterr().err.split())
    assert "give them as only=items.csv" in told(command, capsys)
    assert "predicts no task nothing; task= is one of click" in told(
        [*command, "task=nothing", f"only={tmp_path / 'only.csv'}"], capsys
    )
    with pytest.raises(ConfigError, match="has no embeddings of items"):
        run.recommend(["u1"], only=unseen, reasons=True)
    with pytest.raises(ConfigError, match="this one reads the timelines of the log"):
        run.recommend(["u1"], only=unseen, history=small_log()[:3])


@pytest.mark.parametrize("system", SEARCHING)
def test_a_given_history_stands_for_that_of_the_log(run_of: RunOf, system: str) -> None:
    run = recsys.open_run(run_of(system))
    clicks = small_log().filter(pl.col("timestamp") < AS_OF)
    mine = clicks.filter(user_id="u1").with_columns(user_id=pl.lit("somebody"))
    mine = mine.select("user_id", "item_id", "timestamp", "action_type", "surface")
    from_log = run.recommend(["u1"], k=5, as_of=AS_OF)
    given = run.recommend(["u2", "somebody"], k=5, as_of=AS_OF, history=mine)
    of_somebody = given.filter(user_id="somebody")
    assert of_somebody["item_id"].to_list() == from_log["item_id"].to_list()
    assert set(of_somebody["basis"]) == {"given history"}
    of_other = run.recommend(["u2"], k=5, as_of=AS_OF)
    assert given.filter(user_id="u2")["item_id"].to_list() == of_other["item_id"].to_list()
    instead = mine.with_columns(user_id=pl.lit("u2"))
    swapped = run.recommend(["u2"], k=5, as_of=AS_OF, history=instead)
    assert swapped["item_id"].to_list() == from_log["item_id"].to_list()
    # without actions every event counts; one that is later than the log moves the moment
    plain = pl.DataFrame({"user_id": ["new"], "item_id": ["i1"], "timestamp": ["2025-01-01"]})
    assert "i1" not in run.recommend(["new"], k=99, history=plain)["item_id"]
    with pytest.raises(DataError, match="'dance' is no action of the log"):
        run.recommend(["new"], history=plain.with_columns(action_type=pl.lit("dance")))


def test_a_history_alone_names_its_users(
    run_of: RunOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history, out = tmp_path / "history.csv", tmp_path / "page.html"
    history.write_text("user_id,item_id,timestamp\nme,i1,2024-05-20\nyou,what,2024-05-21\n")
    command = ["recommend", f"run_dir={run_of('sequence')}", f"history={history}", f"out={out}"]
    assert invoke(command) == 0
    page = out.read_text()
    assert "User me" in page and "User you" in page and "that the log does not have" in page
    assert "who are not asked for" not in capsys.readouterr().err
    assert invoke([*command, "user=me"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "Events of history= of users who are not asked for: 1;" in said
    run = recsys.open_run(run_of("sequence"))
    with pytest.raises(DataError, match="history has no row; give at least one event"):
        run.recommend(["me"], history=pl.DataFrame())
    twice = run.recommend(["u1", "u2", "u1"], k=2)
    assert twice["user_id"].to_list() == ["u1", "u1", "u2", "u2"]


def test_reasons_are_the_nearest_items_of_the_history(run_of: RunOf) -> None:
    run = recsys.open_run(run_of("nxtpost"))
    vectors = np.load(run.config.posts.path)
    of_item = dict(zip(vectors["item_id"].tolist(), vectors["embedding"], strict=True))
    found = run.recommend(["u1", "nobody"], k=2, as_of=AS_OF, reasons=True)
    item, reasons = found.filter(user_id="u1", rank=1).select("item_id", "reasons").row(0)
    log = small_log().filter(pl.col("timestamp") < AS_OF)
    history = log.filter(user_id="u1", action_type="click")["item_id"].unique().to_list()

    def cosine(one: str) -> float:
        a, b = of_item[item], of_item[one]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    expected = sorted(history, key=cosine, reverse=True)[:2]
    assert reasons == " | ".join(expected)
    assert found.filter(user_id="nobody")["reasons"].null_count() == 2


def test_where_holds_for_every_item(run_of: RunOf) -> None:
    run = recsys.open_run(run_of("sequence"))
    with pytest.raises(ConfigError, match=r"items have no column price \(they have title"):
        run.recommend(["u1"], where="price<50")
    for where, message in (
        ("price", "is no condition; write"),
        ("title<5", "has no order; it is compared by = and !="),
    ):
        with pytest.raises(ConfigError, match=message):
            run.recommend(["u1"], where=where)
    with pytest.raises(ConfigError, match="where=title=shoes: no item is so; no item has a value"):
        run.recommend(["u1"], where="title=shoes")
    with pytest.raises(ConfigError, match=r"no column titel .*; did you mean title\?"):
        run.recommend(["u1"], where="titel=shoes")


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_the_ending_of_out_says_its_format(run_of: RunOf, tmp_path: Path, ending: str) -> None:
    run_dir, out = run_of("sequence"), tmp_path / f"items.{ending}"
    users = tmp_path / "users.jsonl"
    users.write_text('{"user_id": "u1"}\n{"user_id": "u2"}\n')
    command = ["recommend", f"run_dir={run_dir}", f"users={users}", "k=2", f"out={out}"]
    assert invoke([*command, "batch_users=1"]) == 0 == invoke(command)  # its own is replaced
    read = {
        "csv": pl.read_csv,
        "tsv": lambda path: pl.read_csv(path, separator="\t"),
        "parquet": pl.read_parquet,
        "jsonl": pl.read_ndjson,
    }
    found = read[ending](out)
    assert found["user_id"].to_list() == ["u1", "u1", "u2", "u2"]
    expected = recsys.open_run(run_dir).recommend(["u1", "u2"], k=2)
    assert found["item_id"].to_list() == expected["item_id"].to_list()
    out.write_text("mine\n")
    assert invoke(command) == 2 and out.read_text() == "mine\n"


def test_a_page_shows_history_and_recommendations(
    run_of: RunOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    command = ["recommend", f"run_dir={run_of('nxtpost')}", "reasons=true", f"out={out}"]
    assert invoke([*command, "user=[u1,<b>me]"]) == 0 == invoke([*command, "user=u1"])
    assert invoke([*command, "user=[u1,<b>me]"]) == 0
    page = out.read_text()
    assert "User u1" in page and "&lt;b&gt;me" in page and "<b>me" not in page
    run = recsys.open_run(run_of("nxtpost"))
    for item in run.recommend(["u1"], k=3)["item_id"]:
        assert f'<div class="what">{item}<' in page
    events = small_log().filter(user_id="u1")
    newest = events[-12:].reverse().select("item_id", "action_type", "timestamp").rows()
    mine = page[: page.index("User &lt;b&gt;me")].split("Recommended</h3>")[0]
    assert re.findall(r'<div class="what">(\w+)<', mine) == [row[0] for row in newest]
    times = [to_text(time)[:16].replace("T", " ") for _, _, time in newest]
    numbers = [f"{action} · {time}" for (_, action, _), time in zip(newest, times, strict=True)]
    assert re.findall(r'<span class="number">(.*?)</span>', mine) == numbers
    assert f"and {len(events) - 12} more" in mine and "(times in UTC)" in mine
    many = tmp_path / "users.csv"
    many.write_text("user_id\n" + "\n".join(map(str, range(201))) + "\n")
    assert "A page shows at most 200 users" in told([*command, f"users={many}"], capsys)


def test_what_cannot_be_asked_is_a_sentence(
    run_of: RunOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"run_dir={run_of('sequence')}"
    users = tmp_path / "users.csv"
    users.write_text("member\nu1\n")
    for settings, message in (
        ([run], "Give either user="),
        ([run, "artifact=a", "user=1"], "Give either run_dir="),
        (["artifact=a", "user=1"], "Give either run_dir="),
        ([run, "user=u1", "out=items.xlsx"], "the ending says in which format"),
        ([run, f"users={users}"], "has no column user_id (it has member); name the column so."),
        ([run, "user=u1", "task=click"], "predicts no tasks; leave task= out"),
        ([run, "user=u1", "embeddings=e"], "embeddings= goes with artifact="),
        ([f"run_dir={tmp_path}", "user=u1"], "is not a run folder"),
    ):
        assert message in told(["recommend", *settings], capsys)
    assert invoke(["recommend", run, "user=u1", "k=1000"]) == 0
    assert "k=1,000 items are asked for, and there are 60 in all." in capsys.readouterr().err
    assert "is no product of a user's and an item's embedding" in told(
        ["export", f"run_dir={run_of('wide_and_deep')}"], capsys
    )
