"""What is saved at a step comes back whole, or is refused with a word on why; an old file survives a failed write."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from gptailor.errors import UserError
from gptailor.train import state
from gptailor.train.optim import adamw
from gptailor.train.state import BEST, LAST, Progress, load_best, load_state, save_best, save_state

PROGRESS = Progress(3, 2, 17, 130, 1.5, 1, 12, [0.9, -0.25], {"epoch": 2, "step": 12, "validation_loss": 0.25})


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
    assert load_state(tmp_path, other, its_optimizer) == PROGRESS
    assert torch.equal(torch.rand(3), drawn)
    for layer in (1, 2):
        assert same(other[layer].state_dict(), model[layer].state_dict())
    assert same(other[0].state_dict(), frozen)  # frozen tensors are those of the base, and are not kept
    restored, saved = its_optimizer.state_dict()["state"], optimizer.state_dict()["state"]
    assert restored.keys() == saved.keys()
    assert all(same(restored[index], values) for index, values in saved.items())


def test_a_state_replaces_the_one_before_and_leaves_nothing_else(tmp_path: Path) -> None:
    model, optimizer = learned()
    save_state(tmp_path / "new", model, optimizer, Progress(step=1))
    save_state(tmp_path / "new", model, optimizer, PROGRESS)
    assert load_state(tmp_path / "new", model, optimizer) == PROGRESS
    assert [file.name for file in (tmp_path / "new").iterdir()] == [LAST]


def test_the_best_comes_back_and_only_what_is_trained_is_kept(tmp_path: Path) -> None:
    model, _ = learned()
    save_best(tmp_path, model)
    assert state.load_file(tmp_path / BEST).keys() == {"1.weight", "1.bias", "2.weight", "2.bias"}
    other = network()
    load_best(tmp_path, other)
    assert same(other[2].state_dict(), model[2].state_dict())
    assert not same(other[0].state_dict(), model[0].state_dict())


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


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    model, optimizer = learned()
    save_state(tmp_path, model, optimizer, PROGRESS)
    damage(tmp_path / LAST)
    with pytest.raises(UserError, match=rf"{LAST} is no state to resume from: .*\n  try:      start the run again"):
        load_state(tmp_path, model, optimizer)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_best_weights_are_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    save_best(tmp_path, network())
    damage(tmp_path / BEST)
    with pytest.raises(UserError, match=f"{BEST} holds no weights"):
        load_best(tmp_path, network())


@pytest.mark.parametrize("progress", [None, "{", '{"epochs": 3}', "[]"])
def test_a_file_without_progress_is_no_state(tmp_path: Path, progress: str | None) -> None:
    metadata = None if progress is None else {"progress": progress}
    save_file({"random": torch.get_rng_state()}, tmp_path / LAST, metadata=metadata)
    with pytest.raises(UserError, match="is no state to resume from"):
        load_state(tmp_path, *learned())


def test_a_file_without_random_state_is_no_state(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / LAST, metadata={"progress": json.dumps({})})
    with pytest.raises(UserError, match="is no state to resume from"):
        load_state(tmp_path, *learned())


@pytest.mark.parametrize("other", [network(width=5), network(frozen=False), nn.Linear(3, 2)])
def test_the_state_of_another_model_is_refused_before_anything_changes(tmp_path: Path, other: nn.Module) -> None:
    save_state(tmp_path, *learned(), PROGRESS)
    save_best(tmp_path, network())
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    optimizer = adamw(other, 0.01, 0.1)
    for load in (lambda: load_state(tmp_path, other, optimizer), lambda: load_best(tmp_path, other)):
        with pytest.raises(UserError, match="belongs to another model or other layers"):
            load()
    assert same(other.state_dict(), before)
    assert not optimizer.state_dict()["state"]


def test_a_failed_write_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = learned()
    save_state(tmp_path, model, optimizer, PROGRESS)

    def fail(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"the beginning of a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(state, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        save_state(tmp_path, model, optimizer, Progress(step=99))
    assert load_state(tmp_path, model, optimizer) == PROGRESS
