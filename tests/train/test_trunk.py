"""What the frozen blocks gave once is what they would give again, from memory and from disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gptailor.data.batching import Batch, collate
from gptailor.model.decoder import Decoder
from gptailor.model.head import Classifier
from gptailor.model.together import by_length
from gptailor.train import trunk
from gptailor.train.trunk import Trunk, keep_trunk

LENGTHS = [5, 1, 9, 3, 9, 2, 7]
IDS = [[(7 * row + 3 * place) % 300 for place in range(length)] for row, length in enumerate(LENGTHS)]
WIDTH = 32
NEEDED = 4 * sum(LENGTHS) * WIDTH  # bytes


class Disk(NamedTuple):
    free: int


def batch(rows: list[int]) -> Batch:
    return collate(IDS, [0] * len(IDS), rows, pad=0)


def states(model: Classifier) -> Iterator[tuple[Tensor, Tensor]]:
    with torch.no_grad():
        for rows in by_length(LENGTHS, 20):
            one = batch(rows)
            yield one.rows, model.trunk(one.input_ids, one.real, 2)


@pytest.fixture
def model(make_decoder: Callable[..., Decoder]) -> Classifier:
    return Classifier(make_decoder(), 3)


@pytest.mark.parametrize("in_memory", [NEEDED, NEEDED - 1, 0])
def test_kept_states_are_what_the_blocks_give(
    model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(trunk, "IN_MEMORY", in_memory)
    file = tmp_path / "trunk.bin"
    kept = keep_trunk(LENGTHS, WIDTH, states(model), file)
    assert kept is not None
    assert not file.exists()
    for rows in ([2, 0, 1], [4], [6, 5, 3, 2]):
        one = batch(rows)
        with torch.no_grad():
            again = model.trunk(one.input_ids, one.real, 2)
            found = kept.batch(one.rows, one.real.size(1))
            torch.testing.assert_close(found[one.real], again[one.real], rtol=1e-5, atol=1e-5)
            assert not found[~one.real].any()
            torch.testing.assert_close(model.top(found, one.real, 2), model(one.input_ids, one.real))


def test_disk_and_memory_hold_the_same(model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    for in_memory in (NEEDED, 0):
        monkeypatch.setattr(trunk, "IN_MEMORY", in_memory)
        kept = keep_trunk(LENGTHS, WIDTH, states(model), tmp_path / "trunk.bin")
        assert kept is not None
        held.append(kept.states)
    assert torch.equal(*held)
    assert not (tmp_path / "trunk.bin").exists(), "the file is gone as soon as nobody uses it"


def test_a_file_from_before_is_written_anew(model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk, "IN_MEMORY", 0)
    (tmp_path / "trunk.bin").write_bytes(b"\xff" * (NEEDED // 2))
    kept = keep_trunk(LENGTHS, WIDTH, states(model), tmp_path / "trunk.bin")
    assert kept is not None
    assert kept.states.shape == (sum(LENGTHS), WIDTH)
    assert kept.states.isfinite().all()


@pytest.mark.parametrize(("free", "fits"), [(2 * NEEDED, True), (2 * NEEDED - 2, False)])
def test_without_room_nothing_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    monkeypatch.setattr(trunk, "IN_MEMORY", 0)
    monkeypatch.setattr(trunk.shutil, "disk_usage", lambda folder: Disk(free))
    computed = []

    def compute() -> Iterator[tuple[Tensor, Tensor]]:
        computed.append(True)
        yield from ()

    kept = keep_trunk(LENGTHS, WIDTH, compute(), tmp_path / "trunk.bin")
    assert (kept is not None) == bool(computed) == fits


def test_a_worked_example_of_what_goes_where() -> None:
    kept = Trunk(torch.zeros(3, 1), [1, 2])
    kept.fill(torch.tensor([1, 0]), torch.tensor([[[20.0], [21.0]], [[10.0], [99.0]]]))  # 99 is padding
    assert kept.states.tolist() == [[10], [20], [21]]
    assert kept.batch(torch.tensor([0, 1]), 3).tolist() == [[[10], [0], [0]], [[20], [21], [0]]]
