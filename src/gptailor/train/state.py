"""The whole state of a run: what is saved at a step is all that is needed to go on from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from gptailor.errors import UserError

LAST, BEST = "last.safetensors", "best.safetensors"


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        epoch: complete epochs.
        position: optimizer steps done in the epoch that has begun.
        step: optimizer steps done in all.
        stale: evaluations since the best one.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    stale: int = 0
    best_step: int = 0
    best_score: list[float] | None = None
    best: dict[str, float] | None = None


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The trained tensors by name: the frozen ones are those of the base and need not be kept."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def save_state(folder: Path, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Writes weights, optimizer, random state and progress to one file, whole or not at all."""
    tensors = {f"model.{name}": tensor for name, tensor in trainable(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors["random"] = torch.get_rng_state()
    _save_whole(folder / LAST, tensors, {"progress": json.dumps(asdict(progress))})


def load_state(folder: Path, model: nn.Module, optimizer: Optimizer) -> Progress:
    """Puts a saved state back into model, optimizer and random generator, and says where the run was.

    Raises:
        UserError: when there is no readable state, or it belongs to another model.
    """
    try:
        tensors = load_file(folder / LAST)
        with safe_open(folder / LAST, framework="pt") as opened:
            progress = Progress(**json.loads((opened.metadata() or {})["progress"]))
        random = tensors.pop("random")
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / LAST} is no state to resume from: {error}", hint="start the run again") from None
    put_back(model, {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(random)
    return progress


def save_best(folder: Path, model: nn.Module) -> None:
    """Keeps the trained tensors as the best so far."""
    _save_whole(folder / BEST, trainable(model), {})


def load_best(folder: Path, model: nn.Module) -> None:
    """Puts the best trained tensors back into the model. Raises ``UserError`` when they cannot be read."""
    try:
        tensors = load_file(folder / BEST)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / BEST} holds no weights: {error}", hint="start the run again") from None
    put_back(model, tensors)


@torch.no_grad()
def put_back(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copies trained tensors into the model. Raises ``UserError`` when they are not the model's."""
    own = trainable(model)
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in tensors.items()}:
        raise UserError("the saved state belongs to another model or other layers", hint="start the run again")
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def _save_whole(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, unfinished, metadata=metadata)
    unfinished.replace(file)
