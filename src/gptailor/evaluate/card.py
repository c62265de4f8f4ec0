"""The model card of a base model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptailor.evaluate.format import environment


def write_base_card(folder: Path) -> Path:
    """Writes ``README.md`` into the folder of a base model from its metrics.json, receipt.json and manifest.json."""
    read: dict[str, Any] = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("metrics", "receipt", "manifest")
    }
    path = folder / "README.md"
    text = environment(autoescape=False).get_template("base_card.md.j2").render(name=folder.resolve().name, **read)
    path.write_text(text, encoding="utf-8")
    return path
