"""TorchScript archives as nobody's exporter writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import torch
from torch import Tensor, nn

#: Of the code of ``honest``; what is written in its place.
CALCULATION = "torch.mul(x, 2)"


class Tower(nn.Module):
    """Doubles."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def honest(path: Path) -> Path:
    """An archive that doubles a tensor."""
    torch.jit.save(torch.jit.script(Tower()), path)
    return path


def rewritten(
    source: Path,
    path: Path,
    change: Callable[[str, bytes], bytes] = lambda name, content: content,
    added: dict[str, bytes] | None = None,
) -> Path:
    """A copy of an archive whose entries were changed or added to.

    Args:
        source: the archive.
        path: the copy.
        change: from the name of an entry, without the archive's own, and its content.
        added: further entries.
    """
    with ZipFile(source) as archive, ZipFile(path, "w", ZIP_STORED) as copy:
        infos = archive.infolist()
        root = infos[0].filename.partition("/")[0]
        for info in infos:
            name = info.filename.partition("/")[2]
            if not name.endswith(".debug_pkl"):  # it names places of the code as it was
                copy.writestr(ZipInfo(info.filename), change(name, archive.read(info)))
        for name, content in (added or {}).items():
            copy.writestr(ZipInfo(f"{root}/{name}"), content)
    return path


def with_lines(source: Path, path: Path, lines: list[str], methods: str = "") -> Path:
    """A copy of ``honest`` that begins with lines of code, and whose class has further methods."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(".py"):
            return content
        text = content.decode()
        [statement] = [line for line in text.splitlines() if CALCULATION in line]
        begun = "\n".join([*(f"    {line}" for line in lines), statement])
        return (text.replace(statement, begun) + methods).encode()

    return rewritten(source, path, change)
