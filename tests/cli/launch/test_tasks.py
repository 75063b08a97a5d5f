"""What a launcher is asked to run, checked before anything is queued."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from recsys.cli.launch.tasks import (
    PREFLIGHT,
    RECUR,
    VERBS,
    World,
    configured,
    expand,
    plan_trainings,
    plan_verb,
    separate,
    verb_and_overrides,
)
from recsys.core.composition import compose, save
from recsys.core.errors import ConfigError
from recsys.runs.files import CONFIG_FILE
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.registry import SYSTEMS, system_named


def test_settings_of_the_launcher_are_told_from_those_of_the_verb() -> None:
    given = ["nodes=2", "seed=1", "launcher.partition=x", "hydra.searchpath=[mine]", "launcher=gpu"]
    own, others = separate(given, ["nodes", "launcher"])
    assert own == ["nodes=2", "launcher.partition=x", "hydra.searchpath=[mine]", "launcher=gpu"]
    assert others == ["seed=1", "hydra.searchpath=[mine]"]


def test_a_mistyped_key_of_the_launcher_is_told_and_no_key_of_a_verb_is_taken_for_one() -> None:
    own = ["nodes", "processes_per_node", "rendezvous", "after", "at_once", "launcher"]
    with pytest.raises(
        ConfigError, match=r"unknown key `nods` \(given as `nods=2`\); did you mean `nodes`"
    ):
        separate(["nods=2"], own)
    schemas = [system_named(name).config for name in SYSTEMS]
    keys = {field.name for schema in schemas for field in fields(schema)}
    for verb in VERBS[1:]:
        needed = {RECUR: ["folder=a"], PREFLIGHT: [], "score": ["run_dir=a", "pairs=b"]}.get(
            verb, ["run_dir=a"]
        )
        keys |= set(vars(configured(verb, needed)))
    assert len(keys) > 30
    settings = [f"{key}=1" for key in keys]
    assert separate(settings, own) == ([], settings)


def test_every_combination_of_values_is_a_task() -> None:
    combinations = expand(["seed=range(0,2)", "name=x", "overrides=[a,b]", "run_dir=p/q,r"])
    assert combinations == [
        ["seed=0", "name=x", "overrides=[a,b]", "run_dir=p/q"],
        ["seed=0", "name=x", "overrides=[a,b]", "run_dir=r"],
        ["seed=1", "name=x", "overrides=[a,b]", "run_dir=p/q"],
        ["seed=1", "name=x", "overrides=[a,b]", "run_dir=r"],
    ]


def test_a_verb_may_stand_before_the_settings() -> None:
    assert verb_and_overrides(["seed=1"]) == ("train", ["seed=1"])
    assert verb_and_overrides(["export", "run_dir=a"]) == ("export", ["run_dir=a"])
    verbs = r"`exprot` .* train, evaluate, score, preflight, export, publish"
    with pytest.raises(ConfigError, match=verbs):
        verb_and_overrides(["exprot", "run_dir=a"])


def test_a_training_on_several_processes_is_sharded_and_one_on_a_single_process_is_not() -> None:
    given = ["experiment=demo", "run_dir=runs/mine"]
    name, [task] = plan_trainings(given, World(nodes=2, processes_per_node=4), "now")
    assert (name, task.run_dir) == ("demo", Path("runs/mine"))
    world = ("trainer.num_nodes=2", "trainer.devices=4")
    assert task.settings == ("run_dir=runs/mine", "experiment=demo", "strategy=torchrec", *world)
    assert task.resume == ("run_dir=runs/mine", "resume=true", *world)
    quoted = "run_dir='runs/my (first) run'"
    [spaced] = plan_trainings(["experiment=demo", quoted], World(), "now")[1]
    assert (spaced.run_dir, spaced.settings[0]) == (Path("runs/my (first) run"), quoted)
    [alone] = plan_trainings(given, World(), "now")[1]
    assert not any(setting.startswith("strategy") for setting in alone.settings)
    [chosen] = plan_trainings([*given, "strategy=torchrec"], World(nodes=2), "now")[1]
    assert chosen.settings.count("strategy=torchrec") == 1


def test_runs_of_an_array_have_folders_of_their_own() -> None:
    name, tasks = plan_trainings(["experiment=demo", "seed=3,4"], World(), "now")
    folders = [task.run_dir for task in tasks]
    assert [folder.name for folder in folders] == ["0", "1"]
    assert folders[0].parent == folders[1].parent and folders[0].parent.parent.name == name
    assert ["seed=3" in tasks[0].settings, "seed=4" in tasks[1].settings] == [True, True]
    with pytest.raises(ConfigError, match="2 runs cannot share run_dir=one"):
        plan_trainings(["experiment=demo", "seed=3,4", "run_dir=one"], World(), "now")


def test_a_run_that_is_there_is_gone_on_with_only_if_one_says_so(tmp_path: Path) -> None:
    save(compose("train", DV365RunConfig, ["experiment=demo"]), tmp_path / CONFIG_FILE)
    place = f"run_dir={tmp_path}"
    with pytest.raises(ConfigError, match=f"{tmp_path} holds a run already; .* resume=true"):
        plan_trainings(["experiment=demo", place], World(), "now")
    world = World(nodes=2)
    [task] = plan_trainings([place, "resume=true", "trainer.max_epochs=3"], world, "now")[1]
    assert task.resume is None
    assert task.settings == (
        *(place, "resume=true", "trainer.max_epochs=3", "strategy.name=torchrec"),
        *world.settings,
    )


@pytest.mark.parametrize(
    ("overrides", "world", "sentence"),
    [
        (["trainer.devices=2"], World(), "knows how many processes it starts; give nodes="),
        (["trainer.max_epoch=2"], World(), "unknown key `trainer.max_epoch`"),
        ([], World(gpus=True), "gives every process a GPU .* add trainer=gpu"),
        (["trainer=gpu"], World(gpus=False), "accelerator=gpu, but the launcher gives no GPUs"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_queued(
    overrides: list[str], world: World, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan_trainings(["experiment=demo", *overrides], world, "now")


def test_other_verbs_have_a_task_per_run_folder() -> None:
    name, tasks = plan_verb("evaluate", ["run_dir=runs/a,runs/b", "split=choose"], World())
    assert name == "a"
    assert [task.run_dir for task in tasks] == [Path("runs/a"), Path("runs/b")]
    assert tasks[1].settings == ("run_dir=runs/b", "split=choose") and tasks[1].resume is None
    [publication] = plan_verb("publish", ["artifact=runs/a/artifact"], World())[1]
    assert publication.run_dir == Path("runs/a")
    with pytest.raises(ConfigError, match="`run_dir=…` is needed"):
        plan_verb("export", [], World())
