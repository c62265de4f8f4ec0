"""The baselines do what they say, the same every time, and survive data that leaves them nothing to learn."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from gptailor.evaluate.baselines import (
    baseline_metrics,
    baseline_predictions,
    majority,
    mostly_unspaced,
    tfidf_logistic_regression,
)
from gptailor.evaluate.metrics import wilson_interval

GOOD, BAD = "a warm and lovely film", "a dull and boring film"


def test_majority_is_the_commonest_training_class() -> None:
    assert majority(np.array([2, 0, 2, 1]), 3, 4).tolist() == [2, 2, 2]
    assert majority(np.array([1, 0]), 2, 2).tolist() == [0, 0]
    assert majority(np.array([1]), 0, 2).tolist() == []


def test_tfidf_learns_which_words_belong_to_which_class() -> None:
    predicted = tfidf_logistic_regression(
        [GOOD, BAD] * 5, np.array([0, 1] * 5), ["so boring", "so lovely", "lovely, warm"]
    )
    assert predicted.tolist() == [1, 0, 0]
    assert predicted.dtype == np.int64


def test_tfidf_keeps_class_ids_when_some_do_not_occur_in_training() -> None:
    texts = ["red apple", "blue sea", "green leaf"] * 4
    predicted = tfidf_logistic_regression(texts, np.array([7, 2, 5] * 4), ["leaf", "apple", "sea"])
    assert predicted.tolist() == [5, 7, 2]


def test_tfidf_looks_at_word_pairs() -> None:
    texts = ["not good", "good not"] * 6
    assert tfidf_logistic_regression(texts, np.array([0, 1] * 6), ["not good", "good not"]).tolist() == [0, 1]


def test_tfidf_reads_characters_where_there_are_no_words() -> None:
    predicted = tfidf_logistic_regression(["☀☀☀", "☂☂☂"] * 4, np.array([0, 1] * 4), ["☂☂", "☀☀"])
    assert predicted.tolist() == [1, 0]


@pytest.mark.parametrize("texts", [["a", "b", "c"], ["", "", ""]])
def test_tfidf_answers_with_the_commonest_class_when_nothing_tells_the_classes_apart(texts: list[str]) -> None:
    assert tfidf_logistic_regression(texts, np.array([1, 1, 0]), ["zz", ""]).tolist() == [1, 1]


def test_tfidf_reads_the_characters_of_scripts_without_spaces() -> None:
    """Whole clauses would each be a word of their own, and a baseline that knows none flatters every model."""
    train = [f"这家{place}的菜很{mood}" for place in "店馆厅楼" for mood in ("好吃", "难吃")]
    test = ["那家铺的汤很好吃", "那家铺的汤很难吃"]
    assert tfidf_logistic_regression(train, np.array([1, 0] * 4), test).tolist() == [1, 0]
    assert mostly_unspaced(["ก็ดี"]) and mostly_unspaced(["日本語 ok"])
    assert not mostly_unspaced(["plain, with a 字", "кириллица", "한국어는 띄어 쓴다", "123"])


def test_tfidf_of_one_class_and_of_no_test_texts() -> None:
    assert tfidf_logistic_regression([GOOD, BAD], np.array([1, 1]), [GOOD]).tolist() == [1]
    assert tfidf_logistic_regression([GOOD, BAD], np.array([0, 1]), []).tolist() == []


def test_class_weight_moves_a_doubtful_text_to_the_rare_class() -> None:
    # "film" alone occurs in both; unweighted, the class with nine of ten texts has it.
    texts, labels = [BAD] * 9 + [GOOD], np.array([0] * 9 + [1])
    assert tfidf_logistic_regression(texts, labels, ["film"]).tolist() == [0]
    assert tfidf_logistic_regression(texts, labels, ["film"], class_weight={0: 1.0, 1: 100.0}).tolist() == [1]


def test_figures_of_a_baseline_by_hand() -> None:
    # Of four texts the baseline has 3 right; the model has 3 right too: one text each that only one of them knows.
    labels = np.array([0, 0, 1, 1])
    predictions = {"tfidf_logistic_regression": np.array([0, 0, 1, 0])}
    result = baseline_metrics(predictions, labels, classes=2, model_predictions=np.array([0, 1, 1, 1]))
    figures = result["tfidf_logistic_regression"]
    assert (figures["accuracy"], figures["correct"], figures["n"]) == (0.75, 3, 4)
    assert figures["interval"] == list(wilson_interval(3, 4))
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, [0, 0, 1, 0], average="macro"))
    assert figures["mcnemar"] == {"only_model": 1, "only_baseline": 1, "p": 1.0}
    assert "mcnemar" not in baseline_metrics(predictions, labels, classes=2)["tfidf_logistic_regression"]


def test_both_baselines_by_name() -> None:
    predictions = baseline_predictions([GOOD, BAD, BAD], np.array([0, 1, 1]), [GOOD, "unseen"], classes=2)
    assert predictions["majority"].tolist() == [1, 1]
    assert predictions["tfidf_logistic_regression"].tolist()[0] == 0


def test_banking77_is_learned_the_same_way_twice(shared_data: Path) -> None:
    def read(part: str) -> tuple[list[str], list[str]]:
        with (shared_data / "banking77" / part).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [row["text"] for row in rows], [row["category"] for row in rows]

    (texts, names), (test_texts, test_names) = read("train.csv"), read("test.csv")
    ids = {name: index for index, name in enumerate(sorted(set(names)))}
    labels, test_labels = np.array([ids[name] for name in names]), np.array([ids[name] for name in test_names])
    every_third = slice(None, None, 3)
    first = tfidf_logistic_regression(texts[every_third], labels[every_third], test_texts)
    again = tfidf_logistic_regression(texts[every_third], labels[every_third], test_texts)
    assert (first == again).all()
    assert 0.80 < (first == test_labels).mean() < 0.95
