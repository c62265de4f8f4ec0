"""What decays, and how the learning rate goes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gptailor.train.optim import adamw, rate


# Ten steps, peak 1. Half cosine from 1 to 0.1 over m steps: 0.55 + 0.45 cos(pi i / m).
@pytest.mark.parametrize(
    ("warmup", "schedule", "rates"),
    [
        (0, "constant", [1] * 10),
        (0.2, "constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (0.4, "constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        (0.04, "constant", [1] * 10),  # less than half a step
        (0, "cosine", [1, 0.972862, 0.89472, 0.775, 0.628142, 0.471858, 0.325, 0.20528, 0.127138, 0.1]),
        (0.5, "cosine", [0.2, 0.4, 0.6, 0.8, 1, 1, 0.868198, 0.55, 0.231802, 0.1]),
        (0.9, "cosine", [*(n / 9 for n in range(1, 10)), 1]),
        (0.99, "cosine", [n / 10 for n in range(1, 11)]),
    ],
)
def test_the_rate_of_each_step(warmup: float, schedule: str, rates: list[float]) -> None:
    found = [rate(step, 10, peak=1.0, warmup=warmup, schedule=schedule) for step in range(10)]
    assert found == pytest.approx(rates, abs=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_of_one_step_has_the_peak(schedule: str) -> None:
    assert rate(0, 1, peak=0.3, warmup=0.05, schedule=schedule) == pytest.approx(0.3)


def test_the_rate_scales_with_its_peak() -> None:
    assert rate(7, 10, peak=2e-4, warmup=0.5, schedule="cosine") == pytest.approx(0.55 * 2e-4)


def test_matrices_decay_and_vectors_do_not() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    decayed, others = adamw(model, 0.01, 0.1).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[1].weight)}
    assert {id(p) for p in others["params"]} == {id(p) for p in (model[1].bias, model[2].weight, model[2].bias)}
    assert decayed["lr"] == others["lr"] == 0.01


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, bias=False))
    model[0].requires_grad_(False)
    (group,) = adamw(model, 0.01, 0.1).param_groups
    assert [id(p) for p in group["params"]] == [id(model[1].weight)]


def test_the_first_step_by_hand() -> None:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(2.0)
    optimizer = adamw(model, 0.1, 0.5)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    # Adam's first step is the rate itself against the gradient's sign; decay takes rate * 0.5 of the matrix before.
    assert float(model.weight.detach()) == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)
    assert float(model.bias.detach()) == pytest.approx(2 - 0.1, abs=1e-6)
