"""Low-rank adapters (LoRA, Hu et al. 2021): wrap the matrices of a frozen model, switch them, merge them back.

A frozen matrix W (out, in) is used as W + scale * B A with A (r, in) and B (out, r). B begins at zero, so an adapted
model begins as its base. A decoder does not know of it: what asks a wrapped matrix for its ``weight`` gets the sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptailor.model.linear import product


@dataclass(frozen=True)
class LoraSettings:
    """The shape of an adapter.

    Attributes:
        rank: r; of a matrix that is several in one (query, key and value), of each of them.
        alpha: scale = alpha / r, or alpha / sqrt(r) when ``rank_stabilised`` (Kalajdzievski 2023).
        dropout: share of the inputs of A that is dropped in training.
        dora: the length of each row of the adapted matrix is a parameter of its own (DoRA, Liu et al. 2024).
    """

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0
    rank_stabilised: bool = False
    dora: bool = False

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class LoRA(nn.Module):
    """What is added to one matrix (out, in), or to several that stand one below the other in it.

    Args:
        parts: how many; each has its own A (r, in) and B (out / parts, r). Three adapters of rank r side by side are
            one of rank 3 r whose B is zero outside of three blocks.
    """

    def __init__(self, weight: Tensor, parts: int, settings: LoraSettings) -> None:
        super().__init__()
        (n_out, n_in), rank = weight.shape, settings.rank
        like = {"dtype": torch.float32, "device": weight.device}
        self.settings = settings
        self.a = nn.Parameter(torch.empty(parts, rank, n_in, **like))  # ty: ignore
        self.b = nn.Parameter(torch.zeros(parts, n_out // parts, rank, **like))  # ty: ignore
        nn.init.uniform_(self.a, -(n_in**-0.5), n_in**-0.5)  # as nn.Linear and peft begin
        self.magnitude = nn.Parameter(lengths(weight.float())) if settings.dora else None
        self.dropout = nn.Dropout(settings.dropout)

    def update(self) -> Tensor:
        """What it adds to the matrix: (out, in), with gradients."""
        return self.settings.scale * (self.b @ self.a).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """What it adds to the output: (..., in) -> (..., out), by way of r numbers and not of the matrix."""
        narrow = product(self.dropout(x), self.a.flatten(0, 1)).unflatten(-1, self.a.shape[:2])  # (..., parts, r)
        return self.settings.scale * torch.einsum("...pr,por->...po", narrow, self.b).flatten(-2)

    def gain(self, weight: Tensor) -> Tensor | None:
        """DoRA: what each row of W + update is multiplied by to have its own length; (out,), or None without."""
        if self.magnitude is None:
            return None
        # The length is a constant to the gradient: section 4.3 of the paper.
        return self.magnitude / lengths((weight.float() + self.update()).detach())


def lengths(weight: Tensor) -> Tensor:
    """The length of each row: (out, in) -> (out,)."""
    return torch.linalg.vector_norm(weight, dim=1)


class Adapted(nn.Module):
    """A frozen matrix and the adapters on it, of which one or none is in use."""

    def __init__(self, frozen: nn.Linear | nn.Embedding) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.adapters = nn.ModuleDict()
        self.active: str | None = None

    @property
    def adapter(self) -> LoRA | None:
        """The adapter in use."""
        if self.active is None or self.active not in self.adapters:
            return None
        chosen = self.adapters[self.active]
        assert isinstance(chosen, LoRA)
        return chosen

    @property
    def weight(self) -> Tensor:
        """The matrix as it is used, (out, in): with gradients for the adapter."""
        weight, adapter = self.frozen.weight, self.adapter
        if adapter is None:
            return weight
        adapted, gain = weight.float() + adapter.update(), adapter.gain(weight)
        return adapted if gain is None else gain[:, None] * adapted


class AdaptedLinear(Adapted):
    """A linear layer with adapters. Its own weight may be kept in bf16: in and out go numbers of one precision."""

    frozen: nn.Linear

    @property
    def bias(self) -> Tensor | None:
        """The bias, which no adapter changes."""
        return self.frozen.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        weight, bias, adapter = self.frozen.weight, self.frozen.bias, self.adapter
        out = product(x.to(weight.dtype), weight).to(x.dtype)
        if adapter is not None:
            gain = adapter.gain(weight)
            out = out + adapter(x)
            out = out if gain is None else gain * out
        return out if bias is None else out + bias


class AdaptedHead(Adapted):
    """The token embedding that is also the output head: only as a head, by its ``weight``, it is adapted."""

    frozen: nn.Embedding

    def forward(self, input_ids: Tensor) -> Tensor:
        """Ids (B, T) int64 -> (B, T, C)."""
        return self.frozen(input_ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V)."""
        return product(hidden, self.weight)


def matrices(model: nn.Module, kind: str) -> dict[str, int]:
    """The layers of a decoder, or of a classifier around one, that ``kind`` means, each with its parts.

    Args:
        kind: ``attention``, ``mlp``, ``head`` (the class head, or else the token embedding as output head), or the end
            of a layer's name in its block, such as ``qkv`` or ``mlp.up``.

    Returns:
        Names of modules, in the order of the model. Empty when the kind means nothing.
    """
    if kind == "head":
        names = [name for name, _ in model.named_modules()]
        return {next((name for name in names if name == "head"), next(n for n in names if "token_embedding" in n)): 1}
    found = {}
    for name, module in model.named_modules():
        _, _, inside = name.partition("blocks.")
        inside = inside.partition(".")[2]  # behind the number of the block
        if (
            isinstance(module, nn.Linear | AdaptedLinear)
            and not name.endswith(".frozen")
            and (inside.startswith(f"{kind}.") or f".{inside}".endswith(f".{kind}"))
        ):
            found[name] = 3 if inside == "attention.qkv" else 1
    return found


def wrap(model: nn.Module, name: str) -> Adapted:
    """The layer called ``name``, made ready for adapters if it is not yet."""
    layer = model.get_submodule(name)
    if not isinstance(layer, Adapted):
        layer = AdaptedLinear(layer) if isinstance(layer, nn.Linear) else AdaptedHead(layer)  # ty: ignore
        place, _, last = name.rpartition(".")
        setattr(model.get_submodule(place), last, layer)
    return layer


def adapt(model: nn.Module, names: dict[str, int], settings: LoraSettings, adapter: str = "default") -> None:
    """Freezes the model and puts a fresh adapter on the layers called ``names``, each of so many parts.

    Layers that are wrapped already get a further adapter. It is the one in use from now on.
    """
    model.requires_grad_(False)
    for name, parts in names.items():
        layer = wrap(model, name)
        layer.adapters[adapter] = LoRA(layer.frozen.weight, parts, settings)
    use(model, adapter)


def adapted(model: nn.Module) -> dict[str, Adapted]:
    """The wrapped layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Adapted)}


def use(model: nn.Module, adapter: str | None) -> None:
    """Switches to an adapter by its name, or to the base alone."""
    layers = adapted(model).values()
    assert adapter is None or any(adapter in layer.adapters for layer in layers), f"no adapter is called {adapter}"
    for layer in layers:
        layer.active = adapter


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Adds the adapter in use to the weights, and takes the wrappers away.

    A token embedding keeps its wrapper: as an input it is not adapted, and a merged one would be.
    """
    for name, layer in adapted(model).items():
        if isinstance(layer, AdaptedLinear):
            layer.frozen.weight = nn.Parameter(layer.weight.float().clone())
            place, _, last = name.rpartition(".")
            setattr(model.get_submodule(place), last, layer.frozen)
