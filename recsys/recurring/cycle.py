"""One cycle: append a day, train, measure, gate, export, publish, serve (DV365 §2.5.2).

Every step is kept when it is done, so a cycle that was killed is gone on with by the same command;
each step alone is whole or not there at all.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.core.composition import load
from recsys.core.console import message_console
from recsys.core.errors import ConfigError
from recsys.data.contract.manifest import DATASET_FILE, DatasetManifest
from recsys.data.contract.moments import to_text
from recsys.data.contract.schema import Split
from recsys.data.prepare.append import AppendConfig, append
from recsys.embeddings.publish import PublishConfig, publish
from recsys.evaluation.config import PREFIXES, EvaluateConfig
from recsys.evaluation.together import MEAN, NE_DELTA
from recsys.recurring.config import CONTINUE, RecurConfig
from recsys.recurring.generations import REFUSED, RUNNING, SERVED, Generation, Generations
from recsys.runs.checkpoints import CHECKPOINTS
from recsys.runs.config import RunConfig
from recsys.runs.files import CONFIG_FILE
from recsys.runs.metrics_log import CLOSED
from recsys.systems.base import ExportConfig
from recsys.systems.choice import compose_run
from recsys.systems.evaluate import evaluate
from recsys.systems.registry import system_named
from recsys.systems.runs import load_run, train
from recsys.systems.sized_run import fitted_to_data

#: The steps, in their order.
APPENDED, TRAINED, MEASURED, COMPARED, EXPORTED, PUBLISHED = (
    "appended",
    "trained",
    "measured",
    "compared",
    "exported",
    "published",
)
#: What is taken from evaluations.
_NE = f"{PREFIXES[Split.REPORT]}/ne/{MEAN}"
_CHANGE = f"{PREFIXES[Split.REPORT]}/{NE_DELTA}/{MEAN}"
#: The system whose user embeddings are published.
_PUBLISHED_SYSTEM = "dv365"
_BEST = "best.ckpt"


@dataclass(frozen=True)
class Outcome:
    """What a cycle came to.

    Attributes:
        generation: that it was about; None where nothing had come.
        refused: why it is not served; None where it is.
        removed: generations whose runs were removed.
    """

    generation: Generation | None
    refused: str | None = None
    removed: tuple[int, ...] = ()


def run_cycle(config: RecurConfig) -> Outcome:
    """Run a cycle, or go on with the one that was cut off.

    Raises:
        ConfigError: another cycle is running in the folder, or the system has no user embeddings
            to publish.
        RecsysError: a step cannot be done; the same command goes on with it.
    """
    generations = Generations(Path(config.folder))
    refuse_other_systems(config)
    with generations.held():
        return _Cycle(config, generations).run()


def refuse_other_systems(config: RecurConfig) -> None:
    """Refuse what has no embeddings to publish, and settings that a cycle makes itself.

    Raises:
        ConfigError: it has none, or such a setting is given.
    """
    for override in config.train:
        if override.partition("=")[0] in ("run_dir", "resume", "warm_start.checkpoint"):
            raise ConfigError(f"train has {override}, which a cycle decides itself; leave it out.")
    system = compose_run(config.train).system
    if system != _PUBLISHED_SYSTEM:
        raise ConfigError(
            f"train says system={system}, which has no user embeddings to publish; "
            f"recurring trainings are of {_PUBLISHED_SYSTEM}."
        )


class _Cycle:
    def __init__(self, config: RecurConfig, generations: Generations) -> None:
        self.config = config
        self.generations = generations
        self.current = generations.current()
        self.generation = self._begun()
        self.run_dir = generations.run_dir(self.generation)

    def _begun(self) -> Generation:
        """The generation that was being made, or a new one, which is not kept yet."""
        known = self.generations.all()
        if known and known[-1].state == RUNNING:
            return known[-1]
        number = known[-1].number + 1 if known else 1
        return Generation(number, base=self.current.number if self.current else None)

    def run(self) -> Outcome:
        self._step(APPENDED, self._append)
        if self.generation.done[APPENDED]["nothing_new"] and self.current is not None:
            # nobody has seen the generation that this would have been
            shutil.rmtree(self.generations.place(self.generation.number))
            return Outcome(None)
        self._step(TRAINED, self._train)
        self._step(MEASURED, self._measure)
        self._step(COMPARED, self._compare)
        why = self._refusal()
        if why is not None:
            self.generation = self.generations.write(replace(self.generation, state=REFUSED))
            return Outcome(self.generation, why, self._remove_old())
        self._step(EXPORTED, self._export)
        self._step(PUBLISHED, self._publish)
        # first what it is, then that it is served: between the two the old one still is
        self.generation = self.generations.write(replace(self.generation, state=SERVED))
        self.generations.serve(self.generation)
        return Outcome(self.generation, None, self._remove_old())

    def _remove_old(self) -> tuple[int, ...]:
        return tuple(self.generations.remove_old(self.config.keep))

    def _step(self, name: str, do: Callable[[], dict[str, Any]]) -> None:
        """Do a step that has not been done, and keep what it found."""
        if name in self.generation.done:
            return
        message_console().print(f"Generation {self.generation.number}: {name} …")
        started = time.monotonic()
        found = do()
        found["seconds"] = round(time.monotonic() - started, 1)
        done = {**self.generation.done, name: found}
        self.generation = self.generations.write(replace(self.generation, done=done))

    def _dataset(self) -> Path:
        return compose_run(self.config.train).data.out_folder

    def _append(self) -> dict[str, Any]:
        """Add the new days; a data set that is not there yet is prepared by the training."""
        folder, nothing_new = self._dataset(), False
        if self.config.path is not None and (folder / DATASET_FILE).is_file():
            appended = append(AppendConfig(path=self.config.path, out=str(folder)))
            # a cycle that was killed after the append finds nothing new and has still to train
            nothing_new = appended.is_empty and not self._has_grown(appended.manifest.fingerprint)
        return {"nothing_new": nothing_new}

    def _has_grown(self, fingerprint: str) -> bool:
        """Whether the data set is another one than the newest generation's."""
        seen = [
            one.done[TRAINED]["dataset"] for one in self.generations.all() if TRAINED in one.done
        ]
        return not seen or seen[-1] != fingerprint

    def _train(self) -> dict[str, Any]:
        settings = [*self.config.train, f"run_dir={self.run_dir}"]
        if (self._dataset() / DATASET_FILE).is_file():
            settings.append("data.path=null")  # it is taken as it has grown
        if self.config.rhythm == CONTINUE and self.current is not None:
            base = self.generations.run_dir(self.current) / CHECKPOINTS / _BEST
            settings.append(f"warm_start.checkpoint={base}")
        if not (self.run_dir / CLOSED).exists():
            if any((self.run_dir / CHECKPOINTS).glob("last*")):
                train(self._resumed())
            else:
                shutil.rmtree(self.run_dir, ignore_errors=True)  # it had not got to a checkpoint
                config, _ = fitted_to_data(compose_run(settings), settings)
                train(config)
        manifest = DatasetManifest.load(self.run_dir)
        first, last = manifest.split_bounds[Split.REPORT]
        return {
            "dataset": manifest.fingerprint,
            "report_from": first,
            "report_until": last,
            "warm_start": self.config.rhythm == CONTINUE and self.current is not None,
        }

    def _resumed(self) -> RunConfig:
        """The configuration of a run that was cut off, to go on with."""
        schema = system_named(_PUBLISHED_SYSTEM).config
        overrides = [f"run_dir={self.run_dir}", "resume=true"]
        config: RunConfig = load(self.run_dir / CONFIG_FILE, schema, overrides)
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
        system = system_named(_PUBLISHED_SYSTEM)
        new, old = (system.user_embeddings(one, chosen, moment) for one in (run, served))
        cosine = _cosines(new.reshape(len(chosen), -1), old.reshape(len(chosen), -1))
        return {"cosine": float(cosine.mean()), "above_0.9": float((cosine > 0.9).mean())}

    def _refusal(self) -> str | None:
        gate, done = self.config.gate, self.generation.done
        change = done[MEASURED].get("change")
        if change is not None and gate.worse_percent is not None:
            surely = change["low"] if change["low"] is not None else change["value"]
            if not np.isfinite(surely) or surely > gate.worse_percent:
                return (
                    f"its mean NE is worse by {change['value']:+.2f} % [{change['low']:+.2f}, "
                    f"{change['high']:+.2f}] than that of generation {self.generation.base}; "
                    f"gate.worse_percent={gate.worse_percent}"
                )
        if not np.isfinite(done[MEASURED]["ne"]):
            return "its mean NE is not defined"
        cosine = done[COMPARED].get("cosine")
        if cosine is not None and gate.least_cosine is not None and cosine < gate.least_cosine:
            return (
                f"its user embeddings have a mean cosine of {cosine:.3f} with those of generation "
                f"{self.generation.base}; gate.least_cosine={gate.least_cosine}"
            )
        return None

    def _export(self) -> dict[str, Any]:
        system = system_named(_PUBLISHED_SYSTEM)
        config = ExportConfig(run_dir=str(self.run_dir), measure=False)
        system.export(load_run(self.run_dir), config)
        return {}

    def _publish(self) -> dict[str, Any]:
        as_of = self.generation.done[TRAINED]["report_until"]
        published = publish(
            PublishConfig(
                run_dir=str(self.run_dir),
                dataset=str(self._dataset()),
                as_of=to_text(as_of),
                retention_days=self.config.retention_days,
            )
        )
        kept = asdict(published)
        return {key: kept[key] for key in ("as_of", "store", "published_users", "store_bytes")}


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[n] of rows [n, W]; 0 where one of them has no length."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = (one * other).sum(axis=1)
    return np.divide(products, lengths, out=np.zeros(len(one)), where=lengths > 0)
