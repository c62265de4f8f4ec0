"""The one self-contained HTML page about a run, and its model card, from the files of the model folder alone."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml

from gptailor.errors import UserError
from gptailor.evaluate import charts
from gptailor.evaluate.format import SMALL, environment, number, percent
from gptailor.evaluate.verdict import Headline, lead

FULL_MATRIX = 12  # classes; a larger matrix of numbers is not read by anyone
MISTAKES = 20
BASELINE_NAMES = {"tfidf_logistic_regression": "TF-IDF + logistic regression", "majority": "always the commonest class"}
ONLY_HERE = ("first", "last-position", "mean", "last+mean")


@dataclass
class Run:
    """What a model folder holds about its run; whatever is missing is empty."""

    name: str
    metrics: dict[str, Any]
    receipt: dict[str, Any]
    manifest: dict[str, Any]
    settings: dict[str, Any]
    setting_groups: list[tuple[str, list[tuple[str, Any, str]]]]
    history: list[dict[str, Any]]
    mistakes: list[dict[str, Any]]
    mistakes_in_all: int


@dataclass
class Dots:
    """A chart of shares in [0, 1] with their intervals, one row each: name, value, low, high, text, kind."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    percent: bool = True

    @property
    def low(self) -> float:
        """Where the axis begins: a round tenth below everything shown."""
        ends = [end for row in self.rows for end in (row["value"], row["low"]) if end is not None]
        return max(0.0, int(min(ends, default=0.0) * 10 - 0.2) / 10)

    @property
    def ticks(self) -> list[float]:
        """Round positions from ``low`` to 1."""
        step = 2 if self.low >= 0.9 else 10 if self.low >= 0.7 else 20
        start = round(self.low * 100)
        return [hundredth / 100 for hundredth in range(start + (100 - start) % step, 101, step)]

    def write(self, value: float | None) -> str:
        """``"96.4 %"``, or ``"0.964"`` for a figure that is no share of texts."""
        return percent(value) if self.percent else number(value)

    def at(self, value: float) -> str:
        """Position of ``value`` along the axis, as a CSS percentage."""
        return f"{(value - self.low) / (1 - self.low):.2%}"


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` into a model folder from the files there, and returns its path.

    Parts of the page whose file is missing or unfinished are left out or say so.

    Raises:
        UserError: if ``folder`` is no folder.
    """
    run = read_run(folder)
    page = environment(autoescape=True).get_template("report.html.j2").render(**page_parts(run), **drawings(run))
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def write_model_card(folder: Path) -> Path:
    """Writes the model card ``README.md`` (Hugging Face front matter) into a model folder, and returns its path.

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
    parts["front"] = yaml.safe_dump(front, sort_keys=False)
    path = folder / "README.md"
    path.write_text(environment(autoescape=False).get_template("card.md.j2").render(**parts), encoding="utf-8")
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


# --- Reading the folder ---


def read_run(folder: Path) -> Run:
    """Everything that the page shows. Raises ``UserError`` if ``folder`` is no folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder", expected="a model folder, as gptailor train writes it")
    text = _text(folder / "run.yaml")
    mistakes, in_all = _mistakes(folder / "predictions.csv")
    return Run(
        name=folder.resolve().name,
        metrics=_json(folder / "metrics.json"),
        receipt=_json(folder / "receipt.json"),
        manifest=_json(folder / "manifest.json"),
        settings=_settings(text),
        setting_groups=_setting_groups(text),
        history=_history(folder / "history.jsonl"),
        mistakes=mistakes,
        mistakes_in_all=in_all,
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _json(path: Path) -> dict[str, Any]:
    """The object in ``path``; an empty one when it is missing or was cut off while being written."""
    try:
        value = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
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


def _mistakes(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The wrong answers that were most confident, and how many wrong answers there are in all."""
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the 128 KiB that the csv module takes by default
    if not path.is_file():
        return [], 0
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        # Python 3.10's csv module stops at a NUL byte.
        wrong = [
            row for row in csv.DictReader(line.replace("\0", "") for line in file) if row.get("correct") == "false"
        ]
    wrong.sort(key=lambda row: -float(row["probability"]))
    for row in wrong[:MISTAKES]:
        row["probability"] = float(row["probability"])
        row["probability_of_label"] = float(row["probability_of_label"])
    return wrong[:MISTAKES], len(wrong)


# --- What the page says ---


def page_parts(run: Run) -> dict[str, Any]:
    """What both templates are given, as values."""
    headline = lead(run.metrics)
    figures = headline.figures
    return {
        "run": run,
        "headline": headline,
        "labels": run.metrics.get("labels") or [],
        "baseline_names": BASELINE_NAMES,
        "parts": _parts(run.receipt),
        "dots": _headline_dots(headline),
        "class_dots": _class_dots(headline),
        "classes": _ordered_classes(figures),
        "matrix": _matrix(figures),
        "heat_map": _heat_map(figures),
        "confused": _confused_pairs(figures),
        "sure": _sure_sentence(figures),
        "balance": _balance(run.receipt),
    }


def drawings(run: Run) -> dict[str, Any]:
    """The charts of the page, as SVG; empty where there is nothing to draw."""
    best_step = (run.metrics.get("kept") or {}).get("step")
    curves = {
        title: charts.learning_curve(run.history, title.lower(), best_step, _epoch_size(run))
        for title in ("Loss", "Accuracy")
    }
    return {
        "curves": [(title, curve) for title, curve in curves.items() if curve],
        "reliability": charts.reliability_diagram(lead(run.metrics).figures.get("reliability") or []),
        "lengths": charts.length_histogram(run.receipt.get("lengths") or {}, _cut_limit(run.receipt)),
    }


def _headline_dots(headline: Headline) -> Dots:
    """Model, TF-IDF and commonest class: accuracy with intervals, or macro F1 where the classes are uneven."""
    measured = {"model": headline.figures, **headline.baselines}
    rows = []
    for key, name in {"model": "this model", **BASELINE_NAMES}.items():
        figures = measured.get(key) or {}
        if figures.get("accuracy") is None:
            continue
        if headline.uneven:
            value = figures["macro"]["f1"] if key == "model" else figures.get("macro_f1")
            rows.append(_dot(name, value, None, key))
        else:
            rows.append(_dot(name, figures["accuracy"], figures["interval"], key))
    title = "Macro F1" if headline.uneven else f"Accuracy, with 95{SMALL}% interval"
    return Dots(title, rows, percent=not headline.uneven)


def _class_dots(headline: Headline) -> Dots | None:
    """For uneven classes: which share of each class is found, the rarest first."""
    if not headline.uneven:
        return None
    rarest = sorted(headline.figures["per_class"], key=itemgetter("support"))[:6]
    rows = [_dot(each["label"], each["recall"], each["recall_interval"], "model", each["support"]) for each in rarest]
    more = len(headline.figures["per_class"]) - len(rarest)
    return Dots("Share of each class that is found" + (f", {len(rarest)} rarest classes" if more else ""), rows)


def _dot(
    name: str, value: float | None, interval: Sequence[float] | None, kind: str, n: int | None = None
) -> dict[str, Any]:
    low, high = interval if interval and value is not None else (None, None)
    return {"name": name, "value": value, "low": low, "high": high, "kind": kind, "n": n}


def _ordered_classes(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The classes as they come when they are few; the hardest first when nobody reads them all."""
    classes = figures.get("per_class") or []
    if len(classes) <= FULL_MATRIX:
        return classes
    return sorted(classes, key=lambda each: (each["f1"] is None, each["f1"]))


def _matrix(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix, each cell with its share of the row, when the classes are few enough."""
    counts, classes = figures.get("confusion") or [], figures.get("per_class") or []
    if not 0 < len(counts) <= FULL_MATRIX:
        return []
    return [
        {"label": each["label"], "cells": [(count, count / max(1, sum(row))) for count in row]}
        for each, row in zip(classes, counts, strict=True)
    ]


def _heat_map(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """For many classes: SVG paths of unit squares, one per kind of cell and strength, on a K x K canvas."""
    counts = figures.get("confusion") or []
    if len(counts) <= FULL_MATRIX:
        return []
    paths: dict[tuple[str, int], list[str]] = {}
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            if count:
                strength = min(4, int(5 * count / sum(row)))
                paths.setdefault(("right" if x == y else "wrong", strength), []).append(f"M{x} {y}h1v1h-1z")
    return [
        {"kind": kind, "strength": strength, "path": "".join(squares)} for (kind, strength), squares in paths.items()
    ]


def _confused_pairs(figures: dict[str, Any], most: int = 15) -> list[dict[str, Any]]:
    counts, classes = figures.get("confusion") or [], figures.get("per_class") or []
    pairs = [
        {
            "true": classes[y]["label"],
            "predicted": classes[x]["label"],
            "count": count,
            "support": classes[y]["support"],
        }
        for y, row in enumerate(counts)
        for x, count in enumerate(row)
        if count and x != y
    ]
    return sorted(pairs, key=lambda pair: (-pair["count"], pair["support"]))[:most]


def _sure_sentence(figures: dict[str, Any]) -> str:
    """The fullest bin of the reliability diagram in words."""
    filled = [each for each in figures.get("reliability") or [] if each["n"]]
    if not filled:
        return ""
    most = max(filled, key=lambda each: each["n"])
    return (
        f"Where its probability lay between {percent(most['from'], 0)} and {percent(most['to'], 0)} ({most['n']:,} "
        f"texts, {percent(most['confidence'])} on average), it was right {percent(most['accuracy'])} of the time."
    )


def _parts(receipt: dict[str, Any]) -> dict[str, int]:
    """Texts in the training, validation and test part."""
    labels = (receipt.get("labels") or {}).values()
    counts = {part: sum(each.get(part) or 0 for each in labels) for part in ("train", "validation", "test")}
    return {part: count for part, count in counts.items() if count}


def _balance(receipt: dict[str, Any]) -> list[dict[str, Any]]:
    labels = receipt.get("labels") or {}
    most = max((each.get("kept") or 0 for each in labels.values()), default=0)
    rows = [{"label": label, "share": (each.get("kept") or 0) / max(1, most), **each} for label, each in labels.items()]
    return sorted(rows, key=lambda row: -(row.get("kept") or 0))


def _cut_limit(receipt: dict[str, Any]) -> int | None:
    cut = receipt.get("cut") or {}
    return cut.get("limit") if cut.get("count") else None


def _epoch_size(run: Run) -> float:
    """Examples in an epoch, from the history; from the receipt while the first epoch has not ended."""
    rows = [row for row in run.history if row.get("examples") and row.get("epoch")]
    seen = max((row["examples"] / row["epoch"] for row in rows), default=1.0)
    first_only = all(row["epoch"] == 1 for row in rows)
    return max(seen, _parts(run.receipt).get("train", 0)) if first_only else seen
