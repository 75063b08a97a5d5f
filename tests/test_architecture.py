"""The rooms import downwards only, hold no circle, and what is served does without the trainer."""

from __future__ import annotations

import pytest

from tests.architecture import (
    ENTRIES,
    NOT_FOR_SERVING,
    ONLY_IN,
    ROOMS,
    SERVED,
    WITHOUT_TORCH,
    circles,
    import_graph,
    imported,
    imported_packages,
    loaded_by,
    modules,
    room_of,
)

TRAINING = {"lightning", "hydra", "torchrec"}


def test_every_form_of_import_is_seen() -> None:
    source = (
        "import recsys.nn.losses\n"
        "from recsys.data import batches\n"
        "from recsys.core.errors import DataError\n"
        "def f():\n    from recsys.cli import main\n"
        "ENTRY = 'recsys.runs.train:train'\n"
        "TEXT = 'see recsys.runs.load'\n"
    )
    known = {
        *("recsys.nn.losses", "recsys.data", "recsys.data.batches", "recsys.core.errors"),
        *("recsys.cli", "recsys.cli.main", "recsys.runs.train", "recsys.runs.load"),
    }
    assert imported(source, known) == known - {"recsys.data", "recsys.cli", "recsys.runs.load"}
    assert imported_packages("import torch.nn\nfrom hydra.core import x") == {"torch", "hydra"}


def test_a_circle_is_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}
    assert circles(graph) == [["a", "b", "c"]]


def test_a_room_imports_only_rooms_above_it() -> None:
    offenders = []
    for module, others in import_graph().items():
        room = room_of(module)
        allowed = ROOMS[: ROOMS.index(room) + 1] if room is not None else ROOMS
        if room in SERVED:
            allowed = tuple(one for one in allowed if one not in NOT_FOR_SERVING)
        offenders += [
            f"{module} imports {other}"
            for other in sorted(others)
            if (found := room_of(other)) is not None and found not in allowed
        ]
    assert not offenders


def test_no_modules_import_each_other() -> None:
    assert circles(import_graph()) == []


def test_every_module_is_in_a_room() -> None:
    beside = {module for module in modules() if room_of(module) is None}
    assert beside == {"recsys", "recsys.__main__", "recsys.data", "recsys.install"}


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    offenders = [
        module
        for module, path in modules().items()
        if package in imported_packages(path.read_text())
        and room_of(module) not in ONLY_IN[package]
    ]
    assert not offenders


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_rooms_without_torch_do_not_load_it(room: str) -> None:
    inside = [module for module in modules() if room_of(module) == room]
    assert "torch" not in loaded_by(f"import {', '.join(inside)}").packages


@pytest.mark.parametrize("room", SERVED)
def test_what_is_served_does_without_the_trainer(room: str) -> None:
    inside = [module for module in modules() if room_of(module) == room]
    assert not TRAINING & loaded_by(f"import {', '.join(inside)}").packages


@pytest.mark.parametrize(
    ("entry", "most", "without"),
    [
        ("import recsys", 3, {"torch", "numpy", "polars", "rich"}),
        ("reading an embedding", 5, {"torch", "polars", "omegaconf"}),
        ("recommending", 92, {"lightning", "hydra", "torchrec", "fbgemm_gpu"}),
        ("recommending by a tree", 130, {"lightning", "hydra", "torchrec", "fbgemm_gpu"}),
        ("preparing a log", 66, {"torch", "lightning", "hydra"}),
        ("recsys --help", 10, {"torch", "lightning", "hydra", "polars"}),
    ],
)
def test_what_an_entry_loads(entry: str, most: int, without: set[str]) -> None:
    loaded = loaded_by(ENTRIES[entry])
    assert loaded.ours <= most
    assert not without & loaded.packages
