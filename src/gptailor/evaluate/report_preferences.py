"""What the page of a model that learned from pairs says: how many it tells right, margins, answers side by side."""

from __future__ import annotations

from typing import Any

from gptailor.evaluate import charts
from gptailor.evaluate.dots import Dots, dot
from gptailor.evaluate.format import SMALL, interval, percent
from gptailor.evaluate.run import Run
from gptailor.evaluate.verdict import Verdict

ANSWERS = 50  # pairs that the page shows
CHANCE = 0.5


def preferences_page(run: Run) -> dict[str, Any]:
    """What the page of a model that learned from pairs is given."""
    test = run.metrics.get("test") or {}
    answers = run.rows("responses.json")
    return {
        "test": test,
        "verdict": verdict(test),
        "dots": _dots(run.metrics) if test else None,
        "answers": answers[:ANSWERS],
        "answers_in_all": len(answers),
        "curves": _curves(run),
        "lengths": charts.length_histogram(run.receipt.get("lengths") or {}, None),
    }


def verdict(test: dict[str, Any]) -> Verdict:
    """Whether the share of test pairs told right is above chance, by its interval."""
    if not test.get("n"):
        return Verdict("unknown", "It was not tested on pairs.")
    low, high = test["interval"]
    kind = "better" if low > CHANCE else "worse" if high < CHANCE else "same"
    says = {
        "better": "It tells the better answer more often than chance",
        "same": "It cannot be told from chance on these pairs",
        "worse": "It prefers the worse answer: the training did harm here",
    }
    evidence = f"95{SMALL}% Wilson interval {interval(test['interval'])}; chance is {percent(CHANCE, 0)}."
    return Verdict(kind, f"{says[kind]} ({test['correct']:,} of {test['n']:,} pairs).", evidence)


def _dots(metrics: dict[str, Any]) -> Dots:
    """Shares of test pairs told right: by the margins, by what is likelier, by length alone."""
    length = metrics["length"]
    rows = (
        ("this model, by its margins", metrics["test"], "model"),
        ("this model, by what is likelier", metrics["test"]["likelier"], "model"),
        ("its base, by what is likelier", metrics["base"]["likelier"], "base"),
        (f"always the {length['takes']} answer", length, "base"),
    )
    shown = [dot(name, figures["accuracy"], figures["interval"], kind) for name, figures, kind in rows]
    return Dots(f"Test pairs told right, with 95{SMALL}% interval", shown)


def _curves(run: Run) -> list[tuple[str, str]]:
    pairs = (run.receipt.get("tokens") or {}).get("train", {}).get("pairs") or 1
    course, chance = charts.Course(pairs, counted="pairs seen"), {"chance": CHANCE}
    curves = {
        "Loss": charts.learning_curve(run.history, "loss", run.kept_step, course),
        "Margin of the chosen answer": charts.learning_curve(run.history, "margin", run.kept_step, course),
        "Pairs told right": charts.learning_curve(run.history, "accuracy", run.kept_step, course, chance),
        "Learning rate": charts.rate_curve(run.history, course),
    }
    return [(title, curve) for title, curve in curves.items() if curve]
