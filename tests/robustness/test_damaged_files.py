"""Every kind of file that the project writes, damaged: a sentence or no effect, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.damaged_files import GOOD, KINDS, Kind, outcomes
from tests.robustness.small_world import copy_world, make_world

#: Kinds whose command takes a fraction of a second also where the damage has no effect.
FAST = tuple(
    kind
    for kind in KINDS
    if kind.name
    in (
        "data set: described",
        "data set: checked",
        "data set: compacted and rid of a user",
        "sequences: evaluated on",
        "folder of shards: read",
        "checkpoint: read",
        "store: read",
        "store: checked",
        "index and artifact: recommended",
    )
)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The world that is damaged, and its undamaged copy."""
    world, undamaged = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("undamaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        make_world(world)
    copy_world(world, undamaged)
    return world, undamaged


@pytest.mark.parametrize(
    ("count", "kinds"),
    [(27, FAST), pytest.param(400, KINDS, marks=pytest.mark.slow)],
    ids=["small", "long"],
)
def test_no_damage_gives_other_numbers(
    worlds: tuple[Path, Path],
    count: int,
    kinds: tuple[Kind, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, undamaged = worlds
    monkeypatch.chdir(world)
    bad = [
        f"{damage.kind.name}, {damage.path}, {damage.how}: {outcome}: {seen}"
        for damage, outcome, seen in outcomes(undamaged, count, 0, kinds)
        if outcome not in GOOD
    ]
    assert not bad, "\n".join(bad)
