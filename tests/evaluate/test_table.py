"""The table of a sweep: means over seeds with intervals that a reader can redo, and three files that say the same."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from gptailor.config import TASKS
from gptailor.evaluate.table import (
    METRICS,
    Axis,
    Line,
    Result,
    difference,
    headline,
    look,
    mean_with_interval,
    read_result,
    seeds_half_width,
    write_table,
)

ACCURACY = METRICS["classifier"]


def results(*values: float, interval: tuple[float, float] | None = (0.02, 0.01)) -> list[Result]:
    """Runs of the seeds 1, 2, ...; ``interval`` holds the distances to its ends."""
    ends = [None if interval is None else [value - interval[0], value + interval[1]] for value in values]
    return [
        Result(seed, value, end, 100, 3.0, 10, 50)
        for seed, (value, end) in enumerate(zip(values, ends, strict=True), 1)
    ]


def test_the_t_interval_of_three_seeds() -> None:
    assert seeds_half_width([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert seeds_half_width([5.0]) == 0


def test_one_run_has_its_own_interval() -> None:
    assert mean_with_interval(results(0.95)) == (0.95, pytest.approx([0.93, 0.96]))


def test_seeds_never_make_the_interval_narrower_than_that_of_a_run() -> None:
    assert mean_with_interval(results(0.95, 0.95, 0.95))[1] == pytest.approx([0.93, 0.96])


def test_squares_of_the_distances_to_other_texts_and_other_seeds_are_added() -> None:
    mean, interval = mean_with_interval(results(0.94, 0.95, 0.96))
    seeds = 4.3027 * 0.01 / math.sqrt(3)  # 0.0248
    below, above = math.hypot(0.02, seeds), math.hypot(0.01, seeds)
    assert mean == pytest.approx(0.95) and interval == pytest.approx([0.95 - below, 0.95 + above], abs=1e-6)


def test_an_interval_stays_within_what_is_possible() -> None:
    assert mean_with_interval(results(0.8, 1.0), 1.0)[1][1] == 1.0  # type: ignore[index]
    assert mean_with_interval(results(0.1, 0.9), 1.0)[1][0] == 0.0  # type: ignore[index]


def test_without_intervals_of_the_runs_only_the_seeds_speak() -> None:
    assert mean_with_interval(results(2.0, interval=None))[1] is None
    assert mean_with_interval(results(1.0, 2.0, 3.0, interval=None))[1] == pytest.approx([0, 4.4841], abs=1e-4)


def test_the_difference_is_taken_seed_by_seed() -> None:
    first = results(0.90, 0.80, 0.70)
    mean, interval = difference(results(0.92, 0.81), first)  # +0.02 and +0.01: t of one degree is 12.706
    assert mean == pytest.approx(0.015)
    half = 12.7062 * 0.0070711 / math.sqrt(2)
    assert interval == pytest.approx([0.015 - half, 0.015 + half], abs=1e-5)
    assert difference(results(0.9, 0.8, 0.7), first) == (0.0, None), "no spread is no certainty"
    assert difference(results(0.92), first)[1] is None
    assert difference([], first) == (None, None)


def test_figures_are_looked_up_by_their_place() -> None:
    assert look({"a": {"b": 1}}, "a.b") == 1
    assert look({"a": 3}, "a.b") is None


def test_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(
        json.dumps({"test": {"answers": {"chrf": {"mean": 31.5, "n": 20, "interval": [28.0, 35.0]}}}}), encoding="utf-8"
    )
    manifest = {"model": {"trainable": 7, "parameters": 9}, "timings": {"data": 50, "trunk": 1.5, "train": 2.0}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert read_result(tmp_path, METRICS["assistant"], 5) == Result(5, 31.5, [28.0, 35.0], 20, 3.5, 7, 9)
    assert read_result(tmp_path, ACCURACY, 5) is None


def test_figures_are_written_in_their_unit() -> None:
    assert ACCURACY.write(0.9712) == "97.1" and ACCURACY.title == "accuracy, %"
    assert ACCURACY.write(-0.012, signed=True) == "−1.2" and ACCURACY.write(None) == "–"
    assert METRICS["base"].write(2.0) == "2.000"
    assert METRICS["assistant"].write(31.46) == "31.5"


def test_the_axis_has_room_for_every_interval() -> None:
    axis = Axis.around([{"low": 0.8, "mean": 0.9, "high": 1.0}, {"low": None, "mean": None, "high": None}])
    assert axis.at(0.9) == "50.00%" and axis.at(0.8) < axis.at(1.0)
    assert Axis.around([{"low": None, "mean": 2.0, "high": None}]).at(2.0) == "50.00%"


def lines() -> list[Line]:
    return [
        Line(1, "the baseline", "", "gptailor train classifier d.csv --seed 1", 3, results(0.9, 0.91, 0.92)),
        Line(2, "read <first> | 2", "It | reads.", "gptailor ...", 3, results(0.95), {2: "no <room>", 3: "no <room>"}),
        Line(3, "layers 9", "", "gptailor ...", 3),
    ]


def test_the_three_files_say_the_same(tmp_path: Path) -> None:
    files = write_table(tmp_path, "small", lines(), ACCURACY)
    assert [file.name for file in files] == ["table.csv", "table.md", "table.html"]
    rows = list(csv.DictReader(files[0].open(encoding="utf-8")))
    assert [row["seeds"] for row in rows] == ["3", "1", "0"] and rows[0]["n"] == "300"
    assert float(rows[0]["sd"]) == pytest.approx(0.01) and rows[1]["sd"] == "" and rows[2]["mean"] == ""
    assert float(rows[1]["difference"]) == pytest.approx(0.05)
    assert rows[1]["failed"] == "seeds 2, 3: no <room>" and rows[0]["command"].endswith("--seed 1")
    markdown, page = (file.read_text(encoding="utf-8") for file in files[1:])
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [len(line.replace("\\|", "").split("|")) for line in table]
    assert len(table) == 5 and len(set(cells)) == 1
    assert "1 of 3" in table[3] and "&lt;first&gt; \\| 2" in table[3] and "+5.0" in table[3]
    assert "Row 2 failed, seeds 2, 3: no &lt;room&gt;" in markdown
    assert "read &lt;first&gt; | 2" in page and "no &lt;room&gt;" in page and "+5.0" in page and "<first>" not in page
    assert "src=" not in page and "url(" not in page and "<script" not in page


def test_a_row_on_the_terminal() -> None:
    one, _, none = lines()
    assert headline(one, ACCURACY).startswith("91.0\u202f% (") and headline(none, ACCURACY) == "–"


def test_every_task_has_its_metric() -> None:
    assert METRICS.keys() == TASKS.keys()
