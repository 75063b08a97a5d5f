"""One cycle: append a day, train, measure, gate, export, publish, serve (DV365 §2.5.2).

Or, between two trainings: append a day, and publish the embeddings that changed with the model that
is served.

Every step is kept when it is done, so a cycle that was killed is gone on with by the same command;
each step alone is whole or not there at all.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.core.composition import load
from recsys.core.console import message_console
from recsys.core.errors import ConfigError, TrainingError
from recsys.data.contract.manifest import DATASET_FILE, DatasetManifest
from recsys.data.contract.moments import to_text
from recsys.data.contract.schema import Split
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.embeddings.likeness import cosines
from recsys.embeddings.publish import PublishConfig, PublishReport, publish
from recsys.evaluation.config import PREFIXES, EvaluateConfig
from recsys.evaluation.together import MEAN, NE_DELTA
from recsys.recurring.config import CONTINUE, RecurConfig
from recsys.recurring.gate import refusal, tried_on
from recsys.recurring.generations import (
    APPENDED,
    COMPARED,
    DATASET,
    EXPORTED,
    MEASURED,
    PUBLISHED,
    REFRESHED,
    REFUSED,
    RUNNING,
    SERVED,
    TRAINED,
    TRIED,
    Generation,
    Generations,
)
from recsys.runs.checkpoints import CHECKPOINTS
from recsys.runs.config import RunConfig
from recsys.runs.files import CONFIG_FILE
from recsys.systems.base import ExportConfig, System
from recsys.systems.choice import compose_run
from recsys.systems.evaluate import evaluate
from recsys.systems.kinds.tasks import TaskSystem
from recsys.systems.registry import system_named
from recsys.systems.runs import load_config, load_run, train
from recsys.systems.sized_run import fitted_to_data

#: What is taken from evaluations.
_NE = f"{PREFIXES[Split.REPORT]}/ne/{MEAN}"
_CHANGE = f"{PREFIXES[Split.REPORT]}/{NE_DELTA}/{MEAN}"
#: The system whose user embeddings are published.
_PUBLISHED_SYSTEM = "dv365"
_BEST = "best.ckpt"
#: In a run: what is published to try it, and removed.
_SCRATCH = "tried"


@dataclass(frozen=True)
class Outcome:
    """What a cycle came to.

    Attributes:
        generation: that it was about; None where nothing had come.
        removed: generations whose runs were removed.
    """

    generation: Generation | None
    removed: tuple[int, ...] = ()


def run_cycle(config: RecurConfig) -> list[Outcome]:
    """Run a cycle; before it, go on with one that was cut off.

    So a command that is given the next day's log, because nobody was there when the former one was
    killed, leaves no day out.

    Returns:
        What each came to: of the one that was cut off, and of the new one unless nothing has come
        since.

    Raises:
        ConfigError: another cycle is running in the folder, or there is none of this system.
        RecsysError: a step cannot be done; the same command goes on with it.
    """
    generations = Generations(Path(config.folder))
    system = refuse_unfit(config)
    with generations.held():
        cut_off = generations.unfinished()
        if cut_off is None:
            return [_Cycle(config, system, generations).run()]
        former = _Cycle(config, system, generations, cut_off).run()
        after = _Cycle(config, system, generations, is_behind_another=True).run()
        return [former] if after.generation is None else [former, after]


def refuse_unfit(config: RecurConfig) -> System[Any]:
    """Refuse what no cycle can be made of, and settings that a cycle makes itself.

    Returns:
        The system that is trained.

    Raises:
        ConfigError: its NE cannot be compared, embeddings are asked for that it does not publish,
            or such a setting is given.
    """
    for override in config.train:
        if override.partition("=")[0] in ("run_dir", "resume", "warm_start.checkpoint"):
            raise ConfigError(f"train has {override}, which a cycle decides itself; leave it out.")
    system = system_named(compose_run(config.train).system)
    if not isinstance(system, TaskSystem):
        raise ConfigError(
            f"train says system={system.name}, which predicts no tasks whose NE could be compared "
            f"from day to day; recurring trainings are of {_PUBLISHED_SYSTEM} and ranker."
        )
    gate = config.gate
    asks = gate.consumers or gate.least_cosine is not None or config.train_every > 1
    if system.name != _PUBLISHED_SYSTEM and asks:
        raise ConfigError(
            f"train says system={system.name}, which publishes no user embeddings; leave out "
            "gate.consumers, gate.least_cosine and train_every, which say what becomes of them."
        )
    return system


class _Cycle:
    """A cycle.

    Args:
        config: of the recurring training.
        system: that is trained.
        generations: of its folder.
        cut_off: the generation that was being made, to go on with; None for a new one.
        is_behind_another: whether the same command has just made another one, so that without new
            days there is nothing to do.
    """

    def __init__(
        self,
        config: RecurConfig,
        system: System[Any],
        generations: Generations,
        cut_off: Generation | None = None,
        is_behind_another: bool = False,
    ) -> None:
        self.config = config
        self.system = system
        self.generations = generations
        self.current = generations.current()
        self.generation = cut_off or generations.next(self.current)
        self.run_dir = generations.run_dir(self.generation)
        self._refreshes = self._is_between_trainings()
        self._wants_new_days = (
            is_behind_another
            or self._refreshes
            or (config.path is not None and self.current is not None)
        )

    def _is_between_trainings(self) -> bool:
        """Whether the generation that is served stays; a training that has begun goes on."""
        if self.current is None or self.run_dir.exists():
            return False
        return self.generation.number - self.current.number < self.config.train_every

    @property
    def _publishes(self) -> bool:
        return self.system.name == _PUBLISHED_SYSTEM

    def run(self) -> Outcome:
        if APPENDED not in self.generation.done and not self._append():
            return Outcome(None)
        if self._refreshes:
            return self._refresh()
        try:
            self._step(TRAINED, self._train)
        except TrainingError as error:  # once more would end the same way, on every day to come
            return self._refuse(str(error))
        self._step(MEASURED, self._measure)
        if self._publishes:
            self._step(COMPARED, self._compare)
        if (why := self._refusal()) is not None:
            return self._refuse(why)
        self._step(EXPORTED, self._export)
        if self._publishes:
            self._step(TRIED, self._try)
            if (why := self._refusal()) is not None:
                return self._refuse(why)
            self._step(PUBLISHED, self._publish)
        # first what it is, then that it is served: between the two the old one still is
        self.generation = self.generations.write(replace(self.generation, state=SERVED))
        self.generations.serve(self.generation)
        return Outcome(self.generation, self._remove_old())

    def _refresh(self) -> Outcome:
        assert self.current is not None
        # kept with the step, at once; the base is another one where a rollback came between
        self.generation = replace(self.generation, state=REFRESHED, base=self.current.number)
        self._step(PUBLISHED, self._publish_anew)
        return Outcome(self.generation)

    def _refuse(self, why: str) -> Outcome:
        self.generation = self.generations.write(replace(self.generation, state=REFUSED, why=why))
        return Outcome(self.generation, self._remove_old())

    def _remove_old(self) -> tuple[int, ...]:
        return tuple(self.generations.remove_old(self.config.keep))

    def _step(self, name: str, do: Callable[[], dict[str, Any]]) -> None:
        """Do a step that has not been done, and keep what it found."""
        if name in self.generation.done:
            return
        message_console().print(f"Generation {self.generation.number}: {name} …")
        started = time.monotonic()
        self._keep(name, do(), started)

    def _keep(self, name: str, found: dict[str, Any], started: float) -> None:
        step = {**found, "seconds": round(time.monotonic() - started, 1)}
        done = {**self.generation.done, name: step}
        self.generation = self.generations.write(replace(self.generation, done=done))

    def _append(self) -> bool:
        """Prepare the data set or add the new days; whether there is something to train on.

        That days have come is seen by the data set, not by what this append has added: a cycle
        that was killed after its own finds nothing more. Where nothing has come no generation is
        begun.
        """
        data, started = compose_run(self.config.train).data, time.monotonic()
        if not (data.out_folder / DATASET_FILE).is_file():
            open_or_prepare(data)
        if self.config.path is not None:
            append(AppendConfig(path=self.config.path, out=str(data.out_folder)))
        fingerprint = DatasetManifest.load(data.out_folder).fingerprint
        if self._wants_new_days and fingerprint == self.generations.newest_dataset():
            return False
        self._keep(APPENDED, {DATASET: fingerprint}, started)
        return True

    def _train(self) -> dict[str, Any]:
        # the data set is taken as it has grown
        settings = [*self.config.train, f"run_dir={self.run_dir}", "data.path=null"]
        if self.config.rhythm == CONTINUE and self.current is not None:
            base = self.generations.run_dir(self.current) / CHECKPOINTS / _BEST
            settings.append(f"warm_start.checkpoint={base}")
        if any((self.run_dir / CHECKPOINTS).glob("last*")):
            train(self._resumed())  # also one that had ended: what comes after the last step
        else:
            shutil.rmtree(self.run_dir, ignore_errors=True)  # it had not got to a checkpoint
            config, _ = fitted_to_data(compose_run(settings), settings)
            train(config)
        is_continued = self.config.rhythm == CONTINUE and self.current is not None
        return {**_newest_day(self.run_dir), "warm_start": is_continued}

    def _resumed(self) -> RunConfig:
        """The configuration of a run that was cut off, to go on with."""
        overrides = [f"run_dir={self.run_dir}", "resume=true"]
        config: RunConfig = load(self.run_dir / CONFIG_FILE, self.system.config, overrides)
        return config

    def _measure(self) -> dict[str, Any]:
        """The newest day, by this generation and the one that is served, on the same rows."""
        against = None if self.current is None else str(self.generations.run_dir(self.current))
        metrics = evaluate(
            EvaluateConfig(run_dir=str(self.run_dir), against=against, baselines=["fit_mean"])
        )
        found: dict[str, Any] = {"ne": metrics[_NE]["value"]}
        if _CHANGE in metrics:
            change = metrics[_CHANGE]
            found["change"] = {key: change.get(key) for key in ("value", "low", "high")}
        return found

    def _compare(self) -> dict[str, Any]:
        """How far the user embeddings of a sample moved, as of the newest day."""
        if self.current is None:
            return {}
        run = load_run(self.run_dir)
        served = load_run(self.generations.run_dir(self.current))
        users = run.dataset.timelines.users()
        users = users[users > 0]
        generator = np.random.default_rng(0)
        most = min(self.config.gate.sampled_users, len(users))
        chosen = np.sort(generator.choice(users, most, replace=False)).astype(np.int64)
        moment = np.full(len(chosen), self.generation.done[TRAINED]["report_until"])
        new, old = (self.system.user_embeddings(one, chosen, moment) for one in (run, served))
        cosine = cosines(new.reshape(len(chosen), -1), old.reshape(len(chosen), -1))
        cosine = cosine[np.isfinite(cosine)]
        if not len(cosine):
            return {}
        return {"cosine": float(cosine.mean()), "above_0.9": float((cosine > 0.9).mean())}

    def _refusal(self) -> str | None:
        """Why it is not served; one that was to be served when its cycle was cut off is."""
        if self.generation.state != RUNNING:
            return None
        return refusal(self.config.gate, self.generation)

    def _export(self) -> dict[str, Any]:
        config = ExportConfig(run_dir=str(self.run_dir), measure=False)
        self.system.export(load_run(self.run_dir), config)
        return {}

    def _try(self) -> dict[str, Any]:
        """What consumers lose by its embeddings."""
        gate = self.config.gate
        if self.current is None or gate.skew_percent is None:
            return {}
        served, scratch = self.generations.run_dir(self.current), self.run_dir / _SCRATCH
        consumers = tried_on(gate.consumers, served, self.run_dir, self._published, scratch)
        return {"consumers": consumers}

    def _publish(self) -> dict[str, Any]:
        return _kept(self._published(self.run_dir, self.generation.done[TRAINED]["report_until"]))

    def _publish_anew(self) -> dict[str, Any]:
        """The embeddings that are served, as of the newest day."""
        assert self.current is not None
        dataset = compose_run(self.config.train).data.out_folder
        day, served = _newest_day(dataset), self.generations.run_dir(self.current)
        return {**day, **_kept(self._published(served, day["report_until"], dataset=dataset))}

    def _published(
        self, run_dir: Path, as_of: int, store: Path | None = None, dataset: Path | None = None
    ) -> PublishReport:
        return publish(
            PublishConfig(
                run_dir=str(run_dir),
                dataset=str(dataset or load_config(self.run_dir).data.out_folder),
                as_of=to_text(as_of),
                store=None if store is None else str(store),
                retention_days=self.config.retention_days,
                batch_users=self.config.batch_users,
                processes=self.config.processes,
            )
        )


def _newest_day(folder: Path) -> dict[str, int]:
    """Of a data set, or of a run as it saw its own."""
    first, last = DatasetManifest.load(folder).split_bounds[Split.REPORT]
    return {"report_from": first, "report_until": last}


def _kept(report: PublishReport) -> dict[str, Any]:
    """What is kept of a publication."""
    names = "as_of", "store", "active_users", "published_users", "store_bytes"
    return {name: getattr(report, name) for name in names}
