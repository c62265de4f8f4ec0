"""The whole state of a run: what is saved at a step is all that is needed to go on from it.

A file appears whole or not at all, carries a checksum of what it holds, and is read back before it takes its place.
The state before the last one stays beside it, each with the best weights that it speaks of.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from gptailor.errors import UserError
from gptailor.train.durable import put_in_place, sync

LAST, PREVIOUS = "last.safetensors", "previous.safetensors"
ACCELERATOR = "random_on_accelerator"
UNFINISHED = "unfinished"  # the folder in which a file is written before it takes its place
PIECE = 2**20  # bytes that are read at a time to check a file
UNREADABLE = (OSError, SafetensorError, ValueError, TypeError, KeyError)


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        epoch: complete epochs.
        position: optimizer steps done in the epoch that has begun.
        step: optimizer steps done in all.
        stale: evaluations since the best one.
        loss_before: of the validation part before the first step; later losses are compared with it (``guard.Watch``).
        sums: of the line of history that has begun (``log.RunLog``).
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
    loss_before: float | None = None
    sums: dict[str, float] = field(default_factory=dict)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The trained tensors by name: the frozen ones are those of the base and need not be kept."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def has_state(folder: Path) -> bool:
    """Whether a run has saved its state here."""
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def save_state(folder: Path, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Writes weights, optimizer, random state and progress to one file, whole or not at all.

    Raises:
        OSError: when it cannot be written; the state that was saved before is then as it was.
    """
    tensors = {f"model.{name}": tensor for name, tensor in trainable(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors |= _random_states(model)
    # The oldest state goes first, so that there is never need for more room than two of them take.
    (folder / PREVIOUS).unlink(missing_ok=True)
    with _written(folder / LAST, tensors, {"progress": json.dumps(asdict(progress))}) as file:
        if (folder / LAST).exists():
            (folder / LAST).replace(folder / PREVIOUS)
        put_in_place(file, folder / LAST)
    _forget_best(folder, but=progress.best_step)


def load_state(folder: Path, model: nn.Module, optimizer: Optimizer, tell: Callable[[str], None]) -> Progress:
    """Puts the newest good state back into model, optimizer and random generator, and says where the run was.

    Args:
        tell: is told in one line when that is not the one saved last.

    Raises:
        UserError: when there is no readable state, or it belongs to another model.
    """
    problems: list[str] = []
    for file in (folder / LAST, folder / PREVIOUS):
        try:
            tensors, metadata = _read(file)
            progress, random = Progress(**json.loads(metadata["progress"])), tensors["random"]
            break
        except UNREADABLE as error:
            problems.append(f"{file} is no state to resume from: {error}")
    else:
        raise UserError(problems[0], hint="start the run again")
    put_back(model, {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor.clone()  # or the file would stay mapped, and its room taken
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(random)
    device = next(model.parameters()).device
    if device.type != "cpu" and ACCELERATOR in tensors:
        torch.get_device_module(device).set_rng_state(tensors[ACCELERATOR])
    if problems:
        tell(f"{problems[0]}; going on from the one before it, of step {progress.step}")
        put_in_place(folder / PREVIOUS, folder / LAST)  # or the next save would take the torn one for good
    return progress


def _random_states(model: nn.Module) -> dict[str, Tensor]:
    """Of the processor, and of the accelerator that the model is on: dropout is drawn there."""
    device = next(model.parameters()).device
    on_device = {} if device.type == "cpu" else {ACCELERATOR: torch.get_device_module(device).get_rng_state()}
    return {"random": torch.get_rng_state(), **on_device}


def save_best(folder: Path, model: nn.Module, step: int) -> None:
    """Keeps the trained tensors of a step as the best so far. Raises ``OSError`` as ``save_state`` does."""
    with _written(folder / best_file(step), trainable(model), {}) as file:
        put_in_place(file, folder / best_file(step))


def load_best(folder: Path, model: nn.Module, step: int) -> None:
    """Puts the best trained tensors back into the model. Raises ``UserError`` when they cannot be read."""
    file = folder / best_file(step)
    try:
        tensors, _ = _read(file)
    except UNREADABLE as error:
        raise UserError(f"{file} holds no weights: {error}", hint="start the run again") from None
    put_back(model, tensors)


def best_file(step: int | str) -> str:
    """The name of the weights of a step (``*`` for any): each state finds those that were the best for it."""
    return f"best-{step}.safetensors"


def _forget_best(folder: Path, *, but: int) -> None:
    """Removes best weights that neither of the two states speaks of."""
    kept = {best_file(but)}
    if (folder / PREVIOUS).exists():
        with safe_open(folder / PREVIOUS, framework="pt") as opened:
            kept.add(best_file(json.loads(opened.metadata()["progress"])["best_step"]))
    for file in folder.glob(best_file("*")):
        if file.name not in kept:
            file.unlink()


@torch.no_grad()
def put_back(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copies trained tensors into the model. Raises ``UserError`` when they are not the model's."""
    own = trainable(model)
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in tensors.items()}:
        raise UserError("the saved state belongs to another model or other layers", hint="start the run again")
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


# --- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def _written(place: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Generator[Path]:
    """A file that is to take its ``place``: on the disk, and read back.

    It lies in a folder of its own meanwhile; what a failure, or a kill before, has left there is removed.

    Raises:
        OSError: when it cannot be written, or holds something else than what was written.
    """
    scratch = place.parent / UNFINISHED
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    file = scratch / place.name
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    try:
        checksum = _checksum(on_cpu, metadata)
        save_file(on_cpu, file, metadata={**metadata, "sha256": checksum})
        sync(file)
        if not _holds(file, on_cpu, {**metadata, "sha256": checksum}):
            raise ValueError("the file does not hold what was written")
        yield file
    except (SafetensorError, ValueError, KeyError) as error:
        raise _as_os_error(error, place) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata. Raises one of ``UNREADABLE``, also when the checksum is not that of the content."""
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    if metadata.pop("sha256", None) != _checksum(tensors, metadata):
        raise ValueError("the checksum is not that of the content")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    return _digest(tensors, metadata, lambda name: [tensors[name].reshape(-1).view(torch.uint8).numpy()])


def _holds(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether a file holds these; it is read piece by piece, for what is mapped counts as memory."""
    with file.open("rb") as opened:
        begin = 8 + int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(begin - 8))

        def content(name: str) -> Generator[bytes]:
            first, end = header[name]["data_offsets"]
            opened.seek(begin + first)
            for at in range(first, end, PIECE):
                yield opened.read(min(PIECE, end - at))

        same = header.pop("__metadata__", None) == metadata
        shapes = {name: entry["shape"] for name, entry in header.items()}
        if not same or shapes != {name: list(tensor.shape) for name, tensor in tensors.items()}:
            return False
        own = {name: value for name, value in metadata.items() if name != "sha256"}
        return _digest(tensors, own, content) == metadata["sha256"]


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], content: Callable[[str], Iterable[Any]]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for piece in content(name):
            digest.update(piece)
    return digest.hexdigest()


def _as_os_error(error: Exception, place: Path) -> OSError:
    """What safetensors tells of a full disk in its own words, as Python tells it."""
    found = re.search(r"os error (\d+)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1])), str(place)) if found else OSError(errno.EIO, str(error))
