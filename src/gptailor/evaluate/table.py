"""The table of a sweep: the runs of each row drawn together over their seeds, as csv, Markdown and a page."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gptailor.errors import listing
from gptailor.evaluate.format import SMALL, environment, number
from gptailor.evaluate.run import read_run

TIMED = ("trunk", "train")  # what of a run is training; the rest is reading, evaluating and saving


@dataclass(frozen=True)
class Metric:
    """The figure by which the runs of a task are compared.

    Attributes:
        value, n, interval: places in metrics.json.
        unit: how it is written: a share as per cent, points of 100, or a number.
        counted: what ``n`` counts.
    """

    name: str
    unit: Literal["percent", "points", "number"]
    value: str
    n: str
    counted: str
    interval: str | None = None
    lower_is_better: bool = False

    def write(self, value: float | None, *, signed: bool = False) -> str:
        """``"97.0"`` for 97.0 %, 97.0 points; a dash for None. The unit stands in the head of the column."""
        if value is None:
            return "–"
        digits, scaled = (3, value) if self.unit == "number" else (1, value * (100 if self.unit == "percent" else 1))
        return f"{scaled:+.{digits}f}".replace("-", "−") if signed else number(float(scaled), digits)

    @property
    def title(self) -> str:
        """The name with its unit."""
        return f"{self.name}, %" if self.unit == "percent" else self.name

    @property
    def highest(self) -> float:
        """What no value is above."""
        return {"percent": 1.0, "points": 100.0, "number": math.inf}[self.unit]


METRICS = {
    "classifier": Metric(
        "accuracy", "percent", "test_unseen.accuracy", "test_unseen.n", "unseen test texts", "test_unseen.interval"
    ),
    "assistant": Metric(
        "chrF", "points", "test.answers.chrf.mean", "test.answers.chrf.n", "answers", "test.answers.chrf.interval"
    ),
    "preferences": Metric("pairs told right", "percent", "test.accuracy", "test.n", "test pairs", "test.interval"),
    "base": Metric(
        "bits per byte", "number", "bits_per_byte", "held_out.documents", "held-out documents", lower_is_better=True
    ),
}


@dataclass
class Result:
    """One finished run."""

    seed: int
    value: float
    interval: Sequence[float] | None
    n: int
    seconds: float
    trainable: int
    parameters: int


@dataclass
class Line:
    """A row of the table: a setting and what its runs gave.

    Attributes:
        wanted: how many runs there should be.
        failed: why a run failed, by its seed.
        command: repeats the run of the first seed.
    """

    number: int
    change: str
    means: str
    command: str
    wanted: int
    results: list[Result] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """``"seeds 123, 124: the reason"``, or ``""``."""
        seeds_of: dict[str, list[int]] = {}
        for seed, reason in self.failed.items():
            seeds_of.setdefault(reason, []).append(seed)
        told = [f"seed{'s' * (len(seeds) > 1)} {listing(seeds)}: {reason}" for reason, seeds in seeds_of.items()]
        return " | ".join(told)


def read_result(folder: Path, metric: Metric, seed: int) -> Result | None:
    """The figures of a finished run, or None where its test part held nothing to measure."""
    run = read_run(folder)
    value = look(run.metrics, metric.value)
    if value is None:
        return None
    model, timings = run.manifest.get("model") or {}, run.manifest.get("timings") or {}
    return Result(
        seed=seed,
        value=value,
        interval=look(run.metrics, metric.interval) if metric.interval else None,
        n=look(run.metrics, metric.n) or 0,
        seconds=sum(timings.get(name, 0.0) for name in TIMED),
        trainable=model.get("trainable", 0),
        parameters=model.get("parameters", 0),
    )


def look(metrics: Mapping[str, Any], place: str) -> Any:
    """``look({"a": {"b": 1}}, "a.b")`` is 1; None where there is nothing."""
    found: Any = metrics
    for key in place.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


# --- over the seeds ---------------------------------------------------------------------------------------------------


def seeds_half_width(values: Sequence[float]) -> float:
    """Half the 95 % t interval of the mean over seeds; ``[1, 2, 3]``: 4.303 * 1 / sqrt(3) = 2.484. 0 for one value."""
    from scipy.stats import t

    k = len(values)
    return float(t.ppf(0.975, k - 1)) * standard_deviation(values) / math.sqrt(k) if k > 1 else 0.0


def standard_deviation(values: Sequence[float]) -> float:
    """Of a sample (n - 1), of at least two values."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def mean_with_interval(results: Sequence[Result], highest: float = math.inf) -> tuple[float, list[float] | None]:
    """The mean over seeds and its 95 % interval, which allows for other texts and for other seeds.

    Two things could have been otherwise: the texts that were tested, and the seeds. For the texts stand the intervals
    of the single runs (the mean of their distances to each side), since seeds that draw from the same texts add no
    independent ones; for the seeds the t interval of their mean. Squares of the two distances are added (Zou and
    Donner, 2008, "MOVER"). Where each seed has its own split the spread holds a part of the texts' chance already, so
    that the interval is rather too wide: never narrower than that of one run.

    One run of 0.95 (0.92 to 0.97): that interval. Two of 0.95 (0.92 to 0.97): the same, as their spread is 0.
    """
    values = [result.value for result in results]
    mean, seeds = sum(values) / len(values), seeds_half_width(values)
    known = [(result.value, result.interval) for result in results if result.interval]
    if not known and len(values) < 2:
        return mean, None
    below = sum(value - ends[0] for value, ends in known) / max(1, len(known))
    above = sum(ends[1] - value for value, ends in known) / max(1, len(known))
    return mean, [max(0.0, mean - math.hypot(below, seeds)), min(highest, mean + math.hypot(above, seeds))]


def difference(results: Sequence[Result], first: Sequence[Result]) -> tuple[float | None, list[float] | None]:
    """The mean difference to the first row over the seeds that both have, and its 95 % t interval (two seeds or more).

    The runs of one seed have the same split, so what is hard in a split counts for both. Where all seeds say the same
    there is no interval: a spread of 0 among a few is chance or identity, and no certainty.
    """
    before = {result.seed: result.value for result in first}
    pairs = [result.value - before[result.seed] for result in results if result.seed in before]
    if not pairs:
        return None, None
    mean, half = sum(pairs) / len(pairs), seeds_half_width(pairs)
    return mean, [mean - half, mean + half] if half else None


# --- what is written --------------------------------------------------------------------------------------------------


def figures(lines: Sequence[Line], metric: Metric) -> list[dict[str, Any]]:
    """Every row's figures under the names of the csv file's columns; None for what is not known."""
    rows = []
    for line in lines:
        results = line.results
        value, interval = mean_with_interval(results, metric.highest) if results else (None, None)
        change, change_interval = difference(results, lines[0].results) if line is not lines[0] else (None, None)
        seconds = [result.seconds for result in results]
        rows.append(
            {
                "row": line.number,
                "change": line.change,
                "metric": metric.name,
                "mean": value,
                **_ends("", interval),
                "sd": standard_deviation([result.value for result in results]) if len(results) > 1 else None,
                "difference": change,
                **_ends("difference_", change_interval),
                "n": sum(result.n for result in results),
                "seeds": len(results),
                "seconds": round(sum(seconds) / len(seconds), 2) if seconds else None,
                "trainable": results[0].trainable if results else None,
                "parameters": results[0].parameters if results else None,
                "failed": line.why,
                "means": line.means,
                "command": line.command,
            }
        )
    return rows


def _ends(prefix: str, interval: Sequence[float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{prefix}low": low, f"{prefix}high": high}


def write_table(folder: Path, name: str, lines: Sequence[Line], metric: Metric) -> list[Path]:
    """Writes ``table.csv``, ``table.md`` and ``table.html`` into the folder.

    Args:
        name: of the sweep, for the heading.
    """
    rows = figures(lines, metric)
    csv_file, markdown_file, page = (folder / f"table.{ending}" for ending in ("csv", "md", "html"))
    with csv_file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    shown = {"name": name, "metric": metric, "rows": _shown(rows, lines, metric), "axis": Axis.around(rows)}
    markdown = environment(autoescape=False).get_template("sweep.md.j2").render(**shown)
    markdown_file.write_text(f"{markdown}\n", encoding="utf-8")
    page.write_text(environment(autoescape=True).get_template("sweep.html.j2").render(**shown), encoding="utf-8")
    return [csv_file, markdown_file, page]


def _shown(rows: Sequence[dict[str, Any]], lines: Sequence[Line], metric: Metric) -> list[dict[str, Any]]:
    """The figures as they are read, beside the bare ones."""
    shown = []
    for row, line in zip(rows, lines, strict=True):
        said = {
            "said_mean": metric.write(row["mean"]),
            "said_interval": _range(row["low"], row["high"], metric),
            "said_sd": metric.write(row["sd"]),
            "said_difference": metric.write(row["difference"], signed=True),
            "said_difference_interval": _range(row["difference_low"], row["difference_high"], metric, signed=True),
            "wanted": line.wanted,
        }
        shown.append(row | said)
    return shown


def _range(low: float | None, high: float | None, metric: Metric, *, signed: bool = False) -> str:
    if low is None or high is None:
        return ""
    return f"{metric.write(low, signed=signed)} to {metric.write(high, signed=signed)}"


@dataclass(frozen=True)
class Axis:
    """The line on which the page draws the intervals of all rows."""

    low: float
    high: float

    @classmethod
    def around(cls, rows: Sequence[Mapping[str, Any]]) -> Axis:
        """From the lowest to the highest that is shown, with a little room."""
        ends = [row[key] for row in rows for key in ("low", "mean", "high") if row[key] is not None]
        low, high = min(ends, default=0.0), max(ends, default=1.0)
        room = 0.04 * (high - low) or 0.5
        return cls(low - room, high + room)

    def at(self, value: float) -> str:
        """The position of a value, as a CSS percentage."""
        return f"{(value - self.low) / (self.high - self.low):.2%}"


def headline(line: Line, metric: Metric) -> str:
    """``"97.0 (95.1 to 98.2)"``: the row's mean with its interval."""
    if not line.results:
        return "–"
    value, interval = mean_with_interval(line.results, metric.highest)
    unit = f"{SMALL}%" if metric.unit == "percent" else ""
    return metric.write(value) + unit + (f" ({_range(interval[0], interval[1], metric)})" if interval else "")
