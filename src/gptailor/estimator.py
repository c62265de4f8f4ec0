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
from gptailor.data.example import Example
from gptailor.data.receipt import Receipt
from gptailor.data.splits import stratified, undersample
from gptailor.errors import UserError, listing
from gptailor.evaluate.metrics import fit_temperature
from gptailor.predict import TextClassifier
from gptailor.tasks.classifier import fit_classifier
from gptailor.tasks.feed import build
from gptailor.tasks.prepare import encode_parts
from gptailor.train.loop import StopRequest
from gptailor.weights.base import open_base
from gptailor.weights.folder import ClassifierFolder

# Options of a run that an estimator has no use for: it is given its texts, and does not test.
NOT_HERE = {"data", "validation", "test", "format", "encoding", "delimiter", "header", "quoting", "text", "label"}
NOT_HERE |= {"duplicates", "split", "test_share", "seeds", "out", "tensorboard", "keep_checkpoints", "auto_batch"}


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
        base: str = "thimble",
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
        ignored = sorted(NOT_HERE & set(self.options or {}))
        if ignored:
            raise UserError(f"an estimator has no option {listing(ignored)}", hint="gptailor.train_classifier has")
        config = load_config(ClassifierConfig, None, values)
        examples = [
            Example(str(text), str(label), f"text {row}") for row, (text, label) in enumerate(zip(X, ids, strict=True))
        ]
        empty = [example.where for example in examples if not example.text.strip()]
        if empty:
            raise UserError(f"{len(empty)} texts are empty, the first is {empty[0]}", expected="texts with words")
        receipt = Receipt()
        if config.balance == "undersample":
            examples = undersample(examples, config.seed, receipt)
        parts = stratified(examples, {"validation": config.validation_share}, config.seed, receipt)
        if not parts["validation"]:
            raise UserError(f"{len(examples)} texts are too few", expected="at least two different texts for a label")
        feed = build(encode_parts(config, open_base(config.base, config.tokenizer), parts, receipt))
        with tempfile.TemporaryDirectory(prefix="gptailor-") as name:
            feed.keep_trunk(Path(name))
            fit_classifier(feed, Path(name), Path(name), Console(stderr=True, quiet=not self.verbose), StopRequest())
        prepared = feed.prepared
        held_out = feed.outputs(range(feed.n_train, len(feed.ids))), np.array(prepared.labels("validation"))
        settings = prepared.settings.model_copy(update={"temperature": fit_temperature(*held_out)})
        # Label names are class numbers here, in numerical order; ``classes_`` holds what they stand for.
        folder = ClassifierFolder(feed.model, prepared.tokenizer, prepared.names, settings)
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
