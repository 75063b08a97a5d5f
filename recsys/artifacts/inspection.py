"""What a TorchScript file would do, found out without loading it.

Loading a file runs code of it (``__setstate__``), and calling the tower the rest. Both can name any
operator that this process has registered, and some of those write files. So the archive is read
first: its code, which is text of a subset of Python, is parsed, and every name in it that could
stand for an operator must be in ``recsys/artifacts/operators.py``.

The check is about what is named, not about numbers: an allowed operator that is given indices out
of bounds may still read where it should not, or end the process.
"""

from __future__ import annotations

import ast
import pickletools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

from recsys.artifacts.operators import ATEN, BUILTINS, CLASSES, OTHERS, PICKLED
from recsys.core.errors import ArtifactError

_ENTRY = re.compile(
    r"(?P<code>code/__torch__(?:/\w+)*\.py)|(?P<pickle>data\.pkl|constants\.pkl"
    r"|code/__torch__(?:/\w+)*\.py\.debug_pkl)|(?:data|constants)/\d+|version|byteorder"
    r"|\.format_version|\.storage_alignment|\.data/(?:serialization_id|version)",
    re.ASCII,
)
#: Bytes of code and pickles, far above what exported towers have.
_LARGEST_ENTRY = 32 * 2**20
_LARGEST_CODE = 128 * 2**20
#: What may be among the tokens of the code. Python's parser and TorchScript's read these alike: no
#: comments (one kind is code to TorchScript), no prefixes of texts, no adjoining or long texts.
_TOKEN = re.compile(
    r"""[A-Za-z_]\w*+(?!["'])"""
    r"""|\d++(?:\.\d*+)?(?:e[-+]?\d++)?(?![\w"'.])"""
    r"""|"(?:[ !#-\[\]-~]|\\[nt"'\\])*+"(?!["'])"""
    r"""|[-()\[\]{},:=.> \n]""",
    re.ASCII,
)
_ROOTS = ("torch", "ops", "CONSTANTS", "__torch__")
_CLASSES_OF_TORCH = "__torch__.torch.classes"
_NODES = (
    *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.keyword),
    *(ast.Assign, ast.AnnAssign, ast.Return, ast.Expr, ast.If, ast.For, ast.While),
    *(ast.Pass, ast.Break, ast.Continue, ast.Raise, ast.Assert, ast.Delete),
    *(ast.Call, ast.Attribute, ast.Name, ast.Constant, ast.Subscript, ast.Slice),
    *(ast.List, ast.Tuple, ast.Dict, ast.UnaryOp, ast.USub, ast.Load, ast.Store, ast.Del),
)
_OPCODES = """
    APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD
    EMPTY_DICT EMPTY_LIST EMPTY_TUPLE GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK NEWFALSE NEWOBJ
    NEWTRUE NONE PROTO REDUCE SETITEM SETITEMS STOP TUPLE TUPLE1 TUPLE2 TUPLE3
"""


class _RefusedError(Exception):
    """What is not allowed, as the end of a sentence."""


def check_tower_file(path: Path) -> None:
    """Refuse a TorchScript file that names what exported towers have no need of.

    Raises:
        ArtifactError: it does, or it is no TorchScript archive.
    """
    try:
        code, pickles = _entries(path)
        trees = {name: _parsed(text) for name, text in code.items()}
        defined = frozenset(one for name, tree in trees.items() for one in _defined(name, tree))
        methods = frozenset(
            node.name
            for tree in trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        )
        for tree in trees.values():
            _Checker(defined, methods).visit(tree)
        for content in pickles:
            _check_pickle(content, defined)
    except (_RefusedError, BadZipFile, RuntimeError, ValueError, SyntaxError, MemoryError) as error:
        problem = " ".join(str(error).split())[:300] or type(error).__name__
        raise ArtifactError(
            f"{path} is no user tower that `recsys export` writes, and was not loaded: {problem}."
        ) from error


def _entries(path: Path) -> tuple[dict[str, str], list[bytes]]:
    """The code of an archive, file by file, and its pickles.

    They are read by torch's own reader, so that what is checked is what would be loaded; Python's
    says first how large they are.
    """
    with ZipFile(path) as archive:
        infos = archive.infolist()
    names = [info.filename.partition("/")[2] for info in infos]
    kinds = {}
    for name, info in zip(names, infos, strict=True):
        kind = _ENTRY.fullmatch(name)
        if kind is None:
            raise _RefusedError(f"it has an entry {name[:80]!r}")
        kinds[name] = kind.lastgroup
        if kind.lastgroup is None and info.compress_type != ZIP_STORED:
            raise _RefusedError(f"its entry {name} is compressed")
        if kind.lastgroup is not None and info.file_size > _LARGEST_ENTRY:
            raise _RefusedError(f"its entry {name} has {info.file_size:,} bytes")
    if len({name.lower() for name in names}) != len(names):
        raise _RefusedError("it has two entries of one name")
    if sum(info.file_size for n, info in zip(names, infos, strict=True) if kinds[n]) > (
        _LARGEST_CODE
    ):
        raise _RefusedError("its code is too large")
    reader = torch._C.PyTorchFileReader(str(path))
    if sorted(reader.get_all_records()) != sorted(names):
        raise _RefusedError("its table of contents is ambiguous")
    code = {n: reader.get_record(n).decode("ascii") for n in names if kinds[n] == "code"}
    return code, [reader.get_record(n) for n in names if kinds[n] == "pickle"]


def _parsed(text: str) -> ast.Module:
    if rest := _TOKEN.sub("", text):
        raise _RefusedError(f"its code has {rest[:20]!r}, which no exported code has")
    try:
        return ast.parse(text)
    except RecursionError as error:
        raise _RefusedError("its code is nested too deeply") from error


def _defined(entry: str, tree: ast.Module) -> Iterator[str]:
    """Qualified names of the classes and functions of a file of code."""
    module = entry.removeprefix("code/").removesuffix(".py").replace("/", ".")
    for node in tree.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            raise _RefusedError(f"its code has a {type(node).__name__} beside its classes")
        if f"{module}.{node.name}".startswith(_CLASSES_OF_TORCH):
            raise _RefusedError("its code defines a class of torch")
        yield f"{module}.{node.name}"


class _Checker(ast.NodeVisitor):
    """Walks the code of one file.

    Operators are reached by ``torch.x``, by ``ops.y.x``, by the methods of a value, by a builtin,
    or by a name that one of these was assigned to. So the first two are looked up wherever they
    stand; what is called must be one of the four, or a name of a function of the archive's own.
    """

    def __init__(self, defined: frozenset[str], methods: frozenset[str]) -> None:
        self.defined = defined
        self.methods = methods
        self.functions: frozenset[str] = frozenset()
        self.values: frozenset[str] = frozenset()

    def visit(self, node: ast.AST) -> None:
        if not isinstance(node, _NODES):
            raise _RefusedError(f"its code has a {type(node).__name__}")
        super().visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if node.decorator_list or node.keywords:
            raise _RefusedError(f"its class {node.name} has decorators or keywords")
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        inner = [one for one in ast.walk(node) if isinstance(one, (ast.FunctionDef, ast.ClassDef))]
        if node.decorator_list or inner != [node]:
            raise _RefusedError(f"its function {node.name} has decorators, or others inside")
        self.functions, self.values = _bound(node)
        self.generic_visit(node)
        self.functions = self.values = frozenset()

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in _ROOTS:
            raise _RefusedError(f"it uses `{node.id}` as a value")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain = _chain(node)
        if chain is None:
            self.visit(node.value)
        else:
            self._check_chain(chain)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        if isinstance(called, ast.Attribute):
            if _chain(called) is None:
                self._check_method(called.attr)
        elif not isinstance(called, ast.Name):
            raise _RefusedError(f"it calls a {type(called).__name__}")
        elif called.id in self.values or (
            called.id not in self.functions and called.id not in BUILTINS
        ):
            raise _RefusedError(f"it calls `{called.id}`, {_NOT_ALLOWED}")
        self.generic_visit(node)

    def _check_chain(self, chain: str) -> None:
        root, _, rest = chain.partition(".")
        if root == "__torch__":
            known = chain in CLASSES or chain.removesuffix(".__new__") in self.defined
        else:
            known = rest in {"torch": ATEN, "ops": OTHERS}.get(root, ())
            known = known or (root == "CONSTANTS" and re.fullmatch(r"c\d+", rest) is not None)
        if not known:
            raise _RefusedError(f"it uses `{chain}`, {_NOT_ALLOWED}")

    def _check_method(self, name: str) -> None:
        """A method is one of a class of the file, or an operator on a value."""
        if name not in ATEN and (name not in self.methods or _is_operator(name)):
            raise _RefusedError(f"it calls `.{name}`, {_NOT_ALLOWED}")


_NOT_ALLOWED = "which is not among the operators of exported towers (recsys/artifacts/operators.py)"


def _chain(node: ast.expr) -> str | None:
    """``a.b.c`` where ``a`` is one of the names that operators and classes begin with."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in _ROOTS:
        return None
    return ".".join([node.id, *reversed(parts)])


def _bound(function: ast.FunctionDef) -> tuple[frozenset[str], frozenset[str]]:
    """Names that a function gives to functions of the file's code alone, and to anything else."""
    aliases: dict[int, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            [target, *others] = node.targets
            chain = _chain(node.value) or ""
            if isinstance(target, ast.Name) and not others and chain.startswith("__torch__."):
                aliases[id(target)] = target.id
    values = {
        node.arg if isinstance(node, ast.arg) else node.id
        for node in ast.walk(function)
        if isinstance(node, ast.arg)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        if id(node) not in aliases
    }
    return frozenset(aliases.values()), frozenset(values)


@cache
def _is_operator(name: str) -> bool:
    """Whether torch would take a method of this name for an operator."""
    return bool(torch._C._jit_get_schemas_for_operator(f"aten::{name}"))


def _check_pickle(content: bytes, defined: frozenset[str]) -> None:
    """Pickles of an archive are read by torch's C++, which knows few names; these are fewer."""
    opcodes = set(_OPCODES.split())
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in opcodes:
            raise _RefusedError(f"a pickle of it has a {opcode.name}")
        if opcode.name == "GLOBAL":
            dotted = str(argument).replace(" ", ".")
            if dotted not in PICKLED | CLASSES | defined:
                raise _RefusedError(f"a pickle of it names {dotted}")
