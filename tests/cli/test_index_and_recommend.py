"""The verbs of indexes and recommendations: their settings, and one way through all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.cli import index_add, index_build, index_remove, recommend
from recsys.core.errors import ConfigError
from recsys.data.stores.dataset import PreparedDataset
from recsys.index.faiss.kinds import IndexConfig
from recsys.index.folder import load_index
from tests.index.conftest import START, artifact, dataset, embeddings

__all__ = ["artifact", "dataset", "embeddings"]


def test_the_files_of_conf_hold_the_defaults() -> None:
    build = index_build.configure(["embeddings=a.npz", "out=index"])
    assert build.index == IndexConfig() and build.as_of is None
    assert not index_add.configure(["index=i", "embeddings=a"]).same_model
    assert index_remove.configure(["index=i", "last_seen_before=2020-01-01"]).posts is None
    config = recommend.configure(["artifact=a", "index=i", "users=u.csv"])
    assert (config.k, config.precision, config.strict) == (10, "float", False)
    with pytest.raises(ConfigError, match=r"did you mean `index\.probes`"):
        index_build.configure(["embeddings=a", "out=b", "index.probe=3"])
    with pytest.raises(ConfigError, match="`out=…` is needed"):
        index_build.configure(["embeddings=a"])


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("user=42", ["42"]),
        ("user=1e5", ["1e5"]),
        ("user=[42, 43]", ["42", "43"]),
        ("user=it's", ["it's"]),
        ("user=null-7", ["null-7"]),
    ],
)
def test_user_ids_are_taken_as_typed(text: str, ids: list[str]) -> None:
    assert recommend.configure(["artifact=a", "index=i", text]).user == ids


@pytest.mark.parametrize("text", ["user=", "user=[]", "user=[42,]"])
def test_an_empty_user_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"names nobody|not empty"):
        recommend.configure(["artifact=a", "index=i", text])


def test_from_building_to_recommending(
    dataset: PreparedDataset,
    embeddings: Path,
    artifact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    index = tmp_path / "index"
    index_build.run(
        [f"embeddings={embeddings}", f"out={index}", f"dataset={dataset.path}", "index.kind=hnsw"]
    )
    index_add.run([f"embeddings={embeddings}", f"index={index}"])
    index_remove.run([f"index={index}", f"last_seen_before={START + 25}"])
    said = " ".join(capsys.readouterr().err.split())
    assert "Items added: 12; replaced: 0." in said and "Items added: 0; replaced: 12." in said
    assert "Items removed: 2; not in the index: 0." in said and len(load_index(index)) == 10
    assert "58% of what its graph holds are removed items" in said  # 14 of 24
    settings = [f"artifact={artifact}", f"index={index}", "user=[101,5]", "k=2"]
    recommend.run(settings)
    printed = capsys.readouterr()
    assert "not in the log" in printed.out
    assert "users: 2; without any item left: 0." in printed.err and "exclude" not in printed.err
    (tmp_path / "out.csv").write_text("item_id\n1002\n")
    recommend.run([*settings, f"exclude={tmp_path / 'out.csv'}"])
    assert "Items of exclude= that there are not: 1." in capsys.readouterr().err
