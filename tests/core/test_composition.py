"""Configuration is strict: what is wrong is named in a sentence."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recsys.core.composition import compose, load, merge, save
from recsys.core.errors import ConfigError
from recsys.core.paths import conf_dir
from recsys.data.prepare.prepare import PrepareConfig
from recsys.data.sources import SOURCES
from recsys.systems.choice import compose_run, system_of_run
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.registry import SYSTEMS, system_named

EXPERIMENTS = (
    "demo",
    "demo_without_timelines",
    "dv365_ebnerd",
    "dv365_kuairand",
    "dv365_simulated",
)


@dataclass(frozen=True)
class Part:
    size: int = 1
    ranges: tuple[float, ...] = (1.0, 2.0)


@dataclass(frozen=True)
class Whole:
    name: str = "one"
    limit: int | None = None
    part: Part = field(default_factory=Part)
    many: list[Part] = field(default_factory=list)
    by_name: dict[str, Part] = field(default_factory=dict)
    perhaps: Part | None = None

    def __post_init__(self) -> None:
        if self.name == "forbidden":
            raise ConfigError("name=forbidden cannot be.")


def test_overrides_give_the_frozen_classes_back_at_every_depth() -> None:
    config = merge(
        Whole,
        [
            "part.size=3",
            "part.ranges=[1, 2.5]",
            "many=[{size: 4}]",
            "by_name={a: {size: 5}}",
            "perhaps={size: 6}",
            "limit=7",
        ],
    )
    assert config == Whole(
        limit=7,
        part=Part(3, (1.0, 2.5)),
        many=[Part(4)],
        by_name={"a": Part(5)},
        perhaps=Part(6),
    )
    assert type(config.part) is Part
    assert type(config.by_name["a"]) is Part


def test_the_checks_of_the_dataclass_run() -> None:
    with pytest.raises(ConfigError, match="name=forbidden cannot be"):
        merge(Whole, ["name=forbidden"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.max_epoch=2", r"unknown key `trainer\.max_epoch`.*`trainer\.max_epochs`\?"),
        ("max_epochs=2", r"unknown key `max_epochs`.*`trainer\.max_epochs`\?"),
        ("trainer.max_epochs=two", r"`trainer\.max_epochs`.*'two'.*Integer"),
        ("trainer=cup", r"no choice 'cup' for `trainer`; choose one of cpu, debug, gpu"),
        ("+trainer.extra=1", r"`\+trainer\.extra=1`: keys are fixed"),
        ("~trainer", r"`~trainer`: keys are fixed"),
        ("trainer.max_epochs", r"is not of the form `key=value`"),
        ("hydra.run.dir=x", r"of Hydra's own settings only"),
        ("slices.watch_time=[{rangez: []}]", r"unknown key .*rangez"),
    ],
)
def test_a_wrong_override_is_a_sentence(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as raised:
        compose("train", DV365RunConfig, ["experiment=demo", override])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_survives_the_run_folder(
    experiment: str, tmp_path: Path
) -> None:
    config = compose_run([f"experiment={experiment}", "seed=5"])
    assert config.name == experiment
    assert config.loader.seed == 5  # type: ignore[attr-defined]  # every system has one
    save(config, tmp_path / "config.yaml")
    assert system_of_run(tmp_path).config is type(config)
    assert load(tmp_path / "config.yaml", type(config)) == config


def test_every_system_has_its_file_and_every_file_its_system() -> None:
    assert {path.stem for path in (conf_dir() / "system").glob("*.yaml")} == set(SYSTEMS)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_composes_without_an_experiment(name: str) -> None:
    config = compose_run([f"system={name}", "data=globo", "seed=5"])
    assert type(config) is system_named(name).config
    assert (config.system, config.name, config.data.title) == (name, name, "globo")
    assert config.loader.seed == 5  # type: ignore[attr-defined]  # every system has one


def test_the_system_of_the_command_wins_over_the_experiment() -> None:
    overrides = ["system=post_tower", "experiment=post_tower_movielens", "system=sequence"]
    config = compose_run(overrides)
    assert type(config) is system_named("sequence").config
    assert (config.system, config.name) == ("sequence", "post_tower_movielens")


def test_an_experiment_in_a_folder_of_the_user_says_its_system(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults: [override /data: simulated, override /optim: shampoo]\n"
        "system: nxtpost\n"
        "trainer: {max_epochs: 3}\n"
    )
    config = compose_run([f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"])
    assert (config.system, config.name, config.data.title) == ("nxtpost", "nxtpost", "simulated")
    assert (config.trainer.max_epochs, config.trainer.gradient_clip) == (3, 1.0)


@pytest.mark.parametrize(
    "overrides",
    [
        ["system=wide_and_deep", "experiment=nxtpost_globo"],
        ["system=sequence", "experiment=demo"],
        ["system=nxtpost", "model=dv365"],
    ],
)
def test_a_sentence_names_the_file_that_does_not_fit(overrides: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        compose_run(overrides)
    [named] = re.findall(r"\(in conf/(.+)\)", str(raised.value))
    assert (conf_dir() / named).is_file()
    assert named == overrides[1].replace("=", "/") + ".yaml"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["experiment=null"], r"there is no choice 'null' for `experiment`; choose one of demo, "),
        (["experiment=demo", "encoder=null"], r"there is no choice 'null' for `encoder`"),
        (
            ["system=dv365", "experiment=nxtpost_globo"],
            r"^unknown key `posts` \(in conf/experiment/nxtpost_globo\.yaml\)\. "
            r"The experiment is one of nxtpost: leave `system=dv365` out",
        ),
        (["system=nxtpost", "experiment=demo"], r"The experiment is one of dv365"),
        (
            ["experiment=sasrec_ml1m", "optim.dense.shampoo.use_nesterov=null"],
            r"`optim\.dense\.shampoo` is null in this configuration",
        ),
    ],
)
def test_a_choice_that_cannot_be_is_a_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        compose_run(overrides)


def test_a_later_override_of_a_group_wins_over_the_experiment() -> None:
    config = compose("train", DV365RunConfig, ["experiment=demo", "encoder=none"])
    assert config.encoder.name == "none"
    assert config.data.title == "demo"


def test_baseline_differs_from_the_demo_only_in_its_encoder() -> None:
    demo = compose("train", DV365RunConfig, ["experiment=demo"])
    baseline = compose("train", DV365RunConfig, ["experiment=demo_without_timelines"])
    assert dataclasses.replace(baseline, encoder=demo.encoder, name=demo.name) == demo


def test_the_data_folder_reaches_the_preparation() -> None:
    config = compose("train", DV365RunConfig, ["experiment=dv365_ebnerd", "data_dir=elsewhere"])
    assert config.data.data_dir == "elsewhere"


def test_a_saved_configuration_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    save(compose("train", DV365RunConfig, ["experiment=demo"]), path)
    _, _, text = path.read_text().partition("\n")  # without the checksum, as after a change by hand
    path.write_text(text + "sead: 1\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: unknown key `sead`.*`seed`"):
        load(path, DV365RunConfig)


@pytest.mark.parametrize("source", SOURCES)
def test_options_of_a_source_need_no_file_that_names_them(source: str) -> None:
    config = compose(
        "prepare", PrepareConfig, [f"source={source}", "options.anything=7", "options.deep.er=a"]
    )
    assert config.source == source
    assert config.options == {"anything": "7", "deep": {"er": "a"}}
    run = compose("train", DV365RunConfig, ["experiment=demo", "data.options.anything=7"])
    assert run.data.options == {"anything": "7"}


def test_a_saved_configuration_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match="is damaged: it is no YAML"):
        load(tmp_path / "config.yaml", DV365RunConfig)


def test_a_value_that_needs_quotes_is_told_so() -> None:
    with pytest.raises(ConfigError, match="goes in quotes: \"seed='1 ä'\""):
        compose("train", DV365RunConfig, ["seed=1 ä"])


@pytest.mark.parametrize(
    "line",
    [
        "name: ${oc.env:HOME}",
        "name: a ${seed}",
        'name: "\\x24{oc.env:HOME}"',
        "${oc.env:HOME}: 1",
        "loader: {batch_requests: '${trainer.max_epochs}'}",
        "loader: ${trainer}",
        "name: ${oc.decode:'${oc.env:HOME}'}",
        "name: !!str ${oc.env:HOME}",
    ],
)
def test_of_a_runs_configuration_nothing_is_resolved(line: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"system: dv365\n{line}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml, line 2: `.*` is an interpolation") as why:
        load(tmp_path / "config.yaml", DV365RunConfig)
    assert os.environ["HOME"] not in str(why.value)
    assert system_of_run(tmp_path).name == "dv365"  # the sentence comes from who loads it


def test_a_small_file_cannot_stand_for_a_large_one(tmp_path: Path) -> None:
    grown = ["a: &a0 [x, x]"] + [f"b{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 64)]
    (tmp_path / "config.yaml").write_text("\n".join(grown))
    with pytest.raises(ConfigError, match=r"config\.yaml, line 2: an alias"):
        load(tmp_path / "config.yaml", DV365RunConfig)
    system_of_run(tmp_path)


def test_no_object_is_made_of_a_runs_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for line in (
        f"name: !!python/object/apply:os.mkdir [{tmp_path / 'canary'}]",
        f"model: {{_target_: os.mkdir, path: {tmp_path / 'canary'}}}",
        "defaults: [experiment: demo]",
    ):
        path.write_text(line)
        with pytest.raises(ConfigError, match=r"is damaged|unknown key"):
            load(path, DV365RunConfig)
    assert not (tmp_path / "canary").exists()
