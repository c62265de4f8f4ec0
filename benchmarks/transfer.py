"""What pretraining is worth: thimble against random weights and TF-IDF, on 50, 200 and all training texts.

    python benchmarks/transfer.py DATA [--out runs/transfer.jsonl] [--only sms-spam trec ...] [--sizes 50 200 all]

DATA is the folder of the data sets. Every way gets the same texts: a split drawn by the seed, or the set's own, and of
its training part the first 50, 200 or all in an order drawn by the seed. Options are the defaults, but that the last
weights are kept, so that no labelled text beyond the stated number is looked at. Results go to a file line by line, and
a run that was stopped goes on where it was; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from sklearn.metrics import f1_score

from gptailor.config import ClassifierConfig, load_config
from gptailor.data.receipt import Receipt
from gptailor.evaluate.baselines import tfidf_logistic_regression
from gptailor.evaluate.metrics import wilson_interval
from gptailor.predict import logits_of
from gptailor.tasks.classifier import fit_classifier
from gptailor.tasks.feed import build
from gptailor.tasks.prepare import encode_parts, prepare
from gptailor.train.loop import StopRequest

SETS = {
    "sms-spam": {"data": "sms_spam/SMSSpamCollection", "balance": "undersample"},
    "trec": {"data": "trec/train.txt", "test": "trec/test.txt", "format": "label-first"},
    "rotten-tomatoes": {"data": "rotten_tomatoes/rt_polarity.csv"},
    "swahili": {
        "data": "nonenglish/swahili_afrisenti/train.tsv",
        "validation": "nonenglish/swahili_afrisenti/dev.tsv",
        "test": "nonenglish/swahili_afrisenti/test.tsv",
    },
}
WAYS = {
    "thimble": "thimble",
    "random weights": "random:n_layer=4,n_head=4,n_embd=256,context_length=512",
    "TF-IDF": "",
}
SIZES = ["50", "200", "all"]
SEEDS = [123, 124, 125]
VALIDATION = 32  # texts that the loop looks at; nothing is decided by them


def measure(folder: Path, name: str, size: str, way: str, seed: int) -> dict[str, Any]:
    """One cell of the table for one seed: how many of the unseen test texts are right."""
    torch.set_num_threads(1)
    files = {key: str(folder / value) if "/" in value else value for key, value in SETS[name].items()}
    options = {**files, "base": WAYS[way] or WAYS["random weights"], "seed": seed, "keep": "last"}
    config = load_config(ClassifierConfig, None, {**options, "evaluate_every": 10**6})
    prepared = prepare(config)
    parts = dict(prepared.parts)
    random.Random(seed).shuffle(parts["train"])
    parts["train"] = parts["train"][: None if size == "all" else int(size)]
    parts["validation"] = parts["validation"][:VALIDATION]
    prepared = encode_parts(config, prepared.base, parts, Receipt())
    labels = np.array(prepared.labels("test"))
    if way == "TF-IDF":
        texts = [[example.text for example in parts[part]] for part in ("train", "test")]
        predicted = tfidf_logistic_regression(texts[0], np.array(prepared.labels("train")), texts[1])
    else:
        feed = build(prepared)
        with tempfile.TemporaryDirectory() as place:
            fit_classifier(feed, Path(place), Path(place), Console(quiet=True), StopRequest())
        pad = prepared.tokenizer.end_of_text
        predicted = logits_of(feed.model.eval(), prepared.ids("test"), pad, feed.device).argmax(1)
    right = int((predicted == labels).sum())
    found = {"right": right, "n": len(labels), "macro_f1": f1_score(labels, predicted, average="macro")}
    return {"data": name, "size": size, "way": way, "seed": seed, **found}


def table(results: list[dict[str, Any]]) -> str:
    """Mean accuracy over the seeds with its 95 % Wilson interval, and mean macro F1.

    The interval is that of all the seeds' test texts together where each seed draws its own, of which some are drawn
    more than once. A test part that comes with the set counts once, however many models have read it: more seeds do not
    make it say more of other texts.
    """
    lines = ["| data | texts | " + " | ".join(WAYS) + " |", "|---|---:|" + "---|" * len(WAYS)]
    for name, size in product(SETS, SIZES):
        cells = []
        for way in WAYS:
            found = [r for r in results if (r["data"], r["size"], r["way"]) == (name, size, way)]
            if not found:
                cells.append("")
                continue
            right, n = sum(r["right"] for r in found), sum(r["n"] for r in found)
            times = len(found) if "test" in SETS[name] else 1
            low, high = wilson_interval(right / times, n // times)
            f1 = sum(r["macro_f1"] for r in found) / len(found)
            cells.append(f"{100 * right / n:.1f} ({100 * low:.1f}-{100 * high:.1f}), {f1:.3f}")
        lines.append(f"| {name} | {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What pretraining is worth.")
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer.jsonl"), help="file of results")
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.out.read_text(encoding="utf-8").splitlines() if arguments.out.exists() else []
    results = [json.loads(line) for line in lines]
    done = {(r["data"], r["size"], r["way"], r["seed"]) for r in results}
    cells = [c for c in product(arguments.only, arguments.sizes, WAYS, SEEDS) if c not in done]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        waiting = [pool.apply_async(measure, (arguments.data, *cell)) for cell in cells]
        for number, one in enumerate(waiting, 1):
            results.append(one.get())
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(results[-1]) + "\n")
            print(f"{number}/{len(cells)}", results[-1], flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
