"""Settings that cannot be meant, made from the schemas themselves, and what verbs say of them.

``python -m tests.robustness.bad_settings [cases per verb]`` tries all of them, or so many drawn
ones, and prints counts by verb. Nothing is read or written but conf/: a case ends when its
configuration is built.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import random
import sys
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from recsys.cli.launch.config import SubmitConfig, TorchrunConfig
from recsys.cli.launch.kubernetes import KubernetesConfig
from recsys.core.bounds import field_hints, without_none
from recsys.core.composition import compose
from recsys.core.errors import RecsysError
from recsys.data.sources import SOURCES, complete_options
from recsys.studies.sweep.run import SweepConfig
from recsys.systems.registry import SYSTEMS

#: A sentence longer than this is none.
LONGEST = 700

NUMBERS = (
    *("nan", "inf", "-inf", "-1", "0", "1e300", "-1e300", f"{10**20}", "1e400", "9" * 5_000),
    *("ten", "null", "", "'", "[1]", "{a: 1}", "1,2", "[", "${nothing}", "true", "???"),
)
TEXTS = (
    *(
        "",
        "''",
        "../../x",
        "'",
        '"',
        "[",
        "]",
        "{a: b}",
        "[a]",
        "\\",
        "\\'",
        "$",
        "${",
        "${nothing}",
    ),
    *("1e3", "2024_01_31", "001", "null", "'null'", "nan", "true", "???", " ", "a b", "ä", "[/b]"),
    *("a,b", "a=b", "'1'", '"1"', "it's", "#", "%s", "\x1b]0;x", "*", "~", "@", "x" * 5_000),
)
FLAGS = ("maybe", "", "2", "nan", "null", "[true]", "-1")
LISTS = ("", "null", "x", "[", "[[]]", "{a: 1}", "[null]", "[nan]", "['", "[,]", "???")


@dataclass(frozen=True)
class Verb:
    """A verb, and a command line of it that composes.

    Attributes:
        configure: from overrides to its configuration.
        given: overrides that it needs.
        open: it takes any key, and hands it on.
    """

    configure: Callable[[Sequence[str]], Any]
    given: tuple[str, ...] = ()
    open: bool = False


@dataclass(frozen=True)
class Case:
    """One setting given in a way that may not be meant.

    Attributes:
        override: as it is typed.
        key: of the setting; empty where it is the key that is wrong.
        hint: its type, with bounds.
        value: what is given for it.
    """

    override: str
    key: str = ""
    hint: Any = None
    value: str = ""


def _of(module: str) -> Callable[[Sequence[str]], Any]:
    return lambda overrides: importlib.import_module(f"recsys.cli.{module}").configure(overrides)


def _options(source: str) -> Verb:
    def configure(overrides: Sequence[str]) -> Any:
        config = _of("prepare")([f"source={source}", "path=p", *overrides])
        complete_options(source, config.options)
        return config

    return Verb(configure)


def verbs() -> dict[str, Verb]:
    """Every verb, `train` once per system."""
    plain = {
        "data simulate": ("simulate", "simulator=demo", "out=o"),
        "data prepare": ("prepare", "path=p"),
        "data describe": ("describe", "dataset=d", "slices=demo"),
        "data compact": ("compact", "dataset=d"),
        "data delete": ("delete", "dataset=d", "user=1"),
        "index build": ("index_build", "embeddings=e", "out=o", "dataset=d", "as_of=2024-01-01"),
        "index add": ("index_add", "index=i", "embeddings=e"),
        "index remove": ("index_remove", "index=i", "posts=p"),
        "index snapshot": ("index_snapshot", "index=i", "out=o"),
        "index rollback": ("index_rollback", "index=i"),
        "index report": ("index_report", "index=i"),
        "checkpoint inspect": ("checkpoint_inspect", "path=p"),
        "checkpoint unshard": ("checkpoint_unshard", "path=p", "out=o"),
        "checkpoint reshard": ("checkpoint_reshard", "path=p", "out=o", "world_size=2"),
        **{f"train {name}": ("train", f"system={name}", "data=simulated") for name in SYSTEMS},
        "train with shampoo": ("train", "experiment=demo", "optim=shampoo"),
        "plan": ("plan", "experiment=demo"),
        "evaluate": ("evaluate", "run_dir=r"),
        "export": ("export", "run_dir=r"),
        "embeddings compare": ("embeddings_compare", "a", "b"),
        "embeddings skew": ("embeddings_skew", "run_dir=r", "stores=[a,b]"),
        "cost": ("cost",),
        "online": ("online", "simulation=s", "policy=best"),
        "precompute": ("precompute", "state=s"),
        "recur learn": ("recur_learn", "state=s", "folder=f"),
        "recur play": (
            "recur_play",
            *("online.simulation=s", "online.policy=explore", "online.against=popular"),
            *("learning.folder=f", "learning.dataset=d"),
        ),
        "tune": ("tune", "funnel=explore", "tuning=explore", "simulation=s", "out=o"),
        "publish": ("publish", "run_dir=r"),
        "recommend": ("recommend", "artifact=a", "index=i", "user=1"),
        "score": ("score", "run_dir=r", "pairs=p"),
        "report": ("report", "run_dir=r"),
        "preflight": ("preflight",),
    }
    found = {name: Verb(_of(module), tuple(given)) for name, (module, *given) in plain.items()}
    return found | {
        "study": Verb(_of("study"), ("study=encoders",), open=True),
        "sweep": Verb(lambda given: compose("sweep", SweepConfig, given)),
        "submit": Verb(lambda given: compose("submit", SubmitConfig, given)),
        "torchrun": Verb(lambda given: compose("torchrun", TorchrunConfig, given)),
        "kubernetes": Verb(
            lambda given: compose("kubernetes", KubernetesConfig, given), ("image=i", "claim=c")
        ),
        **{f"options of {name}": _options(name) for name in ("log", "kuairand", "globo")},
    }


def settings_of(schema: type, place: str = "") -> Iterator[tuple[str, Any]]:
    """Key and type of every setting of a dataclass, those in lists as ``key[]name``."""
    for name, bounded in field_hints(schema).items():
        hint, _ = without_none(bounded)
        [*_, item] = typing.get_args(hint) or [None]
        if dataclasses.is_dataclass(hint):
            yield from settings_of(hint, f"{place}{name}.")  # type: ignore[arg-type]
        elif dataclasses.is_dataclass(item) and typing.get_origin(hint) is list:
            yield from settings_of(item, f"{place}{name}[]")  # type: ignore[arg-type]
        elif not dataclasses.is_dataclass(item):
            yield f"{place}{name}", bounded


@functools.cache
def schemas_of(name: str, verb: Verb) -> list[type]:
    """The dataclasses that a verb's configuration is made of."""
    if name.startswith("options of"):
        entry = SOURCES[name.split()[-1]]
        return [getattr(importlib.import_module(entry.module), entry.options)]
    config = verb.configure(verb.given)
    return [type(one) for one in (config if isinstance(config, tuple) else (config,))]


def kind_of(hint: Any) -> Any:
    """The plain type of a setting: ``int``, ``list``, …"""
    hint, _ = without_none(hint)
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    return typing.get_origin(hint) or hint


def cases(name: str, verb: Verb) -> Iterator[Case]:
    """All cases of a verb."""
    place = "options." if name.startswith("options of") else ""
    values = {int: NUMBERS, float: NUMBERS, str: TEXTS, bool: FLAGS}
    for schema in schemas_of(name, verb):
        for key, hint in settings_of(schema, place):
            for value in values.get(kind_of(hint), LISTS):
                group, inner, leaf = key.partition("[]")
                given = f"{group}=[{{{leaf}: {value}}}]" if inner else f"{key}={value}"
                yield Case(given, key, hint, value)
            if not verb.open:
                yield Case(f"{key.replace('[]', '.')}x=1")
    if place:
        return
    for wrong in ("x", "=1", ".=1", "a..b=1", "+x=1", "~x", "hydra.run.dir=x", "hydra=x", "@=1"):
        yield Case(wrong)
    for group in ("data", "experiment", "model", "trainer", "optim", "launcher", "study"):
        if not verb.open:
            yield from (Case(f"{group}={value}") for value in ("nothing", "", "null", "[a]", "1"))


def problem_of(verb: Verb, case: Case) -> tuple[str, bool]:
    """What is wrong with how a verb takes a case, empty for nothing; and whether it is refused."""
    try:
        config = verb.configure([*verb.given, case.override])
    except RecsysError as error:
        return _not_a_sentence(str(error), case), True
    except OSError:
        return "", True  # the command line makes a sentence of what the system says
    except Exception as error:
        return f"unexpected {type(error).__name__}: {error}"[:300], False
    if not case.key or "[]" in case.key or case.key.startswith("options."):
        return "", False
    return _not_as_typed(config, case), False


def _not_a_sentence(text: str, case: Case) -> str:
    leaf = (case.key or case.override.partition("=")[0]).rpartition(".")[2].rpartition("]")[2]
    if "\n" in text or len(text) > LONGEST or not text.endswith((".", "?")):
        return f"no sentence: {text[:300]!r}"
    if leaf not in text and case.value not in text and "is needed" not in text:
        return f"names neither key nor value: {text}"
    return "" if not any(word in text for word in ("Traceback", "unexpected")) else text


def _not_as_typed(config: Any, case: Case) -> str:
    """Whether a setting holds something else than what was typed, or what is beyond reason."""
    for part in config if isinstance(config, tuple) else (config,):
        value = part
        for name in case.key.split("."):
            value = getattr(value, name, None)
        if value is None:
            continue
        if kind_of(case.hint) in (int, float) and not math.isfinite(value):
            return "" if math.isinf(value) and "slices" in case.key else f"taken as {value}"
        if kind_of(case.hint) is int and abs(value) > 10**13:
            return f"taken as {value}"
        if kind_of(case.hint) is str and value != _text(case.value) and "$" not in case.value:
            return f"taken as {value!r}"
    return ""


def _text(typed: str) -> str:
    quoted = len(typed) > 1 and typed[0] in "'\"" and typed[-1] == typed[0]
    return typed[1:-1] if quoted else typed


def drawn(name: str, verb: Verb, number: int | None, seed: int = 0) -> list[Case]:
    """All cases of a verb, or so many of them."""
    every = list(cases(name, verb))
    if number is None or number >= len(every):
        return every
    return random.Random(f"{seed} {name}").sample(every, number)


def main(number: int | None) -> int:
    """Print counts by verb and every case that is taken wrongly; 1 where there is one."""
    seen: set[tuple[str, str]] = set()
    wrong = 0
    for name, verb in verbs().items():
        counts: Counter[str] = Counter()
        for case in drawn(name, verb, number):
            mark = ("" if number is None and name.startswith("train") else name, case.override)
            if mark in seen:  # what the systems share is tried once
                continue
            seen.add(mark)
            problem, refused = problem_of(verb, case)
            counts["wrong" if problem else "refused" if refused else "taken"] += 1
            if problem:
                wrong += 1
                print(f"  {name} {case.override[:80]!r}: {problem}", flush=True)
        print(f"{name}: {', '.join(f'{n} {what}' for what, n in counts.items())}", flush=True)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else None))
