"""What the terminal shows: the data receipt, texts as the model sees them, results."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gptailor.config import TableConfig
from gptailor.errors import listing

LABELS_SHOWN = 12
BLOCKS = " ▁▂▃▄▅▆▇█"


def show_receipt(console: Console, receipt: Mapping[str, Any]) -> None:
    """The data receipt: files, what became of the rows, labels, lengths and warnings."""
    _show_files(console, receipt["files"])
    columns = receipt["columns"]
    console.print(f"text: {visible(columns['text'])}   label: {visible(columns['label'])}")
    _show_rows(console, receipt)
    if receipt["cut"]["count"]:
        console.print(f"  {receipt['cut']['count']:,} texts are cut to {receipt['cut']['limit']} tokens")
    for conflict in receipt["conflicts"]["examples"][:3]:
        labels = ", ".join(f"{label} {count}x" for label, count in conflict["labels"].items())
        console.print(f"  contradiction: {visible(repr(conflict['text'][:60]))} is {visible(labels)}")
    _show_labels(console, receipt["labels"])
    _show_lengths(console, receipt["lengths"])
    for warning in receipt["warnings"]:
        console.print(f"[yellow]note:[/] {visible(warning)}", highlight=False)


def show_instructions(console: Console, receipt: Mapping[str, Any]) -> None:
    """The data receipt of instructions: files and their shape, what became of the records, what is learned."""
    _show_files(console, receipt["files"])
    _show_shapes(console, receipt["shapes"])
    _show_rows(console, receipt)
    cut = {"responses_cut": "answers", "turns_cut": "conversations"}
    for key, name in cut.items():
        if receipt[key]:
            console.print(f"  {receipt[key]:,} {name} are cut to {receipt['cut']['limit']} tokens, end of text kept")
    table = Table("part", box=None, pad_edge=False, header_style="dim")
    for column in ("records", "tokens", "learned", "share"):
        table.add_column(column, justify="right")
    for part, numbers in receipt["tokens"].items():
        counts = (f"{numbers[key]:,}" for key in ("records", "targets", "learned"))
        table.add_row(part, *counts, f"{numbers['learned_share']:.0%}")
    console.print(table)
    _show_lengths(console, receipt["lengths"])
    for warning in receipt["warnings"]:
        console.print(f"[yellow]note:[/] {visible(warning)}", highlight=False)


def show_pairs(console: Console, receipt: Mapping[str, Any]) -> None:
    """The data receipt of pairs: files and their shape, what became of the rows, and how long both sides are."""
    _show_files(console, receipt["files"])
    _show_shapes(console, receipt["shapes"])
    _show_rows(console, receipt)
    if receipt["responses_cut"]:
        limit = receipt["cut"]["limit"]
        console.print(f"  {receipt['responses_cut']:,} answers are cut to {limit} tokens, end of text kept")
    table = Table("part", box=None, pad_edge=False, header_style="dim")
    for column in ("pairs", "tokens chosen", "rejected"):
        table.add_column(column, justify="right")
    for part, numbers in receipt["tokens"].items():
        table.add_row(part, *(f"{numbers[key]:,}" for key in ("pairs", "chosen", "rejected")))
    console.print(table)
    bias = receipt["length_bias"]
    console.print(
        f"the chosen answer is the longer one in {bias['chosen_longer']:.0%} of the pairs and the shorter one in "
        f"{bias['rejected_longer']:.0%}; mean length {bias['mean_chosen']} tokens against {bias['mean_rejected']}",
        highlight=False,
    )
    _show_lengths(console, receipt["lengths"])
    for warning in receipt["warnings"]:
        console.print(f"[yellow]note:[/] {visible(warning)}", highlight=False)


def _show_shapes(console: Console, shapes: Sequence[Mapping[str, Any]]) -> None:
    for shape in shapes:
        unused = f"; not used: {listing(shape['unused'])}" if shape["unused"] else ""
        console.print(visible(f"read as {shape['shape']}: {', '.join(shape['columns'])}{unused}"), highlight=False)


def _show_files(console: Console, files: Sequence[Mapping[str, Any]]) -> None:
    for file in files:
        name = visible(Path(file["path"]).name)
        console.print(f"[bold]{name}[/] ({file['part']}): {file['rows']:,} rows, {file['format']}")
        for sentence in file["said"]:
            console.print(f"  {visible(sentence)}", highlight=False)


def _show_rows(console: Console, receipt: Mapping[str, Any]) -> None:
    rows = receipt["rows"]
    console.print(f"[bold]{rows['read']:,} rows read, {rows['kept']:,} used, {rows['dropped']:,} left out[/]")
    for dropped in receipt["dropped"]:
        places = listing([place.rpartition(":")[2] for place in dropped["lines"]], limit=5)
        more = " ..." * (dropped["count"] > 5)
        console.print(f"  {dropped['count']:,} × {visible(dropped['reason'])} (line {places}{more})")


def _show_labels(console: Console, labels: Mapping[str, Mapping[str, int]]) -> None:
    table = Table("label", box=None, pad_edge=False, header_style="dim")
    columns = ("read", "train", "validation", "test")
    for column in columns:
        table.add_column(column, justify="right")
    ordered = sorted(labels.items(), key=lambda item: -item[1]["read"])
    for name, counts in ordered[:LABELS_SHOWN]:
        table.add_row(visible(name), *(f"{counts[column]:,}" for column in columns))
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


def show_plan(
    console: Console, config: TableConfig, parameters: tuple[int, int], device: str, *, layers: str, bf16: bool
) -> None:
    """What is about to be trained, with everything that was decided for the user."""
    total, trained = parameters
    epochs = "epoch" if config.epochs == 1 else "epochs"
    console.print(
        f"[bold]{visible(config.base)}[/]: {total:,} parameters, {trained:,} trained (layers: {layers}), "
        f"on {device} in {'bf16' if bf16 else 'fp32'}; {config.epochs} {epochs}, batch {config.batch_size}, "
        f"rate {config.lr:g}",
        highlight=False,
    )


def show_trunk(console: Console, depth: int, *, kept: bool) -> None:
    """Whether the frozen blocks need to be computed but once."""
    if depth and kept:
        console.print(f"the {depth} frozen blocks are computed once for all epochs", highlight=False)
    elif depth:
        console.print(f"no room to keep what the {depth} frozen blocks give: they are computed anew in every epoch")


def show_pieces(console: Console, label: str, where: str, pieces: Sequence[str], read: int | None) -> None:
    """One text as the model sees it: tokens in alternating shades, the one that is read marked."""
    text = Text()
    for index, piece in enumerate(pieces):
        text.append(
            plain(piece.replace("\n", "\\n")),
            style="reverse green" if index == read else ("cyan", "default")[index % 2],
        )
    console.print(Text(f"{plain(where)}  [{plain(label)}]  {len(pieces)} tokens", style="bold"))
    console.print(text)


def show_learned(
    console: Console, where: str, pieces: Sequence[str], learned: Sequence[bool], ids: Sequence[int] | None
) -> None:
    """One record as the model sees it: what is learned in green, the rest in alternating shades of grey."""
    text = Text()
    for index, (piece, is_learned) in enumerate(zip(pieces, learned, strict=True)):
        style = ("bold green", "green")[index % 2] if is_learned else ("dim", "default")[index % 2]
        number = f"[{ids[index]}]" if ids else ""
        text.append(plain(piece) + number, style=style)
    told = f"{plain(where)}  {len(pieces)} tokens, {sum(learned)} learned"
    console.print(Text(told, style="bold"))
    console.print(text)


def show_results(console: Console, metrics: Mapping[str, Any], verdict: str, folder: Path) -> None:
    """The headline of a finished run, with intervals and baselines, and where to look next.

    Args:
        verdict: one sentence that compares the model with the baselines.
    """
    if not metrics["finished"]:
        kept = metrics["kept"]
        which = "best model so far" if kept["which"] == "best" else "model"
        console.print(f"[yellow]Stopped.[/] The {which}, of step {kept['step']}, is in {visible(str(folder))}")
        show_resume(console, folder)
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
    console.print(verdict, highlight=False)
    if metrics.get("seeds"):
        for part, spread in metrics["seeds"].items():
            name = part.replace("_", ", ")
            if spread["mean"] is not None and spread["sd"] is not None:
                told = f"{spread['mean']:.2%} ± {spread['sd']:.2%} (mean, standard deviation)"
                console.print(f"{spread['seeds']} seeds, {name}: {told}", highlight=False)
    _show_rounding(console, metrics.get("rounding"))
    shown = visible(shlex.quote(str(folder)))
    console.print(f"model folder  {shown}\nreport        {visible(str(folder / 'report.html'))}", highlight=False)
    console.print(f'try           gptailor predict {shown} "a text of yours"', highlight=False)


def _show_rounding(console: Console, found: Mapping[str, Any] | None) -> None:
    """A note where the figures are those of bf16 and not of the folder."""
    if found and (found["same_label"] < found["texts"] or found["max_difference"] > found["tolerance"]):
        told = f"{found['same_label']} of {found['texts']} texts get the same label and the logits differ by up to "
        told += f"{found['max_difference']:.2g}; the figures above are those of bf16. --precision fp32 has no such gap"
        show_note(console, f"between bf16, in which this run computed, and fp32, in which its folder is used, {told}")


def show_resume(console: Console, folder: Path, task: str = "classifier") -> None:
    """How to go on with a run that was stopped."""
    told = visible(shlex.quote(str(folder)))
    console.print(f"To continue: gptailor train {task} --resume --out {told}", highlight=False, soft_wrap=True)


def show_assistant(console: Console, metrics: Mapping[str, Any], folder: Path) -> None:
    """How near the answers to the test records come to the references, after training and before."""
    shown = visible(shlex.quote(str(folder)))
    if not metrics["finished"]:
        console.print(f"[yellow]Stopped.[/] The model of step {metrics['kept']['step']} is in {shown}", highlight=False)
        show_resume(console, folder, "assistant")
        return
    table = Table("on the test part", box=None, pad_edge=False, header_style="dim")
    for column in ("exact", "chrF", "ROUGE-L", "perplexity", "n"):
        table.add_column(column, justify="right")
    for name, key, style in (("this model", "test", "bold"), ("its base", "base", "")):
        answers = metrics[key]["answers"]
        cells = [_with_interval(answers["exact"]["accuracy"], answers["exact"]["interval"], 100)]
        cells += [_with_interval(answers[score]["mean"], answers[score]["interval"]) for score in ("chrf", "rouge_l")]
        table.add_row(name, *cells, f"{metrics[key]['perplexity']:.2f}", f"{answers['n']:,}", style=style)
    console.print(table)
    console.print(f"model folder  {shown}\nreport        {visible(str(folder / 'report.html'))}", highlight=False)
    console.print(f"answers       {visible(str(folder / 'responses.json'))}", highlight=False)
    console.print(f'try           gptailor generate {shown} "a question of yours"', highlight=False)


def show_preferences(console: Console, metrics: Mapping[str, Any], folder: Path) -> None:
    """How many of the test pairs are told right, and what that is to be compared with."""
    shown = visible(shlex.quote(str(folder)))
    if not metrics["finished"]:
        console.print(f"[yellow]Stopped.[/] The model of step {metrics['kept']['step']} is in {shown}", highlight=False)
        show_resume(console, folder, "preferences")
        return
    table = Table("on the test part", box=None, pad_edge=False, header_style="dim")
    for column in ("told right", "95 % interval", "n"):
        table.add_column(column, justify="right")
    rows = {
        "this model, by its margins": metrics["test"],
        "this model, by what is likelier": metrics["test"]["likelier"],
        "its base, by what is likelier": metrics["base"]["likelier"],
        f"always the {metrics['length']['takes']} answer": metrics["length"],
    }
    for place, (name, figures) in enumerate(rows.items()):
        accuracy, interval, _, n = _figures(figures, None)
        table.add_row(name, accuracy, interval, n, style="bold" if place == 0 else "")
    console.print(table)
    test, answers = metrics["test"], metrics["answers"]
    told = f"loss {test['loss']:.4f}, margin {test['margin']:.3f}; "
    console.print(f"{told}{answers['changed']:,} of {answers['n']:,} answers have changed", highlight=False)
    console.print(f"model folder  {shown}", highlight=False)
    console.print(f"report        {visible(str(folder / 'report.html'))}", highlight=False)
    responses = shlex.quote(str(folder / "responses.json"))
    judge = f"gptailor judge {responses} --other-response base_response --pairwise --with JUDGE"
    console.print(f"compare       {visible(judge)}", highlight=False, soft_wrap=True)


def _with_interval(value: float | None, interval: Sequence[float] | None, scale: float = 1) -> str:
    if value is None:
        return "-"
    low, high = interval or (value, value)
    return f"{scale * value:.1f} ({scale * low:.1f}-{scale * high:.1f})"


def show_base(console: Console, metrics: Mapping[str, Any], folder: Path) -> None:
    """What a base model has learned, in the figures of its held-out documents."""
    held_out = metrics["held_out"]
    console.print(
        f"on {held_out['documents']:,} held-out documents ({held_out['tokens']:,} tokens): perplexity "
        f"[bold]{metrics['perplexity']:.1f}[/], {metrics['bits_per_byte']:.3f} bits per byte, after "
        f"{metrics['tokens_seen']:,} tokens of training",
        highlight=False,
    )
    counted = ", ".join(f"{name} {figures['perplexity']:.1f}" for name, figures in metrics["baselines"].items())
    console.print(f"perplexity of models that only count the same text: {counted}", highlight=False)
    console.print(f"model folder  {visible(shlex.quote(str(folder)))}", highlight=False)
    console.print(f"report        {visible(str(folder / 'report.html'))}", highlight=False)
    if not metrics["finished"]:
        console.print("[yellow]Stopped[/] before the end.")
        show_resume(console, folder, "base")


def show_dropped(console: Console, file: dict[str, Any]) -> None:
    """Which lines of a file of documents were not used; ``file`` is one of a receipt's files."""
    for entry in file["dropped"]:
        told = f"{entry['count']:,} × {entry['reason']} ({listing(entry['lines'], 5)})"
        console.print(f"[yellow]left out:[/] {visible(told)}", highlight=False)


def show_note(console: Console, text: str) -> None:
    """Something that the user should know of and that stops nothing."""
    console.print(f"[yellow]note:[/] {visible(text)}", highlight=False)


def plain(text: str) -> str:
    """A text from outside with its control characters shown, so that a terminal does not obey them."""
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs") and c != "\n" else c for c in text)


def visible(text: str) -> str:
    """``plain``, and nothing in it is taken for rich's markup."""
    return escape(plain(text))


def _figures(figures: Mapping[str, Any], macro_f1: float | None) -> list[str]:
    if figures["accuracy"] is None:
        return ["-", "-", "-", "0"]
    low, high = figures["interval"]
    shown = "-" if macro_f1 is None else f"{macro_f1:.3f}"
    return [f"{figures['accuracy']:.2%}", f"{low:.1%} - {high:.1%}", shown, f"{figures['n']:,}"]
