"""The figures of a classifier on its parts, beside the baselines on the same texts."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptailor.data.example import Example
from gptailor.evaluate.baselines import baseline_metrics, baseline_predictions
from gptailor.evaluate.metrics import accuracy_with_interval, classification_metrics, fit_temperature, softmax

Outputs = dict[str, tuple[np.ndarray, np.ndarray]]  # part -> logits (N, K), labels (N,)


def evaluate_classifier(
    outputs: Outputs, parts: dict[str, list[Example]], names: Sequence[str], *, weigh: bool
) -> dict[str, Any]:
    """Metrics of all parts; the temperature is fitted on validation and applied to every probability.

    Args:
        outputs: logits and class ids of train, validation and test.
        parts: the texts, in the same order.
        weigh: whether the classes were weighed in training, so that the baseline weighs them too.

    Returns:
        The blocks train, validation, test, test_unseen, baselines, baselines_unseen and calibration of metrics.json.
    """
    temperature = fit_temperature(*outputs["validation"])
    full = {part: _metrics(*outputs[part], names, temperature) for part in ("validation", "test")}
    logits, labels = outputs["test"]
    unseen = unseen_texts(parts)
    guesses = baseline_predictions(
        [example.text for example in parts["train"]],
        outputs["train"][1],
        [example.text for example in parts["test"]],
        classes=len(names),
        class_weight="balanced" if weigh else None,
    )
    predicted = logits.argmax(1)
    train_correct = int((outputs["train"][0].argmax(1) == outputs["train"][1]).sum())
    return {
        "train": accuracy_with_interval(train_correct, len(outputs["train"][1])),
        **full,
        "test_unseen": _metrics(logits[unseen], labels[unseen], names, temperature),
        "baselines": baseline_metrics(guesses, labels, classes=len(names), model_predictions=predicted),
        "baselines_unseen": baseline_metrics(
            {name: guess[unseen] for name, guess in guesses.items()},
            labels[unseen],
            classes=len(names),
            model_predictions=predicted[unseen],
        ),
        "calibration": {
            "temperature": temperature,
            "validation_nll_before": _metrics(*outputs["validation"], names, 1.0)["nll"],
            "validation_nll_after": full["validation"]["nll"],
            "test_ece_before": _metrics(logits, labels, names, 1.0)["ece"],
            "test_ece_after": full["test"]["ece"],
        },
    }


def _metrics(logits: np.ndarray, labels: np.ndarray, names: Sequence[str], temperature: float) -> dict[str, Any]:
    return classification_metrics(labels, softmax(logits, temperature), names)


def unseen_texts(parts: dict[str, list[Example]]) -> np.ndarray:
    """(N,) bool: which test texts do not stand word for word in the training part."""
    trained = {example.text for example in parts["train"]}
    return np.array([example.text not in trained for example in parts["test"]], dtype=bool)


def write_predictions(
    file: Path, examples: Sequence[Example], unseen: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> None:
    """What the model said of each test text, as ``predictions.csv``; ``probabilities`` is (N, K)."""
    index = {name: number for number, name in enumerate(names)}
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(
            ["source", "text", "label", "predicted", "probability", "probability_of_label", "correct", "unseen"]
        )
        for example, new, row in zip(examples, unseen, probabilities, strict=True):
            best = int(row.argmax())
            own = float(row[index[example.label]])
            flags = [str(bool(flag)).lower() for flag in (names[best] == example.label, new)]
            told = [example.where, example.text, example.label, names[best]]
            writer.writerow([*told, f"{row[best]:.6f}", f"{own:.6f}", *flags])
