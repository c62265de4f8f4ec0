"""A finished run once more, from what its folder holds, and whether the same came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import safe_open

from gptailor.config import TASKS, load_config
from gptailor.data.sources import read_table
from gptailor.errors import UserError, listing
from gptailor.tasks.assistant import run_assistant
from gptailor.tasks.base import run_base
from gptailor.tasks.classifier import run_classifier
from gptailor.tasks.preferences import run_preferences
from gptailor.tasks.run import RunFolder, digest, machine, versions
from gptailor.train.loop import stop_on_interrupt

RUNS: dict[str, Callable[..., Path]] = {
    "classifier": run_classifier,
    "assistant": run_assistant,
    "preferences": run_preferences,
    "base": run_base,
}
SPEED = "examples_per_second"  # the one thing in a history that is another each time
SAID = ("predictions.csv", "responses.json", "samples.json")


def rerun_command(folder: Path, out: Path | None, console: Console) -> int:
    """Repeats the run in ``folder``, compares, and returns the exit code.

    Returns:
        0 when the same came out, or when versions or machine are others, so that a difference is no fault; 1 when it
        differs; 130 when it was stopped.

    Raises:
        UserError: the folder holds no finished run, or what it was trained on has changed or is gone.
    """
    manifest, task = _finished(folder)
    _check_inputs(folder, manifest["inputs"])
    others = _others(manifest)
    for other in others:
        console.print(f"[yellow]note:[/] {other}", highlight=False)
    out = out or folder.with_name(f"{folder.resolve().name}-rerun")
    given = {"out": str(out), "device": manifest["device"], "tensorboard": False}
    config = load_config(TASKS[task], folder / "run.yaml", given)
    if manifest.get("machine"):
        torch.set_num_threads(manifest["machine"]["threads"])  # a sum depends on how it is split
    with stop_on_interrupt() as stop:
        RUNS[task](config, resume=False, console=console, stop=stop)
    if stop.requested:
        console.print("stopped: nothing was compared", highlight=False)
        return 130
    differences = compare(folder, out)
    for difference in differences:
        console.print(f"[red]differs:[/] {difference}", highlight=False)
    if not differences:
        console.print(f"the same: weights bit for bit, metrics, history and answers ({folder}, {out})", markup=False)
    elif others:
        console.print("with other versions or another machine, that is to be expected", highlight=False)
    return int(bool(differences) and not others)


def _finished(folder: Path) -> tuple[dict[str, Any], str]:
    """The manifest of a finished run, and its task."""
    if not (folder / "run.yaml").is_file():
        raise UserError(f"{folder} holds no run", expected="the folder of a finished run")
    run = RunFolder(folder, resume=True)
    try:
        if not run.finished:
            raise UserError(f"the run in {folder} is not finished", hint="finish it with --resume")
        task, manifest = run.read_json("metrics.json")["task"], run.read_json("manifest.json")
        known = task in TASKS and isinstance(manifest["inputs"], list) and isinstance(manifest["device"], str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} holds no run that can be repeated: {error!r}") from None
    if not known:
        raise UserError(f"{folder} holds no run that can be repeated", expected=f"a run of {listing(TASKS)}")
    return manifest, task


def _check_inputs(folder: Path, inputs: list[dict[str, str]]) -> None:
    """Raises ``UserError`` for all files together that are gone or are no longer what the run was trained on."""
    problems = []
    for path, wanted in ((Path(file["path"]), file["sha256"]) for file in inputs):
        if not path.exists():
            problems.append(UserError(f"{path} is gone", expected=f"the file with the sha256 {wanted}"))
        elif (found := read_table(path).sha256 if path.is_dir() else digest(path)) != wanted:
            problems.append(UserError(f"{path} has changed: its sha256 is {found}", expected=wanted))
    if problems:
        joined = UserError.joined(problems)
        raise UserError(f"the run in {folder} cannot be repeated:\n{joined}")


def _others(manifest: dict[str, Any]) -> list[str]:
    """What is not as it was: versions, and what of the machine decides on the last bit."""
    told = []
    for before, now in ((manifest.get("versions", {}), versions()), (manifest.get("machine", {}), machine())):
        told += [
            f"{key} is {now[key]} and was {before.get(key, 'not noted')}" for key in now if now[key] != before.get(key)
        ]
    return [one for one in told if not one.startswith("threads is") or one.endswith("not noted")]


# --- what came out ----------------------------------------------------------------------------------------------------


def compare(before: Path, after: Path) -> list[str]:
    """What differs between two folders of finished runs, one sentence each; nothing when they are the same."""
    pairs = [(before, after, "")]
    pairs += [(seed, after / "seeds" / seed.name, f"seed {seed.name}: ") for seed in sorted(before.glob("seeds/*"))]
    return [
        name + difference
        for old, new, name in pairs
        for difference in (*_weights_differ(old, new), *_records_differ(old, new), *_said_differ(old, new))
    ]


def _tensors(folder: Path) -> dict[str, Any]:
    """Every tensor of a model or an adapter by file and name, read when it is asked for."""
    opened = [safe_open(file, framework="pt") for file in sorted(folder.glob("*.safetensors"))]
    return {name: file.get_slice(name) for file in opened for name in file.keys()}  # noqa: SIM118 - no mapping


def _weights_differ(before: Path, after: Path) -> Iterator[str]:
    old, new = _tensors(before), _tensors(after)
    if old.keys() != new.keys():
        yield f"the tensors have other names: {listing(sorted(old.keys() ^ new.keys()), 4)}"
    largest, differing = 0.0, []
    for name in sorted(old.keys() & new.keys()):
        one, two = old[name][:], new[name][:]
        if one.shape != two.shape or one.dtype != two.dtype:
            yield f"{name} was {tuple(one.shape)} in {one.dtype} and is {tuple(two.shape)} in {two.dtype}"
        elif not torch.equal(one.view(torch.uint8), two.view(torch.uint8)):  # by bits: NaN is no number, -0 is not 0
            differing.append(name)
            largest = max(largest, float((one.double() - two.double()).abs().max()))
    if differing:
        told = f"the largest difference is {largest:.3g} ({listing(differing, 3)})"
        yield f"weights: {len(differing)} of {len(old)} tensors; {told}"


def _records_differ(before: Path, after: Path) -> Iterator[str]:
    old, new = (dict(_flat(json.loads((one / "metrics.json").read_text(encoding="utf-8")))) for one in (before, after))
    changed = [key for key in old | new if old.get(key) != new.get(key)]
    if changed:
        shown = [f"{key} was {old.get(key)!r:.24} and is {new.get(key)!r:.24}" for key in changed]
        yield f"metrics: {listing(shown, 3)}"
    earlier, later = _history(before), _history(after)
    if earlier != later:
        at = next(
            (i for i, (a, b) in enumerate(zip(earlier, later, strict=False)) if a != b), min(len(earlier), len(later))
        )
        yield f"history: from line {at + 1} on"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """``{"test": {"loss": 1}}`` -> ``("test.loss", 1)``."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _history(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != SPEED} for line in lines]


def _said_differ(before: Path, after: Path) -> Iterator[str]:
    for name in SAID:
        files = [folder / name for folder in (before, after)]
        old, new = (file.read_bytes() if file.exists() else None for file in files)
        if old != new:
            yield name
