"""``gptailor predict``: texts from arguments, a file or standard input, to labels and probabilities."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from gptailor.data.classification import choose_text, joined_text
from gptailor.data.inputs import SWITCH
from gptailor.data.sources import read_table
from gptailor.errors import UserError, listing
from gptailor.predict import TextClassifier, load
from gptailor.show import plain, visible

LABELS_SHOWN = 5


def predict_command(
    folder: Path,
    texts: Sequence[str],
    file: Path | None,
    out: Path | None,
    text: str | None,
    how: Mapping[str, str],
    device: str,
    console: Console,
    precision: str = "fp32",
) -> None:
    """Labels texts and prints them, or writes them to ``out``; see ``gptailor predict --help``.

    Args:
        how: encoding, delimiter, header and quoting of ``file``, as for ``read_table``.
        precision: see ``predict.load``.

    Raises:
        UserError: when the folder or the file cannot be used, or ``out`` exists.
    """
    if texts and file:
        raise UserError("texts and --file at the same time", expected="one of them")
    if out is not None and (out.exists() or not out.parent.is_dir()):
        found = f"{out} exists" if out.exists() else f"there is no folder {out.parent}"
        raise UserError(found, expected="a new file in an existing folder", hint="another --out")
    model = load(folder, device, precision)
    if file is None:
        texts = list(texts) or _from_input()
        columns: dict[str, list[Any]] = {"text": list(texts)}
    else:
        columns, texts = _from_file(file, how, text, model.settings.text_columns, console)
    probabilities = _label(model, texts, console)
    n_cut = model.count_cut([each for each in texts if each.strip()])
    if n_cut:
        console.print(f"[yellow]note:[/] {n_cut} of {len(texts)} texts were cut to {model.settings.max_length} tokens")
    if out is not None:
        unfinished = out.with_name(out.name + ".unfinished")
        with unfinished.open("w", newline="", encoding="utf-8") as opened:
            _write(opened, columns, model.labels, probabilities)
        unfinished.replace(out)
        console.print(f"{len(texts):,} rows -> {visible(str(out))}", highlight=False)
    elif sys.stdout.isatty():
        _show(texts, model.labels, probabilities)
    else:
        _write(sys.stdout, columns, model.labels, probabilities)
    n_empty = int(np.isnan(probabilities[:, 0]).sum())
    if n_empty:
        console.print(f"[yellow]note:[/] {n_empty} of {len(texts)} texts are empty and got no label")


def _from_file(
    file: Path, how: Mapping[str, str], text: str | None, trained: Sequence[str] | None, console: Console
) -> tuple[dict[str, list[Any]], list[str]]:
    """The columns of a file as they are, and the text of each row."""
    for option in ("header", "quoting"):
        if how[option] not in SWITCH:
            raise UserError(f"--{option} {how[option]}", expected=listing(SWITCH))
    header, quoting = SWITCH[how["header"]], SWITCH[how["quoting"]]
    table = read_table(file, encoding=how["encoding"], delimiter=how["delimiter"], header=header, quoting=quoting)
    chosen = choose_text(table, text, trained)
    console.print(visible("; ".join([*table.said, f"text: {', '.join(chosen)}"])), style="dim", highlight=False)
    if text is None and trained and chosen != list(trained) and len(table.columns) > 1:
        learned = f"the model learned from the column {', '.join(trained)}, and labels {', '.join(chosen)} here"
        console.print(f"[yellow]note:[/] {visible(learned)} (--text to change)", highlight=False)
    pieces = zip(*(table.columns[name] for name in chosen), strict=True)
    texts = [joined_text(parts) for parts in pieces]
    reasons: dict[str, list[int]] = {}
    for dropped in table.dropped:
        reasons.setdefault(dropped.reason, []).append(dropped.line)
    for reason, lines in reasons.items():
        told = f"{len(lines):,} rows of {file.name} are left out: {reason} (line {listing(lines, 5)})"
        console.print(f"[yellow]note:[/] {visible(told)}", highlight=False)
    return table.columns, texts


def _from_input() -> list[str]:
    if sys.stdin.isatty():
        raise UserError("no text", expected="texts as arguments, --file FILE, or one text per line on standard input")
    try:
        return [line.rstrip("\r\n") for line in sys.stdin]
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not valid text: {error}", expected="UTF-8") from None


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
    writer = csv.writer(file, lineterminator="\n")
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
        label = Text(plain(labels[order[0]]), "bold green")
        table.add_row(label, f"{row[order[0]]:.1%}", Text(plain(text)), Text(plain(others), "dim"))
    Console().print(table)
