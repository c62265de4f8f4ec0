"""The folder of a run: claimed once, resumed on request, and what is kept there of how the run went."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from gptailor import __version__
from gptailor.config import RunConfig, dump_config, read_yaml
from gptailor.errors import UserError, listing

SHOWN_ONLY = ("tensorboard", "keep_checkpoints", "device")
PACKAGES = ("torch", "numpy", "tokenizers", "safetensors", "scikit-learn")


class RunFolder:
    """One run's folder; nothing is written before ``claim``.

    Raises:
        UserError: when the folder holds something and the run is not to be resumed, or the reverse.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path, self.resume = path, resume
        self.timings: dict[str, float] = {}
        self.started = datetime.now(timezone.utc)
        _check_place(path)
        holds = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        if resume and "run.yaml" not in holds:
            raise UserError(f"{path} holds no run to resume", hint="leave --resume out to begin one")
        if holds and not resume:
            what = "another run" if "run.yaml" in holds else f"{len(holds)} other files"
            hint = "another --out, or --resume to continue" if "run.yaml" in holds else "another --out"
            raise UserError(f"{path} already holds {what}", expected="a new or empty folder", hint=hint)

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

    def remove_checkpoints(self) -> None:
        """Frees the space of what only a resumed run would need."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def claim(self, config: RunConfig, receipt: dict[str, Any]) -> None:
        """Makes the folder and saves the resolved configuration and the receipt.

        Raises:
            UserError: when the folder cannot be written, or a run that is resumed had other options or data.
        """
        text = dump_config(config)
        if self.resume:
            self.compare(config)
            self._compare_data(receipt)
            return
        try:
            self.checkpoints.mkdir(parents=True)
            self.write_json("receipt.json", receipt)
            (self.path / "run.yaml").write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}", hint="another --out") from None

    def compare(self, config: RunConfig) -> None:
        """Raises ``UserError`` when the run that is resumed had other options; how it is shown may change."""
        wanted, (saved, _) = yaml.safe_load(dump_config(config)), read_yaml(self.path / "run.yaml")
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

    @contextmanager
    def timed(self, name: str) -> Generator[None]:
        """Adds the seconds that the block takes to the manifest."""
        begun = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - begun

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file whole or not at all."""
        unfinished = self.path / f".{name}.unfinished"
        unfinished.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.replace(self.path / name)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json. The model card of an earlier stop goes first: a folder with a new one is finished."""
        (self.path / "README.md").unlink(missing_ok=True)
        self.write_json("metrics.json", metrics)

    def write_manifest(
        self, config: RunConfig, device: str, files: list[dict[str, Any]], model: dict[str, Any]
    ) -> None:
        """How the run came about: command, seed, versions, device, inputs and timings in seconds."""
        self.timings["total"] = sum(self.timings.values())
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        self.write_json(
            "manifest.json",
            {
                "command": shlex.join(["gptailor", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "gptailor" else None,
                "seed": config.seed,
                "versions": {"gptailor": __version__, "python": platform.python_version(), **versions},
                "device": device,
                "git_commit": _git_commit(),
                "inputs": [{"path": file["path"], "sha256": file["sha256"]} for file in files],
                "started": self.started.isoformat(timespec="seconds"),
                "timings": {name: round(seconds, 2) for name, seconds in self.timings.items()},
                "model": model,
            },
        )


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
