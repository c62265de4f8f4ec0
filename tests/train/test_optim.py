"""What decays, and how the learning rate goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from gptailor.model.decoder import Decoder
from gptailor.train.optim import adamw, muon, orthogonalize, rate


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


def test_an_orthogonalized_matrix_keeps_its_singular_vectors() -> None:
    u, _ = torch.linalg.qr(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)))
    v, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)))
    for matrix in (u @ torch.diag(torch.tensor([5.0, 2.0, 1.0, 0.3])) @ v, torch.ones(3, 7)):
        result = orthogonalize(matrix)
        values = torch.linalg.svdvals(result)
        rank = torch.linalg.matrix_rank(matrix)
        assert result.shape == matrix.shape and ((values[:rank] > 0.6) & (values[:rank] < 1.3)).all()
        assert (values[rank:] < 1e-3).all()
    turned = u.T @ orthogonalize(u @ torch.diag(torch.tensor([5.0, 2.0, 1.0, 0.3])) @ v) @ v.T
    assert torch.allclose(turned, torch.diag(turned.diag()), atol=1e-5), "only the singular values change"


def test_a_step_of_muon_by_hand(make_decoder: Callable[..., Decoder]) -> None:
    decoder, plain = make_decoder(), make_decoder()
    for p, q in zip(decoder.parameters(), plain.parameters(), strict=True):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
        q.grad = p.grad.clone()
    before = {name: p.detach().clone() for name, p in decoder.named_parameters()}
    gradients = {name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None}
    optimizer, adam = muon(decoder, 0.01, 0.1), adamw(plain, 0.01, 0.1)
    optimizer.step()
    adam.step()
    for (name, p), q in zip(decoder.named_parameters(), plain.parameters(), strict=True):
        if p.dim() == 2 and "embedding" not in name:
            gradient = gradients[name]
            # The first momentum is 0.05 of the gradient; Nesterov looks ahead by another 0.95 of the way.
            direction = orthogonalize(0.05 * gradient + 0.95 * 0.05 * gradient)
            expected = before[name] * (1 - 0.01 * 0.1) - 0.01 * 0.2 * max(p.shape) ** 0.5 * direction
            assert torch.allclose(p, expected, atol=1e-6), name
            size = float((p.detach() - before[name]).square().mean().sqrt())
            assert 0.5 < size / (0.2 * 0.01) < 1.5, "as large as a step of AdamW"
        else:
            assert torch.equal(p, q), name
