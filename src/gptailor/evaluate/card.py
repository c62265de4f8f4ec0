"""The model cards: README.md of the folder of a classifier, an assistant, a base."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from gptailor.evaluate.format import environment
from gptailor.evaluate.report_assistant import verdict
from gptailor.evaluate.report_base import sources
from gptailor.evaluate.report_classifier import page_parts
from gptailor.evaluate.run import Run, read_run

ONLY_HERE = ("first", "last-position", "mean", "last+mean")


def write_classifier_card(folder: Path) -> Path:
    """Writes ``README.md`` into the folder of a classifier, and returns its path.

    Raises:
        UserError: if ``folder`` is no folder.
    """
    run = read_run(folder)
    front = {
        "pipeline_tag": "text-classification",
        "library_name": "transformers",
        "tags": ["gptailor", "text-classification"],
    }
    base = str(run.manifest.get("model", {}).get("base") or run.settings.get("base") or "")
    if hub_name(base):
        front["base_model"] = base
    temperature = (run.metrics.get("calibration") or {}).get("temperature")
    parts = page_parts(run) | {"temperature": temperature, "only_here": only_gptailor_reads(run)}
    return _write(run, "classifier", front=yaml.safe_dump(front, sort_keys=False), **parts)


def write_base_card(folder: Path) -> Path:
    """Writes ``README.md`` into the folder of a base model, and returns its path."""
    run = read_run(folder)
    return _write(run, "base", curve=_curve(run.history), sources=sources(run))


def write_assistant_card(folder: Path) -> Path:
    """Writes ``README.md`` into the folder of an assistant, and returns its path.

    Of a run that was stopped there are no answers to show.
    """
    run = read_run(folder)
    return _write(run, "assistant", responses=run.rows("responses.json"), verdict=verdict(run.metrics))


def write_preferences_card(folder: Path) -> Path:
    """Writes ``README.md`` into the folder of a model that learned from pairs, and returns its path."""
    run = read_run(folder)
    return _write(run, "preferences", responses=run.rows("responses.json"))


def _write(run: Run, task: str, **parts: Any) -> Path:
    record = {"run": run, "metrics": run.metrics, "receipt": run.receipt, "manifest": run.manifest}
    text = environment(autoescape=False).get_template(f"{task}.md.j2").render(**record, **parts)
    path, unfinished = run.folder / "README.md", run.folder / ".README.md.unfinished"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)  # whole or not at all: the run counts as finished when it is there
    return path


def hub_name(base: str) -> bool:
    """Whether ``base`` names a model on the Hub, rather than a size, a folder or a bundled model."""
    if Path(base).exists():
        return False
    return bool(re.fullmatch(r"gpt2(-medium|-large|-xl)?|[\w-][\w.-]*/[\w.-]+", base))


def only_gptailor_reads(run: Run) -> str:
    """Why transformers' class would read this model wrongly, or ``""`` when it reads it right."""
    reasons = []
    if run.settings.get("read") in ONLY_HERE:
        reasons.append(f"the class is read from `{run.settings['read']}` rather than from the last token")
    if run.settings.get("causal") is False:
        reasons.append("tokens see those after them")
    return " and ".join(reasons)


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
