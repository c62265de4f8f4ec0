"""Answers files are read whole or not at all, and the reference metrics are those of the libraries that are named."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from gptailor.errors import UserError
from gptailor.evaluate.answers import (
    Answer,
    read_answers,
    reference_differences,
    reference_metrics,
    reference_scores,
)

RECORD = {"instruction": "Name a colour.", "input": "", "output": "Red.", "model_response": "Blue."}


def saved(folder: Path, records: Any, name: str = "answers.json") -> Path:
    file = folder / name
    file.write_text(json.dumps(records), encoding="utf-8")
    return file


def test_answers_are_read_in_order(tmp_path: Path) -> None:
    without_input = {key: text for key, text in RECORD.items() if key != "input"}
    records = [RECORD, {**without_input, "output": None}, {**RECORD, "input": "warm", "model_response": ""}]
    assert read_answers(saved(tmp_path, records)) == [
        Answer(1, "Name a colour.", "", "Red.", "Blue."),
        Answer(2, "Name a colour.", "", "", "Blue."),
        Answer(3, "Name a colour.", "warm", "Red.", ""),
    ]


def test_another_key_holds_the_response(tmp_path: Path) -> None:
    file = saved(tmp_path, [{**RECORD, "model 1 response": "Green."}])
    assert read_answers(file, "model 1 response")[0].response == "Green."


def test_json_lines_are_read_too(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(f"{json.dumps(RECORD)}\n\n{json.dumps(RECORD)}\n", encoding="utf-8")
    assert [answer.number for answer in read_answers(file)] == [1, 3]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([{**RECORD, "model_response": None}], "model_response is no text in the records 1"),
        ([RECORD, {**RECORD, "output": 42}, {**RECORD, "output": ["Red"]}], "output is no text in the records 2, 3"),
        ([RECORD, {**RECORD, "instruction": None}], "instruction is no text in the records 2"),
        ([RECORD, "Red.", 3], "cannot be read (a number where an object was expected): 3"),
        ([{"question": "?", "model_respons": "!"}], "did you mean 'model_respons'?"),
        ([{key: RECORD[key] for key in ("instruction", "output")}], "generate the responses first"),
        ([], "no row"),
    ],
)
def test_what_is_no_answers_file_is_told(tmp_path: Path, records: Any, expected: str) -> None:
    with pytest.raises(UserError) as error:
        read_answers(saved(tmp_path, records))
    assert expected in str(error.value)


def test_all_problems_come_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 problems"):
        read_answers(saved(tmp_path, [{"instruction": 1, "input": {}}, {"output": "x", "instruction": "y"}]))


def test_metrics_of_a_perfect_and_a_useless_answer() -> None:
    told = reference_metrics(["The cat sat.", "Yes", "no reference: ", ""], ["the  cat sat", "", "no reference:", "x"])
    assert told["n"] == 3 and told["no_reference"] == 1 and told["empty_responses"] == 1
    assert told["exact"]["correct"] == 2 and told["exact"]["n"] == 3
    assert told["rouge_l"]["mean"] == pytest.approx(200 / 3)
    assert told["chrf"]["interval"][0] < told["chrf"]["mean"] < told["chrf"]["interval"][1]
    json.dumps(told, allow_nan=False)


def test_the_difference_is_that_of_the_means() -> None:
    references, good, bad = ["red", "blue", "", "green"], ["red", "blu", "x", "green"], ["rot", "blue", "y", ""]
    told = reference_differences(references, good, bad)
    first, second = reference_metrics(references, good), reference_metrics(references, bad)
    assert told["exact"]["difference"] == pytest.approx(2 / 3 - 1 / 3) and told["exact"]["n"] == 3
    for score in ("chrf", "rouge_l"):
        assert told[score]["difference"] == pytest.approx(first[score]["mean"] - second[score]["mean"])
    json.dumps(told, allow_nan=False)


def test_rouge_l_by_hand() -> None:
    # Longest common subsequence "the cat down": 3 of 4 reference words, 3 of 3 said: F1 = 2 * 0.75 * 1 / 1.75.
    scores = reference_scores(["the cat sat down"], ["The cat, down!"])
    assert scores["rouge_l"][0] == pytest.approx(100 * 6 / 7)


@pytest.mark.parametrize(
    ("reference", "said"), [("пес спить", "пес спить удома"), ("سگ خواب است", "سگ خواب"), ("हिन्दी भाषा", "हिन्दी")]
)
def test_words_of_other_scripts_count(reference: str, said: str) -> None:
    common = min(len(reference.split()), len(said.split()))
    expected = 200 * common / (len(reference.split()) + len(said.split()))
    assert reference_scores([reference], [said])["rouge_l"][0] == pytest.approx(expected)


def test_metrics_are_those_of_the_libraries() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import sentence_chrf

    reference, said = "A simple sentence about dogs.", "One simple sentence on two dogs"
    scores = reference_scores([reference], [said])
    assert scores["chrf"][0] == sentence_chrf(said, [reference]).score
    assert scores["rouge_l"][0] == pytest.approx(
        100 * RougeScorer(["rougeL"]).score(reference, said)["rougeL"].fmeasure
    )


@pytest.mark.parametrize(("said", "exact"), [("RED", True), (" red . ", True), ("red!", False), ("reddish", False)])
def test_what_counts_as_exact(said: str, exact: bool) -> None:
    assert reference_scores(["Red."], [said])["exact"].tolist() == [exact]


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith(("sacrebleu", "rouge_score")):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"gptailor\[assist\]"):
        reference_metrics(["a"], ["a"])
