"""The shape of the package, measured: who imports whom, circles, and what an import brings in.

``python -m tests.architecture`` prints it; ``tests/test_architecture.py`` holds it there. Imports
inside functions and under ``TYPE_CHECKING`` count, and so do modules named in strings, such as the
entries of a registry.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "recsys"

#: Rooms from the ground up; a room imports itself and rooms above it in this list. The rooms of
#: ``data`` are listed apart.
ROOMS = (
    "core",
    "data.contract",
    "data.stores",
    "data.features",
    "data.content",
    "data.slices",
    "data.simulator",
    "data.sources",
    "data.prepare",
    "data.infer",
    "data.batches",
    "data.loaders",
    "nn",
    "artifacts",
    "embeddings",
    "index",
    "serving",
    "evaluation",
    "online",
    "service",
    "optim",
    "distributed",
    "runs",
    "reports",
    "systems",
    "studies",
    "recurring",
    "api",
    "cli",
)

#: What a service or a worker loads may not stand on what trains.
SERVED = ("artifacts", "embeddings", "index", "serving", "service")
#: Rooms that a served room may not import although they lie above it.
NOT_FOR_SERVING = ("data.loaders", "nn")

#: Third-party packages and the rooms that may import them; others may not.
ONLY_IN = {
    "lightning": ("data.loaders", "distributed", "runs", "systems"),
    "torchrec": ("nn", "optim", "distributed", "systems", "cli"),
    "hydra": ("core", "cli"),
    "wandb": ("runs", "studies"),
    "matplotlib": ("reports", "studies"),
    "fastapi": ("service",),
    "uvicorn": ("service",),
    "ray": ("core",),
}
#: Rooms that do without torch, whatever they import.
WITHOUT_TORCH = (
    "core",
    "data.contract",
    "data.stores",
    "data.features",
    "data.slices",
    "data.simulator",
    "data.prepare",
    "data.infer",
)

_DOTTED = re.compile(r"recsys(?:\.[A-Za-z_]\w*)+(?::\w+)?")


def module_name(path: Path) -> str:
    """``recsys.data.stores`` of ``recsys/data/stores/__init__.py``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules() -> dict[str, Path]:
    """Every module of the package."""
    files = (path for path in PACKAGE.rglob("*.py") if (PACKAGE / "conf") not in path.parents)
    return {module_name(path): path for path in sorted(files)}


def room_of(module: str) -> str | None:
    """The room a module is in; None for those beside the rooms."""
    inside = module.removeprefix("recsys.")
    found = (room for room in ROOMS if inside == room or inside.startswith(f"{room}."))
    return next(found, None)


def imported(source: str, known: set[str]) -> set[str]:
    """Modules of the package that a module imports anywhere, or names in a string."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found |= {whole if whole in known else node.module} & known
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = _DOTTED.fullmatch(node.value)
            found |= {node.value.partition(":")[0]} & known if match else set()
    return found


def imported_packages(source: str) -> set[str]:
    """Names of the third-party and standard packages that a module imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def import_graph() -> dict[str, set[str]]:
    """Per module the modules of the package that it imports."""
    known = modules()
    names = set(known)
    return {name: imported(path.read_text(), names) - {name} for name, path in known.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, largest first (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], index[other])
        if lowest[module] == index[module]:
            group = [stack.pop()]
            while group[-1] != module:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return sorted(found, key=len, reverse=True)


@dataclass(frozen=True)
class Loaded:
    """What a fresh Python has loaded after some statements.

    Attributes:
        ours: number of modules of the package.
        packages: top-level names of everything loaded.
        seconds: processor seconds the statements took.
    """

    ours: int
    packages: frozenset[str]
    seconds: float


def loaded_by(statements: str) -> Loaded:
    """Run statements in a fresh Python and see what they have loaded."""
    program = (
        "import sys, time\nstart = time.process_time()\n"
        f"{statements}\n"
        "seconds = time.process_time() - start\n"
        "print('\\n'.join([str(seconds), *sys.modules]))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, *names = finished.stdout.split("\n")[-_lines(finished.stdout) :]
    ours = sum(name == "recsys" or name.startswith("recsys.") for name in names)
    return Loaded(ours, frozenset(name.partition(".")[0] for name in names), float(seconds))


def _lines(printed: str) -> int:
    """How many of the last lines are ours: the statements may have printed before."""
    lines = printed.split("\n")
    first = next(place for place in range(len(lines) - 1, -1, -1) if _is_number(lines[place]))
    return len(lines) - first


def _is_number(line: str) -> bool:
    return re.fullmatch(r"\d+\.\d+(e-\d+)?", line) is not None


#: What is imported for what, by the name that is printed.
ENTRIES = {
    "import recsys": "import recsys",
    "reading an embedding": "import recsys.embeddings.reader",
    "recommending": "import recsys.serving.recommend_users, recsys.index.folder",
    "recommending by a tree": "import recsys.serving.recommend_users, recsys.serving.tree",
    "preparing a log": "import recsys.data.prepare.prepare",
    "recsys --help": "from recsys.cli.main import invoke; invoke(['--help'])",
}


def main() -> None:
    """Print modules per room, circles, and what each entry loads."""
    graph = import_graph()
    rooms = Counter(room_of(module) or "beside the rooms" for module in graph)
    print(f"{len(graph)} modules")
    for room in (*ROOMS, "beside the rooms"):
        if rooms[room]:
            print(f"  {room:18} {rooms[room]:4}")
    found = circles(graph)
    print(f"circles: {len(found)}; modules in the largest: {len(found[0]) if found else 0}")
    print(f"{'':22} modules of ours   seconds   of lightning, hydra, torchrec, fbgemm, torch")
    for name, statements in ENTRIES.items():
        loaded = loaded_by(statements)
        heavy = {"lightning", "hydra", "torchrec", "fbgemm_gpu", "torch"} & loaded.packages
        print(f"{name:22} {loaded.ours:15} {loaded.seconds:9.2f}   {', '.join(sorted(heavy))}")


if __name__ == "__main__":
    main()
