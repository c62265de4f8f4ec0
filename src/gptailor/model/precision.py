"""In which precision matrix products are computed, in training and in use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.head import Classifier
from gptailor.model.linear import PackedLinear, packs
from gptailor.model.quantize import Int8Linear

IN_USE = ("fp32", "bf16", "int8")
AGAIN = 16  # logits that are computed once more


def compute_in(name: str, device: torch.device) -> torch.autocast:
    """A context in which matrix products run in ``name``, see ``in_bf16``.

    Weights, sums of losses and the optimizer stay in fp32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bf16(name, device))


def in_bf16(name: str, device: torch.device) -> bool:
    """Whether ``name``, ``"fp32"``, ``"bf16"`` or ``"auto"``, means bf16.

    Auto takes it where the hardware has instructions for it: elsewhere it is emulated, and slower than fp32.
    """
    return name == "bf16" or (name == "auto" and fast_bf16(device))


def fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


# --- in use -----------------------------------------------------------------------------------------------------------


def check_precision(name: str, device: torch.device) -> None:
    """Raises ``UserError`` for a precision that no model can be used in, or not on this device."""
    if name not in IN_USE:
        raise UserError(f"--precision {name}", expected=", ".join(IN_USE))
    if name == "int8" and device.type != "cpu":
        raise UserError(f"--precision int8 on {device.type}", expected="--device cpu", hint="--precision bf16")


def read_in(name: str) -> torch.dtype:
    """In what the weights are read of a model that is to be used in one of ``IN_USE``."""
    return torch.bfloat16 if name == "bf16" else torch.float32


@torch.no_grad()
def lower(model: Decoder | Classifier, name: str) -> None:
    """Makes a model ready for use, and no longer for training, in one of ``IN_USE``.

    fp32 leaves it as it is. bf16 keeps and computes everything in bf16 but a class head. int8 keeps the matrices of the
    blocks so, and computes what is not their product in fp32. The output head of a language model is lowered too.
    """
    if name == "fp32":
        return
    decoder = model.decoder if isinstance(model, Classifier) else model
    kind: type[Int8Linear | PackedLinear] | None = Int8Linear
    if name == "bf16":
        decoder.to(torch.bfloat16)
        kind = PackedLinear if packs(decoder.position_embedding.weight.device) else None
    for block in decoder.blocks if kind else ():
        for place, layer in list(block.named_modules()):
            if kind and isinstance(layer, nn.Linear):
                parent, _, last = place.rpartition(".")
                setattr(block.get_submodule(parent), last, kind(layer.weight, layer.bias))
    if not isinstance(model, Classifier):  # which has no use for the output head
        weight = decoder.token_embedding.weight
        embedding = getattr(decoder.token_embedding, "frozen", decoder.token_embedding)  # where it has an adapter
        head = HalfHead(weight) if name == "bf16" else Int8Linear(weight, None)
        decoder.token_embedding = LowerEmbedding(embedding, head)  # ty: ignore[invalid-assignment]


class LowerEmbedding(nn.Module):
    """The token embedding of a model whose output head is kept, or computed, in another way."""

    def __init__(self, embedding: nn.Embedding, head: nn.Module) -> None:
        super().__init__()
        self.embedding, self.head = embedding, head

    @property
    def weight(self) -> Tensor:
        """The vectors of the tokens, (V, C)."""
        return self.embedding.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Ids (B, T) int64 -> (B, T, C)."""
        return self.embedding(input_ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V) float32."""
        return self.head(hidden)


class HalfHead(nn.Module):
    """The output head in bf16, which cannot tell logits near 100 apart that differ by less than one half.

    The likeliest are therefore computed once more, from the same weights with the sum in float32: that reads few rows.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        weight = weight.to(torch.bfloat16)  # the embedding's own stays one with it, wherever they are moved
        self.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)
        self.packed = PackedLinear(weight, None) if packs(weight.device) else None

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V) float32."""
        rough = (self.packed(hidden) if self.packed else F.linear(hidden, self.weight)).float()
        likely = rough.topk(min(AGAIN, rough.size(-1)), sorted=False).indices  # (..., 16)
        exact = torch.einsum("...kc,...c->...k", self.weight[likely].float(), hidden.float())
        return rough.scatter(-1, likely, exact)
