"""What is saved at a step comes back whole, or is refused with a word on why; an old file survives a failed write."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from gptailor.errors import UserError
from gptailor.train import state
from gptailor.train.optim import adamw
from gptailor.train.state import (
    LAST,
    PREVIOUS,
    Progress,
    best_file,
    has_state,
    load_best,
    load_state,
    save_best,
    save_state,
)

PROGRESS = Progress(3, 2, 17, 130, 1.5, 1, 12, [0.9, -0.25], {"epoch": 2, "step": 12}, 0.7, {"total": 1.1, "count": 3})
BEST = best_file(12)


def network(width: int = 3, *, frozen: bool = True) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 2))
    model[0].requires_grad_(not frozen)
    return model


def learned(steps: int = 2) -> tuple[nn.Sequential, Optimizer]:
    """A model and its optimizer after some steps."""
    model = network()
    optimizer = adamw(model, 0.01, 0.1)
    for _ in range(steps):
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def same(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_state_comes_back_whole(tmp_path: Path, steps: int) -> None:
    model, optimizer = learned(steps)
    save_state(tmp_path, model, optimizer, PROGRESS)
    drawn = torch.rand(3)
    other, its_optimizer = learned(5)
    frozen = {name: tensor.clone() for name, tensor in other[0].state_dict().items()}
    assert load_state(tmp_path, other, its_optimizer, pytest.fail) == PROGRESS
    assert torch.equal(torch.rand(3), drawn)
    for layer in (1, 2):
        assert same(other[layer].state_dict(), model[layer].state_dict())
    assert same(other[0].state_dict(), frozen)  # frozen tensors are those of the base, and are not kept
    restored, saved = its_optimizer.state_dict()["state"], optimizer.state_dict()["state"]
    assert restored.keys() == saved.keys()
    assert all(same(restored[index], values) for index, values in saved.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_an_accelerator_draws_goes_on(tmp_path: Path) -> None:
    model = network().cuda()
    optimizer = adamw(model, 0.01, 0.1)
    save_state(tmp_path, model, optimizer, PROGRESS)
    drawn = torch.rand(3, device="cuda")
    load_state(tmp_path, model, optimizer, pytest.fail)
    assert torch.equal(torch.rand(3, device="cuda"), drawn)


def test_the_state_before_stays_beside_the_last(tmp_path: Path) -> None:
    model, optimizer = learned()
    assert not has_state(tmp_path)
    for step in range(4):
        save_state(tmp_path, model, optimizer, Progress(step=step))
    assert load_state(tmp_path, model, optimizer, pytest.fail).step == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == [LAST, PREVIOUS]
    (tmp_path / LAST).unlink()
    assert has_state(tmp_path)  # as where a run was killed between the two names
    (tmp_path / PREVIOUS).replace(tmp_path / LAST)
    assert has_state(tmp_path) and load_state(tmp_path, model, optimizer, pytest.fail).step == 2


def test_the_best_comes_back_and_only_what_is_trained_is_kept(tmp_path: Path) -> None:
    model, _ = learned()
    save_best(tmp_path, model, 12)
    assert load_file(tmp_path / BEST).keys() == {"1.weight", "1.bias", "2.weight", "2.bias"}
    other = network()
    load_best(tmp_path, other, 12)
    assert same(other[2].state_dict(), model[2].state_dict())
    assert not same(other[0].state_dict(), model[0].state_dict())


def test_each_state_keeps_the_best_that_it_speaks_of(tmp_path: Path) -> None:
    model, optimizer = learned()
    kept = []
    for step, best in [(1, 1), (2, 2), (3, 2), (4, 4), (5, 4)]:
        if best == step:
            save_best(tmp_path, model, step)
        save_state(tmp_path, model, optimizer, Progress(step=step, best_step=best))
        kept.append({int(file.stem.removeprefix("best-")) for file in tmp_path.glob("best-*")})
    assert kept == [{1}, {1, 2}, {2}, {2, 4}, {4}]


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def cut_in_the_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20])


def garble(file: Path) -> None:
    file.write_bytes(b"\xff" * 200)


def remove(file: Path) -> None:
    file.unlink()


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE = [cut_short, cut_in_the_header, garble, remove, replace_by_folder]


def change_one_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def change_the_progress(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'step\\": 17', b'step\\": 71'))


DAMAGE = [cut_short, cut_in_the_header, garble, remove, replace_by_folder, change_one_bit]


@pytest.mark.parametrize("damage", [*DAMAGE, change_the_progress])
def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    model, optimizer = learned(1)
    save_state(tmp_path, model, optimizer, Progress(step=9))
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model, optimizer = learned(3)
    save_state(tmp_path, model, optimizer, PROGRESS)
    before = (tmp_path / LAST).read_bytes()
    damage(tmp_path / LAST)
    assert not (tmp_path / LAST).is_file() or (tmp_path / LAST).read_bytes() != before
    if (tmp_path / LAST).is_dir():
        (tmp_path / LAST).rmdir()
    told: list[str] = []
    assert load_state(tmp_path, model, optimizer, told.append).step == 9
    assert same(model[2].state_dict(), {name.removeprefix("2."): t for name, t in expected.items() if name[0] == "2"})
    assert len(told) == 1 and "\n" not in told[0]
    assert f"{LAST} is no state to resume from" in told[0] and told[0].endswith("the one before it, of step 9")
    save_state(tmp_path, model, optimizer, Progress(step=10))  # the good one is not given up for the torn one
    change_one_bit(tmp_path / LAST)
    assert load_state(tmp_path, model, optimizer, told.append).step == 9


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_another_a_damaged_state_is_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    model, optimizer = learned()
    save_state(tmp_path, model, optimizer, PROGRESS)
    damage(tmp_path / LAST)
    with pytest.raises(UserError, match=rf"{LAST} is no state to resume from: .*\n  try:      start the run again"):
        load_state(tmp_path, model, optimizer, pytest.fail)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_best_weights_are_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    save_best(tmp_path, network(), 12)
    damage(tmp_path / BEST)
    with pytest.raises(UserError, match=rf"{BEST} holds no weights: .*\n  try:      start the run again$"):
        load_best(tmp_path, network(), 12)


def test_one_changed_bit_is_told_as_what_it_is(tmp_path: Path) -> None:
    save_best(tmp_path, network(), 12)
    change_one_bit(tmp_path / BEST)
    with pytest.raises(UserError, match="holds no weights: the checksum is not that of the content\n"):
        load_best(tmp_path, network(), 12)


@pytest.mark.parametrize("metadata", [None, {}, {"progress": "{"}, {"progress": '{"epochs": 3}'}, {"progress": "[]"}])
def test_a_file_without_progress_is_no_state(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    tensors = {"random": torch.get_rng_state()}
    if metadata is not None:
        metadata = metadata | {"sha256": state._checksum(tensors, metadata)}
    save_file(tensors, tmp_path / LAST, metadata=metadata)
    with pytest.raises(UserError, match="is no state to resume from"):
        load_state(tmp_path, *learned(), pytest.fail)


def test_a_file_without_random_state_is_no_state(tmp_path: Path) -> None:
    with state._written(tmp_path / LAST, {"x": torch.zeros(1)}, {"progress": json.dumps({})}) as file:
        file.replace(tmp_path / LAST)
    with pytest.raises(UserError, match="is no state to resume from"):
        load_state(tmp_path, *learned(), pytest.fail)


@pytest.mark.parametrize("other", [network(width=5), network(frozen=False), nn.Linear(3, 2)])
def test_the_state_of_another_model_is_refused_before_anything_changes(tmp_path: Path, other: nn.Module) -> None:
    save_state(tmp_path, *learned(), PROGRESS)
    save_best(tmp_path, network(), 12)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    optimizer = adamw(other, 0.01, 0.1)
    for load in (lambda: load_state(tmp_path, other, optimizer, pytest.fail), lambda: load_best(tmp_path, other, 12)):
        with pytest.raises(UserError, match="belongs to another model or other layers"):
            load()
    assert same(other.state_dict(), before)
    assert not optimizer.state_dict()["state"]


# --- writes that fail -------------------------------------------------------------------------------------------------

CALLS = ["save_file", "sync", "put_in_place"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("call", CALLS)
def test_a_write_that_breaks_off_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    model, optimizer = learned()
    save_state(tmp_path, model, optimizer, Progress(step=1))
    save_state(tmp_path, model, optimizer, PROGRESS)

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(state, call, fail)
    with pytest.raises(type(error)):
        save_state(tmp_path, model, optimizer, Progress(step=99))
    monkeypatch.undo()
    told: list[str] = []
    assert load_state(tmp_path, model, optimizer, told.append) == PROGRESS
    assert {file.name for file in tmp_path.iterdir()} <= {LAST, PREVIOUS}, "nothing is left of what was not finished"


def other_tensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    return {**tensors, "random": torch.zeros_like(tensors["random"])}, metadata


def other_shapes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    return {**tensors, "random": tensors["random"][None]}, metadata


def other_progress(tensors: dict[str, Tensor], metadata: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    return tensors, {**metadata, "progress": "{}"}


@pytest.mark.parametrize("wrong", [other_tensors, other_shapes, other_progress])
def test_what_is_read_back_must_be_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Any]
) -> None:
    model, optimizer = learned()
    save_state(tmp_path, model, optimizer, PROGRESS)

    def save_wrongly(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
        others, other_metadata = wrong(tensors, metadata)
        save_file(others, file, other_metadata)

    monkeypatch.setattr(state, "save_file", save_wrongly)
    with pytest.raises(OSError, match="does not hold what was written") as raised:
        save_state(tmp_path, model, optimizer, Progress(step=99))
    assert raised.value.errno == errno.EIO
    assert load_state(tmp_path, model, optimizer, pytest.fail) == PROGRESS


def test_what_a_killed_write_has_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / state.UNFINISHED).mkdir()
    (tmp_path / state.UNFINISHED / LAST).write_bytes(b"half")
    model, optimizer = learned()
    save_state(tmp_path, model, optimizer, PROGRESS)
    assert [file.name for file in tmp_path.iterdir()] == [LAST]
    assert load_state(tmp_path, model, optimizer, pytest.fail) == PROGRESS


def test_a_folder_that_has_vanished_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_state(tmp_path / "gone", *learned(), PROGRESS)


def test_a_full_disk_leaves_the_old_state(small_disk: Path) -> None:
    model, optimizer = learned()
    save_best(small_disk, model, 12)
    save_state(small_disk, model, optimizer, PROGRESS)
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(bytes(4096))
    with pytest.raises(OSError, match="No space left") as raised:
        save_state(small_disk, model, optimizer, Progress(step=99))
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(small_disk / LAST)
    with pytest.raises(OSError, match="No space left") as raised:
        save_best(small_disk, model, 99)
    assert raised.value.filename == str(small_disk / best_file(99))
    assert load_state(small_disk, model, optimizer, pytest.fail) == PROGRESS
    load_best(small_disk, model, 12)
    (small_disk / "filler").unlink()
    save_state(small_disk, model, optimizer, Progress(step=99))
    assert load_state(small_disk, model, optimizer, pytest.fail).step == 99
