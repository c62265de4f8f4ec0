"""The folder of a run: claimed once, resumed on request, and what is kept there of how the run went."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import yaml
from rich.console import Console

from gptailor import __version__
from gptailor.config import RunConfig, dump_config, read_yaml
from gptailor.errors import UserError, listing
from gptailor.tasks.lock import LOCK, FolderLock
from gptailor.train.durable import put_in_place, sync
from gptailor.train.loop import stop_on_interrupt
from gptailor.weights.adapters import CONFIG
from gptailor.weights.huggingface import read_json

SHOWN_ONLY = ("tensorboard", "keep_checkpoints", "device")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # errors of a disk, whatever file they name
REMOVED = ".removed"
NAMED = "begins.json"  # among the checkpoints: the files of base, tokenizer and template
LEFT = (REMOVED, ".saving-*")  # folders that a kill may leave behind
RECORDS = ("metrics.json", "manifest.json", "receipt.json", "responses.json", "samples.json")  # of a run, no model
PACKAGES = ("torch", "numpy", "tokenizers", "safetensors", "scikit-learn")


class RunFolder:
    """One run's folder; nothing is written before ``claim``.

    A task enters it as a context: no other run may then be in it, and a folder that can no longer be written ends the
    run with one clear error.

    Raises:
        UserError: when the folder holds something and the run is not to be resumed, or the reverse.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path, self.resume = path, resume
        self.timings: dict[str, float] = {}
        self.started = datetime.now(timezone.utc)
        self.lock: FolderLock | None = None
        _check_place(path)
        self._check_content()

    def __enter__(self) -> RunFolder:
        if self.resume:
            self.lock = FolderLock(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.lock:
            self.lock.release()
        if isinstance(error, OSError) and self._is_about(error):
            if self._vanished():
                raise UserError(f"{self.path} has vanished", hint="begin the run again") from error
            kept = (self.path / "run.yaml").exists()
            hint = "mend that, and go on with --resume: what was saved last is intact" if kept else "another --out"
            raise UserError(f"{self.path} cannot be written: {error.strerror or error}", hint=hint) from error

    def _is_about(self, error: OSError) -> bool:
        file = Path(error.filename) if isinstance(error.filename, str | Path) else None
        own = file is not None and (file == self.path or self.path in file.parents or file in self.path.parents)
        return own or error.errno in FULL or self._vanished()

    def _vanished(self) -> bool:
        return self.lock is not None and not self.path.exists()

    def _check_content(self) -> None:
        holds = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        holds = [name for name in holds if name not in (LOCK, ".run.yaml.unfinished")]  # a kill may have left them
        begun = "run.yaml" in holds
        if self.resume and not begun:
            raise UserError(f"{self.path} holds no run to resume", hint="leave --resume out to begin one")
        if holds and not self.resume:
            what = "another run" if begun else f"{len(holds)} other files"
            hint = "another --out, or --resume to continue" if begun else "another --out"
            raise UserError(f"{self.path} already holds {what}", expected="a new or empty folder", hint=hint)

    @property
    def checkpoints(self) -> Path:
        """Where the loop keeps its state."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether a run was brought to its end here: the model card is written last."""
        files = [self.path / "metrics.json", self.path / "README.md"]
        return all(file.exists() for file in files) and bool(self.read_json("metrics.json").get("finished"))

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file that the run wrote."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def add_sample(self, step: int, text: str) -> None:
        """Keeps what the model says at a step, in samples.json; a run that resumes before it says it again."""
        file = self.path / "samples.json"
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        earlier = [sample for sample in before if sample["step"] < step]
        self.write_json(file.name, [*earlier, {"step": step, "text": text}])

    def remove_checkpoints(self) -> None:
        """Frees the space of what only a resumed run would need, once all else is on the disk."""
        for file in self.path.iterdir():
            sync(file)
        self.checkpoints.replace(self.path / REMOVED)  # in one moment: a kill must not leave half of them
        shutil.rmtree(self.path / REMOVED, ignore_errors=True)

    def claim(self, config: RunConfig, receipt: dict[str, Any]) -> None:
        """Makes the folder and saves the resolved configuration and the receipt.

        Raises:
            UserError: when another run has the folder, or a run that is resumed had other options or data.
        """
        if self.resume:
            self.compare(config)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = FolderLock(self.path)
            self._check_content()  # another run may have begun since
            self._write("run.yaml", dump_config(config))
        if (self.path / "receipt.json").exists():
            self._compare_data(receipt)
        else:
            self.write_json("receipt.json", receipt)
        for left in (file for pattern in LEFT for file in self.path.glob(pattern)):
            shutil.rmtree(left, ignore_errors=True)
        if not self.finished:
            self.checkpoints.mkdir(exist_ok=True)
            self._compare_named(_named_files(config))
        elif self.checkpoints.exists() and not config.keep_checkpoints:
            self.remove_checkpoints()  # a kill came between

    @property
    def options(self) -> dict[str, Any]:
        """Those that the run was begun with."""
        return read_yaml(self.path / "run.yaml")[0]

    def compare(self, config: RunConfig) -> None:
        """Raises ``UserError`` when the run that is resumed had other options; how it is shown may change."""
        wanted, saved = yaml.safe_load(dump_config(config)), self.options
        differ = [key for key in wanted if key not in SHOWN_ONLY and saved.get(key) != wanted[key]]
        if differ:
            changes = "; ".join(f"{key} was {saved.get(key)!r} and is now {wanted[key]!r}" for key in differ)
            hint = "resume with the same options, or begin a new run with another --out"
            raise UserError(f"the run in {self.path} had other options: {changes}", hint=hint)

    def _compare_data(self, receipt: dict[str, Any]) -> None:
        before = {file["path"]: file["sha256"] for file in self.read_json("receipt.json")["files"]}
        changed = [file["path"] for file in receipt["files"] if before.get(file["path"]) != file["sha256"]]
        if changed:
            found = f"the data of the run in {self.path} has changed: {listing(changed)}"
            raise UserError(found, expected="the same files", hint="begin a new run with another --out")

    def _compare_named(self, files: list[dict[str, str]]) -> None:
        """Base, tokenizer and template: the state holds only what is trained, and would go on over another base."""
        kept = self.checkpoints / NAMED
        if not kept.exists():
            unfinished = kept.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(files, indent=2), encoding="utf-8")
            put_in_place(unfinished, kept)
            return
        before = {file["path"]: file["sha256"] for file in json.loads(kept.read_text(encoding="utf-8"))}
        now = {file["path"]: file["sha256"] for file in files}
        changed = [path for path in {**before, **now} if before.get(path) != now.get(path)]
        if changed:
            found = f"what the run in {self.path} begins from has changed: {listing(changed)}"
            raise UserError(found, expected="the same files", hint="begin a new run with another --out")

    @contextmanager
    def timed(self, name: str) -> Generator[None]:
        """Adds the seconds that the block takes to the manifest."""
        begun = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - begun

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file whole or not at all."""
        self._write(name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def _write(self, name: str, text: str) -> None:
        unfinished = self.path / f".{name}.unfinished"
        unfinished.write_text(text, encoding="utf-8")
        put_in_place(unfinished, self.path / name)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json. The model card of an earlier stop goes first: a folder with a new one is finished."""
        (self.path / "README.md").unlink(missing_ok=True)
        self.write_json("metrics.json", metrics)

    def write_manifest(
        self, config: RunConfig, device: str, files: list[dict[str, Any]], model: dict[str, Any]
    ) -> None:
        """How the run came about: command, seed, versions, machine, inputs and timings in seconds.

        Args:
            files: the data; base, tokenizer and template are added where they are files of the user.
        """
        self.timings["total"] = sum(self.timings.values())
        inputs = [{"path": file["path"], "sha256": file["sha256"]} for file in files]
        self.write_json(
            "manifest.json",
            {
                "command": shlex.join(["gptailor", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "gptailor" else None,
                "seed": config.seed,
                "versions": versions(),
                "machine": machine(),
                "device": device,
                "git_commit": _git_commit(),
                "inputs": inputs + _named_files(config),
                "started": self.started.isoformat(timespec="seconds"),
                "timings": {name: round(seconds, 2) for name, seconds in self.timings.items()},
                "model": model,
            },
        )


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"gptailor": __version__, "python": platform.python_version(), **packages}


def machine() -> dict[str, str | int]:
    """What of the machine decides on the last bit of a result."""
    kind = f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"processor": kind, "gpu": gpu, "threads": torch.get_num_threads()}


def digest(file: Path) -> str:
    """The sha256 of a file."""
    with file.open("rb") as opened:
        hashed = hashlib.sha256()
        while chunk := opened.read(1 << 20):
            hashed.update(chunk)
    return hashed.hexdigest()


def _named_files(config: RunConfig) -> list[dict[str, str]]:
    """The files of base, tokenizer and template, as far as they lie in folders of the user."""
    values = [getattr(config, name, None) for name in ("base", "tokenizer", "template")]
    places = [Path(value) for value in values if value and Path(value).is_absolute()]  # as a run resolves them
    for place in places:  # and the bases of adapters below them, as they are found
        below = read_json(place / CONFIG).get("base_model_name_or_path") if (place / CONFIG).is_file() else None
        if isinstance(below, str) and Path(below).is_absolute() and Path(below) not in places:
            places.append(Path(below))
    model = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.bpe", "*.data-*", "*.index")
    files = [[place] if place.is_file() else [file for kind in model for file in place.glob(kind)] for place in places]
    kept = sorted({file for found in files for file in found if file.name not in RECORDS})
    return [{"path": str(file), "sha256": digest(file)} for file in kept]


def run_here(run: Callable[..., Path], config: RunConfig, *, resume: bool, quiet: bool) -> Path:
    """Runs a task for a Python program and returns its folder.

    Args:
        run: such as ``run_classifier``.

    Raises:
        KeyboardInterrupt: the run was asked to stop, has saved and can be resumed.
    """
    with stop_on_interrupt() as stop:
        folder = run(config, resume=resume, console=Console(stderr=True, quiet=quiet), stop=stop)
    if stop.requested:
        raise KeyboardInterrupt(f"stopped; resume=True continues the run in {folder}")
    return folder


def _check_place(path: Path) -> None:
    """Raises ``UserError`` when a folder cannot be made or written at ``path``."""
    try:
        existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    except OSError as error:
        raise UserError(f"{path} cannot be a folder: {error.strerror}", hint="another --out") from None
    if not existing.is_dir():
        raise UserError(f"{path} cannot be written: {existing} is a file", expected="a folder", hint="another --out")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{path} cannot be written: no permission in {existing}", hint="another --out")


def _git_commit() -> str | None:
    """The commit of the working directory, where there is one: the user's recipe and data may lie under it."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
