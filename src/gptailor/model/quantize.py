"""A linear layer whose weight is kept in int8, a quarter of float32, and multiplied as such on the CPU.

Rounded are each row of the weight, once, and each row of the input, anew: a token's output depends on that token alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gptailor.errors import UserError

SMALLEST = 1e-12  # a row of zeros has no largest number to divide by
# Without the VNNI instructions two products are summed in 16 bits: with one bit less of the input it cannot overflow.
LEVELS = 127 if torch.cpu._is_vnni_supported() else 63


class Int8Linear(nn.Module):
    """x W^T + b with W (out, in) rounded to 255 levels in each of its rows; in and out go float32.

    A row (0.5, -1, 0.2) has the scale 1 / 127 and is kept as (64, -127, 25).

    Raises:
        UserError: when torch has no such products for this processor.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.n_out, self.n_in = weight.shape
        weight = weight.detach().float()
        largest = torch.linalg.vector_norm(weight, ord=torch.inf, dim=1)
        self.scales = largest.clamp(min=SMALLEST) / 127
        whole = (weight / self.scales[:, None]).round_().to(torch.int8)
        try:
            # What torch's compiler makes of quantised models; its older quantised tensors are to be removed.
            self.packed = torch.ops.onednn.qlinear_prepack(whole.contiguous(), None)
        except (AttributeError, RuntimeError) as error:
            found = f"torch cannot multiply in int8 here: {error!s:.100}"
            raise UserError(found, expected="a processor of the x86 family", hint="--precision bf16") from None
        self.zeros = torch.zeros(self.n_out, dtype=torch.int64)
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        peak = x.abs().amax(-1, keepdim=True).clamp(min=SMALLEST) / LEVELS
        rounded = (x / peak).add_(LEVELS + 1.5).to(torch.uint8)  # cut down, so that one half more is rounded
        result = (1.0, 0, torch.float32, "none", [], "")  # not rounded again, and nothing else is done to it
        product = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, LEVELS + 1, self.packed, self.scales, self.zeros, None, *result
        )
        return product.mul_(peak) if self.bias is None else torch.addcmul(self.bias, product, peak)

    @property
    def weight(self) -> Tensor:
        """The matrix as it is used, (out, in) in float32: what it makes of the unit vectors."""
        out = self(torch.eye(self.n_in))
        return (out if self.bias is None else out - self.bias).T.contiguous()
