"""The `recsys` command: `recsys <verb> key=value …`, one module of `recsys.cli` per verb."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import Abort, Exit, TyperException

from recsys.cli.verbs import (
    CHECKPOINT_VERBS,
    DATA_VERBS,
    EMBEDDING_VERBS,
    FUNNEL_VERBS,
    INDEX_VERBS,
    RECUR_VERBS,
    SERVICE_VERBS,
    VERBS,
    Verb,
)
from recsys.core.errors import PreemptedError, RecsysError
from recsys.core.quiet import quieten
from recsys.core.secrets import mask
from recsys.core.threads import keep_memory, set_threads
from recsys.core.version import VERSION

USER_ERROR = 2
UNEXPECTED_ERROR = 1
INTERRUPTED = 130
TERMINATED = 143

app = typer.Typer(
    name="recsys",
    help=(
        "Train, evaluate, export and publish long-history recommenders.\n\n"
        "Settings follow the verb as key=value; conf/ holds them all, each with its comment."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Make, describe and maintain data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
index_app = typer.Typer(help="Make and maintain indexes of items.", no_args_is_help=True)
app.add_typer(index_app, name="index")
checkpoint_app = typer.Typer(help="Look at checkpoints and rewrite them.", no_args_is_help=True)
app.add_typer(checkpoint_app, name="checkpoint")
embeddings_app = typer.Typer(help="Compare published user embeddings.", no_args_is_help=True)
app.add_typer(embeddings_app, name="embeddings")
recur_app = typer.Typer(
    help="Train again on a log that grows, and serve what is good.", no_args_is_help=True
)
app.add_typer(recur_app, name="recur")
funnel_app = typer.Typer(help="Look at what a funnel has done.", no_args_is_help=True)
app.add_typer(funnel_app, name="funnel")
service_app = typer.Typer(help="Change what a service serves.", no_args_is_help=True)
app.add_typer(service_app, name="service")


def _print_version(wanted: bool) -> None:
    if wanted:
        from recsys.core.console import output_console

        output_console().print(f"recsys {VERSION}")
        raise Exit


@app.callback()
def _global_options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (or RECSYS_DEBUG=1).")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    if debug:
        os.environ["RECSYS_DEBUG"] = "1"


def _register(group: typer.Typer, verb: Verb) -> None:
    before = verb.takes or "DESCRIPTION.yaml " * verb.takes_description
    settings = typer.Argument(
        None, metavar=f"{before}KEY=VALUE", help="Settings, as in the file below."
    )

    register = group.command(verb.name, help=verb.summary, epilog=_epilog(verb))
    if verb.prints_json:
        json_flag = typer.Option(False, "--json", help="Print one JSON object as the last line.")

        @register
        def command_with_json(
            overrides: list[str] | None = settings, as_json: bool = json_flag
        ) -> None:
            importlib.import_module(f"recsys.cli.{verb.module}").run(overrides or [], as_json)

        return

    @register
    def command(overrides: list[str] | None = settings) -> None:
        if verb.keeps_memory:
            keep_memory()
        importlib.import_module(f"recsys.cli.{verb.module}").run(overrides or [])


def _epilog(verb: Verb) -> str:
    files = "; ".join(filter(None, (f"conf/{verb.module}.yaml", verb.more)))
    return f"Settings: {files}; with comments.\n\n{_examples(verb.examples)}"


def _examples(commands: Sequence[str]) -> str:
    # a list of texts would be markup, which Rich takes out
    shown = (re.sub(r"\[(?=[a-z/@#])", r"\\[", command) for command in commands)
    return "\n\n".join(f"Example: {command}" for command in shown)


for _verb in DATA_VERBS:
    _register(data_app, _verb)
for _verb in INDEX_VERBS:
    _register(index_app, _verb)
for _verb in EMBEDDING_VERBS:
    _register(embeddings_app, _verb)
for _verb in CHECKPOINT_VERBS:
    _register(checkpoint_app, _verb)
for _verb in FUNNEL_VERBS:
    _register(funnel_app, _verb)
for _verb in SERVICE_VERBS:
    _register(service_app, _verb)
for _verb in RECUR_VERBS:
    _register(recur_app, _verb)
for _verb in VERBS:
    _register(app, _verb)


@app.command(epilog=_examples(("recsys doctor",)))
def doctor() -> None:
    """Check the installation: versions, one lookup, one fused update, 4-bit rows, TorchScript."""
    from recsys.cli.doctor import run

    run()


@app.command(epilog=_examples(("recsys health",)))
def health() -> None:
    """Look whether the installation is whole, in a blink: the health check of a container."""
    from recsys.cli.health import run

    run()


@app.command(
    epilog=_examples(("recsys bench --list", "recsys bench slices batch=4 --json")),
)
def bench(
    name: Annotated[str | None, typer.Argument(help="Name of the benchmark.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Its sizes.")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Name the benchmarks.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line.")
    ] = False,
) -> None:
    """Run a benchmark of benchmarks/."""
    from recsys.cli.bench import print_list, run

    if list_all or name is None:
        print_list(as_json)
    else:
        run(name, overrides or [], as_json)


@app.command(
    epilog=_examples(
        (
            "recsys sweep conf/sweep/optimisers_demo.yaml --local jobs=2",
            "recsys sweep conf/sweep/nxtpost_globo.yaml --local count=20 trainer.max_epochs=3",
            "wandb sweep conf/sweep/nxtpost_globo.yaml",
        )
    ),
)
def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep in the format of Weights & Biases.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings, as in conf/sweep.yaml."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run it here; otherwise the file is checked.")
    ] = False,
) -> None:
    """Search over settings of a run: wandb's sweeps, with its server or without."""
    from recsys.cli.sweep import run

    run(file, overrides or [], local)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str], command: typer.Typer = app, name: str = "recsys") -> int:
    """Run one command line; the exit code is 0, 2 for what the user can mend, 75 for a run that
    has saved its state because it was told to stop, 1 otherwise.
    """
    quieten()
    set_threads()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whose encoding may lack a title's letters
            stream.reconfigure(errors="backslashreplace")
    return _exit_code(lambda: command(args=list(arguments), prog_name=name, standalone_mode=False))


def _exit_code(command: Callable[[], object]) -> int:
    try:
        returned = command()
    except (KeyboardInterrupt, Abort):
        _tell("interrupted.")
        return INTERRUPTED
    except SystemExit as end:
        # Lightning leaves a training that is sent SIGTERM without a code, as if it had finished
        if end.code not in (None, TERMINATED):
            raise
        _tell("terminated.")
        return TERMINATED
    except TyperException as error:
        message = error.format_message()
        if message:  # empty where the help text was printed instead
            _tell(message)
        return USER_ERROR
    except PreemptedError as stop:
        _tell(str(stop))
        return stop.EXIT_CODE
    except RecsysError as error:
        _tell_of(error, str(error))
        return USER_ERROR
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _tell_of(error, f"{place}{error.strerror or error}.")
        return USER_ERROR
    except Exception as error:
        summary = mask(" ".join(str(error).split()))[:500]
        if isinstance(error, MemoryError) or "allocate memory" in summary:
            _tell_of(error, f"the memory is too small for these settings: {summary}.")
            return USER_ERROR
        _tell_of(
            error,
            f"unexpected {type(error).__name__}: {summary} (run it again with RECSYS_DEBUG=1 to "
            "see the traceback).",
        )
        return UNEXPECTED_ERROR
    return returned if isinstance(returned, int) else 0


def _tell(sentence: str) -> None:
    from recsys.core.console import message_console  # Rich, for which `recsys --help` need not wait

    on_one_line = re.sub(r"\s*\n\s*", " ", sentence.strip())
    message_console().print(f"recsys: {on_one_line}")


def _tell_of(error: Exception, sentence: str) -> None:
    """The sentence; the traceback, to whom wants to see it."""
    if not _debugging():
        _tell(sentence)
        return
    from recsys.core.console import message_console

    message_console().print_lines("".join(traceback.format_exception(error)))


def _debugging() -> bool:
    return os.environ.get("RECSYS_DEBUG", "") not in ("", "0")


if __name__ == "__main__":
    main()
