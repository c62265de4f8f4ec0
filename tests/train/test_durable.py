"""A file takes its place when it is on the disk, and not before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gptailor.train.durable import put_in_place


@pytest.mark.skipif(os.name == "nt", reason="has no such call for folders")
def test_content_is_on_the_disk_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished, file = tmp_path / "unfinished", tmp_path / "file"
    unfinished.write_text("new")
    file.write_text("old")
    content, folder = unfinished.stat().st_ino, tmp_path.stat().st_ino
    synced: list[tuple[int, str]] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_ino, file.read_text())))
    put_in_place(unfinished, file)
    assert synced == [(content, "old"), (folder, "new")]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
