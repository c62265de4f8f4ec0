"""The scikit-learn estimator behaves as one."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from gptailor import GPTailorClassifier, UserError
from tests.tiny import BAD, GOOD, TINY, sentence

rng = random.Random(1)
TEXTS = [sentence(words, rng) for _ in range(40) for words in (GOOD, BAD)]
LABELS = [7, -1] * 40
OPTIONS = {"base": TINY["base"], "lr": 0.005, "epochs": 4, "options": {"vocab": 300}}


def test_fit_predict_score_in_cross_validation() -> None:
    scores = cross_val_score(GPTailorClassifier(**OPTIONS), TEXTS, LABELS, cv=2)
    assert scores.min() > 0.8


def test_labels_keep_type_and_order_and_texts_may_be_an_array() -> None:
    model = GPTailorClassifier(**OPTIONS).fit(np.array(TEXTS), np.array(LABELS))
    assert model.classes_.tolist() == [-1, 7]
    probabilities = model.predict_proba(TEXTS[:4])
    assert probabilities.shape == (4, 2)
    assert model.predict(TEXTS[:4]).tolist() == [7, -1, 7, -1]
    assert model.score(TEXTS, LABELS) > 0.9


def test_parameters_are_kept_for_clone() -> None:
    model = GPTailorClassifier("random:tiny", epochs=3, options={"read": "mean"})
    assert clone(model).get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        model.predict(["x"])


def test_what_cannot_work_is_said() -> None:
    with pytest.raises(UserError, match="2 texts are empty, the first is text 1"):
        GPTailorClassifier(**OPTIONS).fit(["a", "", " "], [0, 1, 0])
    with pytest.raises(UserError, match="unknown option 'raed'"):
        GPTailorClassifier(options={"raed": "mean"}).fit(TEXTS, LABELS)
