"""Dots lie where their values are."""

from __future__ import annotations

from gptailor.evaluate.dots import Dots


def test_dots_lie_where_their_values_are() -> None:
    dots = Dots("accuracy", [{"value": 0.95, "low": 0.91, "high": 0.98}, {"value": 0.5, "low": 0.44, "high": 0.57}])
    assert dots.low == 0.4
    assert dots.ticks == [0.4, 0.6, 0.8, 1.0]
    assert (dots.at(0.4), dots.at(0.7), dots.at(1.0)) == ("0.00%", "50.00%", "100.00%")
    assert Dots("high", [{"value": 0.97, "low": 0.93, "high": 1.0}]).ticks == [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]
    assert Dots("points", [{"value": 0.9, "low": 0.8}], "points").low == 0
    assert Dots("none").ticks[0] == 0.0


def test_dots_write_in_their_unit() -> None:
    told = {unit: Dots("", [], unit) for unit in ("percent", "number", "points")}
    assert [dots.write(0.964) for dots in told.values()] == ["96.4\u202f%", "0.964", "96.4"]
    assert [dots.write_interval(0.9, 0.98) for dots in told.values()] == [
        "90.0 to 98.0\u202f%",
        "0.900 to 0.980",
        "90.0 to 98.0",
    ]
    assert [dots.write_tick(0.8) for dots in told.values()] == ["80\u202f%", "0.8", "80"]
    assert told["points"].write(None) == "–"
