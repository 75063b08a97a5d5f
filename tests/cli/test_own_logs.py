"""From files that nobody of the project has written to recommendations with titles, by commands.

What `docs/results/own_logs.md` counts: nothing is typed twice, and no more than five commands.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.cli.main import invoke
from tests.own_logs import OwnLog, click_log, news_log, rating_log, shop_log

#: Enough to go through everything; that it learns is shown elsewhere.
_SHORT = ("trainer.max_steps=3", "trainer.progress_bar=false")


@pytest.mark.parametrize(
    ("make", "titled"),
    [(click_log, False), (shop_log, True), (rating_log, True), (news_log, True)],
)
def test_four_logs_come_to_recommendations(
    make: Callable[[Path], OwnLog],
    titled: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    log = make(tmp_path)
    assert invoke(["data", "infer", *log.arguments, "out=mine.yaml"]) == 0
    assert invoke(["train", "data=mine.yaml", "system=sequence", "run_dir=run", *_SHORT]) == 0
    assert invoke(["evaluate", "run_dir=run"]) == 0
    assert invoke(["recommend", "run_dir=run", f"users={log.path}", "k=3", "out=best.csv"]) == 0
    found = pl.read_csv(tmp_path / "best.csv")
    assert found["user_id"].n_unique() > 100 and found["rank"].max() == 3
    assert found["score"].is_finite().all()
    titles = found["title"].null_count() < found.height
    assert titles == titled


def test_a_shop_is_ranked_and_its_page_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DV365 of a log whose actions have names of their own, and the page of a user."""
    monkeypatch.chdir(tmp_path)
    log = shop_log(tmp_path)
    assert invoke(["data", "infer", *log.arguments, "out=shop.yaml"]) == 0
    small = ["model.dimension=8", "loader.gap_hours=0", *_SHORT]
    assert invoke(["train", "data=shop.yaml", "system=dv365", "run_dir=ranker", *small]) == 0
    pairs = pl.DataFrame({"user_id": ["u-0038", "u-0038"], "item_id": ["P00004", "P00107"]})
    pairs.write_csv(tmp_path / "pairs.csv")
    assert invoke(["score", "run_dir=ranker", "pairs=pairs.csv", "out=scores.csv"]) == 0
    scores = pl.read_csv(tmp_path / "scores.csv")
    assert scores.select(pl.col("addtocart", "purchase").is_between(0, 1).all()).row(0) == (
        True,
        True,
    )
    words = ["system=sequence", "data=shop.yaml", "run_dir=run", *_SHORT]
    assert invoke(["train", *words]) == 0
    assert invoke(["recommend", "run_dir=run", "user=u-0038", "out=page.html"]) == 0
    assert "P00" in (tmp_path / "page.html").read_text()
