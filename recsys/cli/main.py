"""The `recsys` command: `recsys <verb> key=value …`, one module of `recsys.cli` per verb."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import Abort, Exit, TyperException

from recsys.core.errors import PreemptedError, RecsysError
from recsys.core.quiet import quieten
from recsys.core.secrets import mask
from recsys.core.version import VERSION

USER_ERROR = 2
UNEXPECTED_ERROR = 1
INTERRUPTED = 130
TERMINATED = 143


@dataclass(frozen=True)
class Verb:
    """A verb that takes nothing but overrides.

    Attributes:
        name: the word after `recsys` (or after `recsys data`).
        module: module of `recsys.cli` with `run(overrides)`; imported when the verb is used, so
            that `recsys --help` answers at once.
        summary: what it does.
        examples: commands a user can copy.
        more: where in conf/ further settings lie, beside the file of the module.
        takes_description: whether the description of a data set may stand before the settings.
    """

    name: str
    module: str
    summary: str
    examples: tuple[str, ...]
    more: str = ""
    takes_description: bool = False


DATA_VERBS = (
    Verb(
        "simulate",
        "simulate",
        "Write a simulated interaction log whose best possible metrics are known.",
        ("recsys data simulate simulator=demo out=logs/demo",),
    ),
    Verb(
        "infer",
        "infer",
        "Look at a log of yours and draft its description, which every other command takes.",
        (
            "recsys data infer path=events.csv.gz out=mine.yaml",
            "recsys data infer path=events.parquet items=items.csv users=users.csv out=mine.yaml",
        ),
    ),
    Verb(
        "prepare",
        "prepare",
        "Validate a log, map its ids and write timelines and requests.",
        (
            "recsys data prepare mine.yaml",
            "recsys data prepare source=log path=my_log.parquet out=prepared/mine",
            "recsys data prepare source=kuairand path=KuaiRand-Pure/data out=prepared/kuairand",
        ),
        takes_description=True,
    ),
    Verb(
        "append",
        "append",
        "Add new days to a prepared data set: events, ids, request rows; the splits move on.",
        (
            "recsys data append mine.yaml path=new_day.parquet",
            "recsys data append out=prepared/mine path=new_day.parquet",
        ),
        takes_description=True,
    ),
    Verb(
        "describe",
        "describe",
        "Print what a prepared data set holds: counts, tasks, features, and every slice.",
        (
            "recsys data describe mine.yaml",
            "recsys data describe dataset=prepared/kuairand_pure slices=full",
        ),
        takes_description=True,
    ),
    Verb(
        "check",
        "check",
        "Read a prepared data set, or a store of embeddings, and compare it with its checksums.",
        ("recsys data check dataset=prepared/mine store=runs/mine/embeddings",),
        takes_description=True,
    ),
    Verb(
        "compact",
        "compact",
        "Merge the segments that appending has left in the timelines into one.",
        ("recsys data compact dataset=prepared/mine",),
        takes_description=True,
    ),
    Verb(
        "delete",
        "delete",
        "Remove a user from timelines, from a store of embeddings, or from both.",
        ("recsys data delete user=42 dataset=prepared/mine store=runs/mine/embeddings",),
        takes_description=True,
    ),
)
INDEX_VERBS = (
    Verb(
        "build",
        "index_build",
        "Make a FAISS index of item embeddings.",
        ("recsys index build embeddings=runs/post_tower_kuairand out=index/kuairand",),
    ),
    Verb(
        "add",
        "index_add",
        "Add new items to an index without building it anew.",
        ("recsys index add index=index/kuairand embeddings=new_posts.parquet",),
    ),
    Verb(
        "remove",
        "index_remove",
        "Remove items from an index, or all that have expired.",
        ("recsys index remove index=index/kuairand max_age_hours=72",),
    ),
)
CHECKPOINT_VERBS = (
    Verb(
        "inspect",
        "checkpoint_inspect",
        "Print the tensors of a checkpoint, and whether it is whole and undamaged.",
        ("recsys checkpoint inspect path=runs/mine/checkpoints/last.ckpt",),
    ),
    Verb(
        "unshard",
        "checkpoint_unshard",
        "Write a folder of shards as one file.",
        ("recsys checkpoint unshard path=runs/mine/checkpoints/best.ckpt out=best.ckpt",),
    ),
    Verb(
        "reshard",
        "checkpoint_reshard",
        "Write a checkpoint as the folder of another number of processes, or sharding type.",
        (
            "recsys checkpoint reshard path=runs/mine/checkpoints/last.ckpt out=last_64.ckpt "
            "world_size=64 sharding_type=column_wise",
        ),
    ),
)
_OF_SYSTEMS = "those of each system in conf/system/<system>.yaml"
VERBS = (
    Verb(
        "train",
        "train",
        "Train a model and write a run folder.",
        (
            "recsys train experiment=dv365_ebnerd trainer.max_epochs=2",
            "recsys train experiment=dv365_ebnerd "
            "warm_start.checkpoint=runs/mine/checkpoints/best.ckpt",
            "recsys train data=mine.yaml system=sequence run_dir=runs/mine",
            "recsys train system=nxtpost data=log data.path=log.parquet data.out=prepared/mine "
            "posts.path=posts.parquet run_dir=runs/posts",
            "recsys train run_dir=runs/mine resume=true",
        ),
        more=_OF_SYSTEMS,
    ),
    Verb(
        "plan",
        "plan",
        "Price the sharding plan of a run for a cluster: memory per rank, and whether it fits.",
        (
            "recsys plan experiment=dv365_kuairand world_size=64 device=h100",
            "recsys plan experiment=dv365_kuairand model.dimension=256 rows.item=200000000",
        ),
        more=f"those of the run in conf/train.yaml and {_OF_SYSTEMS}",
    ),
    Verb(
        "evaluate",
        "evaluate",
        "Measure a run on the report split, alone or against another run on the same rows, each at "
        "its checkpoint=best or checkpoint=last.",
        ("recsys evaluate run_dir=runs/mine against=runs/without_timelines",),
    ),
    Verb(
        "study",
        "study",
        "Train and evaluate variants over seeds, and write their table and plot.",
        (
            "recsys study study=encoders",
            "recsys study study=ebnerd seeds=[0,1,2] jobs=2 trainer.max_epochs=2",
            "recsys study study=ebnerd summarise_only=true",
            "recsys study study=nxtpost_globo view=nxtpost_staleness",
        ),
    ),
    Verb(
        "export",
        "export",
        "Write the user tower of a run as a TorchScript artifact: DV365 with quantised tables, "
        "NxtPost in float and int8.",
        ("recsys export run_dir=runs/mine",),
    ),
    Verb(
        "trust",
        "trust",
        "Add an artifact that somebody has handed over to the list of those that may be loaded.",
        ("recsys trust artifact=from_a_colleague/artifact",),
    ),
    Verb(
        "publish",
        "publish",
        "Compute user embeddings as of a moment and write them into a key-value store.",
        ("recsys publish run_dir=runs/mine as_of=2022-05-09T00:00:00",),
    ),
    Verb(
        "recommend",
        "recommend",
        "Recommend items to users by a run, or by an exported user tower and an index.",
        (
            "recsys recommend run_dir=runs/mine user=42",
            "recsys recommend run_dir=runs/mine users=users.csv out=items.csv",
            "recsys recommend artifact=runs/mine/artifact index=index/mine user=42",
        ),
    ),
    Verb(
        "score",
        "score",
        "Score given pairs of users and items, at any moment.",
        (
            "recsys score run_dir=runs/mine pairs=pairs.csv",
            "recsys score run_dir=runs/mine pairs=pairs.parquet out=scores.parquet",
        ),
    ),
    Verb(
        "report",
        "report",
        "Write report.html of a run and print its closing table.",
        ("recsys report run_dir=runs/mine against=runs/without_timelines",),
    ),
)

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
    before = "DESCRIPTION.yaml " * verb.takes_description
    settings = typer.Argument(
        None, metavar=f"{before}KEY=VALUE", help="Settings, as in the file below."
    )

    @group.command(verb.name, help=verb.summary, epilog=_epilog(verb))
    def command(overrides: list[str] | None = settings) -> None:
        importlib.import_module(f"recsys.cli.{verb.module}").run(overrides or [])


def _epilog(verb: Verb) -> str:
    files = "; ".join(filter(None, (f"conf/{verb.module}.yaml", verb.more)))
    return f"Settings: {files}; with comments.\n\n{_examples(verb.examples)}"


def _examples(commands: Sequence[str]) -> str:
    return "\n\n".join(f"Example: {command}" for command in commands)


for _verb in DATA_VERBS:
    _register(data_app, _verb)
for _verb in INDEX_VERBS:
    _register(index_app, _verb)
for _verb in CHECKPOINT_VERBS:
    _register(checkpoint_app, _verb)
for _verb in VERBS:
    _register(app, _verb)


@app.command(epilog=_examples(("recsys doctor",)))
def doctor() -> None:
    """Check the installation: versions, one lookup, one fused update, 4-bit rows, TorchScript."""
    from recsys.cli.doctor import run

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
