"""The one self-contained HTML page about a run, and its model card, from the files of the model folder alone."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from gptailor.errors import UserError
from gptailor.evaluate import charts

SMALL = "\u202f"  # narrow no-break space, between a number and its unit
SIGNIFICANT = 0.05
UNEVEN = 3.0  # largest class over smallest one, beyond which accuracy mostly measures the largest
FULL_MATRIX = 12  # classes; a larger matrix of numbers is not read by anyone
MISTAKES = 20
LONGEST_TEXT = 700  # characters of a text that the page shows
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
class Verdict:
    """Who wins against TF-IDF + logistic regression: ``kind`` is better, same, worse or unknown."""

    kind: str
    sentence: str
    evidence: str = ""


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


@dataclass
class Headline:
    """The figures that the page leads with, and the part of the data that they were measured on."""

    part: str
    figures: dict[str, Any]
    baselines: dict[str, Any]
    seeds: dict[str, Any] | None
    uneven: str
    verdict: Verdict

    @property
    def where(self) -> str:
        """``"263 test texts never seen in training"``."""
        kinds = {"unseen": "test texts never seen in training", "test": "test texts", "validation": "validation texts"}
        return f"{self.figures['n']:,} {kinds[self.part]}" if self.part in kinds else ""


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


def lead(metrics: dict[str, Any]) -> Headline:
    """The headline: on unseen test texts when there are any, else all test texts, else validation texts."""
    for part, key, beside in (
        ("unseen", "test_unseen", "baselines_unseen"),
        ("test", "test", "baselines"),
        ("validation", "validation", ""),
    ):
        figures = metrics.get(key) or {}
        if figures.get("n"):
            baselines = metrics.get(beside) or {}
            seeds = (metrics.get("seeds") or {}).get(key)
            return Headline(part, figures, baselines, seeds, uneven(figures), verdict(figures, baselines))
    return Headline("", {}, {}, None, "", Verdict("unknown", ""))


def uneven(figures: dict[str, Any]) -> str:
    """Why accuracy flatters, or ``""`` when the largest class has at most three times the texts of the smallest."""
    classes = figures.get("per_class") or []
    if not classes:
        return ""
    largest, smallest = max(classes, key=_support), min(classes, key=_support)
    if largest["support"] <= UNEVEN * smallest["support"]:
        return ""
    share = percent(largest["support"] / figures["n"])
    return (
        f"The classes are uneven: “{largest['label']}” has {largest['support']:,} of these {figures['n']:,} texts, "
        f"“{smallest['label']}” {smallest['support']:,}. Always answering “{largest['label']}” would already be right "
        f"for {share} of them, so accuracy flatters; macro F1 gives every class the same weight."
    )


def _support(entry: dict[str, Any]) -> int:
    return entry["support"]


def verdict(figures: dict[str, Any], baselines: dict[str, Any]) -> Verdict:
    """One honest sentence: the model against TF-IDF + logistic regression and, if need be, the commonest class."""
    rival = baselines.get("tfidf_logistic_regression")
    if not rival or rival.get("accuracy") is None:
        return Verdict(
            "unknown", "No baseline was measured on these texts, so it is open whether a simpler method does as well."
        )
    kind, evidence = compare(figures, rival)
    says = {
        "better": "The tailored model is clearly better than TF-IDF + logistic regression",
        "same": "The tailored model is not distinguishable from TF-IDF + logistic regression on these texts",
        "worse": "The tailored model is worse than TF-IDF + logistic regression: the simpler method wins here",
    }
    against = f"{percent(figures['accuracy'])} against {percent(rival['accuracy'])} accuracy"
    if uneven(figures) and rival.get("macro_f1") is not None:
        against += f"; macro F1 {number(figures['macro']['f1'])} against {number(rival['macro_f1'])}"
    sentence = f"{says[kind]} ({against})."
    commonest = baselines.get("majority")
    if commonest and commonest.get("accuracy") is not None and compare(figures, commonest)[0] != "better":
        sentence += " It is not clearly better than always answering with the commonest class: it has learned little."
    return Verdict(kind, sentence, evidence)


def compare(figures: dict[str, Any], baseline: dict[str, Any]) -> tuple[str, str]:
    """(better, same or worse; what that rests on): McNemar's paired test when it was made, the intervals otherwise."""
    paired = baseline.get("mcnemar")
    if paired:
        kind = "better" if paired["only_model"] > paired["only_baseline"] else "worse"
        evidence = (
            f"Exact McNemar test on the same {figures['n']:,} texts: {paired['only_model']:,} that only the model has "
            f"right, {paired['only_baseline']:,} that only the baseline has right, {p_value(paired['p'])}."
        )
        return (kind if paired["p"] < SIGNIFICANT else "same"), evidence
    (low, high), (other_low, other_high) = figures["interval"], baseline["interval"]
    kind = "better" if low > other_high else "worse" if high < other_low else "same"
    touch = "overlap" if kind == "same" else "do not overlap"
    return kind, f"Judged by the 95{SMALL}% intervals, which {touch}; no test on paired answers was made."


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
    rarest = sorted(headline.figures["per_class"], key=_support)[:6]
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


# --- How it is written ---


def environment(*, autoescape: bool) -> Environment:
    """Jinja2 with the filters of the page; autoescape for HTML, ``md`` for the card."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=autoescape, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "percent": percent,
        "interval": interval,
        "number": number,
        "amount": amount,
        "plural": plural,
        "breakable": breakable,
        "compact": compact_places,
        "duration": duration,
        "shorten": shorten,
        "md": markdown_cell,
    }
    return made


def percent(share: float | None, digits: int = 1) -> str:
    """``"97.0 %"``, or a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}{SMALL}%"


def interval(ends: Sequence[float] | None, digits: int = 1) -> str:
    """``"94.1 to 98.5 %"``."""
    return f"{100 * ends[0]:.{digits}f} to {100 * ends[1]:.{digits}f}{SMALL}%" if ends else "–"


def number(value: Any, digits: int = 3) -> str:
    """Counts with separators, other numbers with ``digits`` decimals, a dash for None, anything else as it is."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def amount(count: int) -> str:
    """``"437 thousand"``, ``"124.4 million"``; exact below ten thousand."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.0f} thousand" if count < 999_500 else f"{count / 1e6:,.1f} million"


def plural(count: int, noun: str) -> str:
    """``"1 text"``, ``"1,045 texts"``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def p_value(p: float) -> str:
    """``"p = 0.03"``, or ``"p < 0.001"``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def duration(seconds: float | None) -> str:
    """``"2 min 5 s"``, ``"1 h 4 min"``, or ``"0.5 s"`` below ten seconds."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f}{SMALL}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{SMALL}s"
    if whole < 3600:
        return f"{whole // 60}{SMALL}min\u00a0{whole % 60}{SMALL}s"
    return f"{whole // 3600}{SMALL}h\u00a0{whole % 3600 // 60}{SMALL}min"


def breakable(label: Any) -> Markup:
    """``label``, escaped, with permission to break the line after underscores."""
    return Markup(str(escape(label)).replace("_", "_<wbr>"))


def compact_places(places: Sequence[str]) -> list[str]:
    """``["a.tsv:3", "9", "b.tsv:2"]`` for ``["a.tsv:3", "a.tsv:9", "b.tsv:2"]``: each file is named once in a row."""
    shown, before = [], ""
    for place in places:
        file, _, line = place.rpartition(":")
        shown.append(line if file and file == before else place)
        before = file
    return shown


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """``text``, or its beginning and how many characters were left out."""
    rest = len(text) - longest
    return text if rest <= 0 else f"{text[:longest]} … ({rest:,} more characters)"


def markdown_cell(text: Any) -> str:
    """``text`` on one line, with nothing in it that Markdown or HTML would act on."""
    flat = re.sub(r"\s+", " ", str(text)).strip()
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|~#])", r"\\\1", flat)
