"""Work done by Ray's tasks, on the user's cluster or on this machine.

Tasks read and write a file system that every worker sees; what travels through Ray is what a task
is told and what it reports. A task whose worker died is done again, so its files have names that no
other attempt writes, and only what the result names counts.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from recsys.core.engines import EngineConfig
from recsys.core.errors import ConfigError, InstallationError, RecsysError
from recsys.core.version import VERSION

try:
    import ray
except ModuleNotFoundError as error:
    if error.name != "ray":
        raise
    raise InstallationError(
        "engine=ray needs Ray, which is not installed: run `python -m recsys.install --extra "
        "ray`, or take engine=process."
    ) from error

Item = TypeVar("Item")
Result = TypeVar("Result")

#: What workers must have in the version of this process, for the same input to give the same bytes.
_SAME = ("polars", "numpy", "pyarrow")
_SAME_WHERE_LOADED = ("torch",)  # what prepares a log does not load it
#: How often the piece of a dead worker is given to another one.
_RETRIES = 3
#: Pieces that are given out per core before the first result is asked for: one large partition does
#: not leave the other workers without work. Where fewer workers are wanted, or results are large,
#: it is one.
_AHEAD = 16
#: Workers are as many as there are cores, so each has one thread.
_ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
#: Nothing is reported to Ray's makers, and a busy machine may take long to start Ray's agent.
_OF_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_agent_register_timeout_ms": "120000"}
_START_TRIES = 4
#: How long is waited for what workers say of why they failed.
_LAST_WORD_SECONDS = 5


class RayEngine:
    """Does the pieces of a work by Ray's tasks.

    Args:
        workers: pieces that are done at a time; None for as many as there are cores.
        block_rows: rows of a log that one piece reads.
    """

    def __init__(self, workers: int | None, block_rows: int) -> None:
        self.block_rows: int | None = block_rows
        cores = max(1, int(ray.cluster_resources().get("CPU", 0)))
        self.workers = min(workers or cores, cores)
        self._ahead = _AHEAD if self.workers == cores else 1
        self._run = ray.remote(num_cpus=1, max_retries=_RETRIES)(_run)

    def map(
        self, task: Callable[[Item], Result], items: Iterable[Item], bulky: bool = False
    ) -> Iterator[Result]:
        """The results of a task, in the order of the items.

        Raises:
            RecsysError: the workers of one piece died, again and again.
            Exception: what a task has raised.
        """
        shared = ray.put(task)
        most = self.workers * (1 if bulky else self._ahead)
        given: deque[Any] = deque()
        folder = os.getcwd()
        try:
            for item in items:
                if len(given) == most:
                    yield _result(given.popleft())
                given.append(self._run.remote(folder, shared, item))
            while given:
                yield _result(given.popleft())
        finally:
            for one in given:
                ray.cancel(one, force=True)

    @property
    def host(self) -> str:
        """The address of this machine, for workers."""
        return str(ray.util.get_node_ip_address())

    @contextmanager
    def beside(
        self, task: Callable[[Item], None], items: Iterable[Item]
    ) -> Iterator[Callable[[], list[Exception]]]:
        """Workers do a task at the same time, once each, while this process does the block.

        They end with the block; none is done again where a worker dies.

        Yields:
            What those have failed with that have ended; it waits a little for all of them.

        Raises:
            RecsysError: a worker has died after the block was done.
            Exception: what a task has raised then.
        """
        shared, folder = ray.put(task), os.getcwd()
        given = [self._run.options(max_retries=0).remote(folder, shared, item) for item in items]

        def failed() -> list[Exception]:
            ended, _ = ray.wait(given, num_returns=len(given), timeout=_LAST_WORD_SECONDS)
            return [error for one in ended if (error := _error_of(one)) is not None]

        try:
            yield failed
            for one in given:
                _result(one)
        finally:
            for one in given:
                ray.cancel(one, force=True)


@contextmanager
def ray_engine(config: EngineConfig, *folders: Path) -> Iterator[RayEngine]:
    """Ray, while a work is done; a cluster of this process that is there already stays.

    Raises:
        ConfigError: there is no such cluster, or a node of it cannot do the work.
    """
    started = not ray.is_initialized()
    if started:
        _start(config)
    try:
        _check_nodes(folders)
        yield RayEngine(config.workers, config.block_rows)
    finally:
        if started:
            ray.shutdown()


def _start(config: EngineConfig) -> None:
    address = config.address or os.environ.get("RAY_ADDRESS")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address:
        try:
            ray.init(address=address, runtime_env={"env_vars": _ONE_THREAD}, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = _line(error).rstrip(".")
            if "AuthenticationError" in f"{error} {error.__context__}":
                said = (
                    "it asks for a token, which Ray finds by RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH"
                )
            raise ConfigError(
                f"the Ray cluster at {address} cannot be used: {said}. It must be running and have "
                "this version of Ray and of Python; engine.address= or RAY_ADDRESS names it."
            ) from error
        return
    for left in reversed(range(_START_TRIES)):
        try:
            with _environment(_ONE_THREAD | _OF_RAY):
                ray.init(
                    address="local",
                    num_cpus=config.workers or len(os.sched_getaffinity(0)),
                    object_store_memory=config.object_store_mb << 20,
                    include_dashboard=False,
                    **common,
                )
            return
        except Exception as error:  # Ray raises plain ones
            ray.shutdown()
            if not left:
                raise ConfigError(
                    f"Ray could not be started on this machine: {_line(error)} Its logs are below "
                    "/tmp/ray; engine=process does the same without it."
                ) from error


@contextmanager
def _environment(names: dict[str, str]) -> Iterator[None]:
    """Have processes that are started meanwhile take something from the environment."""
    former = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_nodes(folders: Sequence[Path]) -> None:
    """Refuse nodes that would make something else, or elsewhere.

    Raises:
        ConfigError: a node has other versions or does not see a folder.
    """
    same = [*_SAME, *(name for name in _SAME_WHERE_LOADED if name in sys.modules)]
    versions = {"recsys": VERSION} | {name: metadata.version(name) for name in same}
    places = [os.getcwd(), *map(os.path.abspath, folders)]
    look = _look()
    looks = [
        look.options(scheduling_strategy=_on(node["NodeID"])).remote(versions, places)
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    ]
    for problem in filter(None, map(_result, looks)):
        raise ConfigError(problem)


def _look() -> Any:
    """A task that travels whole: the node may have no recsys to import it from."""

    def look(versions: dict[str, str], places: list[str]) -> str | None:
        import os
        import socket
        from importlib import import_module, metadata

        where = f"the node {socket.gethostname()} of the Ray cluster"
        for name, wanted in versions.items():
            try:
                if name == "recsys":
                    found = import_module("recsys.core.version").VERSION
                else:
                    found = metadata.version(name)
            except ModuleNotFoundError:
                found = None
            if found != wanted:
                return (
                    f"{where} has {name} {found or 'not installed'}, this process has {wanted}; "
                    "install the same environment on every node."
                )
        for place in places:
            if not os.path.exists(place):
                return (
                    f"{where} does not see {place}: logs, data sets, models and the copies of "
                    "URLs (RECSYS_CACHE_DIR) must lie on a file system that all nodes have under "
                    "the same path."
                )
        return None

    return ray.remote(num_cpus=0, max_retries=_RETRIES)(look)


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _run(folder: str, task: Callable[[Any], Any], item: Any) -> Any:
    """One piece, in a worker: relative paths mean what they mean to the user."""
    if os.getcwd() != folder:
        os.chdir(folder)
    return task(item)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise RecsysError(
            f"Ray could not finish a piece of the work; its workers have ended: {_line(error)} "
            "Nothing was changed. Where memory has run out, a smaller "
            "engine.workers= takes less, and so does a larger partitions= of a preparation; `ray "
            "status` shows the nodes."
        ) from error


def _error_of(reference: Any) -> Exception | None:
    """What a piece that has ended has failed with."""
    try:
        _result(reference)
    except Exception as error:
        return error
    return None


def _line(error: BaseException) -> str:
    """The first line of what a library says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
