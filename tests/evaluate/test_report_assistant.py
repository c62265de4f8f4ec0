"""The page of an assistant sets its answers beside those of its base, and says who is nearer to the references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptailor.evaluate.answers import reference_scores
from gptailor.evaluate.format import interval, number, percent, signed
from gptailor.evaluate.report import write_report
from gptailor.evaluate.report_assistant import answer_rows, verdict
from tests.evaluate.folders import write_assistant_folder
from tests.evaluate.pages import report


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_the_figures_are_those_of_metrics_json(assistant_folder: Path) -> None:
    words, metrics = report(assistant_folder).words, read(assistant_folder, "metrics.json")
    for key in ("test", "base"):
        answers = metrics[key]["answers"]
        for score in ("chrf", "rouge_l"):
            low, high = answers[score]["interval"]
            assert f"{number(answers[score]['mean'], 1)} {number(low, 1)} to {number(high, 1)}" in words
        exact = answers["exact"]
        told = f"{percent(exact['accuracy'])} {exact['correct']} of {exact['n']}; {interval(exact['interval'])}"
        assert " ".join(told.split()) in words
        assert f"{number(metrics[key]['perplexity'], 2)} {number(metrics[key]['loss'])} nats per token" in words
    difference = metrics["difference"]["chrf"]
    low, high = difference["interval"]
    assert f"{signed(difference['difference'])} {signed(low)} to {signed(high)}, p < 0.001" in words
    assert f"chrF on {metrics['test']['answers']['n']} test records" in words
    assert "Its answers are nearer to the references than those of its base" in words


def test_every_answer_is_there_with_its_score(assistant_folder: Path) -> None:
    rows, words = read(assistant_folder, "responses.json"), report(assistant_folder).words
    scores = reference_scores([row["output"] for row in rows], [row["base_response"] for row in rows])["chrf"]
    for row, score in zip(rows, scores, strict=True):
        reference = " ".join(row["output"].split())
        assert f"reference {reference} its base chrF {score:.1f}" in words
    assert words.count("word for word ") >= sum(row["output"] == row["model_response"] for row in rows)
    assert "<script>alert(1)</script><img src=https://evil.example/x.png" in words
    assert "سلام، غذا خیلی دیر رسید" in words and "{{ 7 * 7 }}" in words
    assert f"{900 - 260} more characters" in words, "a long answer is folded"
    assert "1 earlier message" in words


def test_answers_stand_in_three_orders() -> None:
    texts = [("abc def", "abc def", "abc def"), ("abc def", "xyz", "abc def"), ("", "x", "y"), ("abc def", "abc", "")]
    rows = answer_rows([{"output": ref, "model_response": tuned, "base_response": b} for ref, tuned, b in texts])
    scores = [row["said"][1]["chrf"] for row in rows]
    assert scores[0] == 100 and scores[1] == 0 and scores[2] is None and 0 < scores[3] < 100
    places = {name: [row[name] for row in rows] for name in ("file", "low", "lost")}
    assert places == {"file": [0, 1, 2, 3], "low": [2, 0, 3, 1], "lost": [1, 0, 3, 2]}
    assert [row["said"][1]["exact"] for row in rows] == [True, False, False, False]


def test_the_first_twenty_of_each_order_are_shown_until_all_are_asked_for(assistant_folder: Path) -> None:
    attributes = report(assistant_folder).attributes
    shown = [value.split() for name, value in attributes if name == "class" and (not value or "in-" in value)]
    assert len(shown) == 30
    for order in ("in-file", "in-low", "in-lost"):
        assert sum(order in classes for classes in shown) == 20
    assert ("id", "order-all") in attributes
    few = report(write_assistant_folder(assistant_folder.with_name("few"), 6)).attributes
    assert ("id", "order-all") not in few


@pytest.mark.parametrize(
    ("difference", "p", "kind", "said"),
    [
        (3.0, 0.01, "better", "nearer to the references"),
        (3.0, 0.2, "same", "not distinguishable"),
        (-3.0, 0.01, "worse", "the training did harm"),
        (None, None, "unknown", "Too few records"),
    ],
)
def test_the_verdict_follows_the_paired_difference(difference: float, p: float, kind: str, said: str) -> None:
    told = {"difference": difference, "n": 40, "interval": [1.0, 5.0], "p": p}
    answers = {"answers": {"chrf": {"mean": 20.0}}}
    found = verdict({"difference": {"chrf": told}, "test": answers, "base": answers})
    assert found.kind == kind and said in found.sentence


def test_the_receipt_is_on_the_page(assistant_folder: Path) -> None:
    words = report(assistant_folder).words
    for said in (
        "rows read 303",
        "dropped 3",
        "empty answers 2",
        "2 has an empty output <u>records.json:7, 9",
        "2 records longer than 512 tokens: 1 lost the end of an answer, 1 whole turns.",
        "Read as prompts with answers: <u>prompt</u>; not used: <u>note</u>.",
        "training 240 14,400 3,600 25.0 %",
        "4 of 30 test questions are also in training.",
        "<b>4 of 30 test questions</b> stand word for word",
    ):
        assert said in words


def test_a_stopped_run_says_so_and_claims_nothing(tmp_path: Path) -> None:
    page = report(write_assistant_folder(tmp_path / "run", finished=False))
    assert "This run did not finish. It has not been tested" in page.words
    assert "chrF" not in page.words and "How it learned" in page.words and "What is learned" in page.words


def test_records_without_a_reference_have_no_score(assistant_folder: Path) -> None:
    rows = [{**row, "output": ""} for row in read(assistant_folder, "responses.json")]
    (assistant_folder / "responses.json").write_text(json.dumps(rows), encoding="utf-8")
    nothing: dict[str, Any] = {"mean": None, "n": 0, "interval": None}
    exact = {"accuracy": None, "correct": 0, "n": 0, "interval": None}
    answers = {"n": 0, "no_reference": 30, "empty_responses": 0, "exact": exact, "chrf": nothing, "rouge_l": nothing}
    figures = {"loss": 1.0, "perplexity": 2.718, "answers": answers}
    metrics = read(assistant_folder, "metrics.json") | {"test": figures, "base": figures, "difference": {}}
    (assistant_folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    html = write_report(assistant_folder).read_text(encoding="utf-8")
    assert "Too few records have a reference" in html and "chrF 0.0" not in html
    assert "30 records without a reference left out." in html


@pytest.mark.browser
def test_answers_are_put_in_order_without_a_script(assistant_folder: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    rows = read(assistant_folder, "responses.json")
    scores = reference_scores([row["output"] for row in rows], [row["model_response"] for row in rows])["chrf"]
    seen = """[...document.querySelectorAll('.answers li')].filter(each => each.offsetHeight)
        .sort((one, other) => one.offsetTop - other.offsetTop)
        .map(each => each.querySelector('.tuned span').innerText)"""
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(write_report(assistant_folder).as_uri())
        told = ["word for word" if score == 100 else f"chrF {score:.1f}" for score in scores]
        assert page.evaluate(seen) == told[:20]
        page.check("#order-low")
        lowest = [told[place] for place in sorted(range(30), key=lambda place: scores[place])]
        assert page.evaluate(seen) == lowest[:20]
        page.check("#order-all")
        assert page.evaluate(seen) == lowest
        browser.close()
