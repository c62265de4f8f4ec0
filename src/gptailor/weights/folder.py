"""Our model folder: a Hugging Face folder, with our own settings under the key ``gptailor`` of config.json."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.head import Classifier, Read
from gptailor.model.lora import merge
from gptailor.tokenizer import Tokenizer
from gptailor.weights.adapters import HEAD, Adapter, adapter_of, attach, is_adapter, read_adapter, write_adapter
from gptailor.weights.base import base_of, check_base
from gptailor.weights.huggingface import (
    WeightFiles,
    check_tokenizer,
    config_values,
    decoder_tensors,
    load_decoder,
    read_json,
    write_tensors,
)

NOT_SETTINGS = ("task", "base", "base_sha256")  # of what stands under the key gptailor


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


class AdapterBase(NamedTuple):
    """What an adapter was trained on: name or folder, and ``adapters.fingerprint`` of its weights."""

    name: str
    sha256: str


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


def save_classifier(
    folder: Path,
    saved: ClassifierFolder,
    *,
    adapter_on: AdapterBase | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes config.json, the weights and the tokenizer; each file appears whole or not at all.

    Args:
        adapter_on: the base, where the model is an adapter on one: then only what was trained is written, in float32.
        dtype: of the weights in the file, float32 or bfloat16.
    """
    decoder = saved.model.decoder
    end = saved.tokenizer.end_of_text
    config = config_values(decoder.config) | {
        "architectures": ["GPT2ForSequenceClassification"],
        "torch_dtype": str(dtype).removeprefix("torch."),
        "id2label": {str(index): label for index, label in enumerate(saved.labels)},
        "label2id": {label: index for index, label in enumerate(saved.labels)},
        "problem_type": "single_label_classification",
        "pad_token_id": end,
        "bos_token_id": end,
        "eos_token_id": end,
        "gptailor": {"task": "classifier", **_base_values(adapter_on), **saved.settings.model_dump()},
    }

    def write(unfinished: Path) -> None:
        if adapter_on is not None:
            write_adapter(unfinished, adapter_of(saved.model, adapter_on.name), decoder.config.n_layer)
        else:
            tensors = decoder_tensors(decoder) | {"score.weight": saved.model.head.weight}
            write_tensors(unfinished, {name: tensor.to(dtype) for name, tensor in tensors.items()})

    _write_whole(folder, config, write, saved.tokenizer, decoder.config.context_length, {})


def save_language_model(
    folder: Path,
    decoder: Decoder,
    tokenizer: Tokenizer,
    *,
    task: Literal["base", "assistant"],
    dtype: torch.dtype,
    texts: Mapping[str, str] | None = None,
    adapter_on: AdapterBase | None = None,
) -> None:
    """Writes a language model as transformers' ``GPT2LMHeadModel`` reads it; the head is the token embedding again.

    Args:
        dtype: of the weights in the file, float32 or bfloat16; an adapter is always written in float32.
        texts: further files, by name.
        adapter_on: the base, where the model is an adapter on one: then only what was trained is written.
    """
    end = tokenizer.end_of_text
    config = config_values(decoder.config) | {
        "architectures": ["GPT2LMHeadModel"],
        "torch_dtype": str(dtype).removeprefix("torch."),
        "bos_token_id": end,
        "eos_token_id": end,
        "gptailor": {"task": task, **_base_values(adapter_on)},
    }

    def write(unfinished: Path) -> None:
        if adapter_on is not None:
            write_adapter(unfinished, adapter_of(decoder, adapter_on.name), decoder.config.n_layer)
        else:
            write_tensors(unfinished, {name: t.to(dtype) for name, t in decoder_tensors(decoder).items()})

    _write_whole(folder, config, write, tokenizer, decoder.config.context_length, texts or {})


def _base_values(adapter_on: AdapterBase | None) -> dict[str, str]:
    return {} if adapter_on is None else {"base": adapter_on.name, "base_sha256": adapter_on.sha256}


def _write_whole(
    folder: Path,
    config: Mapping[str, Any],
    write_weights: Callable[[Path], None],
    tokenizer: Tokenizer,
    context_length: int,
    texts: Mapping[str, str],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as name:
        unfinished = Path(name)
        write_weights(unfinished)
        tokenizer.save(unfinished, context_length=context_length)
        for file, content in texts.items():
            (unfinished / file).write_text(content, encoding="utf-8")
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (unfinished / "config.json").write_text(text, encoding="utf-8")
        # config.json last: a folder with it is complete.
        for file in sorted(unfinished.iterdir(), key=lambda file: file.name == "config.json"):
            file.replace(folder / file.name)


def load_classifier(folder: Path, dtype: torch.dtype = torch.float32) -> ClassifierFolder:
    """Reads a model folder of ours, or any GPT-2 classifier in the Hugging Face layout.

    Args:
        dtype: of the decoder's weights in memory; the class head's are float32.

    Raises:
        UserError: when something is missing, damaged, or does not fit together.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder", expected="a model folder, as 'gptailor train classifier' writes it")
    if is_adapter(folder):
        adapter = read_adapter(folder)
        base = base_of(folder, adapter)
        decoder = base.load(Tokenizer.load(folder))
        check_base(folder, decoder, base.name)
        opened = load_on(folder, decoder, adapter)
        merge(opened.model)
        opened.model.decoder.to(dtype)
        return opened
    n_classes = len(read_labels(read_json(folder / "config.json"), folder))
    decoder = load_decoder(folder, dtype)
    return _assembled(folder, decoder, read_head(folder, (n_classes, decoder.config.n_embd)))


def load_on(folder: Path, decoder: Decoder, adapter: Adapter, name: str = "default") -> ClassifierFolder:
    """A classifier that is an adapter, on its base, not merged.

    Raises:
        UserError: when the adapter does not fit the decoder, or has no class head.
    """
    n_classes, head = len(read_labels(read_json(folder / "config.json"), folder)), adapter.whole.get(HEAD)
    attach(decoder, adapter, name)
    expected = (n_classes, decoder.config.n_embd)
    if head is None or tuple(head.shape) != expected:
        found = "no class head" if head is None else f"a class head {tuple(head.shape)}"
        raise UserError(f"{folder}: the adapter has {found}", expected=f"one of {expected} by config.json")
    return _assembled(folder, decoder, head)


def _assembled(folder: Path, decoder: Decoder, head: Tensor) -> ClassifierFolder:
    config = read_json(folder / "config.json")
    labels = read_labels(config, folder)
    settings = fitted(read_settings(config, folder), decoder.config.context_length, folder)
    tokenizer = Tokenizer.load(folder)
    check_tokenizer(tokenizer, decoder.config.vocab_size, folder)
    model = build_classifier(decoder, len(labels), settings)
    model.head.weight.data = head
    return ClassifierFolder(model.eval(), tokenizer, labels, settings)


def read_head(folder: Path, shape: tuple[int, int]) -> Tensor:
    """The head's weight (K, C) in float32. Raises ``UserError`` when it is missing or has another shape."""
    files = WeightFiles(folder)
    if "score.weight" not in files.shapes:
        hint = "train one from it: gptailor train classifier DATA --base " + str(folder)
        raise UserError(f"{folder} has no class head (tensor score.weight)", hint=hint)
    if files.shapes["score.weight"] != shape:
        raise UserError(f"{folder}: score.weight is {files.shapes['score.weight']}", expected=f"{shape} by config.json")
    return files.tensor("score.weight").float()


def read_labels(config: Mapping[str, Any], folder: Path) -> list[str]:
    """Label names in the order of their ids, from ``id2label``."""
    named = config.get("id2label")
    if not isinstance(named, dict) or sorted(named) != sorted(str(i) for i in range(len(named))) or len(named) < 2:
        raise UserError(f"{folder}/config.json: id2label is {named!r:.200}", expected="a name for each class 0, 1, ...")
    return [str(named[str(index)]) for index in range(len(named))]


def read_settings(config: Mapping[str, Any], folder: Path) -> ClassifierSettings:
    """Our settings from config.json; the defaults when another tool wrote it."""
    values = config.get("gptailor") or {"task": "classifier"}
    if not isinstance(values, dict):
        raise UserError(f"{folder}/config.json: key gptailor is {values!r:.80}", expected="an object with settings")
    if values.get("task") != "classifier":
        raise UserError(f"{folder} is no classifier", expected="a folder from 'gptailor train classifier'")
    try:
        return ClassifierSettings.model_validate({k: v for k, v in values.items() if k not in NOT_SETTINGS})
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
