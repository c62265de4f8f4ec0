"""The faster product against its plain twin, ``F.linear``."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptailor.model import linear
from gptailor.model.linear import Linear, PackedLinear, packs, product

CPU = torch.device("cpu")


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


WEIGHTS = {
    "rows": numbers(24, 16),
    "columns": numbers(16, 24).t(),  # as a file holds it
    "a part of the rows": numbers(30, 16)[3:27],
    "a part of the columns": numbers(16, 30).t()[3:27],
    "every other row": numbers(48, 16)[::2],
}


@pytest.mark.parametrize("shape", [(5, 16), (3, 7, 16), (2, 1, 16), (1, 16), (16,), (0, 16)], ids=str)
@pytest.mark.parametrize("kept", WEIGHTS)
@pytest.mark.parametrize("biased", [True, False])
def test_product_and_gradients_are_those_of_torch(shape: tuple[int, ...], kept: str, biased: bool) -> None:
    results = []
    for multiply in (product, F.linear):
        x = numbers(*shape).requires_grad_()
        weight = WEIGHTS[kept].detach().requires_grad_()
        bias = numbers(24).requires_grad_() if biased else None
        out = multiply(x, weight, bias)
        spread = out.sum() + (out * torch.arange(24)).transpose(0, -1).sum()  # its gradient has no memory of its own
        wanted = [tensor for tensor in (x, weight, bias) if tensor is not None]
        with torch.no_grad():
            results.append([out, multiply(x, weight, bias), *torch.autograd.grad(spread, wanted)])
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 16), (3, 7, 16)], ids=str)
@pytest.mark.parametrize("n_in", [16, 1])
def test_gelu_in_the_same_pass_is_that_of_two(shape: tuple[int, ...], n_in: int) -> None:
    x, weight, bias = numbers(*shape)[..., :n_in], 0.5 * numbers(24, 16)[:, :n_in].contiguous(), numbers(24)
    expected = F.gelu(F.linear(x, weight, bias), approximate="tanh")
    torch.testing.assert_close(product(x, weight, bias, gelu=True), expected, atol=1e-5, rtol=1e-5)
    learned = product(x, weight.clone().requires_grad_(), bias, gelu=True)
    torch.testing.assert_close(learned, expected, atol=1e-5, rtol=1e-5)
    assert learned.requires_grad
    if packs(CPU) and n_in > 1:
        packed = PackedLinear(weight, bias)(x.bfloat16(), gelu=True)
        torch.testing.assert_close(packed.float(), expected, atol=0.03, rtol=0.03)


def test_only_what_is_trained_gets_a_gradient() -> None:
    layer = Linear(16, 24).requires_grad_(False)
    layer.bias.requires_grad_(True)
    layer(numbers(5, 16)).sum().backward()
    assert layer.weight.grad is None and torch.equal(layer.bias.grad, torch.full((24,), 5.0))


@pytest.mark.skipif(not packs(CPU), reason="no instructions for bf16")
def test_a_frozen_layer_computes_in_bf16_from_one_packed_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(linear, "PackedLinear", lambda *given: made.append(given) or PackedLinear(*given))
    layer, x = Linear(16, 24).requires_grad_(False), numbers(3, 7, 16)
    with torch.autocast("cpu", torch.bfloat16):
        for n_copies in (1, 2):
            expected = F.linear(x, layer.weight, layer.bias)
            for found in (layer(x), layer(x)):
                assert found.dtype == torch.bfloat16 and len(made) == n_copies
                torch.testing.assert_close(found, expected, atol=0.01, rtol=0.01)
            layer.weight.mul_(2)  # another weight needs another copy
        again = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
        assert torch.equal(again(x), layer(x)) and set(layer.state_dict()) == {"weight", "bias"}
    assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("learns", ["x", "weight", "bias"])
def test_what_learns_in_bf16_is_not_computed_from_a_copy(monkeypatch: pytest.MonkeyPatch, learns: str) -> None:
    monkeypatch.setattr(linear, "PackedLinear", None)  # would be an error
    layer, x = Linear(16, 24).requires_grad_(False), numbers(5, 16)
    learned = {"x": x, "weight": layer.weight, "bias": layer.bias}[learns].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
    assert learned.grad is not None and learned.grad.abs().sum() > 0
    if learns != "x":
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            layer(x)  # it changes from step to step


def test_other_precisions_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_onednn", None)  # would be an error
    x, weight = numbers(5, 16), numbers(24, 16)
    assert torch.equal(product(x.double(), weight.double()), x.double() @ weight.double().T)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(x, weight).dtype == torch.bfloat16


@pytest.mark.skipif(not packs(CPU), reason="this torch has no oneDNN for this processor")
def test_a_packed_weight_multiplies_as_it_did() -> None:
    for weight in WEIGHTS.values():
        layer = PackedLinear(weight, numbers(24))
        for rows in (1, 5):
            x = numbers(rows, 3, 16).bfloat16()
            expected = F.linear(x.float(), weight.bfloat16().float(), numbers(24).bfloat16().float())
            torch.testing.assert_close(layer(x).float(), expected, atol=0.05, rtol=0.01)
