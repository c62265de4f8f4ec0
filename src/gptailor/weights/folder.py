"""Our model folder: a Hugging Face folder, with our own settings under the key ``gptailor`` of config.json."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.head import Classifier, Read
from gptailor.tokenizer import Tokenizer
from gptailor.weights.huggingface import (
    WeightFiles,
    config_values,
    decoder_tensors,
    load_decoder,
    read_json,
    write_tensors,
)


class ClassifierSettings(BaseModel):
    """What a class head needs beyond the Hugging Face form.

    Attributes:
        read: see ``Classifier``; ``"last-position"`` is ``"last"`` with padding taken for text.
        max_length: texts are cut to this many tokens.
        padded_to: with ``"last-position"``, every text is filled up to this many tokens.
        temperature: probabilities are softmax(logits / temperature).
        text_columns: the columns that the training texts stood in, for reading files of the same kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    read: Read | Literal["last-position"] = "last"
    causal: bool = True
    max_length: int | None = Field(None, ge=1)
    padded_to: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, gt=0)
    text_columns: list[str] | None = None


@dataclass
class ClassifierFolder:
    """A classifier and all that its use needs."""

    model: Classifier
    tokenizer: Tokenizer
    labels: list[str]
    settings: ClassifierSettings


def build_classifier(decoder: Decoder, n_classes: int, settings: ClassifierSettings) -> Classifier:
    """A classifier with a fresh head, as ``settings`` describe it."""
    read: Read = "last" if settings.read == "last-position" else settings.read
    return Classifier(decoder, n_classes, read=read, causal=settings.causal)


def save_classifier(folder: Path, saved: ClassifierFolder) -> None:
    """Writes config.json, model.safetensors and the tokenizer; each file appears whole or not at all."""
    decoder = saved.model.decoder
    end = saved.tokenizer.end_of_text
    config = config_values(decoder.config) | {
        "architectures": ["GPT2ForSequenceClassification"],
        "id2label": {str(index): label for index, label in enumerate(saved.labels)},
        "label2id": {label: index for index, label in enumerate(saved.labels)},
        "problem_type": "single_label_classification",
        "pad_token_id": end,
        "bos_token_id": end,
        "eos_token_id": end,
        "gptailor": {"task": "classifier", **saved.settings.model_dump()},
    }
    _write_whole(
        folder,
        config,
        decoder_tensors(decoder) | {"score.weight": saved.model.head.weight},
        saved.tokenizer,
        decoder.config.context_length,
        {},
    )


def save_language_model(
    folder: Path,
    decoder: Decoder,
    tokenizer: Tokenizer,
    *,
    task: Literal["base", "assistant"],
    dtype: torch.dtype,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Writes a language model as transformers' ``GPT2LMHeadModel`` reads it; the head is the token embedding again.

    Args:
        dtype: of the weights in the file, float32 or bfloat16.
        texts: further files, by name.
    """
    end = tokenizer.end_of_text
    config = config_values(decoder.config) | {
        "architectures": ["GPT2LMHeadModel"],
        "torch_dtype": str(dtype).removeprefix("torch."),
        "bos_token_id": end,
        "eos_token_id": end,
        "gptailor": {"task": task},
    }
    tensors = {name: tensor.to(dtype) for name, tensor in decoder_tensors(decoder).items()}
    _write_whole(folder, config, tensors, tokenizer, decoder.config.context_length, texts or {})


def _write_whole(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    context_length: int,
    texts: Mapping[str, str],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as name:
        unfinished = Path(name)
        write_tensors(unfinished, tensors)
        tokenizer.save(unfinished, context_length=context_length)
        for file, content in texts.items():
            (unfinished / file).write_text(content, encoding="utf-8")
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (unfinished / "config.json").write_text(text, encoding="utf-8")
        # config.json last: a folder with it is complete.
        for file in sorted(unfinished.iterdir(), key=lambda file: file.name == "config.json"):
            file.replace(folder / file.name)


def load_classifier(folder: Path) -> ClassifierFolder:
    """Reads a model folder of ours, or any GPT-2 classifier in the Hugging Face layout.

    Raises:
        UserError: when something is missing, damaged, or does not fit together.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder", expected="a model folder, as 'gptailor train classifier' writes it")
    config = read_json(folder / "config.json")
    labels = read_labels(config, folder)
    decoder = load_decoder(folder)
    settings = fitted(read_settings(config, folder), decoder.config.context_length, folder)
    tokenizer = Tokenizer.load(folder)
    check_tokenizer(tokenizer, decoder.config.vocab_size, folder)
    model = build_classifier(decoder, len(labels), settings)
    model.head.weight.data = read_head(folder, (len(labels), decoder.config.n_embd))
    return ClassifierFolder(model.eval(), tokenizer, labels, settings)


def read_head(folder: Path, shape: tuple[int, int]) -> Tensor:
    """The head's weight (K, C) in float32. Raises ``UserError`` when it is missing or has another shape."""
    files = WeightFiles(folder)
    if "score.weight" not in files.file_of:
        hint = "train one from it: gptailor train classifier DATA --base " + str(folder)
        raise UserError(f"{folder} has no class head (tensor score.weight)", hint=hint)
    if files.shape("score.weight") != shape:
        raise UserError(f"{folder}: score.weight is {files.shape('score.weight')}", expected=f"{shape} by config.json")
    return files.tensor("score.weight").float()


def read_labels(config: Mapping[str, Any], folder: Path) -> list[str]:
    """Label names in the order of their ids, from ``id2label``."""
    named = config.get("id2label")
    if not isinstance(named, dict) or sorted(named) != sorted(str(i) for i in range(len(named))) or len(named) < 2:
        raise UserError(f"{folder}/config.json: id2label is {named!r}", expected="a name for each class 0, 1, ...")
    return [str(named[str(index)]) for index in range(len(named))]


def read_settings(config: Mapping[str, Any], folder: Path) -> ClassifierSettings:
    """Our settings from config.json; the defaults when another tool wrote it."""
    values = config.get("gptailor") or {"task": "classifier"}
    if not isinstance(values, dict):
        raise UserError(f"{folder}/config.json: key gptailor is {values!r:.80}", expected="an object with settings")
    if values.get("task") != "classifier":
        raise UserError(f"{folder} is no classifier", expected="a folder from 'gptailor train classifier'")
    try:
        return ClassifierSettings.model_validate({key: value for key, value in values.items() if key != "task"})
    except ValidationError as error:
        problems = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
        hint = "it may come from a newer GPTailor: pip install -U gptailor"
        raise UserError(f"{folder}/config.json, key gptailor: {problems}", hint=hint) from None


def fitted(settings: ClassifierSettings, context_length: int, folder: Path) -> ClassifierSettings:
    """The settings with ``max_length`` filled in. Raises ``UserError`` when lengths are beyond the model's context."""
    for name in ("max_length", "padded_to"):
        if (getattr(settings, name) or 0) > context_length:
            found = f"{folder}/config.json, key gptailor: {name} is {getattr(settings, name)}"
            raise UserError(found, expected=f"at most {context_length}, the context of the model")
    return settings.model_copy(update={"max_length": settings.max_length or context_length})


def check_tokenizer(tokenizer: Tokenizer, vocab_size: int, source: Path | str) -> None:
    """Raises ``UserError`` when the tokenizer has ids that the model has no embedding for."""
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"{source}: the tokenizer has {tokenizer.vocab_size} tokens and the model {vocab_size}",
            expected="the tokenizer that the model was trained with",
        )
