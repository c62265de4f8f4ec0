"""Model folders as a run leaves them, with invented figures that agree with each other and texts that mean harm."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptailor.evaluate.baselines import baseline_metrics
from gptailor.evaluate.metrics import classification_metrics, fit_temperature, softmax
from tests.evaluate.folders import write_assistant_folder, write_base_folder

HOSTILE = [
    "<script>alert(1)</script><img src=https://evil.example/x.png onerror=alert(1)> WIN a prize now",
    "سلام، غذا خیلی دیر رسید و سرد بود؛ لطفاً پیگیری کنید.",
    "URGENT! You have won a 1 week FREE membership in our $100,000 Prize Jackpot! Txt the word: CLAIM to No: 81010",
    "</td></table><style>body{display:none}</style>",
    "ok lor... i'll call u when i reach home {{ 7 * 7 }} | ```",
    "a" * 300,
    "Sorry, I'll call later in the meeting. " * 12,
]

COLUMNS = ["source", "text", "label", "predicted", "probability", "probability_of_label", "correct", "unseen"]

RUN_YAML = """\
# --- Data ---
# a file, a folder with train/validation/test files, or a catalogue name
data: {data}
# uneven labels: leave, undersample to the rarest, or weigh the loss
balance: none

# --- Model ---
# the model to start from: a folder, a name, or random:SIZE
base: random:tiny
# what the class is read from: last or first token, last position with padding, mean
read: last
# let a token see only the tokens before it
causal: true

# --- Training ---
# peak learning rate of AdamW [default: by base]
lr: 0.001
# passes over the training part [default: by base]
epochs: {epochs}
"""


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[..., Path]:
    """``model_folder(labels, supports, ...)`` writes a folder below ``tmp_path``; see ``write_model_folder``."""
    return lambda *args, **kwargs: write_model_folder(tmp_path / "model", *args, **kwargs)


@pytest.fixture
def assistant_folder(tmp_path: Path) -> Path:
    """The folder of an assistant with 30 answers."""
    return write_assistant_folder(tmp_path / "assistant")


@pytest.fixture
def base_folder(tmp_path: Path) -> Path:
    """The folder of a base model that beats its baselines."""
    return write_base_folder(tmp_path / "base")


def write_model_folder(
    folder: Path,
    labels: tuple[str, ...] = ("ham", "spam"),
    supports: tuple[int, ...] = (150, 149),
    *,
    edge: float = 3.0,
    baseline_right: float = 0.9,
    mcnemar: bool = True,
    seeds: bool = False,
    data: str = "SMSSpamCollection",
    epochs: int = 8,
) -> Path:
    """Writes a finished run. ``edge`` is how far the right logit stands out: 0 is guessing, 6 nearly always right."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    true = generator.permutation(np.repeat(np.arange(len(labels)), supports))
    logits = generator.normal(size=(len(true), len(labels))) * 1.6
    logits[np.arange(len(true)), true] += edge
    unseen = generator.random(len(true)) > 0.12
    _write_metrics(folder, labels, true, logits, unseen, generator, baseline_right, mcnemar, seeds)
    _write_predictions(folder, labels, true, logits, unseen)
    _write_receipt(folder, labels, supports, data)
    _write_history(folder, sum(supports) * 4, epochs)
    _write_manifest(folder)
    (folder / "run.yaml").write_text(RUN_YAML.format(data=data, epochs=epochs), encoding="utf-8")
    return folder


def _write_metrics(
    folder: Path,
    labels: tuple[str, ...],
    true: np.ndarray,
    logits: np.ndarray,
    unseen: np.ndarray,
    generator: np.random.Generator,
    baseline_right: float,
    mcnemar: bool,
    seeds: bool,
) -> None:
    probabilities, predicted = softmax(logits), logits.argmax(axis=1)
    guesses = np.where(
        generator.random(len(true)) < baseline_right, true, generator.integers(0, len(labels), len(true))
    )
    commonest = np.full(len(true), np.bincount(true).argmax())
    temperature = fit_temperature(logits, true)

    def baselines(part: np.ndarray) -> dict[str, Any]:
        chosen = {"majority": commonest[part], "tfidf_logistic_regression": guesses[part]}
        model = predicted[part] if mcnemar else None
        return baseline_metrics(chosen, true[part], classes=len(labels), model_predictions=model)

    everything = np.ones(len(true), dtype=bool)
    test = classification_metrics(true, probabilities, labels)
    scaled = classification_metrics(true, softmax(logits, temperature), labels)
    values = [
        {"seed": 123 + i, "accuracy": test["accuracy"] + shift, "n": 299} for i, shift in enumerate((0, 0.01, -0.013))
    ]
    accuracies = [each["accuracy"] for each in values]
    spread = {"seeds": 3, "mean": float(np.mean(accuracies)), "sd": float(np.std(accuracies, ddof=1)), "values": values}
    metrics = {
        "task": "classifier",
        "finished": True,
        "labels": list(labels),
        "kept": {
            "which": "best",
            "epoch": 6,
            "step": 6 * (len(true) * 4 // 8),
            "validation_loss": 0.31,
            "validation_accuracy": 0.91,
        },
        "validation": classification_metrics(true[:90], probabilities[:90], labels),
        "test": test,
        "test_unseen": classification_metrics(true[unseen], probabilities[unseen], labels),
        "baselines": baselines(everything),
        "baselines_unseen": baselines(unseen),
        "calibration": {
            "temperature": temperature,
            "validation_nll_before": test["nll"],
            "validation_nll_after": scaled["nll"],
            "test_ece_before": test["ece"],
            "test_ece_after": scaled["ece"],
        },
        "seeds": {"test": spread, "test_unseen": spread} if seeds else None,
        "self_check": {"texts": 32, "max_difference": 1.2e-6, "tolerance": 1e-4},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False), encoding="utf-8")


def _write_predictions(
    folder: Path, labels: tuple[str, ...], true: np.ndarray, logits: np.ndarray, unseen: np.ndarray
) -> None:
    probabilities, predicted = softmax(logits), logits.argmax(axis=1)
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row, label in enumerate(true):
            guess, text = predicted[row], f"{HOSTILE[row % len(HOSTILE)]} #{row}"
            sure = [probabilities[row, guess], probabilities[row, label]]
            flags = [str(bool(flag)).lower() for flag in (guess == label, unseen[row])]
            writer.writerow([f"data.tsv:{row + 1}", text, labels[label], labels[guess], *sure, *flags])


def _write_receipt(folder: Path, labels: tuple[str, ...], supports: tuple[int, ...], data: str) -> None:
    balance = {
        label: {"read": n * 6, "kept": n * 5 + 4, "train": n * 4 - 40, "validation": n // 2 + 40, "test": n}
        for label, n in zip(labels, supports, strict=True)
    }
    read, kept = (sum(each[key] for each in balance.values()) for key in ("read", "kept"))
    edges = list(range(0, 220, 10))
    counts = [int(kept * 0.24 * np.exp(-(((edge - 40) / 30) ** 2))) for edge in edges[:-1]]
    receipt = {
        "files": [
            {
                "part": "data",
                "path": f"../data/a-long-folder-name/{data}",
                "sha256": "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
                "bytes": 477907,
                "format": "tsv",
                "rows": read,
                "said": ["no header", "quotes read as ordinary characters"],
            }
        ],
        "columns": {"text": "text", "label": "label"},
        "rows": {"read": read, "kept": kept, "dropped": read - kept, "cut": 12},
        "dropped": [
            {
                "reason": "repeats an earlier text",
                "count": read - kept,
                "lines": [f"{data}:{n}" for n in range(12, 152, 7)],
            },
            {"reason": "empty text", "count": 1, "lines": [f"{data}:<b>9</b>"]},
        ],
        "cut": {"count": 12, "limit": 256, "lines": [f"{data}:{n}" for n in range(3, 40, 3)]},
        "duplicates": {
            "rows": read - kept,
            "by_label": {label: n - 4 for label, n in zip(labels, supports, strict=True)},
        },
        "conflicts": {
            "texts": 1,
            "rows": 3,
            "examples": [
                {"text": HOSTILE[1], "labels": {labels[0]: 2, labels[1]: 1}, "lines": [f"{data}:3", f"{data}:9"]}
            ],
        },
        "shared": {"validation": {"n": 149, "in_train": 13}, "test": {"n": sum(supports), "in_train": 37}},
        "labels": balance,
        "lengths": {"mean": 47.3, "median": 41.0, "p95": 98.0, "max": 204, "edges": edges, "counts": counts},
        "warnings": [
            f"label {labels[-1]!r} has few examples: its figures say little",
            "<b>37 test texts</b> are in training",
        ],
    }
    (folder / "receipt.json").write_text(json.dumps(receipt, ensure_ascii=False), encoding="utf-8")


def _write_history(folder: Path, examples: int, epochs: int) -> None:
    generator, rows = np.random.default_rng(1), []
    steps = examples // 8
    for step in range(10, steps * epochs + 1, 10):
        done = step / steps
        loss = 0.05 + 0.75 * np.exp(-done / 1.6) * generator.uniform(0.7, 1.3)
        accuracy = min(1.0, 1 - loss / 2 + generator.normal() * 0.03)
        row = {"kind": "train", "step": step, "epoch": int(np.ceil(done)), "examples": step * 8, "loss": loss}
        rows.append({**row, "accuracy": accuracy, "lr": 5e-4, "examples_per_second": 310.0})
    for epoch in range(1, epochs + 1):
        loss = 0.25 + 0.5 * np.exp(-epoch / 1.5) + 0.004 * (epoch - 6) ** 2
        row = {"kind": "evaluate", "step": steps * epoch, "epoch": epoch, "examples": steps * 8 * epoch}
        rows.append({**row, "validation_loss": loss, "validation_accuracy": 1 - loss / 3})
    text = "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["step"]))
    (folder / "history.jsonl").write_text(text, encoding="utf-8")


def _write_manifest(folder: Path) -> None:
    manifest = {
        "command": "gptailor train classifier data/SMSSpamCollection --base random:tiny --out runs/spam",
        "seed": 123,
        "versions": {"gptailor": "0.1.0", "torch": "2.13.0", "python": "3.11.9", "scikit-learn": "1.9.1"},
        "device": "cpu",
        "git_commit": None,
        "inputs": [{"path": "data/SMSSpamCollection", "sha256": "7d039a24"}],
        "started": "2026-01-01T10:00:00+00:00",
        "timings": {"data": 0.5, "trunk": 0.0, "train": 71.1, "evaluate": 1.0, "total": 73.4},
        "model": {"base": "random:tiny", "parameters": 437_120, "trainable": 437_120},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
