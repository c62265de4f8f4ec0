"""What the measured figures allow to be said: which of them lead, whether accuracy flatters, who wins."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from gptailor.evaluate.format import SMALL, number, p_value, percent

SIGNIFICANT = 0.05
UNEVEN = 3.0  # largest class over smallest one, beyond which accuracy mostly measures the largest


@dataclass
class Verdict:
    """Who wins against TF-IDF + logistic regression: ``kind`` is better, same, worse or unknown."""

    kind: str
    sentence: str
    evidence: str = ""


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
    largest, smallest = max(classes, key=itemgetter("support")), min(classes, key=itemgetter("support"))
    if largest["support"] <= UNEVEN * smallest["support"]:
        return ""
    share = percent(largest["support"] / figures["n"])
    return (
        f"The classes are uneven: “{largest['label']}” has {largest['support']:,} of these {figures['n']:,} texts, "
        f"“{smallest['label']}” {smallest['support']:,}. Always answering “{largest['label']}” would already be right "
        f"for {share} of them, so accuracy flatters; macro F1 gives every class the same weight."
    )


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
