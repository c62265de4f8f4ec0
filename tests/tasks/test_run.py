"""The folder of a run: one run at a time, and what happens to it when the disk fails."""

from __future__ import annotations

import errno
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gptailor.errors import UserError
from gptailor.tasks import classifier
from gptailor.tasks.lock import LOCK
from gptailor.tasks.run import RunFolder
from gptailor.train import durable, loop, state
from gptailor.train.loop import StopRequest
from tests.tiny import run


@pytest.fixture(scope="module")
def whole(moods: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    return run(moods, tmp_path_factory.mktemp("whole") / "run", evaluate_every=4)


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- one at a time ----------------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_while_the_first_lives(
    moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, refused, real = tmp_path / "run", [], classifier.prepare

    def meanwhile(config: Any) -> Any:
        monkeypatch.setattr(classifier, "prepare", real)
        with pytest.raises(UserError, match="a run is going on in") as raised:
            run(moods, folder, resume=True, evaluate_every=4)
        refused.append(raised.value)
        return real(config)

    run(moods, folder, stop=StopRequest(requested=True), evaluate_every=4)
    monkeypatch.setattr(classifier, "prepare", meanwhile)
    run(moods, folder, resume=True, evaluate_every=4)
    assert len(refused) == 1
    assert not (folder / LOCK).exists()


def test_of_two_that_begin_at_once_one_goes_on(moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, real = tmp_path / "run", classifier.prepare

    def beaten(config: Any) -> Any:
        monkeypatch.setattr(classifier, "prepare", real)
        run(moods, folder, stop=StopRequest(requested=True), evaluate_every=4)
        return real(config)

    monkeypatch.setattr(classifier, "prepare", beaten)
    with pytest.raises(UserError, match="already holds another run"):
        run(moods, folder)


def test_a_lock_that_a_kill_left_blocks_nothing(moods: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for left in (LOCK, ".run.yaml.unfinished"):
        (folder / left).touch()
    run(moods, folder, stop=StopRequest(requested=True), evaluate_every=4)
    (folder / ".saving-abc").mkdir()
    (folder / ".saving-abc" / "model.safetensors").touch()
    (folder / LOCK).touch()
    run(moods, folder, resume=True, evaluate_every=4)
    assert not [file.name for file in folder.iterdir() if file.name.startswith(".s") or file.name == LOCK]


def test_a_run_without_its_receipt_is_resumed(moods: Path, whole: Path, tmp_path: Path) -> None:
    """As a kill in the first moment leaves it."""
    folder = run(moods, tmp_path / "run", stop=StopRequest(requested=True), evaluate_every=4)
    (folder / "receipt.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    run(moods, folder, resume=True, evaluate_every=4)
    assert same_weights(folder, whole)


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_made_is_told(
    moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(number, "refused", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"run cannot be written: refused\n  try:      another --out"):
        run(moods, tmp_path / "run")


def test_a_folder_that_vanishes_ends_the_run_with_one_error(
    moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.save_state

    def vanish(folder: Path, *arguments: Any) -> None:
        shutil.rmtree(tmp_path / "run")
        real(folder, *arguments)

    monkeypatch.setattr(loop, "save_state", vanish)
    with pytest.raises(UserError, match="run has vanished"):
        run(moods, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_error_about_other_files_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), RunFolder(tmp_path / "run", resume=False):
        (tmp_path / "data.csv").read_text()


@pytest.mark.parametrize("seed", range(2))
def test_a_disk_that_fills_up_at_any_moment_costs_nothing(
    moods: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Some of the writes fail; each time the run is resumed, it goes on, and ends where an unbroken one ends."""
    rng, folder, errors = random.Random(seed), tmp_path / "run", 0

    def full_at_times(function: Any) -> Any:
        def write(*arguments: Any, **options: Any) -> Any:
            if rng.random() < 0.04:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **options)

        return write

    monkeypatch.setattr(state, "save_file", full_at_times(state.save_file))
    monkeypatch.setattr(durable, "sync", full_at_times(durable.sync))
    monkeypatch.setattr(Path, "replace", full_at_times(Path.replace))
    for _ in range(50):
        try:
            run(moods, folder, resume=(folder / "run.yaml").exists(), evaluate_every=4)
            break
        except UserError as error:
            assert "No space left on device" in str(error)
            errors += 1
    assert errors and same_weights(folder, whole)
    for name in ("metrics.json", "receipt.json"):
        assert (folder / name).read_text() == (whole / name).read_text()


def test_a_full_disk_costs_nothing(moods: Path, whole: Path, small_disk: Path) -> None:
    folder, filler = small_disk / "run", small_disk / "filler"
    run(moods, folder, stop=StopRequest(requested=True), evaluate_every=4)
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 2**15))
    with pytest.raises(UserError, match=r"cannot be written: No space left on device(.|\n)*--resume"):
        run(moods, folder, resume=True, evaluate_every=4)
    filler.unlink()
    run(moods, folder, resume=True, evaluate_every=4)
    assert same_weights(folder, whole)
