"""Preference losses: by hand, against TRL, by their gradients; log-probabilities against the plain ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gptailor.errors import UserError
from gptailor.train import preference
from gptailor.train.preference import (
    answer_log_probabilities,
    check_start,
    dpo,
    ipo,
    orpo,
    read_reference,
    save_reference,
    simpo,
)

# Four pairs: summed log-probabilities of the policy and the reference, and mean ones.
SUMS = [-10.0, -7.5, -23.0, -1.25], [-12.0, -3.0, -22.5, -9.0]
REFERENCE = [-11.0, -7.0, -20.0, -2.0], [-11.0, -4.0, -25.0, -8.0]
MEANS = [-0.5, -0.6931, -2.0, -0.05], [-1.5, -1.6094, -1.2, -3.0]

# What TRL 1.16 says of them (scripts/make_preference_losses.py): each loss, and its gradient by the chosen and by the
# rejected log-probability.
TRL: dict[str, list[tuple[float, float, float]]] = {
    "dpo": [
        (0.598139, -0.045017, 0.045017),
        (0.770957, -0.053743, 0.053743),
        (1.005492, -0.063414, 0.063414),
        (0.60947, -0.045636, 0.045636),
    ],
    "dpo, smoothing 0.1": [
        (0.618139, -0.035017, 0.035017),
        (0.755957, -0.043743, 0.043743),
        (0.950492, -0.053414, 0.053414),
        (0.62697, -0.035636, 0.035636),
    ],
    "ipo": [(9.0, -6.0, 6.0), (42.25, -13.0, 13.0), (110.25, -21.0, 21.0), (10.5625, -6.5, 6.5)],
    "simpo": [
        (0.313262, -0.537883, 0.537883),
        (0.361107, -0.606191, 0.606191),
        (2.671645, -1.861723, 1.861723),
        (0.007419, -0.014783, 0.014783),
    ],
    "orpo": [
        (0.517086, -1.039917, 0.020217),
        (0.715413, -1.04, 0.024999),
        (2.132276, -1.084842, 0.104979),
        (0.050268, -1.005493, 0.000282),
    ],
}
LOSSES: dict[str, tuple[Callable[..., Any], Any, Any, dict[str, float]]] = {
    "dpo": (dpo, SUMS, REFERENCE, {"beta": 0.1}),
    "dpo, smoothing 0.1": (dpo, SUMS, REFERENCE, {"beta": 0.1, "smoothing": 0.1}),
    "ipo": (ipo, SUMS, REFERENCE, {"beta": 0.1}),
    "simpo": (simpo, MEANS, (), {"beta": 2.0, "gamma": 1.0}),
    "orpo": (orpo, MEANS, (), {"beta": 0.1}),
}


def tensors(*rows: list[float], grad: bool = False) -> list[Tensor]:
    return [torch.tensor(row, requires_grad=grad) for row in rows]


@pytest.mark.parametrize("name", TRL)
def test_losses_and_gradients_are_those_of_trl(name: str) -> None:
    function, policy, reference, how = LOSSES[name]
    chosen, rejected = tensors(*policy, grad=True)
    losses, margins = function(chosen, rejected, *tensors(*reference), **how)
    losses.sum().backward()
    ours = torch.stack([losses.detach(), chosen.grad, rejected.grad], 1)
    torch.testing.assert_close(ours, torch.tensor(TRL[name]), atol=2e-6, rtol=2e-6)
    assert losses.shape == margins.shape == (4,)


def test_dpo_by_hand() -> None:
    losses, margins = dpo(*tensors([-10.0], [-12.0], [-11.0], [-11.0]))
    assert float(margins) == pytest.approx(0.2)
    assert float(losses) == pytest.approx(math.log(1 + math.exp(-0.2))) == pytest.approx(0.5981, abs=5e-5)
    smoothed, _ = dpo(*tensors([-10.0], [-12.0], [-11.0], [-11.0]), smoothing=0.1)
    assert float(smoothed) == pytest.approx(0.9 * 0.598139 + 0.1 * 0.798139, abs=1e-5)


def test_ipo_by_hand() -> None:
    losses, margins = ipo(*tensors([-10.0], [-12.0], [-11.0], [-11.0]))
    assert (float(losses), float(margins)) == pytest.approx((9.0, 0.2))  # (2 - 1 / 0.2)^2
    there, at = ipo(*tensors([-10.0], [-15.0], [-11.0], [-11.0]))
    assert (float(there), float(at)) == pytest.approx((0.0, 0.5))  # beta * h = 1 / 2: the loss ends there


def test_orpo_by_hand() -> None:
    losses, margins = orpo(*tensors([math.log(0.5)], [math.log(0.2)]))
    assert float(losses) == pytest.approx(math.log(2) + 0.1 * math.log(5 / 4), rel=1e-5)  # odds 1 and 1/4
    assert float(margins) == pytest.approx(0.1 * math.log(4), rel=1e-5)


def test_orpo_of_a_certain_answer_is_finite() -> None:
    chosen, rejected = tensors([0.0], [-3.0], grad=True)
    losses, _ = orpo(chosen, rejected)
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.isfinite(chosen.grad).all() and torch.isfinite(rejected.grad).all()


def test_simpo_by_hand() -> None:
    losses, margins = simpo(*tensors([-0.5], [-1.5]))
    assert (float(losses), float(margins)) == pytest.approx((math.log(1 + math.exp(-1)), 2.0))


@pytest.mark.parametrize(("beta", "smoothing"), [(0.1, 0.0), (0.5, 0.0), (0.3, 0.2)])
def test_the_gradient_of_dpo_is_that_of_the_paper(beta: float, smoothing: float) -> None:
    """By the chosen log-probability: -beta * (sigmoid(-m) - s); the rejected one's is the same the other way."""
    chosen, rejected = tensors(*SUMS, grad=True)
    losses, margins = dpo(chosen, rejected, *tensors(*REFERENCE), beta=beta, smoothing=smoothing)
    losses.sum().backward()
    expected = -beta * (torch.sigmoid(-margins.detach()) - smoothing)
    torch.testing.assert_close(chosen.grad, expected)
    torch.testing.assert_close(rejected.grad, -expected)


# --- the start --------------------------------------------------------------------------------------------------------


def test_before_the_first_step_the_loss_is_ln_2_and_the_margin_0() -> None:
    losses, margins = dpo(*tensors(*SUMS, *SUMS), smoothing=0.3)
    torch.testing.assert_close(losses, torch.full((4,), math.log(2)))
    assert math.log(2) == pytest.approx(0.6931, abs=5e-5) and not margins.any()
    check_start(losses, margins)


@pytest.mark.parametrize("off", [0.01, -0.01, math.nan])
def test_a_reference_of_another_model_is_refused(off: float) -> None:
    other = [SUMS[0][0] + off, *SUMS[0][1:]]
    expected = (
        r"^the reference does not match the model: before the first step a margin is .* and a loss .* off 0.6931\n"
        r"  expected: at most 0.0001\n"
        r"  try:      the base has changed since the run began, or .*: begin a new run with another --out$"
    )
    with pytest.raises(UserError, match=expected):
        check_start(*dpo(*tensors(SUMS[0], SUMS[1], other, SUMS[1])))


def test_a_start_as_far_off_as_is_tolerated_is_one() -> None:
    check_start(torch.tensor([0.5, 0.75]), torch.tensor([-0.25, 0.0]), tolerance=0.25, expected=0.5)
    for losses, margins in (([0.5, 0.8], [0.0, 0.0]), ([0.5, 0.2], [0.0, 0.0]), ([0.5, 0.5], [0.0, -0.3])):
        with pytest.raises(UserError):
            check_start(torch.tensor(losses), torch.tensor(margins), tolerance=0.25, expected=0.5)


def test_a_reference_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    reference = {"train": torch.randn(5, 2), "test": torch.randn(3, 2)}
    file = tmp_path / "reference.safetensors"
    save_reference(file, reference)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    back = read_reference(file, {"train": 5, "test": 3})
    assert back.keys() == reference.keys() and all(torch.equal(back[name], reference[name]) for name in back)
    with pytest.raises(UserError, match=r"reference.safetensors is of other pairs\n  try:      start the run again$"):
        read_reference(file, {"train": 4, "test": 3})
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match=r"reference.safetensors cannot be read: .*\n  try:      start the run again$"):
        read_reference(file, {"train": 5, "test": 3})


# --- log-probabilities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_log_probabilities_are_the_plain_ones_with_gradients(chunk: int) -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(3, 7, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    labels = torch.randint(0, 30, (3, 7))
    labels[0, :3] = labels[1] = labels[2, 5:] = -100
    weights = torch.tensor([0.7, 2.0, -1.3])  # another one for each row, as the losses of pairs have
    sums, counts = answer_log_probabilities(hidden, head, labels, chunk=chunk)
    (weights * sums).sum().backward()
    ours = hidden.grad.clone(), head.grad.clone()
    hidden.grad = head.grad = None
    learned = labels != -100
    each = (hidden @ head.T).log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    plain = (each * learned).sum(1)
    (weights * plain).sum().backward()
    assert counts.tolist() == [4, 0, 5]
    torch.testing.assert_close(sums, plain)
    torch.testing.assert_close(ours, (hidden.grad, head.grad), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("learned", "products"), [(True, 4), (False, 3)])
def test_a_head_that_is_not_trained_costs_no_gradient(
    monkeypatch: pytest.MonkeyPatch, learned: bool, products: int
) -> None:
    """A chunk has its logits twice, then a product for the gradient of the states and, if need be, of the head."""
    called: list[torch.Size] = []
    real = preference.product
    monkeypatch.setattr(preference, "product", lambda x, weight: called.append(x.shape) or real(x, weight))
    hidden, head = torch.randn(1, 3, 8, requires_grad=True), torch.randn(5, 8, requires_grad=learned)
    sums, _ = answer_log_probabilities(hidden, head, torch.ones(1, 3, dtype=torch.int64))
    sums.sum().backward()
    assert len(called) == products


def test_under_autocast_products_are_rounded_and_their_sums_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times -ln 2, and half of a state: in bf16 a sum of halves would come to rest at 128."""
    kinds: set[torch.dtype] = set()
    real = preference.product
    monkeypatch.setattr(
        preference, "product", lambda x, weight: kinds.update((x.dtype, weight.dtype)) or real(x, weight)
    )
    hidden, head = torch.ones(1, 1000, 1, requires_grad=True), torch.zeros(2, 1, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        sums, _ = answer_log_probabilities(hidden, head, torch.zeros(1, 1000, dtype=torch.int64), chunk=1)
    sums.sum().backward()
    assert kinds == {torch.bfloat16}
    assert {tensor.dtype for tensor in (sums, hidden.grad, head.grad)} == {torch.float32}
    assert sums.item() == pytest.approx(-1000 * math.log(2), rel=1e-5)
    assert head.grad.tolist() == [[500], [-500]]
