"""A folder is held by one process at a time, and by none that is dead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptailor.errors import UserError
from gptailor.tasks.lock import LOCK, FolderLock

HOLD = "import sys, pathlib; from gptailor.tasks.lock import FolderLock; lock = FolderLock(pathlib.Path(sys.argv[1]))"


def test_a_folder_is_held_once_and_free_again(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(UserError, match=f"a run is going on in .*: process {os.getpid()} on .* holds it"):
        FolderLock(tmp_path)
    lock.release()
    assert not list(tmp_path.iterdir())
    FolderLock(tmp_path).release()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    code = f"{HOLD}; print('held', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {process.pid} on"):
            FolderLock(tmp_path)
        process.kill()
    assert (tmp_path / LOCK).exists(), "the file is still there, and it blocks nothing"
    FolderLock(tmp_path).release()


def test_a_lock_file_that_was_removed_meanwhile_is_no_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder ends between our opening of the file and our locking it: another may make a new file by then."""
    from gptailor.tasks import lock

    flock = lock.fcntl.flock

    def locked_late(file: object, how: int) -> None:
        (tmp_path / LOCK).unlink()
        flock(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", locked_late)
    with pytest.raises(UserError, match="a run is going on"):
        FolderLock(tmp_path)


def test_a_folder_that_has_vanished_can_be_let_go(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lock = FolderLock(folder)
    (folder / LOCK).unlink()
    folder.rmdir()
    lock.release()


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptailor.tasks import lock

    def refuse(file: object, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    FolderLock(tmp_path)
    FolderLock(tmp_path)
