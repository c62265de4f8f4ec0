"""The sentences that judge a run say no more than its figures allow."""

from __future__ import annotations

from typing import Any

import pytest

from gptailor.evaluate.metrics import accuracy_with_interval
from gptailor.evaluate.verdict import lead, uneven, verdict


def figures(correct: int, n: int = 200, supports: tuple[int, ...] = (100, 100)) -> dict[str, Any]:
    classes = [{"label": "ab"[index], "support": support} for index, support in enumerate(supports)]
    return {**accuracy_with_interval(correct, n), "macro": {"f1": 0.8}, "per_class": classes}


def baselines(correct: int, n: int = 200, **paired: Any) -> dict[str, Any]:
    rival = {**figures(correct, n), "macro_f1": 0.7}
    return {
        "majority": figures(n // 2, n),
        "tfidf_logistic_regression": rival | ({"mcnemar": paired} if paired else {}),
    }


@pytest.mark.parametrize(
    ("only_model", "only_baseline", "p", "kind", "words"),
    [
        (20, 2, 0.0001, "better", "clearly better than TF-IDF"),
        (12, 8, 0.5, "same", "not distinguishable from TF-IDF"),
        (2, 20, 0.0001, "worse", "worse than TF-IDF"),
    ],
)
def test_verdict_by_the_paired_test(only_model: int, only_baseline: int, p: float, kind: str, words: str) -> None:
    result = verdict(figures(180), baselines(178, only_model=only_model, only_baseline=only_baseline, p=p))
    assert result.kind == kind
    assert words in result.sentence and "90.0" in result.sentence and "89.0" in result.sentence
    assert "McNemar" in result.evidence and f"{only_model} that only the model" in result.evidence


@pytest.mark.parametrize(("right", "kind"), [(150, "better"), (178, "same"), (199, "worse")])
def test_verdict_by_intervals_when_nothing_was_paired(right: int, kind: str) -> None:
    # 180 of 200 is 85.1 to 93.4 %; 150 of 200 at most 80.5 %; 199 of 200 at least 97.2 %.
    result = verdict(figures(180), baselines(right))
    assert result.kind == kind
    assert ("do not overlap" in result.evidence) == (kind != "same")


def test_verdict_on_a_model_that_learned_nothing() -> None:
    result = verdict(figures(104), baselines(103))
    assert "not clearly better than always answering with the commonest class" in result.sentence
    assert "commonest" not in verdict(figures(180), baselines(103)).sentence


def test_verdict_without_baseline() -> None:
    assert verdict(figures(180), {}).kind == "unknown"
    assert "No baseline" in verdict(figures(180), {}).sentence


def test_verdict_on_uneven_classes_names_macro_f1_too() -> None:
    assert "macro F1 0.800 against 0.700" in verdict(figures(180, supports=(170, 30)), baselines(150)).sentence
    assert "macro" not in verdict(figures(180), baselines(150)).sentence


def test_uneven_begins_beyond_three_to_one() -> None:
    assert uneven(figures(180, supports=(150, 50))) == ""
    said = uneven(figures(180, supports=(152, 48)))
    assert "“a” has 152 of these 200 texts, “b” 48" in said and "76.0" in said
    assert "“b” 0" in uneven(figures(180, supports=(200, 0)))


def test_headline_prefers_unseen_texts_then_test_then_validation() -> None:
    unseen, test, validation = figures(90, 100), figures(180), figures(45, 50)
    metrics = {"test_unseen": unseen, "test": test, "validation": validation, "baselines": baselines(150)}
    assert lead(metrics).figures is unseen
    assert lead(metrics).where == "100 test texts never seen in training"
    assert lead(metrics).verdict.kind == "unknown"  # the baselines are those of another part
    assert lead({**metrics, "test_unseen": figures(0, 0)}).figures is test
    assert lead({**metrics, "test_unseen": None, "test": None}).where == "50 validation texts"
    assert lead({}).part == ""
