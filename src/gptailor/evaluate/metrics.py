"""Each metric of a classifier, with its denominator and its interval: a number without them is not printed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

Interval = tuple[float, float]


def wilson_interval(correct: float, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a proportion in [0, 1] (Wilson, 1927); ``wilson_interval(285, 300)`` is about (0.919, 0.969).

    Unlike the normal approximation it stays inside [0, 1] and keeps its width at 0 and at ``n`` correct. Nothing is
    known about a proportion of nothing, so ``n == 0`` gives (0, 1). ``correct`` may be a mean, of several models that
    read the same ``n``.

    Raises:
        ValueError: if not ``0 <= correct <= n``.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n} is not a proportion")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrink = correct / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z / shrink * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    # At 0 and n correct one end is exact; rounding would leave it at 1e-17 beside it.
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == n else centre + half)


def accuracy_with_interval(correct: int, n: int) -> dict[str, Any]:
    """``accuracy`` in [0, 1] (None when ``n`` is 0), ``correct``, ``n`` and its 95 % Wilson ``interval``."""
    correct, n = int(correct), int(n)
    return {
        "accuracy": correct / n if n else None,
        "correct": correct,
        "n": n,
        "interval": list(wilson_interval(correct, n)),
    }


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities (N, K) float64 of ``logits`` (N, K), each row summing to 1; a higher temperature flattens them."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Everything that is reported about one part of the data, ready for JSON.

    Args:
        labels: true classes (N,), integers in [0, K).
        probabilities: predicted probabilities (N, K); the first of equal largest ones is the prediction.
        names: the K class names, in the order of the columns.

    Returns:
        Accuracy with count and interval, macro averages, each class, the confusion counts (rows are true classes),
        AUROC, mean negative log likelihood ``nll`` in nats, expected calibration error ``ece`` in [0, 1] over 15 bins,
        and the bins of the reliability diagram. Macro averages count the classes that occur as label or prediction,
        as scikit-learn does. What cannot be computed (any share of nothing) is None.

    Raises:
        ValueError: if the shapes do not fit or a label is outside [0, K).
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check_shapes(labels, probabilities, names)
    confusion = confusion_counts(labels, probabilities.argmax(axis=1), len(names))
    bins = reliability_bins(labels, probabilities)
    return {
        **accuracy_with_interval(np.trace(confusion), len(labels)),
        "macro": macro_scores(confusion),
        "per_class": [_one_class(confusion, index, name) for index, name in enumerate(names)],
        "confusion": confusion.tolist(),
        "auroc": auroc(labels, probabilities),
        "nll": negative_log_likelihood(labels, probabilities),
        "ece": expected_calibration_error(bins),
        "reliability": bins,
    }


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (K, K) int64: row is the true class, column the predicted one."""
    pairs = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def macro_scores(confusion: np.ndarray) -> dict[str, float | None]:
    """Unweighted means of precision, recall and F1 over the classes that occur as label or prediction in (K, K) counts.

    A class that is never predicted has precision 0 here, as in scikit-learn, so that ignoring it costs.
    """
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = (support + predicted) > 0
    if not occurs.any():
        return {"precision": None, "recall": None, "f1": None}
    by_class = {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + predicted, 1),
    }
    return {name: float(values[occurs].mean()) for name, values in by_class.items()}


def _one_class(confusion: np.ndarray, index: int, name: str) -> dict[str, Any]:
    hits, support, predicted = (
        int(count) for count in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
    )
    return {
        "label": name,
        "precision": hits / predicted if predicted else None,
        "recall": hits / support if support else None,
        "f1": 2 * hits / (support + predicted) if support + predicted else None,
        "recall_interval": list(wilson_interval(hits, support)),
        "support": support,
        "predicted": predicted,
    }


def auroc(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Area under the ROC curve in [0, 1]: of class 1 for two classes, else the mean of each class against the rest.

    The mean runs over the classes that occur among the labels. None when fewer than two classes occur.
    """
    from sklearn.metrics import roc_auc_score

    present = np.unique(labels)
    if len(present) < 2:
        return None
    columns = [1] if probabilities.shape[1] == 2 else present
    return float(np.mean([roc_auc_score(labels == column, probabilities[:, column]) for column in columns]))


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Mean of -log p(true class), in nats; None for no examples. A probability of 0 counts as 1e-12, to stay finite."""
    if len(labels) == 0:
        return None
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean())


def reliability_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> list[dict[str, Any]]:
    """Equal-width bins over (0, 1] of the top probability: how sure the model was, and how often it was right.

    Empty bins are kept, with ``n`` 0 and None for ``confidence`` and ``accuracy``, so that the axis stays whole.
    """
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    # A top probability on an edge belongs to the bin below it, as in Guo et al. (2017).
    which = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    confidence = np.bincount(which, weights=top, minlength=bins)
    correct = np.bincount(which, weights=right, minlength=bins)
    return [
        {
            "from": index / bins,
            "to": (index + 1) / bins,
            "n": int(n),
            "confidence": float(confidence[index] / n) if n else None,
            "accuracy": float(correct[index] / n) if n else None,
        }
        for index, n in enumerate(counts)
    ]


def expected_calibration_error(bins: Sequence[dict[str, Any]]) -> float | None:
    """Mean distance between confidence and accuracy over the bins, weighted by their counts; None without examples."""
    n = sum(each["n"] for each in bins)
    if n == 0:
        return None
    return sum(each["n"] * abs(each["confidence"] - each["accuracy"]) for each in bins if each["n"]) / n


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Temperature in [0.25, 10] that makes ``softmax(logits / temperature)`` fit ``labels`` best (Guo et al., 2017).

    Args:
        logits: (N, K), of the validation part: never of the part that is then scored.
        labels: (N,), integers in [0, K).

    Returns:
        The temperature with the lowest mean negative log likelihood; 1.0 when none is better than leaving the logits
        alone, or when fewer than 20 examples say too little.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) < 20:
        return 1.0

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(labels, softmax(logits, float(np.exp(log_temperature)))) or 0.0

    # In the logarithm, halving and doubling are steps of the same size.
    found = minimize_scalar(loss, bounds=(np.log(0.25), np.log(10.0)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def mcnemar(correct: np.ndarray, other_correct: np.ndarray) -> dict[str, Any]:
    """Exact two-sided McNemar test of two classifiers on the same texts.

    Only the texts on which exactly one of them is right can tell them apart: were the two equally good, each such text
    would be a fair coin.

    Args:
        correct: (N,) bool, where the first classifier is right.
        other_correct: (N,) bool, where the second one is right, in the same order.

    Returns:
        ``only_first`` and ``only_second``, the counts of those texts, and ``p`` in [0, 1].
    """
    from scipy.stats import binomtest

    first, second = np.asarray(correct, dtype=bool), np.asarray(other_correct, dtype=bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total = only_first + only_second
    p = float(binomtest(only_first, total).pvalue) if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def _check_shapes(labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> None:
    if labels.ndim != 1 or probabilities.shape != (len(labels), len(names)):
        raise ValueError(
            f"labels {labels.shape}, probabilities {probabilities.shape} and {len(names)} names do not fit"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, outside the {len(names)} classes")
