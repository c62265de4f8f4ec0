"""Numbers that went wrong stop the run before they reach the weights; those that look wrong are told, and no others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gptailor.errors import UserError
from gptailor.train.guard import RECENT, Watch, check_finite, check_score
from gptailor.train.losses import Loss
from gptailor.train.state import Progress, load_state
from tests.train.test_loop import POINTS, SETTINGS, Toy, epoch

POINT = POINTS[28].clone()
NAN, INF = float("nan"), float("inf")


def losses(*totals: float, count: int = 4) -> list[Loss]:
    return [Loss(torch.tensor(total), torch.tensor(float(count)), torch.tensor(0), count) for total in totals]


# --- no number --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("totals", "norm", "said"),
    [
        ((1.0, NAN), 1.0, "the loss has become nan at step 7, with the learning rate 0.0003, on .* records: b1, b2\n"),
        ((INF, 2.0), NAN, "the loss has become inf at step 7, with the learning rate 0.0003, on .* records: a1, a2\n"),
        ((1.0, 2.0), INF, "the norm of the gradient has become inf at step 7, with .* records: a1, a2, b1, b2\n"),
        ((NAN, NAN), NAN, "the loss has become nan at step 7, with .* records: a1, a2, b1, b2\n"),
    ],
)
def test_what_is_no_number_is_told_with_the_records(totals: Sequence[float], norm: float, said: str) -> None:
    def describe(batch: str) -> list[str]:
        return [f"{batch}1", f"{batch}2"]

    with pytest.raises(UserError, match=said) as raised:
        check_finite(["a", "b"], losses(*totals), torch.tensor(norm), describe, step=7, lr=3e-4)
    assert {"--lr", "fp32", "records"} <= set(raised.value.hint.replace(";", "").split())


def test_numbers_pass() -> None:
    check_finite(["a"], losses(1e30), torch.tensor(0.0), lambda batch: pytest.fail("not asked"), step=1, lr=1.0)
    check_score([0.5, -3.0], step=1)


@pytest.mark.parametrize("score", [[0.5, NAN], [-INF]])
def test_an_evaluation_without_a_number_is_told(score: list[float]) -> None:
    with pytest.raises(UserError, match="after step 6"):
        check_score(score, step=6)


def spoilt_loss(toy: Toy) -> None:
    """A point of the second batch of step 8 is no number."""
    POINTS[28] = NAN if toy.computed == 15 else POINT


def spoilt_gradient(toy: Toy) -> None:
    if toy.computed == 15:
        next(toy.model.parameters()).register_hook(lambda gradient: gradient * INF)


@pytest.mark.parametrize(
    ("spoil", "what", "batches"), [(spoilt_loss, "loss", [3]), (spoilt_gradient, "norm of the gradient", [2, 3])]
)
def test_a_spoilt_step_is_not_taken_and_the_state_before_it_is_there(
    tmp_path: Path, spoil: Callable[[Toy], None], what: str, batches: list[int]
) -> None:
    before: dict[str, Tensor] = {}

    def watch(toy: Toy) -> None:
        if toy.computed == 15:
            before.update({name: tensor.clone() for name, tensor in toy.model.state_dict().items()})
        spoil(toy)

    assert 28 in epoch(1)[3]
    toy = Toy(tmp_path, before_batch=watch)
    with pytest.raises(UserError, match=f"the {what} has become (nan|inf) at step 8") as raised:
        toy.run()
    POINTS[28] = POINT
    records = [f"points:{row}" for batch in batches for row in epoch(1)[batch]]
    assert raised.value.found.endswith(": " + ", ".join(records))
    assert all(torch.equal(tensor, before[name]) for name, tensor in toy.model.state_dict().items())
    assert load_state(tmp_path, toy.model, toy.optimizer, pytest.fail).step == 6


# --- what looks wrong -------------------------------------------------------------------------------------------------


def watched(progress: Progress, choices: int | None = None) -> tuple[Watch, list[str]]:
    told: list[str] = []
    return Watch(progress, choices, told.append), told


@pytest.mark.parametrize(
    ("choices", "loss", "odd"),
    [
        (2, 0.69, False),
        (2, 0.30, True),  # below half of ln 2 = 0.69
        (2, 2.60, False),
        (2, 2.70, True),  # more than two nats above
        (77, 4.4, False),
        (8192, 9.0, False),
        (8192, 19.9, True),
        (None, 19.9, False),
    ],
)
def test_a_beginner_must_guess(choices: int | None, loss: float, odd: bool) -> None:
    watch, told = watched(Progress(), choices)
    watch.before({"validation_loss": loss})
    assert watch.progress.loss_before == loss
    assert len(told) == odd
    assert all(f"{loss:.2f}" in text and f"ln {choices} = {math.log(choices or 1):.2f}" in text for text in told)


@pytest.mark.parametrize(
    ("before", "first", "count", "odd"),
    [
        (3.83, 3.9, 500, False),
        (3.83, 19.88, 500, True),
        (3.83, 1.2, 500, True),
        (3.83, 19.88, 99, False),  # a few tokens say little
    ],
)
def test_the_first_step_must_fit_the_loss_before(before: float, first: float, count: int, odd: bool) -> None:
    watch, told = watched(Progress(step=1, loss_before=before))
    watch.step(losses(first * count, count=count))
    assert len(told) == odd
    assert all("19.88" in text or "1.20" in text for text in told)


@pytest.mark.parametrize(
    ("before", "later", "odd"),
    [(0.69, 0.9, False), (0.69, 1.3, True), (3.0, 4.4, False), (3.0, 4.6, True), (0.01, 0.4, False), (0.01, 0.6, True)],
)
def test_a_loss_far_above_its_beginning_for_long_is_told_once(before: float, later: float, odd: bool) -> None:
    watch, told = watched(Progress(step=2, loss_before=before))
    for _ in range(RECENT - 1):
        watch.step(losses(later * 4))
    assert not told, "not before it has lasted"
    for _ in range(RECENT):
        watch.step(losses(later * 4))
    assert len(told) == odd


@pytest.mark.parametrize(("lr", "odd"), [(0.0002, False), (0.002, False), (0.02, False), (20.0, True)])
def test_only_a_rate_that_is_far_too_high_is_told(
    tmp_path: Path, lr: float, odd: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    Toy(tmp_path, replace(SETTINGS, epochs=20, lr=lr, schedule="constant"), quiet=False).run()
    printed = "".join(capsys.readouterr())
    assert ("unlearns" in printed) == odd
    assert ("note:" in printed) == odd
