"""The loss of a batch, by arithmetic that can be redone by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from gptailor.train import losses
from gptailor.train.losses import balanced_weights, class_loss, next_token_loss

LOGITS = torch.tensor([[-1.0, 1.0], [-0.5, 1.5]])


def test_the_worked_example() -> None:
    loss = class_loss(LOGITS, torch.tensor([0, 1]))
    # Both rows have logits 2 apart: nll is log(1 + e^2) for the wrong side and log(1 + e^-2) for the right one.
    wrong, right = math.log(1 + math.exp(2)), math.log(1 + math.exp(-2))
    assert (round(wrong, 4), round(right, 4)) == (2.1269, 0.1269)
    assert float(loss.total) == pytest.approx(wrong + right)
    assert float(loss.total / loss.weight) == pytest.approx(1.1269, abs=5e-5)
    assert (float(loss.weight), int(loss.correct), loss.count) == (2, 1, 2)


def test_right_classes_are_counted() -> None:
    logits = torch.tensor([[0.1, 0.9, 0.3], [2.0, -1.0, 0.0], [0.0, 0.1, 0.2], [0.5, 0.4, 0.3]])
    assert int(class_loss(logits, torch.tensor([1, 0, 2, 2])).correct) == 3


def test_class_weights_count_in_the_sum_and_in_what_it_is_divided_by() -> None:
    loss = class_loss(LOGITS, torch.tensor([0, 1]), torch.tensor([3.0, 0.5]))
    assert float(loss.total) == pytest.approx(3 * 2.126928 + 0.5 * 0.126928, rel=1e-6)
    assert float(loss.weight) == 3.5
    assert (int(loss.correct), loss.count) == (1, 2)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 2.0, 1.0])])
def test_one_division_gives_torchs_mean(weights: torch.Tensor | None) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 3, generator=random)
    labels = torch.randint(3, (20,), generator=random)
    loss = class_loss(logits, labels, weights)
    torch.testing.assert_close(loss.total / loss.weight, torch.nn.functional.cross_entropy(logits, labels, weights))


def test_gradients_reach_the_logits() -> None:
    logits = LOGITS.clone().requires_grad_()
    class_loss(logits, torch.tensor([0, 1])).total.backward()
    softmax = LOGITS.softmax(-1)
    torch.testing.assert_close(logits.grad, softmax - torch.eye(2))


@pytest.mark.parametrize(
    ("counts", "weights"),
    [([30, 10], [2 / 3, 2.0]), ([5, 5, 5], [1, 1, 1]), ([1, 3, 4], [8 / 3, 8 / 9, 2 / 3]), ([4, 0], [0.5, 0.0])],
)
def test_balanced_weights(counts: list[int], weights: list[float]) -> None:
    assert balanced_weights(counts) == pytest.approx(weights)


def test_balanced_weights_make_every_class_count_the_same() -> None:
    counts = [30, 10, 2]
    shares = [weight * count for weight, count in zip(balanced_weights(counts), counts, strict=True)]
    assert shares == pytest.approx([14, 14, 14])  # and together they are the 42 examples


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_next_token_loss_equals_the_plain_one_with_gradients(chunk: int) -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(3, 7, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    labels = torch.randint(0, 30, (3, 7))
    labels[0, 3:6], labels[1, 0] = (hidden @ head.T).argmax(-1)[0, 3:6], (hidden @ head.T).argmax(-1)[1, 0]
    labels[0, :3] = labels[2] = -100
    loss = next_token_loss(hidden, head, labels, chunk=chunk)
    (2 * loss.total / loss.weight).backward()
    ours = hidden.grad.clone(), head.grad.clone()
    hidden.grad = head.grad = None
    logits = hidden @ head.T
    plain = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    (2 * plain).backward()
    assert loss.count == 11 and int(loss.correct) == int((logits.argmax(-1) == labels).sum()) >= 4
    torch.testing.assert_close(loss.total / loss.weight, plain)
    torch.testing.assert_close(ours, (hidden.grad, head.grad), atol=1e-6, rtol=1e-5)


def test_logits_too_large_for_an_exponential_give_a_finite_loss() -> None:
    hidden, head = torch.tensor([[[200.0], [-200.0]]]), torch.tensor([[1.0], [0.0], [-1.0]])
    loss = next_token_loss(hidden, head, torch.tensor([[2, 2]]))
    assert (float(loss.total), int(loss.correct)) == (400, 1)  # logits 200, 0, -200, and the same the other way


def test_next_token_loss_where_nothing_is_learned_is_zero() -> None:
    hidden, head = torch.randn(1, 2, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    loss = next_token_loss(hidden, head, torch.full((1, 2), -100))
    loss.total.backward()
    assert loss.total.item() == loss.count == 0 and hidden.grad.abs().sum() == head.grad.abs().sum() == 0


@pytest.mark.parametrize(("learning", "trained", "products"), [(True, True, 9), (True, False, 6), (False, True, 3)])
def test_gradients_cost_nothing_where_none_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, learning: bool, trained: bool, products: int
) -> None:
    """Three chunks have a product each, one more for the gradient of the states, and one for that of a trained head."""
    called: list[torch.Size] = []
    real = losses.product
    monkeypatch.setattr(losses, "product", lambda x, weight: called.append(x.shape) or real(x, weight))
    hidden, head = torch.randn(1, 6, 8, requires_grad=True), torch.randn(5, 8, requires_grad=trained)
    with torch.set_grad_enabled(learning):
        loss = next_token_loss(hidden, head, torch.ones(1, 6, dtype=torch.int64), chunk=2)
    if learning:
        loss.total.backward()
    assert len(called) == products
    assert (hidden.grad is not None, head.grad is not None) == (learning, learning and trained)


def test_under_autocast_products_are_rounded_once_and_their_sums_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times ln 2, and half of a state: in bf16 a sum of halves would come to rest at 128."""
    kinds: set[torch.dtype] = set()
    real = losses.product
    monkeypatch.setattr(losses, "product", lambda x, weight: kinds.update((x.dtype, weight.dtype)) or real(x, weight))
    hidden, head = torch.ones(1, 1000, 1, requires_grad=True), torch.zeros(2, 1, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = next_token_loss(hidden, head, torch.zeros(1, 1000, dtype=torch.int64), chunk=1)
    loss.total.backward()
    assert kinds == {torch.bfloat16}
    assert {tensor.dtype for tensor in (loss.total, hidden.grad, head.grad)} == {torch.float32}
    assert loss.total.item() == pytest.approx(1000 * math.log(2), rel=1e-5)
    assert head.grad.tolist() == [[-500], [500]]
