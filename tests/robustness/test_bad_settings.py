"""A setting that cannot be meant is refused in one sentence, or taken as it was typed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from recsys.cli import recommend
from recsys.cli.main import invoke
from recsys.core.bounds import refuse_misfit
from recsys.core.composition import merge
from recsys.core.errors import ConfigError
from recsys.core.overrides import split_list
from recsys.data.sources import complete_options
from recsys.index.config import IndexBuildConfig
from recsys.systems.choice import compose_run
from recsys.systems.nxtpost.config import NxtPostRunConfig
from tests.robustness import bad_settings

VERBS = bad_settings.verbs()
#: Verbs whose configurations together have every setting but those of systems.
QUICK = [name for name in VERBS if not name.startswith(("train", "plan"))]


def problems(name: str, number: int | None) -> list[str]:
    verb = VERBS[name]
    tried = [
        (case, bad_settings.problem_of(verb, case))
        for case in bad_settings.drawn(name, verb, number)
    ]
    return [f"{case.override[:80]}: {problem}" for case, (problem, _) in tried if problem]


@pytest.mark.parametrize("name", QUICK)
def test_a_few_bad_settings_of_every_verb(name: str) -> None:
    assert problems(name, 3) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_all_bad_settings(name: str) -> None:
    assert problems(name, None) == []


def test_every_number_among_the_settings_has_its_bounds() -> None:
    """What no type bounds would be found out in a crash, or an hour later."""
    unbounded = []
    for name, verb in VERBS.items():
        for schema in bad_settings.schemas_of(name, verb):
            for key, hint in bad_settings.settings_of(schema):
                kind = bad_settings.kind_of(hint)
                wrong: tuple[Any, ...] = ()
                if kind is int:
                    wrong = (-(10**6), 10**20, math.nan, math.inf, 1e300, "1", True)
                elif kind is float:
                    wrong = (math.nan, -math.inf, "1", True)
                    wrong += () if key.endswith("upper") else (math.inf,)
                for value in wrong:
                    try:
                        refuse_misfit(hint, value, key)
                        unbounded.append(f"{key} may be {value}")
                    except ConfigError as error:
                        assert key in str(error)
                        assert " ," not in str(error).replace(repr(value), "")
    assert unbounded == []


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("2024_01_31", "2024_01_31"),
        ("1e3", "1e3"),
        ("007", "007"),
        ("'1'", "1"),
        ('"a b"', "a b"),
        ("it's", "it's"),
        ("a\\", "a\\"),
        ("a,b", "a,b"),
        ("[a]", "[a]"),
        ("{a: b}", "{a: b}"),
        ("true", "true"),
        ("läufe/1 #", "läufe/1 #"),
        ("'null'", "null"),
        ("null", None),
    ],
)
def test_a_text_is_taken_as_it_is_typed(typed: str, text: str | None) -> None:
    assert merge(IndexBuildConfig, ["embeddings=e", "out=o", f"posts={typed}"]).posts == text
    if text is not None:
        assert merge(NxtPostRunConfig, ["name=n", f"posts.path={typed}"]).posts.path == text
    if typed[0] not in "[{":  # of options only their source knows which are texts
        config = VERBS["data prepare"].configure(["path=p", f"options.fit_until={typed}"])
        assert config.options == {"fit_until": text}


def test_ids_of_users_are_taken_as_they_are_typed() -> None:
    def users(given: str) -> list[str] | None:
        return recommend.configure(["artifact=a", "index=i", given]).user

    assert users("user=001") == ["001"]
    assert users("user='1'") == ["1"]
    assert users("user=[1e3, 'a,b',\"c\"]") == ["1e3", "a,b", "c"]
    assert split_list("a=[1,2], b , 'c,d'") == ["a=[1,2]", "b", "'c,d'"]


def test_numbers_and_flags_among_the_options_of_a_source_are_read_by_it() -> None:
    config = VERBS["data prepare"].configure(
        ["path=p", "options.report_fraction=0.3", "options.tasks=[click]", "options.chunk_rows=7"]
    )
    options = complete_options("log", config.options)
    assert (options["report_fraction"], options["tasks"]) == (0.3, ["click"])
    assert options["chunk_rows"] == 7


def test_a_number_where_a_file_should_have_text_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nname: 1e3\n")
    with pytest.raises(ConfigError, match=r"name is 1000\.0, no text; .* in quotes"):
        compose_run([f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine", "data=globo"])


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("data prepare path=p out=", "out is '', it must be a path"),
        ("data prepare path=p name=../../x", "name is '../../x', it must be a plain name"),
        ("data prepare path=p partitions=1000000000", "partitions is 1000000000"),
        ("data prepare path=p options.attribution_hours=nan", "options.attribution_hours is nan"),
        ("data prepare path=p options.attribution_hours=1e300", "options.attribution_hours is"),
        ("data prepare path=p options.attribution_hours=-1", "options.attribution_hours is -1"),
        ("data prepare path=p options.report_fraction=nan", "options.report_fraction is nan"),
        ("data prepare path=. out=here", "here cannot be written while . is read"),
        ("data delete user='' dataset=d", "user is ''"),
        ("export run_dir=r out=.", "out is '.', it must be a path, or a URL"),
        ("publish run_dir=r store=redis://127.0.0.1:99999/0", "a port from 1 to 65,535"),
        ("publish run_dir=r retention_days=inf", "retention_days is inf"),
        ("publish run_dir=r batch_users=100000000000", "batch_users is 100000000000"),
        ("recommend artifact=a index=i user=1 k=1000000000", "k is 1000000000"),
        ("recommend artifact=a index=i user=1 min_score=nan", "min_score is nan"),
        ("recommend artifact=a index=i user=1 max_age_hours=1e300", "max_age_hours is 1e+300"),
        ("evaluate run_dir=r bootstrap.confidence=2", "bootstrap.confidence is 2.0"),
        ("evaluate run_dir=r bootstrap.seed=-1", "bootstrap.seed is -1"),
        ("evaluate run_dir=r bootstrap.resamples=0", "bootstrap.resamples is 0"),
        ("checkpoint reshard path=p out=o world_size=1000000", "world_size is 1000000"),
        ("train trainer.precision=16-mixed", "it must be one of 32-true, bf16-mixed"),
        ("train trainer.gradient_clip=-1", "trainer.gradient_clip is -1.0"),
        ("train model.dimension=1000000000", "model.dimension is 1000000000"),
        ("train loader.max_events=0", "loader.max_events is 0"),
        ("train loader.batch_requests=99999999999999999999", "loader.batch_requests is 9999"),
    ],
)
def test_whole_commands(
    command: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").write_text("")
    assert invoke(command.split()) == 2
    printed = capsys.readouterr().err.strip()
    assert sentence in printed and "\n" not in printed and "unexpected" not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
