"""The classifier as a scikit-learn estimator, for ``cross_val_score``, pipelines and grid search."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from gptailor.config import ClassifierConfig, load_config
from gptailor.data.classification import Example
from gptailor.data.receipt import Receipt
from gptailor.data.splits import stratified
from gptailor.errors import UserError
from gptailor.predict import TextClassifier
from gptailor.tasks.classifier import build, fit_classifier
from gptailor.tasks.prepare import encode_parts
from gptailor.train.loop import StopRequest
from gptailor.weights.base import open_base
from gptailor.weights.folder import ClassifierFolder


class GPTailorClassifier(ClassifierMixin, BaseEstimator):
    """Fine-tunes a small language model on ``fit`` and keeps it in memory.

    A tenth of the texts steers which weights are kept; the others are trained on.

    Args:
        base: the model to start from, as ``--base``.
        epochs, lr, layers: None leaves them to the base.
        seed: of initialisation, order, and the tenth that is held out.
        options: further options of ``ClassifierConfig`` by name, such as ``{"read": "mean"}``.
        verbose: show progress on standard error.
    """

    def __init__(
        self,
        base: str = "random:tiny",
        *,
        epochs: int | None = None,
        lr: float | None = None,
        layers: str | None = None,
        batch_size: int = 8,
        seed: int = 123,
        options: dict[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.base, self.epochs, self.lr, self.layers = base, epochs, lr, layers
        self.batch_size, self.seed, self.options, self.verbose = batch_size, seed, options, verbose

    def fit(self, X: Sequence[str], y: Sequence[Any]) -> GPTailorClassifier:
        """Trains on texts ``X`` (N,) and their labels ``y`` (N,), of any type that numpy can sort.

        Raises:
            UserError: for options or texts that cannot work.
        """
        self.classes_, ids = np.unique(np.asarray(y), return_inverse=True)
        own = ("base", "epochs", "lr", "layers", "batch_size", "seed")
        values = {"data": "texts in memory", **{name: getattr(self, name) for name in own}, **(self.options or {})}
        config = load_config(ClassifierConfig, None, values)
        examples = [
            Example(str(text), str(label), f"text {row}") for row, (text, label) in enumerate(zip(X, ids, strict=True))
        ]
        empty = [example.where for example in examples if not example.text.strip()]
        if empty:
            raise UserError(f"{len(empty)} texts are empty, the first is {empty[0]}", expected="texts with words")
        receipt = Receipt()
        parts = stratified(examples, {"validation": config.validation_share}, config.seed, receipt)
        feed = build(encode_parts(config, open_base(config.base, config.tokenizer), parts, receipt))
        with tempfile.TemporaryDirectory(prefix="gptailor-") as name:
            feed.keep_trunk(Path(name))
            fit_classifier(feed, Path(name), Path(name), Console(stderr=True, quiet=not self.verbose), StopRequest())
        prepared = feed.prepared
        # Label names are class numbers here, in numerical order; ``classes_`` holds what they stand for.
        folder = ClassifierFolder(feed.model, prepared.tokenizer, prepared.names, prepared.settings)
        self.model_ = TextClassifier(folder, feed.device)
        return self

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:
        """Probability of each class, (N, K) in the order of ``classes_``."""
        check_is_fitted(self)
        return self.model_.predict_proba([str(text) for text in X])

    def predict(self, X: Sequence[str]) -> np.ndarray:
        """The label of each text, (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]
