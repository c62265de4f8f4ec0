"""Metrics, proven by arithmetic that can be redone on paper and by scikit-learn where it has the same metric."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score, roc_auc_score

from gptailor.evaluate.metrics import (
    accuracy_with_interval,
    classification_metrics,
    expected_calibration_error,
    fit_temperature,
    mcnemar,
    reliability_bins,
    softmax,
    wilson_interval,
)


def random_case(seed: int, n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, classes, n), softmax(2 * generator.normal(size=(n, classes)))


def test_wilson_interval_of_the_known_case() -> None:
    low, high = wilson_interval(285, 300)
    assert (round(low, 3), round(high, 3)) == (0.919, 0.969)


def test_wilson_interval_by_hand() -> None:
    # 1 of 2 with z = 1.96: centre 0.5, half width z / (1 + z^2/2) * sqrt(0.25/2 + z^2/16) = 0.4055
    low, high = wilson_interval(1, 2)
    z = 1.959964
    half = z / (1 + z * z / 2) * math.sqrt(0.125 + z * z / 16)
    assert low == pytest.approx(0.5 - half, abs=1e-6)
    assert high == pytest.approx(0.5 + half, abs=1e-6)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_is_symmetric(case: tuple[int, int]) -> None:
    correct, n = case
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert low < high
    mirrored = wilson_interval(n - correct, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_wilson_interval_at_the_ends() -> None:
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == 1.0
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(5, 10, confidence=0.5)[0] > wilson_interval(5, 10)[0]


@pytest.mark.parametrize(("correct", "n"), [(3, 2), (-1, 5)])
def test_wilson_interval_rejects_what_is_no_proportion(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        wilson_interval(correct, n)


def test_accuracy_of_nothing_is_none() -> None:
    assert accuracy_with_interval(0, 0) == {"accuracy": None, "correct": 0, "n": 0, "interval": [0.0, 1.0]}
    assert accuracy_with_interval(3, 4)["accuracy"] == 0.75


def test_metrics_by_hand() -> None:
    # Five texts, true classes 0 0 0 1 1; the model says 0 0 1 1 0.
    labels = np.array([0, 0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.55, 0.45]])
    result = classification_metrics(labels, probabilities, ["ham", "spam"])
    assert result["correct"] == 3 and result["n"] == 5 and result["accuracy"] == 0.6
    assert result["confusion"] == [[2, 1], [1, 1]]
    ham, spam = result["per_class"]
    assert (ham["precision"], ham["recall"], ham["f1"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (spam["precision"], spam["recall"], spam["f1"]) == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    assert (spam["label"], spam["support"], spam["predicted"]) == ("spam", 2, 2)
    assert spam["recall_interval"] == list(wilson_interval(1, 2))
    assert result["macro"]["f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # Pairs (spam, ham) ordered rightly by p(spam): 0.7 beats 0.1 and 0.4 but not 0.8; 0.45 beats 0.1 and 0.4: 4 of 6.
    assert result["auroc"] == pytest.approx(4 / 6)
    assert result["nll"] == pytest.approx(-np.log([0.9, 0.6, 0.2, 0.7, 0.45]).mean())
    # Each text has a bin of its own except 0.6 and 0.55, which share 8/15 to 9/15 (one right, one wrong, mean 0.575).
    expected = (abs(0.9 - 1) + 2 * abs(0.575 - 0.5) + abs(0.8 - 0) + abs(0.7 - 1)) / 5
    assert result["ece"] == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6))
def test_metrics_equal_those_of_scikit_learn(seed: int, n: int, classes: int) -> None:
    labels, probabilities = random_case(seed, n, classes)
    predicted = probabilities.argmax(axis=1)
    result = classification_metrics(labels, probabilities, [f"class {index}" for index in range(classes)])
    assert result["confusion"] == confusion_matrix(labels, predicted, labels=range(classes)).tolist()
    for name, reference in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        expected = reference(labels, predicted, average="macro", zero_division=0)
        assert result["macro"][name] == pytest.approx(expected)


@pytest.mark.parametrize("classes", [3, 5])
def test_auroc_of_many_classes_equals_scikit_learn(classes: int) -> None:
    labels, probabilities = random_case(7, 80, classes)
    result = classification_metrics(labels, probabilities, list("abcdef"[:classes]))
    assert result["auroc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"))


def test_auroc_leaves_out_the_classes_that_do_not_occur() -> None:
    labels, probabilities = random_case(3, 40, 4)
    present = labels[labels < 2], probabilities[labels < 2]
    result = classification_metrics(*present, list("abcd"))
    by_class = [roc_auc_score(present[0] == index, present[1][:, index]) for index in (0, 1)]
    assert result["auroc"] == pytest.approx(np.mean(by_class))


def test_one_class_only_has_no_auroc() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    result = classification_metrics(np.array([0, 0]), probabilities, ["a", "b"])
    assert result["auroc"] is None
    absent = result["per_class"][1]
    assert (absent["precision"], absent["recall"], absent["f1"], absent["support"]) == (None, None, None, 0)
    assert absent["recall_interval"] == [0.0, 1.0]


def test_metrics_of_no_examples_are_none_and_still_json() -> None:
    result = classification_metrics(np.zeros(0, dtype=int), np.zeros((0, 2)), ["a", "b"])
    assert (result["accuracy"], result["nll"], result["ece"], result["auroc"]) == (None, None, None, None)
    assert result["macro"] == {"precision": None, "recall": None, "f1": None}
    json.dumps(result, allow_nan=False)


def test_metrics_are_plain_json() -> None:
    labels, probabilities = random_case(1, 30, 3)
    result = classification_metrics(labels, probabilities, ["a", "b", "c"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("labels", "shape", "message"),
    [([0, 1], (2, 3), "do not fit"), ([0, 1, 0], (2, 2), "do not fit"), ([0, 2], (2, 2), "outside the 2 classes")],
)
def test_metrics_reject_what_does_not_fit(labels: list[int], shape: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(np.array(labels), np.full(shape, 0.5), ["a", "b"])


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 100))
def test_reliability_bins_hold_every_example_once(seed: int, n: int) -> None:
    labels, probabilities = random_case(seed, n, 3)
    bins = reliability_bins(labels, probabilities)
    assert len(bins) == 15 and sum(each["n"] for each in bins) == n
    for each in filter(lambda each: each["n"], bins):
        assert each["from"] - 1e-9 <= each["confidence"] <= each["to"] + 1e-9
        assert 0 <= each["accuracy"] <= 1


def test_a_certain_model_that_is_right_half_of_the_time_has_an_error_of_a_half() -> None:
    bins = reliability_bins(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert expected_calibration_error(bins) == pytest.approx(0.5)


def test_softmax_by_hand_and_without_overflow() -> None:
    assert softmax(np.array([[0.0, np.log(3)]])) == pytest.approx(np.array([[0.25, 0.75]]))
    assert softmax(np.array([[0.0, np.log(9)]]), 2.0) == pytest.approx(np.array([[0.25, 0.75]]))
    assert softmax(np.array([[1e4, 0.0]])) == pytest.approx(np.array([[1.0, 0.0]]))


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_fit_temperature_finds_the_one_that_scaled_the_logits(temperature: float) -> None:
    generator = np.random.default_rng(0)
    honest = 1.5 * generator.normal(size=(20_000, 3))
    labels = np.array([generator.choice(3, p=row) for row in softmax(honest)])
    assert fit_temperature(honest * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_fit_temperature_leaves_alone_what_it_cannot_better() -> None:
    generator = np.random.default_rng(0)
    few = generator.normal(size=(19, 2))
    assert fit_temperature(few, np.zeros(19, dtype=int)) == 1.0
    assert fit_temperature(np.zeros((50, 2)), np.tile([0, 1], 25)) == 1.0


def test_fit_temperature_stays_in_its_bounds() -> None:
    sure = np.tile([[5.0, 0.0]], (50, 1))
    assert fit_temperature(sure, np.zeros(50, dtype=int)) == pytest.approx(0.25, rel=0.01)
    assert fit_temperature(sure, np.ones(50, dtype=int)) == pytest.approx(10.0, rel=0.01)


def test_mcnemar_by_hand() -> None:
    # Both right on 4, only the first on 5, only the second on 1: of 6 coins, 5 or more, or 1 or fewer, heads.
    both, first, second = [(1, 1)] * 4, [(1, 0)] * 5, [(0, 1)]
    correct, other = np.array(both + first + second, dtype=bool).T
    expected: dict[str, Any] = {"only_first": 5, "only_second": 1, "p": pytest.approx(2 * (6 + 1) / 2**6)}
    assert mcnemar(correct, other) == expected
    assert mcnemar(correct, correct)["p"] == 1.0
