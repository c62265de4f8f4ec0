"""The page of a classifier says who wins, class by class, and where it is wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptailor.evaluate.format import interval
from gptailor.evaluate.report import write_report
from gptailor.evaluate.report_classifier import _epoch_size, page_parts, read_mistakes
from gptailor.evaluate.run import read_run
from tests.evaluate.pages import report
from tests.evaluate.test_charts import history_of_two_epochs

MakeFolder = Callable[..., Path]
MANY = tuple(f"<i>class</i>_{index}" for index in range(77))


def change(folder: Path, **values: Any) -> None:
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_hostile_labels_are_text_everywhere(model_folder: MakeFolder) -> None:
    labels = ("<u>ham</u>", '"><script>x</script>')
    page = report(model_folder(labels, (400, 60)))
    assert "u" not in page.tags and "script" not in page.tags
    assert page.text.count('"><script>x</script>') > 4


def test_page_leads_with_accuracy_when_classes_are_even(model_folder: MakeFolder) -> None:
    page = report(model_folder(seeds=True))
    unseen = json.loads((model_folder(seeds=True) / "metrics.json").read_text(encoding="utf-8"))["test_unseen"]
    assert f"accuracy on {unseen['n']} test texts never seen in training" in page.text
    assert f"{unseen['correct']} right; 95\u202f% interval {interval(unseen['interval'])}" in page.text
    assert "over 3 seeds" in page.text and "The classes are uneven" not in page.text


def test_page_leads_with_macro_f1_when_classes_are_uneven(model_folder: MakeFolder) -> None:
    folder = model_folder(("ham", "spam"), (400, 60))
    parts = page_parts(read_run(folder))
    assert parts["dots"].title == "Macro F1"
    assert [row["name"] for row in parts["class_dots"].rows] == ["spam", "ham"]
    text = report(folder).text
    assert text.index("macro F1 on") < text.index("accuracy ")
    assert "The classes are uneven" in text


def test_an_interrupted_run_shows_validation_figures_and_says_so(model_folder: MakeFolder) -> None:
    folder = model_folder()
    change(folder, finished=False, test=None, test_unseen=None, baselines=None, baselines_unseen=None, calibration=None)
    (folder / "predictions.csv").unlink()
    text = report(folder).text
    assert "This run did not finish." in text and "likely to be too good" in text
    assert "accuracy on 90 validation texts" in text
    assert "No test texts were answered." in text


def test_few_classes_have_a_matrix_and_many_their_confused_pairs(model_folder: MakeFolder) -> None:
    few = page_parts(read_run(model_folder(("a", "b", "c"), (50, 50, 50))))
    assert len(few["matrix"]) == 3 and few["heat_map"] == []
    confusion = few["headline"].figures["confusion"]
    assert few["matrix"][1]["cells"][0] == (confusion[1][0], confusion[1][0] / sum(confusion[1]))
    many = page_parts(read_run(model_folder(MANY, (12,) * 77)))
    assert many["matrix"] == [] and len(many["heat_map"]) > 1 and len(many["confused"]) == 15
    counts = [pair["count"] for pair in many["confused"]]
    assert counts == sorted(counts, reverse=True) and counts[0] > 0
    assert many["classes"][0]["f1"] == min(each["f1"] for each in many["classes"])


def test_heat_map_draws_each_cell_once(model_folder: MakeFolder) -> None:
    parts = page_parts(read_run(model_folder(MANY, (12,) * 77)))
    cells = [cell for path in parts["heat_map"] for cell in path["path"].split("M")[1:]]
    filled = sum(count > 0 for row in parts["headline"].figures["confusion"] for count in row)
    assert len(cells) == len(set(cells)) == filled


def test_mistakes_are_the_most_confident_twenty(model_folder: MakeFolder) -> None:
    folder = model_folder(edge=0.3)
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        wrong = [float(row["probability"]) for row in csv.DictReader(file) if row["correct"] == "false"]
    mistakes, in_all = read_mistakes(folder / "predictions.csv")
    assert in_all == len(wrong) > 20
    assert [row["probability"] for row in mistakes] == sorted(wrong, reverse=True)[:20]


def test_a_very_long_mistake_is_shortened(model_folder: MakeFolder) -> None:
    folder = model_folder()
    row = ["data.tsv:1", "long " * 60_000, "ham", "spam", "0.999", "0.001", "false", "true"]
    with (folder / "predictions.csv").open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(row)
    path = write_report(folder)
    assert "299,300 more characters" in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 400_000


def test_receipt_is_on_the_page(model_folder: MakeFolder) -> None:
    text = report(model_folder()).text
    for said in (
        "quotes read as ordinary characters",
        "repeats an earlier text",
        "13 of 149 validation texts",
        "sha256",
    ):
        assert said in text


def test_epoch_size_comes_from_the_history_or_in_the_first_epoch_from_the_receipt(model_folder: MakeFolder) -> None:
    run = read_run(model_folder())
    run.history = history_of_two_epochs()
    assert _epoch_size(run) == 50
    run.history = [{"kind": "train", "step": 1, "epoch": 1, "examples": 8, "loss": 1.0}]
    assert _epoch_size(run) == sum(each["train"] for each in run.receipt["labels"].values())
