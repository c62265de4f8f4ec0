"""The estimate before a run: its arithmetic by hand, and that more work never costs less."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gptailor.model.config import ModelConfig
from gptailor.tasks.estimate import COUNTED, START, Workload, matrix_speed

SHAPE = ModelConfig(n_layer=3, n_head=2, n_embd=10, vocab_size=100, context_length=50)
USUAL: dict[str, Any] = {"lengths": [4, 6, 20, 10], "depth": 2, "trained": 1220}
SPEED = 1e6


def estimated(*, epochs: int = 5, batch_size: int = 2, **changes: Any) -> tuple[float, float]:
    """Seconds and bytes."""
    options = {"shape": SHAPE} | USUAL | changes
    work = Workload(**options)
    return work.seconds(epochs, batch_size, SPEED), work.memory(batch_size)


def test_one_case_by_hand() -> None:
    seconds, memory = estimated()
    # A block has 12 * 10^2 = 1200 matrix parameters. 40 tokens pass 2 frozen blocks once and 1 trained block 5 times:
    # 2 * 1200 * 2 * 40 = 192,000 and 6 * 1200 * 1 * 40 * 5 = 1,440,000 operations, at half of a million a second.
    # 10 steps, forward and backward, through 1 trained block and the head: 0.0006 * 2 * 10 * 2.
    assert seconds == pytest.approx(1_632_000 / 5e5 + 0.024)
    # 3 * 1200 + 150 * 10 = 5100 parameters; gradients and two moments of the trained ones; 40 kept states of 10;
    # 20 values per channel and token of the widest batch, 2 texts of 20, in 2 layers, and two and a half times as much
    # for gaps: all of 4 bytes.
    assert memory == START + 4 * 5100 + 12 * 1220 + 4 * 400 + 3.5 * 4 * 20 * 10 * 2 * 20 * 2


def test_without_frozen_blocks_no_states_are_kept_and_all_is_learned() -> None:
    seconds, memory = estimated(depth=0)
    assert seconds == pytest.approx(6 * 3600 * 40 * 5 / 5e5 + 0.0006 * 2 * 10 * 4)
    assert memory == START + 4 * 5100 + 12 * 1220 + 3.5 * 4 * 20 * 10 * 2 * 20 * 4


def test_a_language_model_also_needs_its_head() -> None:
    seconds, memory = estimated(depth=0, speaks=True)
    plain_seconds, plain = estimated(depth=0)
    assert seconds - plain_seconds == pytest.approx(6 * 100 * 10 * 40 * 5 / 5e5)
    assert memory - plain == 3.5 * 4 * (2 * 40 * 100 + 100 * 10)  # logits and gradient of 40 tokens, that of the head


def test_a_pair_is_two_texts() -> None:
    seconds, memory = estimated(depth=0, sides=2)
    assert seconds - 0.0006 * 2 * 10 * 4 == pytest.approx(2 * (estimated(depth=0)[0] - 0.0006 * 2 * 10 * 4))
    assert memory - estimated(depth=0)[1] == 3.5 * 4 * 20 * 10 * 2 * 20 * 4  # the activations of as many again


def test_frozen_blocks_of_a_language_model_run_in_every_epoch_and_nothing_is_kept() -> None:
    seconds, memory = estimated(speaks=True)
    # 2 frozen blocks of 1200 and 40 tokens 5 times; 1 trained block and a head of 1000, 5 times forward and backward.
    assert seconds == pytest.approx((2 * 2400 * 40 * 5 + 6 * 2200 * 40 * 5) / 5e5 + 0.024)
    assert memory == estimated()[1] - 4 * 400 + 3.5 * 4 * (2 * 40 * 100 + 100 * 10)


def test_gaps_have_an_end() -> None:
    large = Workload(SHAPE, [10**6] * 4, 2, 1220)
    assert large.memory(4) - large.memory(2) == 4 * 20 * 10 * 2 * 10**6 * 2


def test_one_moment_instead_of_two() -> None:
    assert estimated()[1] - estimated(single=1000)[1] == 4 * 1000
    assert Workload(**{"shape": SHAPE} | USUAL, single=1000).moments == 1440


def test_what_is_counted_after_the_training_has_its_room_then() -> None:
    assert estimated(counted=10)[1] == estimated()[1], "less than what the training took"
    assert estimated(counted=10**6)[1] == START + 4 * 5100 + COUNTED * 10**6


def test_shorter_rows_are_counted_as_cut() -> None:
    work = Workload(SHAPE, [4, 6, 20, 10], 2, 1220)
    assert work.memory(2, 5) == START + 4 * 5100 + 12 * 1220 + 4 * 190 + 3.5 * 4 * 20 * 10 * 2 * 5 * 2  # 4 + 5 + 5 + 5
    assert work.memory(2, 500) == work.memory(2)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 6},
        {"lengths": [4, 6, 20, 11]},
        {"lengths": [4, 6, 21, 10]},
        {"lengths": [4, 6, 20, 10, 1]},
        {"depth": 1},
        {"shape": ModelConfig(n_layer=4, n_head=2, n_embd=10, vocab_size=100, context_length=50)},
    ],
)
def test_more_work_takes_longer(changes: dict[str, Any]) -> None:
    assert estimated(**changes)[0] > estimated()[0] > 0


@pytest.mark.parametrize(
    "changes", [{"lengths": [4, 6, 21, 10]}, {"batch_size": 3}, {"trained": 1221}, {"lengths": [4, 6, 20, 11]}]
)
def test_more_at_once_takes_more_memory(changes: dict[str, Any]) -> None:
    assert estimated(**changes)[1] > estimated()[1] > START


def test_the_speed_is_measured() -> None:
    speed = matrix_speed(64)
    assert math.isfinite(speed)
    assert 1e6 < speed < 1e15
