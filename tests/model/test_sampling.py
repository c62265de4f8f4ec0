"""Sampling: its distributions worked by hand, and against transformers' processors."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gptailor.model.sampling import choose, draw, nucleus, penalize, probabilities

# --- One choice: logits log 8, log 4, log 2, log 1, log 1 are probabilities of 8, 4, 2, 1, 1 in 16 ---

LOGITS = torch.tensor([1.0, 4.0, 1.0, 8.0, 2.0]).log()  # ids 3, 1, 4 in falling order, then 0 and 2
DRAWS = 4000


def shares(temperature: float, top_k: int | None = None, top_p: float | None = None) -> dict[int, float]:
    generator = torch.Generator().manual_seed(3)
    drawn = Counter(choose(LOGITS, temperature, top_k, top_p, generator) for _ in range(DRAWS))
    return {token: count / DRAWS for token, count in drawn.items()}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 1.0}, {3: 8, 1: 4, 4: 2, 0: 1, 2: 1}),
        ({"temperature": 0.5}, {3: 64, 1: 16, 4: 4, 0: 1, 2: 1}),  # p to the power of 1 / temperature
        ({"temperature": 2.0}, {3: 8**0.5, 1: 2, 4: 2**0.5, 0: 1, 2: 1}),
        ({"temperature": 1.0, "top_k": 1}, {3: 1}),
        ({"temperature": 1.0, "top_k": 2}, {3: 2, 1: 1}),
        ({"temperature": 1.0, "top_k": 99}, {3: 8, 1: 4, 4: 2, 0: 1, 2: 1}),
        ({"temperature": 1.0, "top_p": 0.4}, {3: 1}),
        ({"temperature": 1.0, "top_p": 0.7}, {3: 2, 1: 1}),  # 8/16 is too few, 12/16 reaches it
        ({"temperature": 1.0, "top_p": 0.8}, {3: 4, 1: 2, 4: 1}),
        ({"temperature": 1.0, "top_p": 1.0}, {3: 8, 1: 4, 4: 2, 0: 1, 2: 1}),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.6}, {3: 2, 1: 1}),  # of the three, 8/14 is too few
        ({"temperature": 0.5, "top_p": 0.7}, {3: 1}),  # temperature comes first: 64/86 reaches it
    ],
)
def test_ids_are_drawn_with_their_probabilities(settings: dict[str, float], expected: dict[int, float]):
    drawn, total = shares(**settings), sum(expected.values())
    assert set(drawn) == set(expected)
    for token, weight in expected.items():
        share = weight / total
        deviation = math.sqrt(share * (1 - share) / DRAWS)
        assert drawn[token] == pytest.approx(share, abs=4 * deviation)


def test_temperature_zero_takes_the_largest_and_draws_nothing():
    generator = torch.Generator().manual_seed(4)
    before = generator.get_state()
    assert choose(LOGITS, 0.0, 2, 0.5, generator) == 3
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("probabilities", "top_p", "kept"),
    [
        ([0.5, 0.3, 0.2], 0.7, [0.5, 0.3, 0.0]),
        ([0.2, 0.5, 0.3], 0.7, [0.0, 0.5, 0.3]),
        ([0.5, 0.25, 0.25], 0.5, [0.5, 0.0, 0.0]),
        ([0.5, 0.25, 0.25], 1.0, [0.5, 0.25, 0.25]),
        ([0.5, 0.3, 0.2], 1e-9, [0.5, 0.0, 0.0]),
    ],
)
def test_nucleus(probabilities: list[float], top_p: float, kept: list[float]):
    values: Tensor = nucleus(torch.tensor(probabilities), top_p)
    torch.testing.assert_close(values, torch.tensor(kept))


def test_a_temperature_near_zero_is_greedy_and_overflows_nowhere():
    generator = torch.Generator().manual_seed(4)
    assert {choose(LOGITS, temperature, None, None, generator) for temperature in (1e-45, 1e-30, 1e-7, 1e-5)} == {3}


def test_each_row_is_drawn_by_its_own_generator():
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2, 1)]
    rows = LOGITS.expand(3, -1)
    drawn = [draw(rows, 1.0, None, None, generators) for _ in range(50)]
    alone = torch.Generator().manual_seed(1)
    assert [row[0] for row in drawn] == [choose(LOGITS, 1.0, None, None, alone) for _ in range(50)]
    assert [row[0] for row in drawn] == [row[2] for row in drawn] != [row[1] for row in drawn]


# --- transformers, on random logits; in float64, for a sum that ends at top_p exactly may fall on either side ---


def random_logits(seed: int) -> Tensor:
    return 3 * torch.randn(8, 300, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 7, 300, 999])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.5, 0.9, 0.999, 1.0])
def test_probabilities_are_those_of_transformers(temperature: float, top_k: int | None, top_p: float | None):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p else []
    logits = random_logits(top_k or 0)
    expected = warpers(torch.zeros(8, 1, dtype=torch.int64), logits).softmax(-1)
    shares = probabilities(logits, temperature, top_k, top_p)
    torch.testing.assert_close(shares / shares.sum(-1, keepdim=True), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 10.0])
def test_the_repetition_penalty_equals_that_of_transformers(penalty: float):
    logits = random_logits(1)
    said = torch.randint(0, 300, (8, 40), generator=torch.Generator().manual_seed(2))  # some more than once
    expected = RepetitionPenaltyLogitsProcessor(penalty)(said, logits.clone())
    assert torch.equal(penalize(logits, said.tolist(), penalty), expected)


def test_the_repetition_penalty_by_hand():
    logits = torch.tensor([[3.0, -3.0, 1.0, -1.0], [3.0, -3.0, 1.0, -1.0]])
    assert penalize(logits, [[0, 1, 0], [3]], 2.0).tolist() == [[1.5, -6.0, 1.0, -1.0], [3.0, -3.0, 1.0, -2.0]]
