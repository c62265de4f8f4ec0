"""A bound on time and memory, and what a folder holds, around one call of a reader."""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from gptailor.data.download import DownloadError
from gptailor.errors import UserError

SECONDS = 10
MEMORY = 1 << 29  # bytes that one call may take beside what the process has
SECRET = b"what lies outside of the folder"


@contextmanager
def bounded() -> Generator[None]:
    """Ends a block that takes too long by an error that no reader catches; gives no memory beyond the bound."""

    def stop(*_: object) -> NoReturn:
        raise TooLongError

    before, limits = signal.signal(signal.SIGALRM, stop), resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, limits[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


class TooLongError(BaseException):
    """Raised in a call that does not end."""


def try_folder(files: dict[str, bytes], read: Callable[[Path], Any]) -> None:
    """Reads a folder of these files; nothing but ``UserError`` may come of it, and no file may change or appear."""
    with tempfile.TemporaryDirectory() as place:
        outside = Path(place) / "secret.txt"
        outside.write_bytes(SECRET)
        folder = Path(place) / "folder"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        with bounded(), suppress(UserError, DownloadError):
            read(folder)
        assert outside.read_bytes() == SECRET and {path.name for path in Path(place).iterdir()} == {
            "secret.txt",
            "folder",
        }
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    """A file of these parts: the length of the header comes first."""
    return struct.pack("<Q", len(header)) + header + data
