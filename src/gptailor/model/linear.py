"""The linear layer and its product, which is where the time goes, by the fastest library that torch ships.

In float32 torch gives a product on an x86 processor to MKL, which keeps to AVX2 where the processor is not Intel's.
oneDNN uses all that the processor has: with AVX-512 that is twice as fast. Only the order of the sums differs.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# torch's compiler calls it for such products; there is no other way to it from Python.
ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and platform.machine().lower() in ("x86_64", "amd64")
)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """x W^T + b: x (..., in), W (out, in) and b (out,) -> (..., out); ``F.linear`` is its plain twin.

    Args:
        gelu: give GELU of it, in the tanh form; in the same pass where nothing is learned.
    """
    learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    fast = _by_onednn(x, weight)
    if fast and not learns:
        return _onednn(x, weight, bias, gelu=gelu)
    out = _Product.apply(x, weight, bias) if fast else F.linear(x, weight, bias)
    return F.gelu(out, approximate="tanh") if gelu else out


class Linear(nn.Linear):
    """``nn.Linear`` with the faster product; where it is frozen and computes in bf16, from a packed copy."""

    _copy: tuple[tuple[int, int], PackedLinear] | None = None  # in a tuple, for it is no part of the model

    def forward(self, input: Tensor, *, gelu: bool = False) -> Tensor:
        """(..., in) -> (..., out); see ``product``."""
        if self._packable(input):
            return self._packed()(input.bfloat16(), gelu=gelu)
        return product(input, self.weight, self.bias, gelu=gelu)

    def _packable(self, x: Tensor) -> bool:
        """Whether autocast would round the weight to bf16, and anew each time, though it is always the same one."""
        if not (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16):
            return False
        learns = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        learns = learns or (torch.is_grad_enabled() and x.requires_grad)
        return not learns and self.in_features > 1 and packs(x.device)

    def _packed(self) -> PackedLinear:
        key = self.weight.data_ptr(), self.weight._version
        if self._copy is None or self._copy[0] != key:
            self._copy = key, PackedLinear(self.weight, self.bias)
        return self._copy[1]

    def __getstate__(self) -> dict[str, Any]:
        """Without the copy, which cannot be copied or pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "_copy"}


def packs(device: torch.device) -> bool:
    """Whether weights there can be kept as a ``PackedLinear``."""
    return ONEDNN and device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class PackedLinear(nn.Module):
    """A linear layer for use in bf16, its weight kept in the order in which oneDNN reads it.

    A product of few rows then takes half the time, for it is the reading of the weight that takes it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(torch.bfloat16), 1)
        self.bias = None if bias is None else bias.detach().to(torch.bfloat16)

    def forward(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """(..., in) -> (..., out), both in bf16; see ``product``."""
        return _onednn(x, self.packed, self.bias, gelu=gelu)


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether these are float32 matrices on a processor of the x86 family, to be multiplied as such."""
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu"
    return ONEDNN and plain and _dense(weight) and not torch.is_autocast_enabled("cpu")


def _dense(matrix: Tensor) -> bool:
    """Whether it fills its memory, by rows or by columns; with gaps, as in half a matrix, oneDNN takes an eternity."""
    return matrix.is_contiguous() or (matrix.dim() == 2 and matrix.t().is_contiguous())


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    if weight.size(1) < 2:  # which it refuses
        out = F.linear(x, weight, bias)
        return F.gelu(out, approximate="tanh") if gelu else out
    x, weight = (matrix if matrix.is_mkldnn or _dense(matrix) else matrix.contiguous() for matrix in (x, weight))
    last = ("gelu", [], "tanh") if gelu else ("none", [], "")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *last)


class _Product(torch.autograd.Function):
    """The product with its gradients, for oneDNN's own has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x_needed, weight_needed = ctx.needs_input_grad[1], ctx.needs_input_grad[0]
        ctx.save_for_backward(x if x_needed else None, weight if weight_needed else None)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, weight), d_out = ctx.saved_tensors, gradients[0]
        rows = d_out.reshape(-1, d_out.size(-1))
        d_x = _onednn(d_out, weight.t()) if weight is not None else None
        d_weight = _onednn(rows.t(), x.reshape(-1, x.size(-1)).t()) if x is not None else None
        return d_x, d_weight, rows.sum(0) if ctx.needs_input_grad[2] else None
