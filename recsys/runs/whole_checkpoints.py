"""Which checkpoint a run can go on from, where ``last.ckpt`` is lost or damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.core.console import message_console
from recsys.core.errors import ArtifactError
from recsys.distributed.checkpoint.folder import DamagedCheckpointError
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.runs.checkpoints import CHECKPOINTS, LAST, STEPS


def last_checkpoint(folder: Path) -> Path | None:
    """``last.ckpt``; where that is lost, as links are in many copies, the newest whole checkpoint.

    None where no checkpoint was finished yet.

    Args:
        folder: of the checkpoints.

    Raises:
        ArtifactError: ``last.ckpt`` leads nowhere, and no other checkpoint is whole.
    """
    last = folder / LAST
    if last.exists():
        return last
    newest = newest_whole(folder)
    if newest is not None:
        message_console().print(
            f"{last} leads to no checkpoint; going on from the newest whole one, {newest.name}.",
        )
        return newest
    if last.is_symlink():
        raise ArtifactError(
            f"{last} leads to {last.readlink()}, which is not there, and no other checkpoint in "
            f"{folder} is whole; put it back, or train again in another run_dir."
        )
    return None


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint of the highest step that is undamaged; all of it is read."""
    whole = []
    for path in folder.glob(STEPS):
        try:
            stored = open_checkpoint(path)
            stored.check()
        except ArtifactError:
            continue
        whole.append((stored.step, path))
    return max(whole)[1] if whole else None


@contextmanager
def another_named(run_dir: Path) -> Iterator[None]:
    """Say how a run can go on whose last checkpoint is found damaged in this block.

    It does not go on by itself: the damaged one, which may be the newer, would be removed.

    Raises:
        ArtifactError: the checkpoint is damaged.
    """
    try:
        yield
    except DamagedCheckpointError as error:
        newest = newest_whole(run_dir / CHECKPOINTS)
        if newest is None:
            advice = "no other checkpoint of the run is whole: train again in another run_dir."
        else:
            last = run_dir / CHECKPOINTS / LAST
            remove = "" if last.is_symlink() else f"rm -r {last} && "
            advice = (
                f"the newest whole checkpoint is {newest.name}: to go on from it, give "
                f"`{remove}ln -sfn {newest.name} {last}` and `recsys train run_dir={run_dir} "
                "resume=true`."
            )
        raise ArtifactError(f"{error.problem}; {advice}") from error
