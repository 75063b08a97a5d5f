"""What a study declares: variants of variants, points of an axis, views."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from recsys.cli.study import configure
from recsys.core.errors import ConfigError
from recsys.nn.hierarchy.nodes import LTI, METHODS
from recsys.studies.plan import StudyConfig, StudyRun, Variant, plan
from recsys.systems.hsnn.config import HsnnRunConfig
from recsys.systems.nxtpost.module import NxtPostConfig
from recsys.systems.nxtpost.system import NxtPostRunConfig

TABLE_1 = ["two_tower", "cls", "causal", "long_term", "short_term", "relative_time"]


def _config(**settings: Any) -> StudyConfig:
    variants = {"a": Variant(of="b"), "b": Variant()}
    return StudyConfig(**({"name": "toy", "metrics": ["mrr/all"], "variants": variants} | settings))


def test_settings_of_a_variant_come_after_those_of_what_it_is_a_variant_of() -> None:
    variants = {
        "third": Variant(of="second", overrides=["x=3"]),
        "second": Variant(of="first", overrides=["x=2"]),
        "first": Variant(overrides=["x=1"]),
    }
    config = _config(overrides=["y=0"], variants=variants)
    assert config.overrides_of("third") == ["y=0", "x=1", "x=2", "x=3"]
    assert config.overrides_of("first") == ["y=0", "x=1"]


def test_only_chooses_variants_and_their_order(tmp_path: Path) -> None:
    given = ["study=encoders", f"out={tmp_path}", "only=[funnel,without_timelines]"]
    config = configure(given)
    assert config.chosen == ["funnel", "without_timelines"]
    assert {run.variant for run in plan(config)} == {"funnel", "without_timelines"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"only": ["c"]}, "c is none of the variants a, b"),
        ({"variants": {"a": Variant(of="c")}}, r"variants.a.of=c: c is none of the variants a"),
        (
            {"variants": {"a": Variant(of="b"), "b": Variant(of="a")}},
            "the variants a of b of a go in a circle",
        ),
        ({"variants": {"a": Variant(of="a")}}, "the variants a of a go in a circle"),
        ({"axis": "length"}, r"axis=length: variants.….at is needed of a, b"),
        ({"variants": {"a": Variant(at=1)}}, "variant a has at=…; say with axis"),
        ({"axis": "days", "within": "stale"}, "within=stale needs {point} in it"),
        ({"within": "day_{point}"}, "needs {point} in it, an axis"),
        ({"axis": "days", "within": "day_{point}", "scorers": ["popularity"]}, "scorers"),
        (
            {"axis": "days", "within": "day_{point}", "variants": {"a": Variant(at=1)}},
            "variants with at=…",
        ),
        ({"only": ["a"], "baseline": "b", "metrics": []}, "baseline=b is none of the variants a"),
    ],
)
def test_studies_that_cannot_work(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _config(**settings)


def _settings(run: StudyRun) -> tuple[object, ...]:
    assert isinstance(run.config, NxtPostRunConfig)
    model: NxtPostConfig = run.config.model
    tower = model.tower
    labels = run.config.loader.labels
    return tower.cls, tower.causal, tower.pooling, labels, model.short_term, tower.relative_time


def _one_seed(*names: str) -> list[str]:
    return [f"variants.{name}.seeds=[0]" for name in names]


@pytest.mark.parametrize("name", ["nxtpost_globo", "nxtpost_kuairand", "nxtpost_simulated"])
def test_rows_of_table_1_differ_in_one_thing(name: str, tmp_path: Path) -> None:
    seeds = _one_seed("two_tower", "relative_time", "wide_and_deep", "sasrec", "hstu")
    runs = {
        run.variant: run for run in plan(configure([f"study={name}", f"out={tmp_path}", *seeds]))
    }
    assert len({(run.config.data.out_folder, run.config.data.path) for run in runs.values()}) == 1
    assert [_settings(runs.pop(variant)) for variant in TABLE_1] == [
        (False, False, "mean", 1, 0.0, False),
        (True, False, "mean", 1, 0.0, False),
        (True, True, "last", 1, 0.0, False),
        (True, True, "last", 5, 0.0, False),
        (True, True, "last", 5, 1.0, False),
        (True, True, "last", 5, 1.0, True),
    ]
    systems = {variant: run.config.system for variant, run in runs.items()}
    others = {"wide_and_deep": "wide_and_deep", "sasrec": "sequence", "hstu": "sequence"}
    assert systems == others
    encoders = [runs[name].config.model.encoder for name in ("sasrec", "hstu")]  # type: ignore[attr-defined]
    assert encoders == ["sasrec", "hstu"]


def test_views_show_the_runs_of_table_1(tmp_path: Path) -> None:
    """Same folders and settings, so what is finished in one is finished in the other."""
    given = ["study=nxtpost_simulated", f"out={tmp_path}"]
    given += _one_seed("two_tower", "relative_time", "short_term")
    table = {run.folder: run.config for run in plan(configure([*given, f"only={TABLE_1}"]))}
    found = {}
    for view in ("relative_time", "cold_start", "staleness", "days"):
        config = configure([*given, f"view=nxtpost_{view}", *_one_seed("short_term")])
        assert config.file("md") == tmp_path / f"{view}.md"
        runs = plan(config)
        assert all(run.config == table[run.folder] for run in runs)
        found[view] = [run.variant for run in runs]
    assert found == {
        "relative_time": ["short_term", "relative_time"],
        "cold_start": ["relative_time"],
        "staleness": ["causal", "long_term", "relative_time"],
        "days": ["causal", "long_term", "relative_time"],
    }


@pytest.mark.parametrize(
    ("view", "varied"),
    [
        ("length", [1, 2, 5, 10, 20, 50, 100]),
        ("layers", [1, 2, 3, 4]),
    ],
)
def test_points_of_an_axis_are_what_is_trained(view: str, varied: list[int]) -> None:
    given = ["study=nxtpost_simulated", f"view=nxtpost_{view}", *_one_seed("two_tower")]
    config = configure(given)
    runs = plan(config)
    assert [config.variants[run.variant].at for run in runs] == varied
    found = []
    for run in runs:
        assert isinstance(run.config, NxtPostRunConfig)
        tower = run.config.model.tower
        assert _settings(run) == (False, False, "mean", 1, 0.0, False)
        if run.variant != "two_tower":  # of table 1, measured as its other rows
            evaluation = run.config.evaluation
            assert not evaluation.stale_days and not evaluation.cold_start
            assert evaluation.baselines == config.scorers
        found.append(tower.layers if view == "layers" else tower.max_length)
    assert found == varied


def test_lengths_of_short_histories() -> None:
    config = configure(["study=nxtpost_globo", "view=nxtpost_length_to_20"])
    assert [config.variants[name].at for name in config.chosen] == [1, 2, 5, 10, 20]


def test_negatives_of_table_3() -> None:
    given = ["study=nxtpost_simulated", "view=nxtpost_negatives", *_one_seed("relative_time")]
    runs = plan(configure(given))
    negatives = {run.variant: run.config.model.negatives for run in runs}  # type: ignore[attr-defined]
    assert negatives == {"negatives_500": 500, "negatives_1000": 1000, "relative_time": None}


def test_trees_of_the_main_table_score_as_many_pairs(tmp_path: Path) -> None:
    items = 20_000
    given = ["study=hsnn_sizes", f"out={tmp_path}", "seeds=[0]"]
    rows = {run.variant: run.config for run in plan(configure(given))}
    assert list(rows)[:4] == ["two_tower", "small", "medium", "large"]
    for name, config in rows.items():
        assert isinstance(config, HsnnRunConfig)
        codes = [level.codes for level in config.model.net.levels]
        if not codes:
            assert config.model.net.size == {"two_tower": "XS"}.get(name, name[0].upper())
            continue
        beam, below = config.descent.beam, [*codes[1:], items / math.prod(codes)]
        scored = codes[0] + sum(beam * one for one in below)
        assert 650 < scored < 800


def test_rows_of_the_comparison_of_indices_differ_in_the_index_alone(tmp_path: Path) -> None:
    given = ["study=hsnn_indices_kuairand", f"out={tmp_path}", "seeds=[0]"]
    runs = plan(configure(given))
    assert {run.config.name for run in runs} == {"hsnn_kuairand"}
    methods = set()
    for run in runs:
        assert isinstance(run.config, HsnnRunConfig)
        index = run.config.model.net.index
        methods.add((index.method, index.joint))
        changed = {one for one in run.overrides if one.startswith("model.")}
        assert len({one for one in changed if not one.startswith("model.net.index.")}) == 1
    assert methods == {(one, True) for one in METHODS} | {(LTI, False)}
