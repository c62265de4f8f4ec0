"""The report's charts as inline SVG: drawn by matplotlib, coloured by the page's style sheet, in light and dark.

No text of the user ever enters a chart; what stands in one is written here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gptailor.evaluate.metrics import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that are stood in for while drawing and become the page's CSS variables afterwards.
INK, SOFT, LINE, ACCENT, SECOND = "#000001", "#000002", "#000003", "#000004", "#000005"
VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", ACCENT: "--accent", SECOND: "--second"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "text.color": SOFT,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.labelcolor": INK,
}
DASHES = ((4, 3), (1, 3))  # of the level lines, the first one's longer


@dataclass(frozen=True)
class Course:
    """What the curves of a run are drawn over.

    Attributes:
        size: examples in one unit of the axis below.
        unit: that unit, such as epochs.
        counted: what the axis on top counts.
    """

    size: float
    unit: str = "epochs"
    counted: str = "examples seen"


def learning_curve(
    history: Sequence[dict[str, Any]],
    quantity: str,
    best_step: int | None,
    course: Course,
    levels: Mapping[str, float] | None = None,
) -> str:
    """Loss or accuracy on training and validation part over the run; ``""`` when neither was logged.

    Args:
        history: lines of ``history.jsonl``.
        quantity: ``"loss"`` or ``"accuracy"``.
        best_step: the step of the kept weights, marked on the validation curve.
        levels: what to compare with, by name: level lines.
    """
    training = _points(history, quantity, course.size)
    validation = _points(history, f"validation_{quantity}", course.size)
    if not training and not validation:
        return ""
    kept = [row for row in history if row.get("kind") == "evaluate" and row.get("step") == best_step]
    best = _points(kept, f"validation_{quantity}", course.size)

    def draw(axes: Axes) -> None:
        if training:
            _training_line(axes, np.array(training))
        if validation:
            axes.plot(
                *np.array(validation).T, color=SECOND, linewidth=1.8, marker="o", markersize=3.2, label="validation"
            )
        if best:
            x, y = best[0]
            axes.plot(
                x, y, "o", markersize=9, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.2, label="kept"
            )
        for dashes, (name, level) in zip(DASHES, (levels or {}).items(), strict=False):
            axes.axhline(level, color=SOFT, linewidth=1, linestyle=(0, dashes), label=name)
        values = [value for _, value in training + validation] + list((levels or {}).values())
        if quantity == "accuracy":
            axes.set_ylim(np.floor(10 * min(values)) / 10, 1.01)
            axes.yaxis.set_major_formatter(_as_percent)
        elif min(values) < max(values) / 2:  # or else zero would leave half of the chart empty
            axes.set_ylim(0, None)
        axes.legend(loc="lower right" if quantity == "accuracy" else "best")
        _course_axes(axes, course)

    description = f"{quantity} in training and on the validation part over the {course.unit}"
    return svg(draw, name=quantity, description=description)


def rate_curve(history: Sequence[dict[str, Any]], course: Course) -> str:
    """The learning rate over the run; ``""`` when it was not logged."""
    rates = _points(history, "lr", course.size)
    if not rates:
        return ""

    def draw(axes: Axes) -> None:
        axes.plot(*np.array(rates).T, color=ACCENT, linewidth=1.8)
        axes.set_ylim(0, None)
        axes.yaxis.set_major_formatter(lambda value, _: np.format_float_positional(value, precision=9, trim="-"))
        _course_axes(axes, course)

    return svg(draw, name="rate", description=f"learning rate over the {course.unit}")


def reliability_diagram(bins: Sequence[dict[str, Any]]) -> str:
    """How often the model was right against how sure it was, with 95 % intervals, above the counts of texts."""
    filled = [each for each in bins if each["n"]]
    if not filled:
        return ""
    confidence = np.array([each["confidence"] for each in filled])
    accuracy = np.array([each["accuracy"] for each in filled])
    ends = np.array([wilson_interval(round(each["accuracy"] * each["n"]), each["n"]) for each in filled])
    # Rounding can leave an end a hair inside the point, which matplotlib refuses.
    whiskers = np.maximum(np.abs(ends.T - accuracy), 0)

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (3, 3)), label="exactly as sure as right")
        axes.errorbar(confidence, accuracy, yerr=whiskers, fmt="none", ecolor=ACCENT, elinewidth=1.2, alpha=0.55)
        axes.plot(confidence, accuracy, "o", color=ACCENT, markersize=5, label="this model, 95 % interval")
        counts = axes.inset_axes((0, -0.34, 1, 0.2))
        counts.bar(
            [each["from"] for each in bins], [each["n"] for each in bins], _width(bins), align="edge", color=ACCENT
        )
        counts.set(xlim=(0, 1.02), xlabel="probability of the predicted class")
        counts.set_ylabel("texts", rotation=0, ha="right", va="center")
        counts.set_yticks([0, max(each["n"] for each in bins)])
        counts.xaxis.set_major_formatter(_as_percent)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), ylabel="share that was right", xticklabels=[])
        axes.yaxis.set_major_formatter(_as_percent)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, columnspacing=1.2)

    description = "share of right answers against the predicted probability"
    return svg(draw, name="reliability", description=description, height=3.8, left=0.17, bottom=0.31, top=0.91)


def length_histogram(lengths: dict[str, Any], limit: int | None, noun: str = "text") -> str:
    """Tokens per text, with the length at which texts were cut, if any were; ``""`` when nothing was counted."""
    edges, counts = lengths.get("edges") or [], lengths.get("counts") or []
    if len(edges) != len(counts) + 1 or not any(counts):
        return ""

    def draw(axes: Axes) -> None:
        axes.bar(edges[:-1], counts, np.diff(edges) * 0.92, align="edge", color=ACCENT)
        if limit:
            axes.axvline(limit, color=SECOND, linewidth=1.2)
            axes.annotate(
                f"cut at {limit} ", (limit, 0.96), xycoords=("data", "axes fraction"), ha="right", color=SECOND
            )
        axes.set(xlabel=f"tokens in a {noun}", ylabel=f"{noun}s", xlim=(edges[0], None))
        axes.grid(axis="x", visible=False)

    return svg(
        draw,
        name="lengths",
        description=f"histogram of the number of tokens in a {noun}",
        height=2.5,
        left=0.17,
        bottom=0.18,
        top=0.96,
    )


def svg(
    draw: Callable[[Axes], None],
    *,
    name: str,
    description: str,
    height: float = 2.9,
    left: float = 0.12,
    bottom: float = 0.15,
    top: float = 0.84,
) -> str:
    """The figure that ``draw`` fills, 4.4 inches wide, as an ``<svg>`` element that scales with its container.

    ``height`` is in inches; ``left``, ``bottom`` and ``top`` say where the axes begin and end, as shares of the figure:
    fixed, so that charts side by side line up. ``name`` keeps the element ids of several charts on one page apart, and
    the same from run to run.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure, buffer = Figure(figsize=(4.4, height)), io.StringIO()
        figure.subplots_adjust(left=left, right=0.96, bottom=bottom, top=top)
        draw(figure.subplots())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), name, description)


def _for_page(drawing: str, name: str, description: str) -> str:
    drawing = drawing[drawing.index("<svg") :]
    # The metadata only name matplotlib; the style would apply to the whole page; fonts and sizes are the page's.
    drawing = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r" font-family: [^;\"]*;?", "", drawing)
    drawing = re.sub(r' id="(?!m[0-9a-f]{10}|p[0-9a-f]{10})[^"]*"', "", drawing)
    drawing = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", drawing, count=1)
    for colour, variable in VARIABLES.items():
        drawing = drawing.replace(colour, f"var({variable})")
    return drawing.replace("<svg", f'<svg class="chart {name}" role="img" aria-label="{description}"', 1)


def _points(history: Sequence[dict[str, Any]], key: str, size: float) -> list[tuple[float, float]]:
    known = [row for row in history if row.get(key) is not None and row.get("examples") is not None]
    return [(row["examples"] / size, row[key]) for row in known]


def _training_line(axes: Axes, points: np.ndarray) -> None:
    """Single batches jump about: they are drawn faintly, their running mean over a twentieth of the run boldly."""
    window = max(1, len(points) // 20)
    if window > 1:
        axes.plot(*points.T, color=ACCENT, linewidth=0.8, alpha=0.3)
    totals = np.cumsum(np.insert(points[:, 1], 0, 0.0))
    ends = np.arange(1, len(points) + 1)
    starts = np.maximum(0, ends - window)
    label = f"training, mean of {window} points" if window > 1 else "training"
    axes.plot(points[:, 0], (totals[ends] - totals[starts]) / (ends - starts), color=ACCENT, linewidth=1.8, label=label)


def _course_axes(axes: Axes, course: Course) -> None:
    """Units below, what was counted on top."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set(xlabel=course.unit)
    axes.set_xlim(0, None)
    above = axes.secondary_xaxis(
        "top", functions=(lambda x: np.multiply(x, course.size), lambda x: np.divide(x, course.size))
    )
    above.xaxis.set_major_locator(MaxNLocator(4))
    above.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    above.set_xlabel(course.counted)
    above.spines["top"].set_color(LINE)


def _width(bins: Sequence[dict[str, Any]]) -> float:
    return (bins[0]["to"] - bins[0]["from"]) * 0.9


def _as_percent(value: float, _: Any = None) -> str:
    return f"{value:.0%}".replace("%", "\u202f%")
