"""Training in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.api.run import Run, open_run
from recsys.core.console import message_console
from recsys.core.quiet import quieten
from recsys.data.stores.dataset import PreparedDataset
from recsys.systems.choice import compose_run
from recsys.systems.runs import train as train_run
from recsys.systems.sized_run import fitted_to_data
from recsys.systems.sizing import sized_table


def train(
    data: PreparedDataset | Path | str,
    system: str,
    run_dir: Path | str,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Train a model on a prepared data set and open its run; as `recsys train`.

    >>> run = recsys.train(dataset, "sequence", "runs/sasrec")  # doctest: +SKIP
    >>> run = recsys.train(
    ...     dataset, "dv365", "runs/dv365", {"model.dimension": 16, "slices": "full"}
    ... )  # doctest: +SKIP

    Args:
        data: what :func:`prepare` gave, its folder, or the description of a log (``mine.yaml``).
        system: what is trained: ``sequence``, ``nxtpost``, ``dv365``, …
        run_dir: the run folder.
        settings: as they follow `recsys train`, by their key; those that are not given follow from
            the size of the data.

    Raises:
        RecsysError: a setting or the data cannot be, or the run folder is taken.
    """
    quieten()
    given = [f"{key}={written(value)}" for key, value in (settings or {}).items()]
    overrides = [f"system={system}", *_of_data(data), f"run_dir={run_dir}", *given]
    config, sized = fitted_to_data(compose_run(overrides), overrides)
    if sized:
        message_console().print(sized_table(sized))
    return open_run(train_run(config))


def _of_data(data: PreparedDataset | Path | str) -> list[str]:
    """The overrides that name a data set."""
    if isinstance(data, PreparedDataset):
        data = data.path
    if Path(data).suffix in (".yaml", ".yml"):
        return [f"data={data}"]
    return ["data=log", "data.path=null", f"data.out={data}"]


def written(value: Any) -> str:
    """A value as it is typed after ``key=``.

    >>> written(None), written(True), written([1, "a"]), written({"a": 2})
    ('null', 'true', '[1,a]', '{a:2}')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{written(item)}' for key, item in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(written, value))}]"
    return str(value)
