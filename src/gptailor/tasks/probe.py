"""The class head before training: a linear probe of the base."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gptailor.model.precision import compute_in
from gptailor.model.together import by_length, tokens_at_once
from gptailor.tasks.feed import Feed


def begin_with_probe(feed: Feed) -> None:
    """Sets the head to a logistic regression of what the base makes of the training texts.

    A head of random numbers first bends the blocks towards itself, and so spoils some of what they know of texts that
    are unlike those in training (Kumar et al. 2022). Where there is nothing to fit,
    since all texts have one label or the base gives no finite numbers, the head stays as it was.
    """
    labels, read = feed.labels[: feed.n_train], below_head(feed)
    if len(set(labels)) < 2 or not np.isfinite(read).all():
        return
    weights = None if feed.class_weights is None else feed.class_weights[labels].numpy()
    head = logistic_regression(read, labels, len(feed.prepared.names), weights)
    with torch.no_grad():
        feed.model.head.weight.copy_(torch.from_numpy(head))


@torch.no_grad()
def below_head(feed: Feed) -> np.ndarray:
    """What the head reads of each training text: (N, C) float32."""
    model = feed.model.eval()
    result = np.zeros((feed.n_train, model.decoder.config.n_embd), np.float32)
    for rows in by_length(feed.widths[: feed.n_train], tokens_at_once(feed.device)):
        batch = feed.batch(rows)
        with compute_in(feed.prepared.config.precision, feed.device):
            read = model.below_head(model.trunk(batch.input_ids, batch.real, 0), batch.real, 0)
        result[rows] = read.cpu().numpy()
    return result


def logistic_regression(
    read: np.ndarray, labels: Sequence[int], n_classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Without intercept, as the head: (N, C), (N,) -> weights (K, C) float32, zero for a class that no text has.

    With the regularisation that is scikit-learn's default, for states of length 1: how long a base's are says nothing.
    """
    from sklearn.linear_model import LogisticRegression

    square = float(np.square(read).sum(1).mean())
    fitted = LogisticRegression(C=1 / square, fit_intercept=False, max_iter=1000).fit(read, labels, weights)
    found = fitted.coef_ if len(fitted.classes_) > 2 else np.concatenate([-fitted.coef_, fitted.coef_]) / 2
    result = np.zeros((n_classes, read.shape[1]), np.float32)
    result[fitted.classes_] = found
    return result
