"""The charts of the page as SVG."""

from __future__ import annotations

import re
from typing import Any

from gptailor.evaluate import charts
from gptailor.evaluate.charts import Course


def history_of_two_epochs() -> list[dict[str, Any]]:
    train = [{"kind": "train", "step": s, "epoch": 1 + s // 6, "examples": 10 * s, "loss": 1 / s} for s in range(1, 11)]
    ends = [
        {"kind": "evaluate", "step": 5, "epoch": 1, "examples": 50, "validation_loss": 0.4},
        {"kind": "evaluate", "step": 10, "epoch": 2, "examples": 100, "validation_loss": 0.3},
    ]
    return train + ends


def test_learning_curve_has_both_axes_and_the_kept_weights() -> None:
    drawing = charts.learning_curve(history_of_two_epochs(), "loss", 10, Course(50))
    for said in (">epochs<", ">examples seen<", ">validation<", ">kept<", ">training<", "var(--accent)"):
        assert said in drawing
    assert ">kept<" not in charts.learning_curve(history_of_two_epochs(), "loss", 7, Course(50))
    assert charts.learning_curve(history_of_two_epochs(), "accuracy", 10, Course(50)) == ""


def test_charts_leave_the_page_alone() -> None:
    drawing = charts.learning_curve(history_of_two_epochs(), "loss", 10, Course(50))
    assert "<style" not in drawing and "<metadata" not in drawing and "font-family" not in drawing
    assert not re.search(r"#00000[1-5]", drawing)


def test_reliability_diagram_and_lengths_of_nothing_are_empty() -> None:
    assert charts.reliability_diagram([]) == ""
    assert charts.length_histogram({}, None) == ""
    assert ">tokens in a record<" in charts.length_histogram({"edges": [0, 50, 100], "counts": [3, 4]}, None, "record")
    assert ">cut at 64 <" in charts.length_histogram({"edges": [0, 50, 100], "counts": [3, 4]}, 64)
