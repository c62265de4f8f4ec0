"""What the page and the card of a classifier say."""

from __future__ import annotations

import csv
from operator import itemgetter
from pathlib import Path
from typing import Any

from gptailor.evaluate import charts
from gptailor.evaluate.dots import Dots, dot
from gptailor.evaluate.format import SMALL, percent
from gptailor.evaluate.run import Run
from gptailor.evaluate.verdict import Headline, lead

FULL_MATRIX = 12  # classes; a larger matrix of numbers is not read by anyone
MISTAKES = 20
BASELINE_NAMES = {"tfidf_logistic_regression": "TF-IDF + logistic regression", "majority": "always the commonest class"}


def classifier_page(run: Run) -> dict[str, Any]:
    """What the page of a classifier is given."""
    mistakes, mistakes_in_all = read_mistakes(run.folder / "predictions.csv")
    return {**page_parts(run), **drawings(run), "mistakes": mistakes, "mistakes_in_all": mistakes_in_all}


def page_parts(run: Run) -> dict[str, Any]:
    """What page and card are given, as values."""
    headline = lead(run.metrics)
    figures = headline.figures
    return {
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
    course = charts.Course(_epoch_size(run))
    curves = [
        (title, charts.learning_curve(run.history, title.lower(), run.kept_step, course))
        for title in ("Loss", "Accuracy")
    ]
    return {
        "curves": [(title, curve) for title, curve in curves if curve],
        "reliability": charts.reliability_diagram(lead(run.metrics).figures.get("reliability") or []),
        "lengths": charts.length_histogram(run.receipt.get("lengths") or {}, run.cut_limit),
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
            rows.append(dot(name, value, None, key))
        else:
            rows.append(dot(name, figures["accuracy"], figures["interval"], key))
    title = "Macro F1" if headline.uneven else f"Accuracy, with 95{SMALL}% interval"
    return Dots(title, rows, unit="number" if headline.uneven else "percent")


def _class_dots(headline: Headline) -> Dots | None:
    """For uneven classes: which share of each class is found, the rarest first."""
    if not headline.uneven:
        return None
    rarest = sorted(headline.figures["per_class"], key=itemgetter("support"))[:6]
    rows = [dot(each["label"], each["recall"], each["recall_interval"], "model", each["support"]) for each in rarest]
    more = len(headline.figures["per_class"]) - len(rarest)
    return Dots("Share of each class that is found" + (f", {len(rarest)} rarest classes" if more else ""), rows)


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


def _epoch_size(run: Run) -> float:
    """Examples in an epoch, from the history; from the receipt while the first epoch has not ended."""
    rows = [row for row in run.history if row.get("examples") and row.get("epoch")]
    seen = max((row["examples"] / row["epoch"] for row in rows), default=1.0)
    first_only = all(row["epoch"] == 1 for row in rows)
    return max(seen, _parts(run.receipt).get("train", 0)) if first_only else seen


def read_mistakes(path: Path) -> tuple[list[dict[str, Any]], int]:
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
