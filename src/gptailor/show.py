"""What the terminal shows: the data receipt, texts as the model sees them, results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gptailor.config import ClassifierConfig
from gptailor.errors import listing

LABELS_SHOWN = 12
BLOCKS = " ▁▂▃▄▅▆▇█"


def show_receipt(console: Console, receipt: Mapping[str, Any]) -> None:
    """The data receipt: files, what became of the rows, labels, lengths and warnings."""
    for file in receipt["files"]:
        console.print(
            f"[bold]{escape(Path(file['path']).name)}[/] ({file['part']}): {file['rows']:,} rows, {file['format']}"
        )
        for sentence in file["said"]:
            console.print(f"  {escape(sentence)}", highlight=False)
    rows, columns = receipt["rows"], receipt["columns"]
    console.print(f"text from column {escape(columns['text'])}, label from column {escape(columns['label'])}")
    console.print(f"[bold]{rows['read']:,} rows read, {rows['kept']:,} used, {rows['dropped']:,} left out[/]")
    for dropped in receipt["dropped"]:
        places = listing([place.rpartition(":")[2] for place in dropped["lines"]], limit=5)
        console.print(
            f"  {dropped['count']:,} × {escape(dropped['reason'])} (line {places}{' ...' * (dropped['count'] > 5)})"
        )
    if receipt["cut"]["count"]:
        console.print(f"  {receipt['cut']['count']:,} texts are cut to {receipt['cut']['limit']} tokens")
    for conflict in receipt["conflicts"]["examples"][:3]:
        labels = ", ".join(f"{label} {count}x" for label, count in conflict["labels"].items())
        console.print(f"  contradiction: {escape(repr(conflict['text'][:60]))} is {escape(labels)}")
    _show_labels(console, receipt["labels"])
    _show_lengths(console, receipt["lengths"])
    for warning in receipt["warnings"]:
        console.print(f"[yellow]note:[/] {escape(warning)}", highlight=False)


def _show_labels(console: Console, labels: Mapping[str, Mapping[str, int]]) -> None:
    table = Table("label", box=None, pad_edge=False, header_style="dim")
    columns = ("read", "train", "validation", "test")
    for column in columns:
        table.add_column(column, justify="right")
    ordered = sorted(labels.items(), key=lambda item: -item[1]["read"])
    for name, counts in ordered[:LABELS_SHOWN]:
        table.add_row(Text(name), *(f"{counts[column]:,}" for column in columns))
    if len(ordered) > LABELS_SHOWN:
        rest = [counts for _, counts in ordered[LABELS_SHOWN:]]
        sums = (f"{sum(counts[column] for counts in rest):,}" for column in columns)
        table.add_row(f"and {len(rest)} more", *sums, style="dim")
    if len(ordered) > 1:
        table.add_row("all", *(f"{sum(c[column] for c in labels.values()):,}" for column in columns), style="bold")
    console.print(table)


def _show_lengths(console: Console, lengths: Mapping[str, Any]) -> None:
    highest = max(lengths["counts"])
    bars = "".join(BLOCKS[-(-count * 8 // highest)] for count in lengths["counts"])
    console.print(
        f"tokens per text: median {lengths['median']:.0f}, 95 % up to {lengths['p95']:.0f}, longest {lengths['max']}"
        f"   1 [dim]{bars}[/] {lengths['max']}",
        highlight=False,
    )


def show_plan(console: Console, config: ClassifierConfig, parameters: tuple[int, int], depth: int, device: str) -> None:
    """What is about to be trained, with everything that was decided for the user."""
    total, trained = parameters
    console.print(
        f"[bold]{escape(config.base)}[/]: {total:,} parameters, {trained:,} trained (layers: {config.layers}), "
        f"on {device}; {config.epochs} epochs, batch {config.batch_size}, rate {config.lr:g}",
        highlight=False,
    )
    if depth:
        console.print(f"the {depth} frozen blocks are computed once for all epochs", highlight=False)


def show_pieces(console: Console, label: str, where: str, pieces: Sequence[str], read: int | None) -> None:
    """One text as the model sees it: tokens in alternating shades, the one that is read marked."""
    text = Text()
    for index, piece in enumerate(pieces):
        visible = piece.replace("\n", "\\n")
        text.append(visible, style="reverse green" if index == read else ("cyan", "default")[index % 2])
    console.print(Text(f"{where}  [{label}]  {len(pieces)} tokens", style="bold"))
    console.print(text)


def show_results(console: Console, metrics: Mapping[str, Any], folder: Path) -> None:
    """The headline of a finished run, with intervals and baselines, and where to look next."""
    if not metrics["finished"]:
        best = metrics["best"]
        console.print(f"[yellow]Stopped.[/] The best model so far (step {best['step']}) is in {folder}.")
        console.print(f"To continue: gptailor train classifier --resume --out {folder}", highlight=False)
        return
    table = Table("on the test part", box=None, pad_edge=False, header_style="dim")
    for column in ("accuracy", "95 % interval", "macro F1", "n"):
        table.add_column(column, justify="right")
    test, unseen = metrics["test"], metrics["test_unseen"]
    table.add_row("this model", *_figures(test, test["macro"]["f1"]), style="bold")
    if unseen["n"] != test["n"]:
        table.add_row("this model, unseen texts only", *_figures(unseen, unseen["macro"]["f1"]))
    names = {"majority": "always the commonest label", "tfidf_logistic_regression": "TF-IDF + logistic regression"}
    for key, figures in metrics["baselines"].items():
        table.add_row(names[key], *_figures(figures, figures["macro_f1"]))
    console.print(table)
    if metrics.get("seeds"):
        for part, spread in metrics["seeds"].items():
            name = part.replace("_", ", ")
            console.print(
                f"{spread['seeds']} seeds, {name}: {spread['mean']:.2%} ± {spread['sd']:.2%}", highlight=False
            )
    console.print(f"model folder  {folder}\nreport        {folder / 'report.html'}", highlight=False)
    console.print(f'try           gptailor predict {folder} "a text of yours"', highlight=False)


def _figures(figures: Mapping[str, Any], macro_f1: float | None) -> list[str]:
    if figures["accuracy"] is None:
        return ["-", "-", "-", "0"]
    low, high = figures["interval"]
    shown = "-" if macro_f1 is None else f"{macro_f1:.1%}"
    return [f"{figures['accuracy']:.2%}", f"{low:.1%} - {high:.1%}", shown, f"{figures['n']:,}"]
