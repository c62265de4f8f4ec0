"""A chart of figures with their intervals, one row each, drawn by the page itself in HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gptailor.evaluate.format import interval, number, percent


@dataclass
class Dots:
    """Figures in [0, 1] with their intervals, one row each: name, value, low, high, kind, n.

    Attributes:
        title: what is shown.
        unit: how a figure is written: 0.964 is ``"96.4 %"`` as percent, ``"0.964"`` as number, ``"96.4"`` as points.
    """

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    unit: Literal["percent", "number", "points"] = "percent"

    @property
    def low(self) -> float:
        """Where the axis begins: a round tenth below everything shown; 0 for points, so that charts compare."""
        if self.unit == "points":
            return 0.0
        ends = [end for row in self.rows for end in (row["value"], row["low"]) if end is not None]
        return max(0.0, int(min(ends, default=0.0) * 10 - 0.2) / 10)

    @property
    def ticks(self) -> list[float]:
        """Round positions from ``low`` to 1."""
        step = 2 if self.low >= 0.9 else 10 if self.low >= 0.7 else 20
        start = round(self.low * 100)
        return [hundredth / 100 for hundredth in range(start + (100 - start) % step, 101, step)]

    def write(self, value: float | None) -> str:
        """A figure in its unit."""
        if self.unit == "points" and value is not None:
            return number(100.0 * value, 1)
        return number(value) if self.unit == "number" else percent(value)

    def write_interval(self, low: float, high: float) -> str:
        """The ends of an interval in their unit."""
        return interval((low, high)) if self.unit == "percent" else f"{self.write(low)} to {self.write(high)}"

    def write_tick(self, value: float) -> str:
        """A position of the axis in its unit."""
        if self.unit == "points":
            return f"{100 * value:.0f}"
        return percent(value, 0) if self.unit == "percent" else str(value)

    def at(self, value: float) -> str:
        """Position of ``value`` along the axis, as a CSS percentage."""
        return f"{(value - self.low) / (1 - self.low):.2%}"


def dot(
    name: str, value: float | None, interval: Sequence[float] | None, kind: str, n: int | None = None
) -> dict[str, Any]:
    """One row; ``kind`` gives its colour: ``model`` for what the page is about."""
    low, high = interval if interval and value is not None else (None, None)
    return {"name": name, "value": value, "low": low, "high": high, "kind": kind, "n": n}
