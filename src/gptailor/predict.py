"""A trained classifier in use: texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import numpy as np
import torch

from gptailor.data.batching import collate
from gptailor.data.classification import ids_of
from gptailor.errors import UserError, listing
from gptailor.evaluate.metrics import softmax
from gptailor.model.device import choose_device
from gptailor.model.head import Classifier
from gptailor.model.lora import use
from gptailor.model.precision import check_precision, lower, read_in
from gptailor.model.together import by_length, tokens_at_once
from gptailor.tokenizer import Tokenizer
from gptailor.weights.adapters import HEAD, read_adapter
from gptailor.weights.base import base_of, identity, trained_on
from gptailor.weights.folder import ClassifierFolder, ClassifierSettings, load_classifier, load_on

TOLERANCE = 1e-4  # largest difference of logits that the order of float32 sums explains
TOLERANCE_HALF = 5e-2  # the same where matrices were rounded to bf16


def load(folder: str | Path, device: str = "auto", precision: str = "fp32") -> TextClassifier:
    """Opens a model folder for use.

    Args:
        precision: fp32 is exact; bf16 keeps the weights in half, and int8 (on the CPU) in a quarter of the memory, and
            both label faster. See ``model.precision.lower``.

    Raises:
        UserError: when the folder is missing, damaged or no classifier, or there is no such precision here.
    """
    where = choose_device(device)
    check_precision(precision, where)
    opened = load_classifier(Path(folder), read_in(precision))
    lower(opened.model.to(where), precision)
    return TextClassifier(opened, where)


def load_adapters(folders: Sequence[str | Path], device: str = "auto") -> list[TextClassifier]:
    """Opens classifiers that are adapters on one base, which is held in memory once; each switches to its own adapter.

    Raises:
        UserError: when a folder holds no adapter, they have different bases, or one changed norms or biases, which
            belong to all.
    """
    if not folders:
        raise UserError("no folders of adapters were given")
    adapters = [(Path(folder), read_adapter(Path(folder))) for folder in folders]
    base = base_of(*adapters[0])
    decoder = base.load(Tokenizer.load(adapters[0][0]))
    sha256, lock, opened = identity(base.name, decoder), RLock(), []
    for number, (place, adapter) in enumerate(adapters):
        if trained_on(place) != sha256:
            raise UserError(f"{place} is no adapter on {base.name}", expected="adapters on one and the same base")
        if set(adapter.whole) != {HEAD}:
            found = f"{place} trained more than adapters and a class head: {listing(set(adapter.whole) - {HEAD})}"
            raise UserError(found, hint=f"gptailor merge {place} --out FOLDER, and load that alone")
        name = f"adapter_{number}"
        shared = SharedBase(name, lock)
        opened.append(TextClassifier(load_on(place, decoder, adapter, name), choose_device(device), shared))
    return opened


class SharedBase(NamedTuple):
    """A classifier's part in a decoder with others: the name of its adapter, and whose turn it is."""

    adapter: str
    turn: AbstractContextManager[Any]


class TextClassifier:
    """Labels texts. The answer for a text depends on that text alone, not on the others or on padding."""

    def __init__(self, opened: ClassifierFolder, device: torch.device, shared: SharedBase | None = None) -> None:
        self.model, self.tokenizer = opened.model.to(device).eval(), opened.tokenizer
        self.settings, self.labels = opened.settings, opened.labels
        self.device, self.shared = device, shared

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        return [self.labels[index] for index in self.logits(texts).argmax(1)]

    def predict_proba(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Calibrated probability of each class (N, K), in the order of ``labels``: softmax(logits / temperature)."""
        return softmax(self.logits(texts, progress), self.settings.temperature)

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the model reads; what is beyond is left out."""
        limit = self.settings.max_length or self.model.decoder.config.context_length
        return sum(len(ids) > limit for ids in ids_of(texts, self.tokenizer))

    def logits(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Logits (N, K) float32. Raises ``UserError`` naming the texts that are empty.

        Args:
            progress: called with the number of texts done since the last call.
        """
        if isinstance(texts, str):
            raise UserError("one text where a list of texts belongs", hint=f"[{texts[:20]!r}]")
        strange = [index for index, text in enumerate(texts) if not isinstance(text, str)]
        if strange:
            found = f"text number {listing(index + 1 for index in strange)} is no text"
            raise UserError(found, expected=f"str, not {type(texts[strange[0]]).__name__}")
        empty = [index for index, text in enumerate(texts) if not text.strip()]
        if empty:
            raise UserError(
                f"text number {listing(index + 1 for index in empty)} is empty", expected="texts with words"
            )
        ids = fit(ids_of(texts, self.tokenizer), self.settings, self.tokenizer.end_of_text)
        end, shared = self.tokenizer.end_of_text, self.shared
        if shared is None:
            return logits_of(self.model, ids, end, self.device, progress)

        def told(done: int) -> None:
            if progress:
                progress(done)
            use(self.model, shared.adapter)  # the one that was told may have asked another classifier

        with shared.turn:
            use(self.model, shared.adapter)
            return logits_of(self.model, ids, end, self.device, told)


def fit(ids: Sequence[list[int]], settings: ClassifierSettings, pad: int) -> list[list[int]]:
    """Cuts each text to what the model takes and, where padding counts as text, fills it up."""
    cut = [text[: settings.max_length] for text in ids]
    return [text + [pad] * ((settings.padded_to or 0) - len(text)) for text in cut]


@torch.no_grad()
def logits_of(
    model: Classifier,
    ids: Sequence[Sequence[int]],
    pad: int,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Logits (N, K) float32 of texts given as ids, in their order; computed in batches of similar length."""
    result = np.zeros((len(ids), model.head.weight.size(0)), np.float32)
    no_labels = [0] * len(ids)
    for rows in by_length([len(text) for text in ids], tokens_at_once(device)):
        batch = collate(ids, no_labels, rows, pad).to(device)
        result[rows] = model(batch.input_ids, batch.real).float().cpu().numpy()
        if progress:
            progress(len(rows))
    return result


@torch.no_grad()
def self_check(
    classifier: TextClassifier, texts: Sequence[str], trained: np.ndarray, tolerance: float = TOLERANCE
) -> dict[str, float]:
    """Proves on the user's own model that it came back from disk whole, and that neighbours and padding change nothing.

    Each text goes alone through the plain model, and is compared with what the model in training said, with its row in
    a batch, with five more padding tokens on the right, and with five on the left.

    Args:
        trained: logits (N, K) of the texts in fp32 before the model was saved.

    Returns:
        ``texts``, ``max_difference`` (see ``difference``) and ``tolerance``.
    """
    model, pad, device = classifier.model, classifier.tokenizer.end_of_text, classifier.device
    ids = fit(ids_of(texts, classifier.tokenizer), classifier.settings, pad)
    together = torch.from_numpy(logits_of(model, ids, pad, device))
    differences = []
    for text, row, before in zip(ids, together, torch.from_numpy(trained), strict=True):
        real = torch.ones(1, len(text), dtype=torch.bool, device=device)
        alone = torch.tensor([text], device=device)
        reference = model.plain(alone, real)[0].float().cpu()
        room = min(5, model.decoder.config.context_length - len(text))
        right, left = (torch.nn.functional.pad(alone, sides, value=pad) for sides in ((0, room), (room, 0)))
        real_right, real_left = (torch.nn.functional.pad(real, sides) for sides in ((0, room), (room, 0)))
        others = [before, row, model(right, real_right)[0].float().cpu(), model(left, real_left)[0].float().cpu()]
        differences += [difference(other.numpy(), reference.numpy()) for other in others]
    return {"texts": len(ids), "max_difference": float(np.max(differences)), "tolerance": tolerance}


def rounding(half: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """What products in bf16, in which a run was trained and measured, change against fp32, in which its folder is used.

    A model can come to rest on differences between texts that are no larger than bf16 rounds; its figures are then not
    those of its folder.

    Args:
        half, exact: logits (N, K) of the same texts.

    Returns:
        ``texts``, ``same_label`` (how many of them), ``max_difference`` (see ``difference``), and ``tolerance``, above
        which it is worth telling.
    """
    worst = float(np.max([difference(*pair) for pair in zip(half, exact, strict=True)]))
    same = int((half.argmax(1) == exact.argmax(1)).sum())
    return {"texts": len(exact), "same_label": same, "max_difference": worst, "tolerance": TOLERANCE_HALF}


def difference(logits: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference of a text's logits (K,), relative to the largest of them if that is above 1."""
    return float(np.abs(logits - reference).max() / max(1.0, np.abs(reference).max()))


def require(check: Mapping[str, float]) -> None:
    """Raises ``UserError`` when a self-check found more than its tolerance."""
    if not check["max_difference"] <= check["tolerance"]:
        found = f"the saved model's logits change by {check['max_difference']:.2g} with reloading, batch or padding"
        raise UserError(
            found, expected=f"at most {check['tolerance']:g}", hint="please report this as a bug of GPTailor"
        )
