"""transformers, plain as its examples show it, and at its best: length-sorted batches, fused AdamW, bf16."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer, GPT2ForSequenceClassification, GPT2LMHeadModel, pipeline
from transformers.utils.logging import disable_progress_bar
from work import Work, padded

disable_progress_bar()
EVALUATED, EVALUATED_BEST = 32, 8  # texts at once where nothing is trained; of 32, 16 and 8 sorted ones 8 were fastest


def tensors(rows: Sequence[list[int]], pad: int, *, left: bool = False) -> dict[str, Tensor]:
    ids, real = padded(list(rows), pad, left=left)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(real)}


def mixed(precision: str) -> AbstractContextManager[None]:
    """Training in bf16 keeps the weights in fp32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def adamw(model: nn.Module, best: bool) -> torch.optim.AdamW:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=5e-5, weight_decay=0.1, fused=best or None)


def spam(work: Work, precision: str, *, best: bool = False) -> dict[str, float]:
    """Last block, final norm and head; validation in every epoch, all parts in the end."""
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification.from_pretrained(work.folder / "classifier").requires_grad_(False)
    for part in (model.transformer.h[-1], model.transformer.ln_f, model.score):
        part.requires_grad_(True)
    optimizer, train = adamw(model, best), work.spam["train"]
    for epoch in range(work.epochs):
        model.train()
        for rows in work.batches([len(ids) for ids, _ in train], epoch, by_length=best):
            batch = [train[row] for row in rows]
            with mixed(precision):
                logits = model(**tensors([ids for ids, _ in batch], work.pad)).logits
            F.cross_entropy(logits.float(), torch.tensor([label for _, label in batch])).backward()
            optimizer.step()
            optimizer.zero_grad()
        label_all(model.eval(), [ids for ids, _ in work.spam["validation"]], work.pad, precision, best)
    begun = time.perf_counter()
    for part in work.spam.values():
        label_all(model, [ids for ids, _ in part], work.pad, precision, best)
    return {"last_evaluation_s": time.perf_counter() - begun}


@torch.no_grad()
def label_all(model: nn.Module, texts: Sequence[list[int]], pad: int, precision: str, best: bool) -> None:
    texts, at_once = (sorted(texts, key=len), EVALUATED_BEST) if best else (texts, EVALUATED)
    for begin in range(0, len(texts), at_once):
        with mixed(precision):
            model(**tensors(texts[begin : begin + at_once], pad)).logits.argmax(-1).tolist()


def instructions(work: Work, precision: str, *, best: bool = False) -> dict[str, float]:
    """One epoch with all parameters."""
    torch.manual_seed(0)
    return fine_tune(GPT2LMHeadModel.from_pretrained(work.folder / "model"), work, precision, best)


def fine_tune(model: nn.Module, work: Work, precision: str, best: bool) -> dict[str, float]:
    """One epoch over the records, with whatever of the model is trained."""
    optimizer = adamw(model.train(), best)
    begun = time.perf_counter()
    for rows in work.batches([len(ids) for ids in work.records], seed=0, by_length=best):
        batch = tensors([work.records[row] for row in rows], work.pad)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        with mixed(precision):
            loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"seconds": time.perf_counter() - begun, "done": work.learned}


@torch.no_grad()
def classify(work: Work, precision: str, *, best: bool = False) -> dict[str, float]:
    """Batches as the texts come, or of similar length."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    model = GPT2ForSequenceClassification.from_pretrained(work.folder / "classifier", dtype=kind).eval()
    begun = time.perf_counter()
    label_all(model, work.ids, work.pad, "fp32", best)
    return {"seconds": time.perf_counter() - begun, "done": len(work.ids)}


def pipeline_classify(work: Work, precision: str) -> dict[str, float]:
    """Its own pipeline object, which takes one text after the other unless told, and sorts nothing."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    ready = pipeline("text-classification", str(work.folder / "classifier"), dtype=kind, device="cpu")
    begun = time.perf_counter()
    ready(work.texts)
    return {"seconds": time.perf_counter() - begun, "done": len(work.texts)}


def first_label(work: Work, precision: str) -> dict[str, float]:
    """From nothing to the label of one text."""
    tokenizer = AutoTokenizer.from_pretrained(work.folder / "classifier")
    model = GPT2ForSequenceClassification.from_pretrained(work.folder / "classifier").eval()
    with torch.no_grad():
        model(**tokenizer(work.texts[0], return_tensors="pt")).logits.argmax().item()
    return {}


def generate(work: Work, precision: str) -> dict[str, float]:
    """One prompt, greedy."""
    return continue_all(work, precision, work.prompts[:1], 1)


def generate_many(work: Work, precision: str, *, best: bool = False) -> dict[str, float]:
    """Batches of 16 as the prompts come; at its best all of them together."""
    return continue_all(work, precision, work.prompts, len(work.prompts) if best else 16)


def continue_all(work: Work, precision: str, prompts: Sequence[list[int]], at_once: int) -> dict[str, float]:
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    model = GPT2LMHeadModel.from_pretrained(work.folder / "model", dtype=kind).eval()
    how = {"max_new_tokens": work.new_tokens, "min_new_tokens": work.new_tokens, "do_sample": False}
    begun = time.perf_counter()
    for begin in range(0, len(prompts), at_once):
        batch = tensors(prompts[begin : begin + at_once], work.pad, left=True)
        model.generate(**batch, **how, pad_token_id=work.pad)
    return {"seconds": time.perf_counter() - begun, "done": len(prompts) * work.new_tokens}
