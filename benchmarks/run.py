"""Fine-tuning speed against peers, in one process and in alternation: ``python benchmarks/run.py [--texts N]``.

The work: true GPT-2 small shapes with random weights (speed does not depend on values), last block, final norm and head
trained, batch 8, fp32, one epoch or more on texts with SMS Spam's distribution of lengths. Three ways to do it:

- textbook: every text padded to the longest, the full trunk in every step, as the book does it;
- transformers: ``GPT2ForSequenceClassification``, padded to the longest in each batch;
- gptailor: the frozen trunk computed once, batches of similar length, the last block for one token.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from transformers import GPT2Config, GPT2ForSequenceClassification

from gptailor.data.batching import by_length, collate, shuffled
from gptailor.model.config import SIZES
from gptailor.model.decoder import Decoder
from gptailor.model.head import Classifier, freeze
from gptailor.train.losses import class_loss
from gptailor.train.optim import adamw
from gptailor.train.trunk import keep_trunk

BATCH = 8
PAD = 50256


def texts(count: int) -> tuple[list[list[int]], list[int]]:
    """Random ids; lengths are lognormal with SMS Spam's median of 26 tokens in the balanced set, at most 120."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(26), 0.6, count), 2, 120).astype(int)
    return [rng.integers(0, 50000, length).tolist() for length in lengths], rng.integers(0, 2, count).tolist()


def textbook(ids: list[list[int]], labels: list[int], epochs: int) -> float:
    model = Classifier(Decoder(SIZES["gpt2-small"]).initialize(), 2)
    freeze(model, "1")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-5, weight_decay=0.1)
    longest = max(map(len, ids))
    for epoch in range(epochs):
        for rows in shuffled([1] * len(ids), BATCH, 0, epoch):
            batch = collate(ids, labels, rows, PAD, longest)
            loss = F.cross_entropy(model.plain(batch.input_ids, batch.real), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return float(loss)


def transformers(ids: list[list[int]], labels: list[int], epochs: int) -> float:
    model = GPT2ForSequenceClassification(GPT2Config(num_labels=2, pad_token_id=PAD)).eval()
    model.requires_grad_(False)
    for part in (model.transformer.h[-1], model.transformer.ln_f, model.score):
        part.requires_grad_(True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-5, weight_decay=0.1)
    for epoch in range(epochs):
        for rows in shuffled([1] * len(ids), BATCH, 0, epoch):
            batch = collate(ids, labels, rows, PAD)
            logits = model(input_ids=batch.input_ids, attention_mask=batch.real.long()).logits
            loss = F.cross_entropy(logits, batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return float(loss)


def gptailor(ids: list[list[int]], labels: list[int], epochs: int) -> float:
    model = Classifier(Decoder(SIZES["gpt2-small"]).initialize(), 2)
    depth = freeze(model, "1")
    optimizer = adamw(model, 5e-5, 0.1)
    lengths = [len(text) for text in ids]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        batches = (collate(ids, labels, rows, PAD) for rows in by_length(lengths, 4096))
        states = ((batch.rows, model.trunk(batch.input_ids, batch.real, depth)) for batch in batches)
        trunk = keep_trunk(lengths, model.decoder.config.n_embd, states, Path(folder) / "trunk")
    assert trunk
    for epoch in range(epochs):
        for rows in shuffled(lengths, BATCH, 0, epoch):
            batch = collate(ids, labels, rows, PAD)
            logits = model.top(trunk.batch(batch.rows, batch.real.size(1)), batch.real, depth)
            part = class_loss(logits, batch.labels)
            (part.total / part.weight).backward()
            optimizer.step()
            optimizer.zero_grad()
    return float(part.total / part.weight)


def measure(ways: dict[str, Callable[..., float]], count: int, epochs: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, run in turn so that a busy neighbour hits all of them."""
    ids, labels = texts(count)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, way in ways.items():
            torch.manual_seed(repeat)
            begun = time.perf_counter()
            way(ids, labels, epochs)
            seconds[name].append(time.perf_counter() - begun)
            Console(stderr=True).print(f"{name:13} {seconds[name][-1]:7.1f} s")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    ways = {"textbook": textbook, "transformers": transformers, "gptailor": gptailor}
    seconds = measure(ways, options.texts, options.epochs, options.repeats)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    threads = torch.get_num_threads()
    print(f"{options.texts} texts, {options.epochs} epochs, {threads} threads, torch {torch.__version__}")
    for name, values in seconds.items():
        spread = f"{min(values):.1f} to {max(values):.1f} s"
        print(f"{name:13} {median[name]:7.1f} s ({spread})   {median['textbook'] / median[name]:5.1f}x textbook")
    figures = {"seconds": seconds, "machine": platform.processor() or platform.machine(), **vars(options)}
    print(json.dumps({**figures, "torch": torch.__version__, "threads": threads}))


if __name__ == "__main__":
    main()
