"""Files that outlast a loss of power: their content is synced before their name stands for it."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file whose content is on the disk; its name is once its folder is synced. OSError where the disk does not take it.

    Parameters
    ----------
    mode
        Who may read and write a file that is new, less what the process's umask holds back.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Put content in a file's place: whoever reads it, or is killed meanwhile, finds the old or the new one, whole.

    It is written beside the file, with the ending ``.new``: writers keep each other out. OSError where the disk does not
    take it, with the file as it was.
    """
    staged = path.with_suffix(".new")
    staged.unlink(missing_ok=True)
    try:
        write(staged, content, mode)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
