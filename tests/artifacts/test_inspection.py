"""Towers of somebody else: what could do harm is refused before anything of it runs."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.artifacts.inspection import check_tower_file
from recsys.artifacts.operators import ATEN, OTHERS
from recsys.core.errors import ArtifactError
from tests.artifacts.hostile import honest, rewritten, with_lines

CANARY = "canary"
_SETSTATE = """\
  def __getstate__(self: __torch__.tests.artifacts.hostile.Tower) -> Tuple[Tensor, bool]:
    return (torch.ones([1]), True)
  def __setstate__(self: __torch__.tests.artifacts.hostile.Tower,
    state: Tuple[Tensor, bool]) -> NoneType:
    _0 = torch.save(state[0], "canary")
    return None
"""
#: Lines of code that write a file, by how they reach the operator.
WRITES = {
    "a mapped file": [
        '_0 = torch.from_file("canary", True, 2, dtype=6)',
        "_1 = torch.copy_(_0, x)",
        "x = torch.add(x, _1)",
    ],
    "torch.save": ['_0 = torch.save(x, "canary")'],
    "by its namespace": ['_0 = ops.aten.save(x, "canary")'],
    "an operator by another name": ["f = torch.save", '_0 = f(x, "canary")'],
    "torch by another name": ["f = torch", '_0 = f.save(x, "canary")'],
    "a namespace by another name": ["f = ops.aten", '_0 = f.save(x, "canary")'],
    "by getattr": ['f = getattr(torch, "save")', '_0 = f(x, "canary")'],
    "a builtin by another name": ["int = torch.save", '_0 = int(x, "canary")'],
}
#: Lines that torch would not compile, or that do no harm, and that no exporter writes.
STRANGE = {
    "a method": ['_0 = (x).save("canary")'],
    "a method by another name": ["f = (x).resize_", "_0 = f([1])"],
    "a method by getattr": ['_0 = getattr(x, "resize_")([1])'],
    "a builtin that is a method": ["int = (x).resize_", "_0 = int([1])"],
    "a name of two things": [
        "if torch.gt(1, 0):",
        "  f = (x).resize_",
        "else:",
        "  f = __torch__.tests.artifacts.hostile.Tower",
        "_0 = f([1])",
    ],
    "one of several": ["_0 = ((x).resize_,)[0]([1])"],
    "print": ['print("hello")'],
    "a task": ['_0 = fork((x).save, "canary")'],
    "a class of torch": ["_0 = __torch__.torch.classes.dist_c10d.Store()"],
    "a class that is not there": ["_0 = __torch__.elsewhere.Tower()"],
    "gradients": ["_0 = torch.autograd.grad([x], [x])"],
    "a comprehension": ["_0 = [y for y in [x]]"],
    "a function of its own": ["_0 = (lambda y: y)(x)"],
    "a comment": ["_0 = x  # type: Tensor"],
    "a text with a prefix": ['_0 = r"\\"', '_1 = torch.save(x, "canary")', '_2 = r"\\"'],
    "a long text": ['_0 = """a"""'],
    "a control character": ['_0 = "\\033]0;title"'],
    "two statements": ["_0 = 1; _1 = 2"],
    "no Python": ["_0 = = 1"],
    "a deep nest": ["_0 = " + "-" * 20_000 + "1"],
}


@pytest.fixture
def tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return honest(tmp_path / "honest.pt")


def test_what_an_exporter_writes_passes(tower: Path, tmp_path: Path) -> None:
    check_tower_file(tower)
    check_tower_file(rewritten(tower, tmp_path / "copy.pt"))
    check_tower_file(with_lines(tower, tmp_path / "more.pt", ["_0 = torch.add(x, 1)"]))


@pytest.mark.parametrize("how", WRITES)
def test_what_writes_a_file_is_refused(how: str, tower: Path, tmp_path: Path) -> None:
    path = with_lines(tower, tmp_path / "hostile.pt", WRITES[how])
    with pytest.raises(ArtifactError, match=r"not loaded: it (uses|calls) `.*`"):
        check_tower_file(path)
    assert not Path(CANARY).exists()
    torch.jit.load(path)(torch.ones(2))
    assert Path(CANARY).exists(), "the case would do no harm: it shows nothing"


def test_what_writes_a_file_when_it_is_loaded_is_refused(tower: Path, tmp_path: Path) -> None:
    path = with_lines(tower, tmp_path / "hostile.pt", [], methods=_SETSTATE)
    with pytest.raises(ArtifactError, match=r"it uses `torch\.save`, which is not among"):
        check_tower_file(path)
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("how", STRANGE)
def test_what_no_exporter_writes_is_refused(how: str, tower: Path, tmp_path: Path) -> None:
    path = with_lines(tower, tmp_path / "strange.pt", STRANGE[how])
    with pytest.raises(ArtifactError, match="no user tower that `recsys export` writes"):
        check_tower_file(path)


def test_a_method_of_the_name_of_an_operator_makes_it_no_better(
    tower: Path, tmp_path: Path
) -> None:
    method = "  def resize_(self: __torch__.tests.artifacts.hostile.Tower) -> int:\n    return 1\n"
    path = with_lines(tower, tmp_path / "hostile.pt", ["_0 = (x).resize_([1])"], methods=method)
    with pytest.raises(ArtifactError, match=r"it calls `\.resize_`"):
        check_tower_file(path)


def _schemas() -> dict[str, list[torch.FunctionSchema]]:
    found: dict[str, list[torch.FunctionSchema]] = {}
    for schema in torch._C._jit_get_all_schemas():
        found.setdefault(schema.name, []).append(schema)
    return found


SCHEMAS = _schemas()


def test_no_operator_of_the_list_takes_a_file() -> None:
    for name in [f"aten::{one}" for one in ATEN] + [one.replace(".", "::") for one in OTHERS]:
        taken = {argument.name for one in SCHEMAS.get(name, []) for argument in one.arguments}
        assert not {one for one in taken if "file" in one or "path" in one}, name


@given(st.sampled_from(sorted(SCHEMAS)))
def test_every_other_operator_is_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    space, _, operator = name.partition("::")
    listed = operator in ATEN if space == "aten" else f"{space}.{operator}" in OTHERS
    if listed or not operator.isidentifier() or not space.isidentifier():
        return
    folder = tmp_path_factory.mktemp("towers")
    written = f"torch.{operator}" if space == "aten" else f"ops.{space}.{operator}"
    path = with_lines(honest(folder / "a.pt"), folder / "b.pt", [f"_0 = {written}(x)"])
    with pytest.raises(ArtifactError, match="no user tower that `recsys export` writes"):
        check_tower_file(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("model.json", "it has an entry 'model.json'"),  # loaded by torch's old reader
        ("extra/more.py", "it has an entry 'extra/more.py'"),
        ("code/../../more.py", "it has an entry"),
        ("code/__torch__/more.txt", "it has an entry"),
        ("data.PKL", "it has an entry"),
    ],
)
def test_entries_that_do_not_belong_there_are_refused(
    entry: str, message: str, tower: Path, tmp_path: Path
) -> None:
    path = rewritten(tower, tmp_path / "hostile.pt", added={entry: b"{}"})
    with pytest.raises(ArtifactError, match=message):
        check_tower_file(path)


def test_archives_that_can_be_read_in_two_ways_are_refused(tower: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = rewritten(tower, tmp_path / "twice.pt", added={"data.pkl": b"."})
    with pytest.raises(ArtifactError, match="two entries of one name"):
        check_tower_file(path)
    hostile = with_lines(tower, tmp_path / "hostile.pt", WRITES["torch.save"])
    behind = tmp_path / "behind.pt"
    behind.write_bytes(hostile.read_bytes() + tower.read_bytes())
    with pytest.raises(ArtifactError, match="no user tower"):
        check_tower_file(behind)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(tower.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match="no user tower"):
        check_tower_file(cut)


def test_what_grows_when_it_is_read_is_refused(tower: Path, tmp_path: Path) -> None:
    for name in ("code/__torch__/more.py", "data/77"):
        path = rewritten(tower, tmp_path / "bomb.pt")
        with ZipFile(path, "a", ZIP_DEFLATED) as archive:
            root = archive.namelist()[0].partition("/")[0]
            archive.writestr(f"{root}/{name}", b"\n" * (33 * 2**20))
        assert path.stat().st_size < 2**20
        with pytest.raises(ArtifactError, match=f"its entry {name} (has 34,603,008|is compressed)"):
            check_tower_file(path)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.", "names posix.system"),
        (b"\x80\x02c__torch__.torch.classes.dist_c10d\nStore\n.", "names __torch__.torch.classes"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "has a (SHORT_BINUNICODE|STACK_GLOBAL)"),
        (b"\x80\x02", "no user tower"),
    ],
)
@pytest.mark.parametrize("entry", ["data.pkl", "constants.pkl"])
def test_pickles_name_nothing_but_tensors_and_the_towers_classes(
    entry: str, pickled: bytes, message: str, tower: Path, tmp_path: Path
) -> None:
    path = rewritten(
        tower, tmp_path / "hostile.pt", lambda name, content: pickled if name == entry else content
    )
    with pytest.raises(ArtifactError, match=message):
        check_tower_file(path)
