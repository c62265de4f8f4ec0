"""The model cards of language models: a base, an assistant."""

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
    return _write(folder, "base_card.md.j2", ["metrics", "receipt", "manifest"], curve=_curve(history))


def write_assistant_card(folder: Path) -> Path:
    """Writes ``README.md`` into the folder of an assistant from the JSON files of its run.

    Of a run that was stopped there are no answers to show.
    """
    answered = ["responses"] if (folder / "responses.json").exists() else []
    return _write(folder, "assistant_card.md.j2", ["metrics", "receipt", "manifest", *answered])


def _write(folder: Path, template: str, files: list[str], **parts: Any) -> Path:
    read = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in files}
    text = environment(autoescape=False).get_template(template).render(name=folder.resolve().name, **read, **parts)
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
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
