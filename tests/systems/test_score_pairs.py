"""Scores of given pairs: what they are, whom they depend on, and the files they go through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsys
from recsys.cli.main import invoke
from recsys.core.errors import ConfigError, DataError
from recsys.data.batches.given_rows import GivenRows, packs
from tests.systems.own_log import DAY, ITEMS, LATE, START, USERS, RunOf, small_log

SCORING = ("dv365", "ranker", "hsnn", "sequence", "nxtpost", "two_tower", "wide_and_deep")
LATE_DAY = START + 28 * DAY


def pairs(rows: int, seed: int) -> pl.DataFrame:
    """Pairs at moments of their own, of users and items that most models know."""
    generator = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in generator.integers(1, USERS + 1, rows)],
            "item_id": [f"i{number}" for number in generator.integers(1, ITEMS + 1, rows)],
            "at": START + generator.integers(10, 30, rows) * DAY,
        }
    )


@pytest.mark.parametrize("system", SCORING)
def test_a_score_has_the_same_bits_whatever_is_scored_beside_it(run_of: RunOf, system: str) -> None:
    run = recsys.open_run(run_of(system))
    many = pairs(600, 0)
    together = run.score_pairs(many)
    shuffled = many.with_row_index("row").sample(fraction=1, shuffle=True, seed=1)
    assert run.score_pairs(shuffled).sort("row").drop("row").equals(together)
    for row in (0, 17, 599):
        alone = run.score_pairs(many[row])
        assert alone.equals(together[row])
        user, item, at = many.row(row)
        scores = run.score(user, [item, "i1", "i2"], at=at)
        assert scores.row(0)[1:] == together.row(row)[3:]
    assert together.null_count().sum_horizontal().item() == 0


def test_a_ranker_says_the_same_of_a_pair_by_whichever_way_it_is_asked(
    run_of: RunOf, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recsys.open_run(run_of("dv365"))
    one = pl.DataFrame({"user_id": ["u1"], "item_id": ["i1"]})
    for at in (START + 5 * DAY + 3 * DAY // 24, START + 5 * DAY + 15 * DAY // 24):
        score = run.score_pairs(one, at=at)["click"][0]
        assert "that the pairs do not say, unknown: surface." in capsys.readouterr().err
        assert run.score("u1", ["i1"], at=at)["click"][0] == score
        shown = run.recommend(["nobody"], as_of=START + 29 * DAY, only=["i1"])
        of_nobody = run.score("nobody", ["i1"], at=START + 29 * DAY)["click"][0]
        assert shown["score"][0] == np.float32(of_nobody)
    for value in ("abc", -1.0):
        with pytest.raises(ConfigError, match=r"context has video_duration=.*; give seconds, 0 or"):
            run.score_pairs(one.with_columns(video_duration=pl.lit(value)))
    run.score_pairs(one.with_columns(note=pl.lit("x")))
    assert "Columns that the model does not look at: note." in capsys.readouterr().err


@pytest.mark.parametrize("system", SCORING)
def test_who_and_what_is_not_known_has_no_score(run_of: RunOf, system: str) -> None:
    run = recsys.open_run(run_of(system))
    given = pl.DataFrame({"user_id": ["u1", "nobody", "u1"], "item_id": ["i1", "i1", "nothing"]})
    scored = run.score_pairs(given, at=LATE_DAY)
    assert scored.to_series(2).is_null().to_list() == [False, True, True]
    assert scored.select("user_id", "item_id").equals(given)
    assert run.score_pairs(given.clear()).is_empty()


def test_scores_are_those_of_the_moment_and_the_context(run_of: RunOf) -> None:
    sequence, dv365 = recsys.open_run(run_of("sequence")), recsys.open_run(run_of("dv365"))
    base = pl.DataFrame({"user_id": ["u1"], "item_id": ["i1"]})
    early, late = (
        sequence.score_pairs(base.with_columns(at=pl.lit(moment)))["score"][0]
        for moment in ("2024-05-03", "2024-05-29T12:00")
    )
    assert early != late == sequence.score("u1", ["i1"], at="2024-05-29T12:00")["score"][0]
    assert sequence.score_pairs(base, at="2024-05-03")["score"][0] == early
    by_surface = pl.DataFrame({"user_id": ["u1"] * 2, "item_id": ["i1"] * 2})
    by_surface = by_surface.with_columns(surface=pl.Series(["feed", "search"]))
    assert dv365.score_pairs(by_surface)["click"].n_unique() == 2
    assert sequence.score_pairs(by_surface)["score"].n_unique() == 1
    assert sequence.score_pairs(pl.DataFrame({"user_id": ["u1"], "item_id": [LATE]})).row(0)[2] is (
        None
    )


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_files_of_every_format_are_scored_alike(
    run_of: RunOf, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, table = run_of("sequence"), pairs(30, 3).with_columns(label=pl.lit("x"))
    path, out = tmp_path / f"pairs.{ending}", tmp_path / f"scores.{ending}"
    write = {
        "csv": table.write_csv,
        "tsv": lambda file: table.write_csv(file, separator="\t"),
        "parquet": table.write_parquet,
        "jsonl": table.write_ndjson,
    }
    write[ending](path)
    command = ["score", f"run_dir={run_dir}", f"pairs={path}"]
    assert invoke([*command, f"out={out}"]) == 0
    assert "Columns that the model does not look at: label." in capsys.readouterr().err
    read = {
        "csv": pl.read_csv,
        "tsv": lambda file: pl.read_csv(file, separator="\t"),
        "parquet": pl.read_parquet,
        "jsonl": pl.read_ndjson,
    }
    expected = recsys.open_run(run_dir).score_pairs(table)
    assert read[ending](out).columns == expected.columns
    np.testing.assert_array_equal(read[ending](out)["score"], expected["score"])
    assert invoke([*command, f"out={out}"]) == 0  # it is this command's own
    out.write_text("mine\n1\n")
    assert invoke([*command, f"out={out}"]) == 2 and out.read_text() == "mine\n1\n"
    assert invoke(command) == 0
    assert "the first 20 of 30" in capsys.readouterr().out


def test_what_cannot_be_scored_is_a_sentence(
    run_of: RunOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recsys.open_run(run_of("sequence"))
    one = pl.DataFrame({"user_id": ["u1"], "item_id": ["i1"]})
    for frame, kind, message in (
        (one.drop("item_id"), DataError, r"no column item_id \(it has user_id\)"),
        (one.with_columns(at=1, request_time=2), DataError, "columns at and request_time"),
        (one.with_columns(at=0.5), DataError, "column at: moments are datetimes"),
        (one.with_columns(at=pl.lit("soon")), ConfigError, "column at=soon is no moment"),
        (one.with_columns(score=0.1), DataError, "a column score, which is the name of a score"),
        (one.with_columns(user_id=0.5), DataError, "column user_id: ids are whole numbers or"),
    ):
        with pytest.raises(kind, match=message):
            run.score_pairs(frame)
    empty, damaged = tmp_path / "empty.csv", tmp_path / "damaged.jsonl"
    empty.write_text("user_id,item_id\n")
    damaged.write_text('{"user_id": 1\n')
    for settings_, message in (
        ([f"pairs={empty}"], "has no row"),
        ([f"pairs={damaged}"], "is not JSON Lines"),
        ([f"pairs={tmp_path / 'none.csv'}"], "does not exist; give pairs="),
        ([f"pairs={empty}", "out=scores.xlsx"], "the ending says in which format"),
    ):
        assert invoke(["score", f"run_dir={run.folder}", *settings_]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_columns_may_be_called_as_in_the_log(tmp_path: Path) -> None:
    log = small_log().rename({"user_id": "visitor", "item_id": "product"})
    log.write_parquet(tmp_path / "log.parquet")
    names = ("data.options.columns.user_id=visitor", "data.options.columns.item_id=product")
    places = (f"data.path={tmp_path / 'log.parquet'}", f"data.out={tmp_path / 'prepared'}")
    small = ("loader.batch_size=32", "trainer.max_steps=1", "model.width=8")
    run_dir = f"run_dir={tmp_path / 'run'}"
    assert invoke(["train", "system=sequence", "data=log", *places, *names, *small, run_dir]) == 0
    run = recsys.open_run(tmp_path / "run")
    named = pl.DataFrame({"visitor": ["u1"], "product": ["i2"]})
    scored = run.score_pairs(named)
    assert scored.columns == ["user_id", "item_id", "score"]
    assert scored.equals(run.score_pairs(named.rename({"visitor": "user_id"})))
    with pytest.raises(DataError, match="name the column so or product, as in the log"):
        run.score_pairs(named.drop("product"))


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    size=st.integers(2, 5),
    rows=st.integers(2, 7),
)
@settings(max_examples=60, deadline=None)
def test_every_row_is_in_one_pack_and_all_packs_have_one_shape(
    counts: list[int], size: int, rows: int
) -> None:
    user = np.repeat(np.arange(len(counts)), counts)
    order = np.random.default_rng(0).permutation(len(user))
    given_rows = GivenRows(user[order], np.arange(len(user)), np.full(len(user), 9))
    requests, seen = given_rows.requests, []
    assert len(requests) == len(counts)
    for pack in packs(requests, size, rows):
        assert len(pack.user) == size and len(pack.row) == rows == pack.rows_per_request.sum()
        owner = np.repeat(pack.user, pack.rows_per_request)[: pack.real]
        np.testing.assert_array_equal(owner, given_rows.user[pack.row[: pack.real]])
        seen.append(pack.row[: pack.real])
    assert sorted(np.concatenate(seen)) == list(range(len(user)))
