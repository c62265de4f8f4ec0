"""The model card of a base model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptailor.evaluate.format import environment


def write_base_card(folder: Path, history: list[dict[str, Any]]) -> Path:
    """Writes ``README.md`` into the folder of a base model from its metrics.json, receipt.json and manifest.json.

    Args:
        history: the lines of history.jsonl.
    """
    read: dict[str, Any] = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("metrics", "receipt", "manifest")
    }
    path = folder / "README.md"
    template = environment(autoescape=False).get_template("base_card.md.j2")
    path.write_text(template.render(name=folder.resolve().name, curve=_curve(history), **read), encoding="utf-8")
    return path


def _curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each evaluation with the mean training loss since the one before it."""
    points, losses = [], []
    for line in history:
        if line["kind"] == "train":
            losses.append(line["loss"])
        else:
            points.append({**line, "loss": sum(losses) / len(losses) if losses else None})
            losses = []
    return points
