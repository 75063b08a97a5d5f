"""`recsys embeddings compare` on real stores: numbers by hand, groups, pages, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.cli.main import invoke
from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.data.stores.dataset import PreparedDataset
from recsys.embeddings.comparison import CompareConfig, Comparison, compare
from recsys.embeddings.rows import quantize_rows
from recsys.embeddings.stores import open_store
from tests.embeddings.stores import redis_server, store_location
from tests.systems.dv365.runs import RAW_SHIFT, USERS, events, prepared_dataset
from tests.systems.dv365.towers import NOW

VECTORS, WIDTH = 2, 16
IDS = [RAW_SHIFT + index for index in range(1, USERS)]


def drawn(users: int, seed: int = 0, vectors: int = VECTORS, width: int = WIDTH) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(users, vectors, width))
    return values.astype(np.float32)


def publish(
    location: str | Path,
    values: np.ndarray,
    users: list[int] | list[str] = IDS,
    timestamp: int = NOW,
    **details: object,
) -> str:
    with open_store(str(location)) as store:
        store.begin(timestamp, dict(details))
        store.put_many(users[: len(values)], quantize_rows(torch.from_numpy(values)).numpy())
        store.commit()
    return str(location)


def found(a: str, b: str, **settings: object) -> Comparison:
    return compare(CompareConfig(a, b, **settings))  # type: ignore[arg-type]


def turned(values: np.ndarray, seed: int = 5) -> np.ndarray:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)))[0]
    return (values @ turn).astype(np.float32)


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_a_copy_is_the_same_and_the_other_sign_the_opposite(kind: str, tmp_path: Path) -> None:
    values = drawn(50)
    opposite = values.copy()
    opposite[25:] *= -1
    a = publish(tmp_path / "a", values, tower="one")
    with store_location(kind, tmp_path) as b:
        publish(b, values, tower="one")
        same = found(a, b)
        publish(b, opposite, tower="other")
        half = found(a, b)
    assert same.everyone.cosine == pytest.approx(1.0) and same.everyone.alike == 1.0
    assert same.everyone.overlap == 1.0 and same.same_tower is True
    assert same.quantiles == pytest.approx([1.0] * 6) and same.norm_ratios == [1.0] * 6
    assert (same.in_both, same.only_in_a, same.only_in_b) == (50, 0, 0)
    assert (same.vectors, same.width, same.b.version) == (VECTORS, WIDTH, 1)
    # of −x the 4-bit row is not exactly that of x with the other sign
    assert half.everyone.cosine == pytest.approx(0.0, abs=0.01) and half.everyone.alike == 0.5
    assert half.everyone.overlap < 0.5 and half.same_tower is False and half.b.version == 2


def test_a_turn_is_undone_by_procrustes_and_keeps_neighbours(tmp_path: Path) -> None:
    values = drawn(40)
    a, b = publish(tmp_path / "a", values), publish(tmp_path / "b", turned(values))
    result = found(a, b)
    assert result.everyone.cosine < 0.5 and result.unaligned_cosine < 0.5
    assert result.aligned_cosine > 0.95
    assert result.everyone.overlap > 0.6 > 2 * result.by_chance
    assert result.same_tower is None


def test_users_of_one_only_are_counted_and_zeros_left_out(tmp_path: Path) -> None:
    values = drawn(30)
    values[3] = 0
    a = publish(tmp_path / "a", values, IDS[:30])
    b = publish(tmp_path / "b", values[:25], IDS[10:35])
    result = found(a, b)
    assert (result.in_both, result.only_in_a, result.only_in_b) == (20, 10, 5)
    assert result.without_direction == 1 and result.everyone.users == 19
    assert (result.a.users, result.b.users) == (30, 25)
    norms = np.linalg.norm(values.reshape(30, -1), axis=1)
    assert result.a.norm == pytest.approx(norms.mean(), rel=0.01)


def test_withdrawn_users_are_not_there(tmp_path: Path) -> None:
    a, b = publish(tmp_path / "a", drawn(20)), publish(tmp_path / "b", drawn(20))
    with open_store(b) as store:
        store.begin(NOW + 1, {})
        store.withdraw_many(IDS[:5])
        store.commit()
    assert (found(a, b).in_both, found(a, b).only_in_a) == (15, 5)


def test_collapse_shows(tmp_path: Path) -> None:
    spread = drawn(50)
    line = drawn(1, seed=2) * np.linspace(1, 2, 50, dtype=np.float32)[:, None, None]
    a, b = publish(tmp_path / "a", spread), publish(tmp_path / "b", line)
    result = found(a, b)
    assert result.a.effective_rank > 20 and result.a.first_component < 0.2
    assert result.b.effective_rank < 3 and result.b.first_component > 0.98
    assert result.b.cosine_of_others > 0.99 > 0.2 > abs(result.a.cosine_of_others)


def test_groups_by_activity_and_by_new_events(tmp_path: Path) -> None:
    log = events(600, NOW - 30 * DAY, NOW - 10 * DAY, seed=1)
    more = events(200, NOW - 9 * DAY, NOW, seed=2, users=20)
    dataset = prepared_dataset(tmp_path / "data", log.vstack(more.select(log.columns)))
    values = drawn(USERS - 1)
    moved = values.copy()
    moved[:19] = drawn(19, seed=3)  # the users with events in the last days
    a = publish(tmp_path / "a", values, timestamp=NOW - 8 * DAY, gap=2 * DAY)
    b = publish(tmp_path / "b", moved, timestamp=NOW, gap=DAY)
    result = found(a, b, dataset=str(dataset.path))
    groups = {group.name: group for group in result.groups}
    assert groups["no new event between"].cosine == pytest.approx(1.0)
    assert groups["new events between"].cosine < 0.3
    assert groups["new events between"].users == 19
    by_events = [group for group in result.groups if group.name.endswith(" events")]
    assert len(by_events) == 4 and sum(group.users for group in by_events) == USERS - 1
    assert by_events[0].name.startswith(("0 ", "1 ", "2 ", "3 ", "4 ", "5 "))


def test_the_sample_is_that_of_any_store(tmp_path: Path) -> None:
    values, other = drawn(50), drawn(50, seed=1)
    a, b = publish(tmp_path / "a", values), publish(tmp_path / "b", other)
    with redis_server(tmp_path) as url:
        publish(url, other)
        lmdb, redis = (found(a, one, sample=20, neighbours=3) for one in (b, url))
    assert lmdb.everyone == redis.everyone and lmdb.sampled == 20
    assert lmdb.b.effective_rank == redis.b.effective_rank


def test_one_user_alone(tmp_path: Path) -> None:
    a = publish(tmp_path / "a", drawn(1), ["ü"])
    b = publish(tmp_path / "b", drawn(1), ["ü"])
    result = found(a, b)
    assert result.in_both == 1 and result.everyone.cosine == pytest.approx(1.0)
    assert np.isnan([result.everyone.overlap, result.a.effective_rank, result.by_chance]).all()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = prepared_dataset(tmp_path / "data", events(300, NOW - 30 * DAY, NOW, seed=1))
    values = drawn(USERS - 1)
    a = publish(tmp_path / "a", values, timestamp=NOW - DAY)
    b = publish(tmp_path / "b", values + 0.1 * drawn(USERS - 1, seed=1))
    page = tmp_path / "pages" / "drift.html"
    words = ["embeddings", "compare", a, b, f"dataset={dataset.path}", f"out={page}", "--json"]
    assert invoke(words) == 0
    printed = capsys.readouterr().out
    assert "Publications" in printed and "no new event between" in printed
    report = json.loads(printed.splitlines()[-1])
    assert report["everyone"]["cosine"] > 0.98 and report["a"]["version"] == 1
    assert report["groups"][0]["users"] > 0 and "cosines" not in report
    html = page.read_text()
    assert html.count("<svg") == 2 and "Distribution of the cosine" in html
    assert invoke(words) == 0  # its own page is replaced
    page.write_text("mine")
    assert invoke(words) == 2
    assert "was not written by this command" in capsys.readouterr().err
    assert page.read_text() == "mine"


def test_nan_is_null_in_the_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (publish(tmp_path / name, drawn(3)) for name in "ab")
    assert invoke(["embeddings", "compare", a, b, "--json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed.splitlines()[-1])["everyone"]["overlap"] is None
    assert "too few (3)" in printed


def test_what_cannot_be_compared_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = publish(tmp_path / "a", drawn(5))
    others = publish(tmp_path / "others", drawn(5), ["p", "q", "r", "s", "t"])
    wide = publish(tmp_path / "wide", drawn(5, width=32))
    many = publish(tmp_path / "many", drawn(5, vectors=3))
    with open_store(str(tmp_path / "empty")):
        pass
    with open_store(str(tmp_path / "nobody")) as store:
        store.begin(NOW, {})
        store.commit()
    dataset: PreparedDataset = prepared_dataset(
        tmp_path / "text", events(50, NOW - DAY, NOW, seed=1), string_ids=True
    )
    b = publish(tmp_path / "b", drawn(5))
    for arguments, sentence in (
        ([a, wide], "2 x 16 numbers and that of"),
        ([a, many], "3 x 16, so they are of other models"),
        ([a, str(tmp_path / "empty")], "holds no publication yet"),
        ([a, str(tmp_path / "nobody")], "holds no user's embedding"),
        ([a, str(tmp_path / "nowhere")], "is no embedding store"),
        ([a, "redis://127.0.0.1:1/0"], "No Redis server answers"),
        ([a, f"{a}/"], "give two stores"),
        ([a], "`b=…` is needed"),
        ([a, b, others], "is one store too many"),
        ([a, others], "No user has an embedding in both"),
        ([a, b, f"dataset={dataset.path}"], "knows none of the users"),
        ([a, b, "dataset=nowhere"], "the folder does not exist"),
        ([a, b, "out=page.txt"], "whose name ends in .html"),
        ([a, b, f"out={a}/page.html"], "cannot be written while"),
        ([a, b, "neighbours=0"], "neighbours is 0"),
    ):
        assert invoke(["embeddings", "compare", *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert sentence in said, (arguments, said)
