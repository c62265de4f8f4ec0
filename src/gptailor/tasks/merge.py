"""An adapter and its base as one plain model folder, proven in a process that knows nothing of either."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.head import Classifier
from gptailor.model.lora import adapted, merge
from gptailor.predict import TOLERANCE, TOLERANCE_HALF
from gptailor.tokenizer import TEMPLATE_FILE, Tokenizer
from gptailor.weights.adapters import HEAD, attach, is_adapter, read_adapter
from gptailor.weights.base import base_of, check_base, open_base, template_in
from gptailor.weights.folder import (
    ClassifierFolder,
    load_classifier,
    load_on,
    read_labels,
    read_settings,
    save_classifier,
    save_language_model,
)
from gptailor.weights.huggingface import read_json

TEXTS, TOKENS = 4, 48  # of what is put to both models
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def merge_command(folder: Path, out: Path, base: str | None, save_in: str, console: Console) -> None:
    """Writes the merged model to ``out`` and says how far its logits are from the adapter's.

    Raises:
        UserError: when there is nothing to merge, the base is another one, or the merged model says something else; the
            last leaves nothing behind.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", expected="the folder of an adapter")
    if not is_adapter(folder):
        raise UserError(
            f"{folder} holds no adapter", expected="a folder of a finished run with --layers lora, or one of PEFT"
        )
    if save_in not in DTYPES:
        raise UserError(f"--save-in {save_in}", expected=" or ".join(DTYPES))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} holds something already", expected="a new or empty folder", hint="another --out")
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    model, tokenizer, template = _adapted(folder, base)
    decoder = model.decoder if isinstance(model, Classifier) else model
    ids = torch.randint(decoder.config.vocab_size, (TEXTS, min(TOKENS, decoder.config.context_length)))
    expected = _logits(model, ids)
    merge(model)
    if adapted(model):
        found = f"{folder} adapts the output head, and GPT-2 has one matrix for it and the token embedding"
        raise UserError(found, expected="an adapter without --targets head", hint="use it unmerged: every command does")
    if isinstance(model, Classifier):
        named = ClassifierFolder(model, tokenizer, read_labels(config, folder), read_settings(config, folder))
        save_classifier(out, named, dtype=DTYPES[save_in])
    else:
        texts = {TEMPLATE_FILE: template.read_text(encoding="utf-8")} if template else {}
        task = "assistant" if texts else "base"
        save_language_model(out, model, tokenizer, task=task, dtype=DTYPES[save_in], texts=texts)
    _prove(out, ids, expected, TOLERANCE if save_in == "fp32" else TOLERANCE_HALF, console)


def _adapted(folder: Path, place: str | None) -> tuple[Decoder | Classifier, Tokenizer, Path | None]:
    """The base with the adapter on it, not merged; and its chat template, or else that of the base."""
    adapter = read_adapter(folder)
    base = open_base(place) if place is not None else base_of(folder, adapter)
    tokenizer = Tokenizer.load(folder) if (folder / "tokenizer.json").is_file() else base.tokenizer
    if tokenizer is None:
        raise UserError(f"neither {folder} nor {base.name} has a tokenizer")
    decoder = base.load(tokenizer)
    check_base(folder, decoder, base.name)
    if HEAD in adapter.whole:
        return load_on(folder, decoder, adapter).model, tokenizer, None
    attach(decoder, adapter)
    return decoder.eval(), tokenizer, template_in(folder) or base.template


def _prove(out: Path, ids: Tensor, expected: np.ndarray, tolerance: float, console: Console) -> None:
    """Compares with what a fresh process reads from the folder; the difference is relative to the largest logit."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        merged = pool.apply(folder_logits, (str(out), ids.tolist()))
    difference = float(np.abs(merged - expected).max() / max(1.0, np.abs(expected).max()))
    if not difference <= tolerance:
        shutil.rmtree(out)
        raise UserError(
            f"the merged model's logits differ by {difference:.2g} from the adapter's",
            expected=f"at most {tolerance:g}, relative to the largest",
            hint="please report this as a bug of GPTailor",
        )
    record = {"max_difference": difference, "tolerance": tolerance, "texts": len(ids)}
    (out / "merge.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    console.print(
        f"merged into {out}; read by a fresh process, its logits differ by {difference:.1g} at most "
        f"(allowed: {tolerance:g}, relative to the largest)",
        markup=False,
        highlight=False,
    )


def folder_logits(folder: str, ids: list[list[int]]) -> np.ndarray:
    """What the model in a folder says to ids (B, T): logits (B, K) of a classifier, (B, T, V) of a language model."""
    settings = read_json(Path(folder) / "config.json").get("gptailor", {})
    if settings.get("task") == "classifier":
        return _logits(load_classifier(Path(folder)).model, torch.tensor(ids))
    opened = open_base(folder)
    assert opened.tokenizer is not None
    return _logits(opened.load(opened.tokenizer).eval(), torch.tensor(ids))


@torch.no_grad()
def _logits(model: Decoder | Classifier, ids: Tensor) -> np.ndarray:
    if isinstance(model, Classifier):
        return model(ids, torch.ones_like(ids, dtype=torch.bool)).numpy()
    return model.logits(model(ids)).numpy()
