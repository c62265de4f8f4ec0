"""``gptailor predict``: texts from arguments, a file or standard input, to labels and probabilities."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from gptailor.data.classification import choose_text
from gptailor.data.sources import read_table
from gptailor.errors import UserError
from gptailor.predict import TextClassifier, load

LABELS_SHOWN = 5


def predict_command(
    folder: Path,
    texts: Sequence[str],
    file: Path | None,
    out: Path | None,
    text: str | None,
    device: str,
    console: Console,
) -> None:
    """Labels texts and prints them, or writes them to ``out``; see ``gptailor predict --help``.

    Raises:
        UserError: when the folder or the file cannot be used, or ``out`` exists.
    """
    if texts and file:
        raise UserError("texts and --file at the same time", expected="one of them")
    if out is not None and (out.exists() or not out.parent.is_dir()):
        found = f"{out} exists" if out.exists() else f"there is no folder {out.parent}"
        raise UserError(found, expected="a new file in an existing folder", hint="another --out")
    model = load(folder, device)
    columns: dict[str, list[Any]] = {"text": list(texts) or _from_input()} if file is None else {}
    if file is not None:
        table = read_table(file)
        columns, name = table.columns, choose_text(table, text)
        texts = [
            " ".join(str(part) for part in parts if part is not None)
            for parts in zip(*(columns[n] for n in name), strict=True)
        ]
        for dropped in table.dropped:
            console.print(f"{file.name}:{dropped.line} is left out: {dropped.reason}")
    else:
        texts = columns["text"]
    probabilities = _label(model, texts, console)
    if out is not None:
        unfinished = out.with_name(out.name + ".unfinished")
        with unfinished.open("w", newline="", encoding="utf-8") as opened:
            _write(opened, columns, model.labels, probabilities)
        unfinished.replace(out)
        console.print(f"{len(texts):,} rows -> {out}")
    elif sys.stdout.isatty():
        _show(texts, model.labels, probabilities)
    else:
        _write(sys.stdout, columns, model.labels, probabilities)
    n_empty = int(np.isnan(probabilities[:, 0]).sum())
    if n_empty:
        console.print(f"[yellow]note:[/] {n_empty} of {len(texts)} texts are empty and got no label")


def _from_input() -> list[str]:
    if sys.stdin.isatty():
        raise UserError("no text", expected="texts as arguments, --file FILE, or one text per line on standard input")
    return [line.rstrip("\r\n") for line in sys.stdin]


def _label(model: TextClassifier, texts: Sequence[str], console: Console) -> np.ndarray:
    """Probabilities (N, K); a row of nan for an empty text."""
    rows = [row for row, text in enumerate(texts) if text.strip()]
    result = np.full((len(texts), len(model.labels)), np.nan)
    with Progress(console=console, transient=True, disable=len(rows) < 100 or not console.is_terminal) as progress:
        task = progress.add_task("labelling", total=len(rows))
        result[rows] = model.predict_proba([texts[row] for row in rows], lambda done: progress.advance(task, done))
    return result


def _write(file: TextIO, columns: dict[str, list[Any]], labels: Sequence[str], probabilities: np.ndarray) -> None:
    """The rows as they came, then label, its probability, and the probability of each label."""
    writer = csv.writer(file)
    writer.writerow([*columns, "predicted", "probability", *(f"p({label})" for label in labels)])
    for *own, row in zip(*columns.values(), probabilities, strict=True):
        if np.isnan(row[0]):
            writer.writerow([*own, "", "", *("" for _ in labels)])
        else:
            best = int(row.argmax())
            writer.writerow([*own, labels[best], f"{row[best]:.4f}", *(f"{value:.4f}" for value in row)])


def _show(texts: Sequence[str], labels: Sequence[str], probabilities: np.ndarray) -> None:
    table = Table("label", "probability", "text", "others", box=None, pad_edge=False, header_style="dim")
    for text, row in zip(texts, probabilities, strict=True):
        if np.isnan(row[0]):
            table.add_row("-", "-", Text("(empty)"), "")
            continue
        order = np.argsort(-row, kind="stable")
        others = ", ".join(f"{labels[index]} {row[index]:.1%}" for index in order[1:LABELS_SHOWN])
        table.add_row(Text(labels[order[0]], "bold green"), f"{row[order[0]]:.1%}", Text(text), Text(others, "dim"))
    Console().print(table)
