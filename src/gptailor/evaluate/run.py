"""The record of a run, as its model folder holds it: what pages and cards are written from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gptailor.errors import UserError
from gptailor.evaluate.format import basename


@dataclass
class Run:
    """What a model folder holds about its run; whatever is missing or was cut off is empty."""

    folder: Path
    metrics: dict[str, Any]
    receipt: dict[str, Any]
    manifest: dict[str, Any]
    settings: dict[str, Any]
    setting_groups: list[tuple[str, list[tuple[str, Any, str]]]]
    history: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """What the folder is called."""
        return self.folder.resolve().name

    @property
    def data_name(self) -> str:
        """What the one file or folder of the data is called; ``""`` where there are several."""
        data = self.settings.get("data")
        return basename(data) if isinstance(data, str) else ""

    @property
    def kept_step(self) -> int | None:
        """The step whose weights were kept."""
        return (self.metrics.get("kept") or {}).get("step")

    @property
    def cut_limit(self) -> int | None:
        """The length in tokens that texts were cut to, if any was."""
        cut = self.receipt.get("cut") or {}
        return cut.get("limit") if cut.get("count") else None

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The objects of a JSON list in the folder, such as ``responses.json``."""
        value = _json(self.folder / name)
        return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def read_run(folder: Path) -> Run:
    """The record of the run in ``folder``. Raises ``UserError`` if that is no folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder", expected="a model folder, as gptailor train writes it")
    text = _text(folder / "run.yaml")
    return Run(
        folder=folder,
        metrics=_object(folder / "metrics.json"),
        receipt=_object(folder / "receipt.json"),
        manifest=_object(folder / "manifest.json"),
        settings=_settings(text),
        setting_groups=_setting_groups(text),
        history=_history(folder / "history.jsonl"),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path) or "null")
    except ValueError:
        return None


def _object(path: Path) -> dict[str, Any]:
    """The object in ``path``; an empty one when it is missing or was cut off while being written."""
    value = _json(path)
    return value if isinstance(value, dict) else {}


def _history(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in _text(path).splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # a run that was killed leaves half a line
            continue
    return [row for row in rows if isinstance(row, dict)]


def _settings(text: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def _setting_groups(text: str) -> list[tuple[str, list[tuple[str, Any, str]]]]:
    """(group, [(option, value, description)]) of run.yaml, whose comments carry the groups and descriptions."""
    values, groups, said = _settings(text), [("", [])], ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"# --- (.+) ---", line):
            groups.append((heading[1], []))
        elif line.startswith("# "):
            said = line[2:]
        elif (option := line.split(":")[0]) in values:
            groups[-1][1].append((option, values[option], said))
            said = ""
    return [group for group in groups if group[1]]
