"""Commands of `recsys` in forks of a process that has imported all, killed or stopped at will.

pytest itself has too many threads to be forked. What happens in a command is counted: every file
that Python opens for writing, every name that it makes, changes or removes, and the steps of an
LMDB, which Python does not see. A command can be told to die, or to stand still, at any of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
#: Seconds after which a command is given up; none takes a tenth of it on any machine.
_PATIENCE = 300


@dataclass
class Command:
    """One command in a process of its own.

    Attributes:
        server: what started it.
        process: its id.
        folder: where it runs; what it prints lies beside it.
    """

    server: Server
    process: int
    folder: Path
    output: Path

    def wait(self) -> tuple[str, int]:
        """``exited``, ``killed`` or ``stopped``, with the code or signal."""
        found = self.server.ask({"wait": self.process})
        return found["how"], found["number"]

    def go_on(self) -> None:
        """After it was stopped."""
        os.kill(self.process, signal.SIGCONT)

    def is_waiting(self) -> bool:
        """Wait until the command has ended, or says that it waits for another."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if "Waiting for " in self.printed():
                return True
            if self.server.ask({"ended": self.process})["ended"]:
                return False
            time.sleep(0.02)
        raise AssertionError(f"it neither ends nor waits: {self.printed()}")

    def printed(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def events(self) -> int:
        """How much happened in it; known when it has exited."""
        return int(self.output.with_suffix(".events").read_text())


class Server:
    """The process that is forked."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.robustness.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self._number = 0

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """A question and its answer, as JSON."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(
        self, words: list[str], folder: Path, end: signal.Signals | None = None, at: int = 0
    ) -> Command:
        """Start a command in ``folder``; it sends itself the signal ``end`` at event ``at``."""
        self._number += 1
        output = folder.parent / f"{folder.name}.{self._number}.log"
        question = {
            "words": words,
            "folder": str(folder),
            "output": str(output),
            "signal": None if end is None else int(end),
            "at": at,
        }
        return Command(self, self.ask(question)["process"], folder, output)

    def run(self, words: list[str], folder: Path) -> Command:
        """A command that must end well."""
        command = self.start(words, folder)
        assert command.wait() == ("exited", 0), f"{' '.join(words)}: {command.printed()}"
        return command

    def load(self, *modules: str) -> None:
        """Import modules of `recsys.cli`, so that no command has to."""
        self.ask({"modules": [f"recsys.cli.{name}" for name in modules]})

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def server() -> Iterator[Server]:
    """A server, until the block ends."""
    one = Server()
    try:
        yield one
    finally:
        one.close()


def _serve() -> None:
    ended: dict[int, int] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if "modules" in question:
            answer = {"loaded": [str(import_module(name)) for name in question["modules"]]}
        elif "words" in question:
            answer = {"process": _fork(question)}
        elif "ended" in question:
            process = question["ended"]
            if process not in ended:
                found, status = os.waitpid(process, os.WNOHANG)
                if found:
                    ended[process] = status
            answer = {"ended": process in ended}
        else:
            process = question["wait"]
            status = ended.pop(process, None)
            if status is None:
                status = os.waitpid(process, os.WUNTRACED)[1]
            answer = _told(status)
        print(json.dumps(answer), flush=True)


def _told(status: int) -> dict[str, Any]:
    if os.WIFSTOPPED(status):
        return {"how": "stopped", "number": os.WSTOPSIG(status)}
    if os.WIFSIGNALED(status):
        return {"how": "killed", "number": os.WTERMSIG(status)}
    return {"how": "exited", "number": os.WEXITSTATUS(status)}


def _fork(question: dict[str, Any]) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.chdir(question["folder"])
        printed = os.open(question["output"], os.O_WRONLY | os.O_CREAT, 0o644)
        for stream in (1, 2):
            os.dup2(printed, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        count = _count(question["folder"], question["signal"], question["at"])
        from recsys.cli.main import invoke

        code = invoke(question["words"])
        Path(question["output"]).with_suffix(".events").write_text(str(count()))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise AssertionError


def _count(folder: str, end: int | None, at: int) -> Any:
    """Count events below ``folder`` from now on, and send the signal at one of them."""
    process, events = os.getpid(), 0

    def tick() -> None:
        nonlocal events
        if os.getpid() != process:  # a worker's
            return
        events += 1
        if end is not None and events == at:
            os.kill(process, end)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            path, changes = (arguments or (None,))[0], event in _EVENTS
        if changes and isinstance(path, (str, bytes, os.PathLike)):
            path = os.path.abspath(os.fsdecode(path))
            if path.startswith(folder + os.sep):
                tick()

    from recsys.embeddings.stores.lmdb import LmdbStore

    for name in ("_take_version", "_write", "_flip", "_delete"):
        setattr(LmdbStore, name, _between(getattr(LmdbStore, name), tick))
    sys.addaudithook(hook)
    return lambda: events


def _between(method: Any, tick: Any) -> Any:
    def counted(*arguments: Any) -> Any:
        tick()
        found = method(*arguments)
        tick()
        return found

    return counted


if __name__ == "__main__":
    _serve()
