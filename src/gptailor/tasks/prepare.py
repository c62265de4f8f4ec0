"""What a classification run decides before it trains: data, splits, tokenizer, lengths."""

from __future__ import annotations

from dataclasses import dataclass

from gptailor.config import ClassifierConfig
from gptailor.data.classification import collect, cut, encode, label_names
from gptailor.data.inputs import read_parts
from gptailor.data.receipt import Receipt
from gptailor.data.splits import Parts, arrange
from gptailor.errors import UserError
from gptailor.model.config import ModelConfig
from gptailor.predict import fit
from gptailor.tokenizer import Tokenizer
from gptailor.weights.base import Base, open_base
from gptailor.weights.folder import ClassifierSettings


@dataclass
class Prepared:
    """All that is decided before training.

    Attributes:
        config: with everything resolved that was left to the base.
        width: every batch is padded to this many tokens; None pads to the longest in the batch.
    """

    config: ClassifierConfig
    base: Base
    tokenizer: Tokenizer
    settings: ClassifierSettings
    width: int | None
    parts: Parts
    names: list[str]
    receipt: Receipt

    def model_config(self) -> ModelConfig:
        """The decoder's shape; that of random weights follows the tokenizer."""
        return self.base.shape_with(self.tokenizer)

    def ids(self, part: str) -> list[list[int]]:
        """Token ids of a part's texts, as the model sees them."""
        return fit([example.ids for example in self.parts[part]], self.settings, self.tokenizer.end_of_text)

    def labels(self, part: str) -> list[int]:
        """Class ids of a part's texts."""
        index = {name: number for number, name in enumerate(self.names)}
        return [index[example.label] for example in self.parts[part]]


def prepare(config: ClassifierConfig) -> Prepared:
    """Reads, checks, splits and encodes the data for its base; nothing is trained or written.

    Raises:
        UserError: for anything in data or options that cannot work.
    """
    base = open_base(config.base, config.tokenizer)
    receipt = Receipt()
    tables, form = read_parts(config, receipt)
    text, label = config.text or form.text or None, config.label or form.label or None
    given = {part: collect(files, text, label, receipt) for part, files in tables.items()}
    everything = [example for examples in given.values() for example in examples]
    label_names(everything, receipt.why())
    receipt.look(everything)
    return encode_parts(config, base, arrange(given, config, receipt), receipt)


def encode_parts(config: ClassifierConfig, base: Base, parts: Parts, receipt: Receipt) -> Prepared:
    """Gives the texts of all parts their ids, with the base's tokenizer or one that is trained on the training part.

    Raises:
        UserError: when lengths and padding do not fit the base.
    """
    names = label_names([example for examples in parts.values() for example in examples])
    sizes = {"n_train": len(parts["train"]), "n_labels": len(names)}
    config = config.for_base(pretrained=base.pretrained, n_layer=base.config.n_layer, **sizes)
    tokenizer = base.tokenizer or Tokenizer.train([example.text for example in parts["train"]], config.vocab)
    for examples in parts.values():
        encode(examples, tokenizer)
    settings, width = _lengths(config, base, max(len(example.ids) for example in parts["train"]))
    for examples in parts.values():
        cut(examples, settings.max_length or base.config.context_length, receipt)
    return Prepared(config, base, tokenizer, settings, width, parts, names, receipt)


def _lengths(config: ClassifierConfig, base: Base, longest: int) -> tuple[ClassifierSettings, int | None]:
    """How long a text may be, and how far it is padded; ``longest`` is that of the training texts, uncut."""
    context = base.config.context_length
    limit = config.max_length or context
    named = {"batch": None, "data": min(longest, limit), "context": context}
    width = int(config.pad_to) if config.pad_to.isdigit() else named[config.pad_to]
    if max(limit, width or 0) > context:
        option = f"--max-length {limit}" if limit > context else f"--pad-to {width}"
        raise UserError(f"{option} is beyond the context of {base.name}", expected=f"at most {context}")
    if config.read != "last-position":
        return ClassifierSettings(read=config.read, causal=config.causal, max_length=limit), width
    if width is None:
        found = "--read last-position with --pad-to batch: the answer would depend on the other texts"
        raise UserError(found, expected="--pad-to data, context or a number")
    settings = ClassifierSettings(read=config.read, causal=config.causal, max_length=min(limit, width), padded_to=width)
    return settings, width
