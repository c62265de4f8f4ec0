"""Files that appear whole or not at all, and are on the disk when they do."""

from __future__ import annotations

import os
from pathlib import Path


def put_in_place(unfinished: Path, file: Path) -> None:
    """Gives a written file its name once it is on the disk: whatever happens, there is the old content or the new."""
    sync(unfinished)
    unfinished.replace(file)
    sync(file.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if os.name == "nt":  # has no such call for folders, and wants files to be open for writing
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
