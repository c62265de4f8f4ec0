"""How much of a model is trained: all of it, its last blocks, its class head, or adapters on a frozen whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.head import Classifier
from gptailor.model.lora import AdaptedLinear, LoraSettings, adapt, adapted, matrices

UNFROZEN = ("head", "norms", "biases")  # what may be trained whole beside adapters


def freeze(model: Decoder | Classifier, layers: str) -> int:
    """Leaves only ``layers`` trainable and returns the depth of the frozen trunk, in blocks.

    Args:
        layers: ``"head"``, the class head alone; a number N, the last N blocks with the final norm and a class head; or
            ``"all"``.

    Raises:
        UserError: for more blocks than there are.
    """
    decoder = model.decoder if isinstance(model, Classifier) else model
    n_layer = decoder.config.n_layer
    if layers == "all":
        turn(model.requires_grad_(True))
        return 0
    n_trained = 0 if layers == "head" else int(layers)
    if n_trained > n_layer:
        raise UserError(f"--layers {layers}: the model has {n_layer} blocks", expected=f"1 to {n_layer}, or all")
    model.requires_grad_(False)
    if isinstance(model, Classifier):
        model.head.requires_grad_(True)
    if n_trained:
        decoder.norm.requires_grad_(True)
        turn(decoder.blocks[n_layer - n_trained :].requires_grad_(True))
    return n_layer - n_trained


def turn(model: nn.Module) -> None:
    """Puts matrices that a file holds the other way round in the order of their gradients, which training walks in."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()


def freeze_for_lora(
    model: Decoder | Classifier,
    settings: LoraSettings,
    *,
    targets: Sequence[str],
    unfreeze: Sequence[str],
    frozen_in: torch.dtype = torch.float32,
) -> None:
    """Freezes the model, puts fresh adapters on the layers that ``targets`` mean, and frees what ``unfreeze`` names.

    Args:
        targets: see ``lora.matrices``.
        unfreeze: some of ``UNFROZEN``. Only a class head that has no adapter can be freed: a language model's is its
            token embedding.
        frozen_in: precision in which the frozen matrices with adapters are kept.

    Raises:
        UserError: all words that mean nothing in this model, together.
    """
    found = {target: matrices(model, target) for target in targets}
    problems = [
        UserError(f"--targets {target}: no layer is called so", expected="attention, mlp, head, or names such as qkv")
        for target in targets
        if not found[target]
    ]
    if not any(set(names) - {"head"} for names in found.values()):
        wanted = "at least one layer below the class head" if isinstance(model, Classifier) else "at least one layer"
        problems.append(
            UserError("--targets names no layer to adapt", expected=wanted, hint="--layers head trains a head alone")
        )
    possible = UNFROZEN if isinstance(model, Classifier) else UNFROZEN[1:]
    expected = f"some of {', '.join(possible)}, or none alone"
    problems += [UserError(f"--unfreeze {word}", expected=expected) for word in unfreeze if word not in possible]
    if "head" in targets and "head" in unfreeze:
        problems.append(UserError("the head has an adapter and is unfrozen", expected="one of the two"))
    if problems:
        raise UserError.joined(problems)
    adapt(model, {name: parts for names in found.values() for name, parts in names.items()}, settings)
    for layer in adapted(model).values():
        if isinstance(layer, AdaptedLinear):
            layer.frozen.weight.data = layer.frozen.weight.data.to(frozen_in)
    for parameter in unfrozen(model, unfreeze).values():
        parameter.requires_grad_(True)
    model.eval()  # the loop switches dropout on, for its steps


def unfrozen(model: nn.Module, words: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters that words of ``UNFROZEN`` mean, by name."""
    means = {
        "head": lambda name: name == "head.weight",
        "norms": lambda name: "norm" in name,
        "biases": lambda name: name.endswith("bias") and "norm" not in name,
    }
    return {name: p for name, p in model.named_parameters() if any(means[word](name) for word in words)}


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """All parameters and the trainable ones; tied ones count once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def frozen_depth(decoder: Decoder) -> int:
    """How many of the first blocks hold nothing that is trained."""
    trained = [any(p.requires_grad for p in block.parameters()) for block in decoder.blocks]
    return trained.index(True) if True in trained else len(trained)
