"""The serving life of a tree: built, added to, removed from, snapshots, recommended by."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import recsys
from recsys.artifacts.hsnn_tower import load_hsnn
from recsys.cli.main import invoke
from recsys.index.folder import load_index
from recsys.index.hierarchy.exported import TreeItems
from recsys.index.hierarchy.item_index import IDS, HierarchyIndex
from tests.evaluation.baselines.planted import AUTHORS, HOUR, ITEMS, START, impressions, own_log

#: Items from here on are first shown after the log that is trained on.
NEW = 50
TRAINED_DAYS = 24
SETTINGS = (
    "system=hsnn",
    "data=log",
    "model.net.dimension=8",
    "model.net.levels=[{codes:5,size:S},{codes:3,size:XS}]",
    "loader.max_events=12",
    "loader.features.windows_hours=[24]",
    "trainer.progress_bar=false",
    "trainer.max_steps=6",
    "descent.beam=2",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a log, days that come after it, and a second run."""
    folder = tmp_path_factory.mktemp("tree")
    shown = impressions(0)
    likes = np.random.default_rng(1).random(len(shown)) < 0.3
    log = own_log(likes, shown)
    early = pl.col("timestamp") < START + TRAINED_DAYS * 24 * HOUR
    log.filter(early & (pl.col("item_id") < NEW)).write_parquet(folder / "log.parquet")
    log.filter(~early).write_parquet(folder / "later.parquet")
    data = (f"data.path={folder / 'log.parquet'}", f"data.out={folder / 'prepared'}")
    for name, seed in (("run", 0), ("other", 1)):
        assert invoke(["train", *SETTINGS, *data, f"run_dir={folder / name}", f"seed={seed}"]) == 0
    assert invoke(["index", "build", f"run_dir={folder / 'run'}", f"out={folder / 'tree'}"]) == 0
    return folder


@pytest.fixture
def tree(world: Path, tmp_path: Path) -> Path:
    """A copy of the index."""
    return Path(shutil.copytree(world / "tree", tmp_path / "tree"))


@pytest.fixture(scope="module")
def grown(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set with the days that came after the training."""
    folder = Path(shutil.copytree(world / "prepared", tmp_path_factory.mktemp("grown") / "data"))
    assert invoke(["data", "append", f"out={folder}", f"path={world / 'later.parquet'}"]) == 0
    return folder


def opened(folder: Path) -> HierarchyIndex:
    index = load_index(folder)
    assert isinstance(index, HierarchyIndex)
    return index


def recommended(out: Path, *settings: str) -> pl.DataFrame:
    out.unlink(missing_ok=True)
    assert invoke(["recommend", "user=[3,4,11,unknown]", f"out={out}", *settings]) == 0
    return pl.read_parquet(out)


@pytest.mark.parametrize(
    "asked",
    [
        ["k=5"],
        ["k=1000", "beam=1000", "keep_seen=true"],
        ["k=3", "beam=1", "keep_seen=true", "as_of=2023-12-01T10:00"],
        ["k=4", "beam=1", "keep_seen=true", "where=author_id=3|4|5", "exclude={few}"],
        ["k=4", "beam=3", "keep_seen=true", "only={few}", "task=liked", "min_score=0.2"],
    ],
    ids=lambda asked: " ".join(asked),
)
def test_an_index_gives_what_its_run_gives_to_the_bit(
    world: Path, tmp_path: Path, asked: list[str]
) -> None:
    few = tmp_path / "few.csv"
    few.write_text("item_id\n" + "\n".join(map(str, range(0, NEW, 3))))
    settings = [one.format(few=few) for one in asked]
    by_run = recommended(tmp_path / "run.parquet", f"run_dir={world / 'run'}", *settings)
    by_index = recommended(tmp_path / "index.parquet", f"index={world / 'tree'}", *settings)
    assert len(by_run) and by_run["score"].is_not_nan().all()
    assert_frame_equal(by_run, by_index, check_exact=True)
    # an artifact beside it must be the one inside; what is scored beside a user changes nothing
    artifact = f"artifact={world / 'run' / 'artifact'}"
    steps = [artifact, f"index={world / 'tree'}", "batch_users=1", *settings]
    assert_frame_equal(by_run, recommended(tmp_path / "a.parquet", *steps), check_exact=True)


def test_in_a_notebook_a_run_takes_a_beam(world: Path) -> None:
    run = recsys.open_run(world / "run")
    narrow = run.recommend([3, 4], k=5, beam=1, keep_seen=True)
    assert narrow.group_by("user_id").len()["len"].to_list() == [5, 5]


def test_new_items_have_their_node_at_once_and_nothing_else_is_built_anew(
    world: Path, tree: Path, grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = opened(tree)
    gone = tmp_path / "gone.csv"
    gone.write_text("item_id\n1\n2\n")
    assert invoke(["index", "remove", f"index={tree}", f"posts={gone}"]) == 0
    assert invoke(["index", "add", f"index={tree}", f"dataset={grown}"]) == 0
    after = opened(tree)
    assert "Items added: 10; replaced: 0." in capsys.readouterr().err
    ids = after.items["post_id"]
    # what was removed has not come back, though the log has it still
    assert sorted(ids) == sorted(set(range(ITEMS)) - {1, 2})
    for index, rows in ((before, np.arange(48)), (after, np.arange(48))):
        assert index is before or np.array_equal(
            after.embedding[rows], before.embedding[before.slots(ids[rows])]
        )
    networks = load_hsnn(tree / "artifact")
    items = TreeItems.of(networks, grown)
    new = np.arange(48, 58)
    assert set(ids[new]) == set(range(NEW, ITEMS))
    again = items.placed(after.items[new])
    assert np.array_equal(again.codes, after.codes[new])
    assert after.items["last_seen"].min() > before.items["last_seen"].max()
    # and the run on the same data says the same of the same items
    assert invoke(["index", "add", f"index={tree}", f"posts={gone}"]) == 0  # named, they come
    asked = [f"dataset={grown}", "k=9", "keep_seen=true"]
    by_run = recommended(tmp_path / "run.parquet", f"run_dir={world / 'run'}", *asked)
    by_index = recommended(tmp_path / "index.parquet", f"index={tree}", *asked)
    assert_frame_equal(by_run, by_index, check_exact=True)
    capsys.readouterr()
    report = ["index", "report", f"index={tree}", f"against={world / 'tree'}", "--json"]
    assert invoke(report) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["items"], found["not_in_tree"], found["misplaced"]) == (ITEMS, 0, 0)
    changes = found["changes"]
    assert (changes["common"], changes["came"], changes["went"]) == (NEW, ITEMS - NEW, 0)
    assert changes["moved"] == [0, 0] and changes["same_networks"]


def test_items_that_nobody_has_seen_are_found_by_what_is_said_of_them(
    world: Path, tree: Path, grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posts = tmp_path / "born.csv"
    like = NEW + 1  # which the log has by now, and the model has not learned
    posts.write_text(f"item_id,author_id,title,price\n1000,{like % AUTHORS},Born,3\n1001,,,\n")
    assert invoke(["index", "add", f"index={tree}", f"posts={posts}"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "Items added: 2; replaced: 0." in said and "does not have: 2" in said
    assert "the model knows no feature: 1" in said
    index, networks = opened(tree), load_hsnn(tree / "artifact")
    items = TreeItems.of(networks, grown)
    expected = items.placed(pl.DataFrame({"post_id": [like], "title": [None]}))
    place = int(index.slots(pl.Series([1000]))[0])
    assert np.array_equal(index.embedding[place], expected.embedding[0])
    assert np.array_equal(index.codes[place], expected.codes[0])
    # what is counted of it is what is counted of one like it that is as new
    vocabulary, reader = items.dataset.vocabulary, items.scoring.reader
    users = np.arange(1, 9)
    moment = np.full(8, START + TRAINED_DAYS * 24 * HOUR)
    number, unseen = vocabulary("item").indices_of([like])[0], np.zeros(8, np.int64)
    ids = {name: np.full(8, index.ids[place, column]) for column, name in enumerate(IDS)}
    one = np.ones(8, np.int64)
    of_given = reader.candidates.compute(users, moment, one, unseen, ids)
    of_like = reader.candidates.compute(users, moment, one, one * number)
    np.testing.assert_array_equal(of_given, of_like)
    assert not np.array_equal(of_given, reader.candidates.compute(users, moment, one, unseen))
    only = tmp_path / "only.csv"
    only.write_text("item_id\n1000\n1001\n")
    found = recommended(tmp_path / "a.parquet", f"index={tree}", f"only={only}", "k=9", "beam=1")
    assert len(found) == 8 and found["score"].is_finite().all()
    of_user = found.filter(user_id="3").sort("item_id")
    assert of_user["score"][0] != of_user["score"][1] and of_user["title"].to_list() == [
        "Born",
        None,
    ]
    # the report has no features of what the log does not have, and counts it
    assert invoke(["index", "report", f"index={tree}", "--json"]) == 0
    counted = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (counted["not_in_log"], counted["misplaced"]) == (2, 0)


def test_expired_items_go_until_none_is_left(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = opened(tree).items["last_seen"].sort()
    assert invoke(["index", "remove", f"index={tree}", f"last_seen_before={last[5]}"]) == 0
    assert len(opened(tree)) == NEW - 5
    found = recommended(tmp_path / "a.parquet", f"index={tree}", "k=100", "keep_seen=true")
    assert set(found["item_id"]) == set(opened(tree).items["post_id"])
    assert invoke(["index", "remove", f"index={tree}", "last_seen_before=2030-01-01"]) == 0
    assert len(opened(tree)) == 0
    capsys.readouterr()
    assert invoke(["recommend", f"index={tree}", "user=3"]) == 0
    assert "without any item left: 1" in capsys.readouterr().err
    assert invoke(["index", "report", f"index={tree}"]) == 0
    assert "no node: 50, 0 of them new" in " ".join(capsys.readouterr().out.split())


def test_one_item_is_a_tree(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = world / "run", tmp_path / "one"
    artifact = f"artifact={run / 'artifact'}"
    first = pl.read_parquet(world / "log.parquet")["timestamp"].min()
    assert invoke(["index", "build", artifact, f"out={out}", f"as_of={first + 1}"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "There are 1 items for the 15 nodes that the last level could have" in said
    assert "first seen at as_of or later" in said and "has collapsed: 100%" in said
    found = recommended(tmp_path / "a.parquet", f"index={out}", "k=9", "keep_seen=true")
    assert found["item_id"].n_unique() == 1 and len(found) == 4
    assert invoke(["index", "build", artifact, f"out={tmp_path / 'no'}", f"as_of={first}"]) == 2
    assert "has no item for the tree" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_snapshot_is_one_generation_and_can_be_gone_back_to(
    world: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served, gone = tmp_path / "served", tmp_path / "gone.csv"
    snapshot = ["index", "snapshot", f"index={tree}", f"out={served}", "keep=2"]
    assert invoke(snapshot) == 0 and len(opened(served)) == NEW
    for item in range(4):
        gone.write_text(f"item_id\n{item}\n")
        assert invoke(["index", "remove", f"index={tree}", f"posts={gone}"]) == 0
        assert len(opened(served)) == NEW - item  # until it is said, nothing is served anew
        assert invoke(snapshot) == 0
    assert invoke(snapshot) == 0
    assert "The index is what generation 5 has" in capsys.readouterr().err
    kept = sorted(path.name for path in (served / "generations").iterdir())
    assert kept == ["000003", "000004", "000005"]
    assert invoke(["index", "rollback", f"index={served}"]) == 0 and len(opened(served)) == NEW - 3
    found = recommended(tmp_path / "a.parquet", f"index={served}", "k=100", "keep_seen=true")
    assert set(found["item_id"]) == set(range(3, NEW))
    assert invoke(["index", "rollback", f"index={served}", "generation=9"]) == 2
    assert "has no generation 9; it has 3, 4, 5" in capsys.readouterr().err
    # half of a generation is not served; the pointer's damage is mended by naming one
    (served / "generations" / "000003" / "items.3.parquet").unlink()
    assert invoke(["index", "rollback", f"index={served}", "generation=3"]) == 2
    assert "cannot be served; name another one" in capsys.readouterr().err
    assert len(opened(served)) == NEW - 3
    (served / "current.json").write_text("{")
    assert invoke(["recommend", f"index={served}", "user=3"]) == 2
    assert "current.json is damaged" in " ".join(capsys.readouterr().err.split())
    assert invoke(["index", "rollback", f"index={served}", "generation=5"]) == 0
    path = served / "generations" / "000005" / "artifact" / "hsnn.pt"
    content = path.read_bytes()
    path.unlink()  # the index itself has the same file
    path.write_bytes(content[:-1] + b"x")
    assert invoke(["recommend", f"index={served}", "user=3"]) == 2
    assert "another SHA-256" in " ".join(capsys.readouterr().err.split())
    for verb in (["add"], ["remove", f"posts={gone}"]):
        assert invoke(["index", *verb, f"index={served}"]) == 2
        assert "holds snapshots, which do not change" in " ".join(capsys.readouterr().err.split())
    assert invoke(["index", "snapshot", f"index={tree}", f"out={world / 'run'}"]) == 2
    assert invoke(["index", "rollback", f"index={tree}"]) == 2
    assert "holds no snapshots" in capsys.readouterr().err


def test_readers_see_a_whole_generation_while_it_is_exchanged(
    world: Path, tree: Path, tmp_path: Path
) -> None:
    served, gone, is_over = (tmp_path / name for name in ("served", "gone.csv", "over"))
    snapshot = ["index", "snapshot", f"index={tree}", f"out={served}", "keep=1"]
    assert invoke(snapshot) == 0
    # a process of its own: two threads of Python 3.11 may not both read sources, as torch.jit does
    reader = (
        "import sys, polars as pl\n"
        "from pathlib import Path\n"
        "from recsys.serving.opening import open_recommender\n"
        "from recsys.serving.recommend import RecommendRules\n"
        "*places, is_over, moment = sys.argv[1:]\n"
        "while not Path(is_over).exists():\n"
        "    for place in places:\n"
        "        recommender = open_recommender(None, place)\n"
        "        rules = RecommendRules(int(moment), k=100, keep_seen=True)\n"
        "        found = pl.concat(recommender.recommend(pl.Series(['3']), rules))\n"
        "        assert len(found) == len(recommender.catalogue)\n"
        "        print(Path(place).name, len(found), flush=True)\n"
    )
    given = [str(served), str(tree), str(is_over), str(START + 60 * 24 * HOUR)]
    process = subprocess.Popen(
        [sys.executable, "-c", reader, *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    seen = [process.stdout.readline()]
    for item in range(4):
        gone.write_text(f"item_id\n{item}\n")
        assert invoke(["index", "remove", f"index={tree}", f"posts={gone}"]) == 0
        assert invoke(snapshot) == 0
    # networks and all are exchanged
    again = ["index", "build", f"artifact={world / 'run' / 'artifact'}", f"out={tree}"]
    assert invoke(again) == 0
    is_over.touch()
    out, problems = process.communicate(timeout=120)
    assert process.returncode == 0, problems
    sizes = [line.split() for line in [*seen, *out.splitlines()]]
    of_served = [int(size) for name, size in sizes if name == served.name]
    assert of_served == sorted(of_served, reverse=True)
    assert len(of_served) > 1 and all(NEW - 4 <= int(size) <= NEW for _, size in sizes)


def test_killed_at_any_moment_a_generation_is_the_old_or_the_new(
    tree: Path, tmp_path: Path
) -> None:
    """A process removes an item and makes a snapshot, over and over, until it is killed."""
    served = tmp_path / "served"
    writer = (
        "import sys, polars as pl\n"
        "from pathlib import Path\n"
        "from recsys.index.folder import load_index, save_index\n"
        "from recsys.index.snapshots import SnapshotConfig, make_snapshot\n"
        "tree, served = map(Path, sys.argv[1:])\n"
        "index = load_index(tree)\n"
        "for item in range(50):\n"
        "    make_snapshot(SnapshotConfig(str(tree), str(served), 1))\n"
        "    print(item, flush=True)\n"
        "    index.remove(pl.Series([item]))\n"
        "    save_index(index, tree)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", writer, str(tree), str(served)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
        assert len(opened(served)) <= NEW
    time.sleep(0.0113)
    os.kill(process.pid, signal.SIGKILL)
    done = 5 + len(process.stdout.read().splitlines())
    process.wait()
    assert NEW - len(opened(served)) in (done - 1, done)
    assert invoke(["index", "snapshot", f"index={tree}", f"out={served}", "keep=1"]) == 0
    assert len(opened(served)) == len(opened(tree))
    left = [path.name for path in (served / "generations").iterdir() if path.name[0] == "."]
    assert not left


def test_a_tree_of_somebody_else_and_another_log_are_refused(
    world: Path,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "prepared"
    later = ["data", "prepare", "source=log", f"path={world / 'later.parquet'}", f"out={other}"]
    assert invoke(later) == 0
    for verb in (["recommend", "user=3"], ["index", "add"], ["index", "report"]):
        assert invoke([*verb, f"index={tree}", f"dataset={other}"]) == 2
        assert "its indices would mean other items" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("RECSYS_TRUSTED_ARTIFACTS", str(tmp_path / "trusted"))
    for verb in (["recommend", "user=3"], ["index", "add"], ["index", "report"]):
        assert invoke([*verb, f"index={tree}"]) == 2
        assert f"recsys trust artifact={tree / 'artifact'}" in " ".join(
            capsys.readouterr().err.split()
        )
        assert invoke([*verb, f"index={tree}", "trust=true"]) == 0
    capsys.readouterr()


def test_what_cannot_be_is_a_sentence(
    world: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = world / "run", tmp_path / "out"
    other = world / "other"
    assert invoke(["export", f"run_dir={other}"]) == 0
    capsys.readouterr()
    index, artifact = f"index={tree}", f"artifact={other / 'artifact'}"
    vectors = tmp_path / "posts.npz"
    np.savez(vectors, item_id=np.arange(9), embedding=np.eye(9, dtype=np.float32))
    assert invoke(["index", "build", f"embeddings={vectors}", f"out={tmp_path / 'flat'}"]) == 0
    few = tmp_path / "few.csv"
    few.write_text("item_id\n1\n1\n")
    for command, message in (
        (["recommend", index, artifact, "user=3"], "they are of different generations"),
        (["recommend", index, "user=3", "task=nothing"], "predicts no task nothing; it is one of"),
        (["recommend", index, "user=3", "precision=int8"], "is a tree, whose networks read items"),
        (["recommend", index, f"run_dir={run}", "user=3"], "Give either run_dir=…"),
        (["recommend", artifact, "user=3"], "Give either run_dir=…"),
        (["recommend", f"index={tmp_path / 'flat'}", "user=3"], "is a FAISS index of item embedd"),
        (["recommend", index, "user=3", "reasons=true"], "reasons"),
        (["index", "build", f"out={out}"], "Give either embeddings=…"),
        (["index", "build", f"out={out}", artifact, "index.kind=flat"], "are of FAISS indexes"),
        (["index", "build", f"out={tmp_path / 'flat'}", artifact, "as_of=x"], "as_of=x is no"),
        (["index", "add", index, f"embeddings={vectors}"], "is a tree, which has its items from"),
        (["index", "add", f"index={tmp_path / 'flat'}"], "is a FAISS index; give embeddings="),
        (["index", "add", index, f"posts={few}"], "names more than once"),
        (["index", "report", f"index={tmp_path / 'flat'}"], "has no nodes to report on"),
        (["index", "build", f"embeddings={vectors}", f"out={tree}"], "index of another kind"),
    ):
        assert invoke(command) == 2, command
        assert message in " ".join(capsys.readouterr().err.split()), command
    # networks of another generation put into the folder
    shutil.rmtree(tree / "artifact")
    shutil.copytree(other / "artifact", tree / "artifact")
    snapshot = ["index", "snapshot", index, f"out={out}"]
    for command in (["recommend", index, "user=3"], ["index", "add", index], snapshot):
        assert invoke(command) == 2
        assert "they are of different generations" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
