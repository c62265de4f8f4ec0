"""One run at a time in a folder."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

from gptailor.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: there nothing keeps a second run out
    fcntl = None

LOCK = ".lock"


class FolderLock:
    """Holds a folder for this process. The system lets go of it with the process, however that ends.

    Raises:
        UserError: when another process holds the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / LOCK
        self.opened = self.file.open("a+", encoding="utf-8")
        if not self._held():
            self.opened.seek(0)
            holder = self.opened.read().strip() or "another process"
            self.opened.close()
            found = f"a run is going on in {folder}: {holder} holds it"
            raise UserError(found, hint="wait until it has ended, or another --out")
        self.opened.truncate(0)
        self.opened.write(f"process {os.getpid()} on {platform.node()}")
        self.opened.flush()

    def _held(self) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.flock(self.opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: then the folder is the user's to look after
            return True
        # The process before may have removed the file between our opening and our locking it.
        return self.file.exists() and os.path.samestat(self.file.stat(), os.fstat(self.opened.fileno()))

    def release(self) -> None:
        """Lets go of the folder, also of one that is no longer there."""
        with suppress(OSError):
            self.file.unlink()
        self.opened.close()
