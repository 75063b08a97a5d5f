"""`recsys evaluate`: the only reader of the report split."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.folders import locked_folder
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.distributed.together import together
from recsys.evaluation.baselines.config import TASK_MEANS
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.division import first_before_others, once
from recsys.evaluation.metrics_file import Metrics, replace_metrics
from recsys.evaluation.predictions import (
    PREDICTIONS,
    measured_on,
    predicted_by,
    read_predictions,
)
from recsys.evaluation.tasks import Control
from recsys.runs.checkpoints import NAMED_CHECKPOINTS
from recsys.runs.load import check_comparable, check_run_folder, open_dataset
from recsys.systems.choice import system_of_run
from recsys.systems.runs import checkpoint_of, given_folders, load_config, load_run


def evaluate(config: EvaluateConfig) -> Metrics:
    """Predict the split, measure it and merge the metrics into ``metrics.json``.

    Raises:
        RecsysError: a run that cannot be loaded, or one that was not measured on the same rows.
    """
    return together(
        config.processes,
        _evaluate,
        config,
        engine=config.engine,
        folders=given_folders(config.run_dir, config.against, config.dataset),
    )


def _evaluate(config: EvaluateConfig) -> Metrics:
    folder = Path(config.run_dir)
    check_run_folder(folder)
    system = system_of_run(folder)
    control = None
    if config.against is not None:
        other = system_of_run(config.against)
        for run_dir, one in ((folder, system), (config.against, other)):
            if one.compared:
                continue
            raise ConfigError(
                f"{run_dir} is a run of {one.name}, which is measured without against=; runs of "
                "retrieval systems are compared by `recsys study`."
            )
        check_comparable(Path(config.against), DatasetManifest.load(folder))
        control = _control(config, config.against)
    with ExitStack() as held:
        # predictions and metrics are of one evaluation
        once(lambda: held.enter_context(locked_folder(folder / PREDICTIONS)))
        with first_before_others():  # which compares checksums
            run = load_run(folder, config.checkpoint, config.dataset, Split(config.split))
        metrics = system.evaluate(run, config, control)
        once(lambda: replace_metrics(run.folder, f"{config.prefix}/", metrics))
    return metrics


def _control(config: EvaluateConfig, against: str) -> Control:
    """The other run's predictions, made now unless they are the wanted checkpoint's of all rows."""
    run_dir, split = Path(against), Split(config.split)
    name = config.checkpoint if config.checkpoint in NAMED_CHECKPOINTS else "best"
    wanted = checkpoint_of(run_dir, name)
    dataset = open_dataset(run_dir, load_config(run_dir), config.dataset)
    rows = dataset.newest.fingerprint
    found = once(lambda: (predicted_by(run_dir, split), measured_on(run_dir, split)))
    if found != (wanted, rows):
        # LightGBM is not trained a second time on the same rows
        means = [one for one in config.baselines if one in TASK_MEANS]
        _evaluate(replace(config, run_dir=against, against=None, checkpoint=name, baselines=means))
    return Control(against, read_predictions(run_dir, split), wanted)
