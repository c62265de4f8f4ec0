"""``gptailor judge``: answers to scores, or to which of two answers is better."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gptailor.errors import UserError, listing
from gptailor.evaluate.answers import Answer, read_answers, reference_metrics
from gptailor.evaluate.format import p_value, percent, plural
from gptailor.evaluate.judge import (
    Verdicts,
    ask_all,
    difference_figures,
    pair_figures,
    pair_questions,
    score_figures,
    score_questions,
)
from gptailor.evaluate.judged import Asked, Judged
from gptailor.evaluate.judges import Judge, open_judge
from gptailor.evaluate.verdict import SIGNIFICANT
from gptailor.show import visible


def judge(
    answers: str | Path,
    judge: str,
    *,
    other: str | Path | None = None,
    response: str = "model_response",
    other_response: str | None = None,
    pairwise: bool = False,
    repeats: int = 1,
    workers: int = 4,
    out: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Judges one answers file, or compares two responses to each record; the same as ``gptailor judge``.

    Args:
        answers: records with a response to each, under the key ``response``.
        judge: ``rules``, ``ollama:MODEL``, ``openai:MODEL`` or ``http(s)://HOST/v1#MODEL``.
        other: other responses to the same records, under ``other_response``.
        pairwise: asks which of two is better, in both orders.
        repeats: asks everything this often, and averages.
        workers: questions asked at the same time.
        out: the file that keeps the replies; without it, one beside the answers.
        console: where progress and figures are shown; nowhere when there is none.

    Returns:
        The figures.

    Raises:
        UserError: when the answers, the judge or the judged file cannot be used.
    """
    console, kept = console or Console(quiet=True), Path(out) if out else None
    places = [(Path(answers), response)]
    if other is not None or other_response is not None:
        places.append((Path(other or answers), other_response or response))
    if pairwise and len(places) == 1:
        raise UserError("--pairwise and one response to each record", expected="a second file, or --other-response")
    read = [read_answers(path, key) for path, key in places]
    if len(read) == 2:
        _check_same(places, read)
    opened = open_judge(judge)
    titles = [f"{path.name} {key}" for path, key in places]
    figures: dict[str, Any] = {"judge": opened.name, "answers": titles, "repeats": repeats}
    if pairwise:
        asked = pair_questions(*read, repeats)
        figures["pairs"] = pair_figures(_ask(asked, opened, kept or _beside(Path(answers)), workers, console))
    else:
        verdicts = [
            _ask(score_questions(each, repeats), opened, kept or _beside(path), workers, console)
            for each, (path, _) in zip(read, places, strict=True)
        ]
        figures["scores"] = [score_figures(each) for each in verdicts]
        if len(verdicts) == 2:
            figures["difference"] = difference_figures(*verdicts)
        if opened.name == "rules":
            figures["reference"] = [
                reference_metrics([a.output for a in each], [a.response for a in each]) for each in read
            ]
    figures["said"] = list(dict.fromkeys(opened.said))
    _show(figures, console)
    return figures


def _check_same(places: Sequence[tuple[Path, str]], read: Sequence[Sequence[Answer]]) -> None:
    """Two responses can be compared where they answer the same records, in the same order."""
    (first, _), (second, _) = places
    if places[0] == places[1]:
        raise UserError("the two responses are the same ones", expected="another file, or another --other-response")
    if len(read[0]) != len(read[1]):
        raise UserError(
            f"{first} has {len(read[0]):,} records and {second} {len(read[1]):,}", expected="the same records in both"
        )
    differ = [
        one.number
        for one, other in zip(*read, strict=True)
        if (one.instruction, one.input, one.output) != (other.instruction, other.input, other.output)
    ]
    if differ:
        found = f"{first} and {second} differ in the instruction, input or output of the records {listing(differ)}"
        raise UserError(found, expected="the same records in both, in the same order")


def _beside(answers: Path) -> Path:
    return answers.with_name(f"{answers.stem}.judged.jsonl")


def _ask(asked: Sequence[Asked], judge: Judge, path: Path, workers: int, console: Console) -> Verdicts:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with closing(Judged(path)) as judged:
        held = sum(judged.holds(judge.name, each) for each in asked)
        before = f", {held:,} of them answered before" if held else ""
        told = f"{judge.name}: {plural(len(asked), 'question')}{before}; its replies are kept in {path}"
        console.print(visible(told), highlight=False, soft_wrap=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("judging", total=len(asked))
            try:
                return ask_all(asked, judge, judged, workers=workers, told=lambda done: bar.advance(task, done))
            except KeyboardInterrupt:
                _line(console, "stopped; the same command goes on from the replies that are kept")
                raise


# --- what is shown ----------------------------------------------------------------------------------------------------


def _show(figures: dict[str, Any], console: Console) -> None:
    titles = figures["answers"]
    for title, scores in zip(titles, figures.get("scores", ()), strict=False):
        _show_scores(title, scores, console)
    for title, metrics in zip(titles, figures.get("reference", ()), strict=False):
        _show_reference(title, metrics, console)
    if "difference" in figures:
        _show_difference(titles, figures["difference"], console)
    if "pairs" in figures:
        _show_pairs(titles, figures["pairs"], console)
    for sentence in figures["said"]:
        _line(console, f"note: {sentence}")


def _show_scores(title: str, scores: dict[str, Any], console: Console) -> None:
    if scores["mean"] is None:
        _line(console, f"{title}: no reply could be read as a score")
    else:
        _line(console, f"{title}: score {scores['mean']:.2f} of 100 ({_range(scores)}, n = {scores['n']:,})")
    if len(scores["by_repeat"]) > 1:
        means = ", ".join("-" if mean is None else f"{mean:.2f}" for mean in scores["by_repeat"])
        _line(console, f"  by repeat: {means}")
    bounds = f"{scores['unreadable_as_0']:.2f} or {scores['unreadable_as_100']:.2f}"
    _show_unreadable(scores, f"were all of them 0, or 100, the mean would be {bounds}", console)


def _show_reference(title: str, metrics: dict[str, Any], console: Console) -> None:
    exact, chrf, rouge = metrics["exact"], metrics["chrf"], metrics["rouge_l"]
    if not metrics["n"]:
        return
    told = f"{title}: exact match {percent(exact['accuracy'])} ({exact['correct']:,} of {exact['n']:,})"
    for name, figure in (("chrF", chrf), ("ROUGE-L", rouge)):
        told += f", {name} {figure['mean']:.1f} ({_range(figure)})"
    _line(console, told + f", {plural(metrics['empty_responses'], 'empty response')}")


def _show_difference(titles: Sequence[str], told: dict[str, Any], console: Console) -> None:
    if told["difference"] is None:
        _line(console, "difference: no record has a readable score in both")
        return
    left_out = f", {told['left_out']:,} records without a score in both left out" if told["left_out"] else ""
    evidence = f"{_range(told)}, {p_value(told['p'])}, n = {told['n']:,} pairs{left_out}" if told["p"] else "one record"
    said = "The two cannot be told apart by these records"
    if told["p"] is not None and told["p"] < SIGNIFICANT:
        said = f"{titles[told['difference'] < 0]} scores higher than {titles[told['difference'] > 0]}"
    _line(console, f"{said}: difference {told['difference']:+.2f} ({evidence})")


def _show_pairs(titles: Sequence[str], pairs: dict[str, Any], console: Console) -> None:
    if pairs["mean"] is None:
        _line(console, "no pair of replies could be read")
    else:
        share = percent(pairs["mean"])
        ends = "" if pairs["interval"] is None else " to ".join(percent(end) for end in pairs["interval"])
        _line(console, f"{titles[0]} against {titles[1]}: {share} (95 %: {ends or '-'}, n = {pairs['n']:,})")
    ties = f"ties {pairs['ties']:,} ({pairs['disagreed']:,} because the two orders disagree)"
    _line(console, f"  better {pairs['wins']:,}, {ties}, worse {pairs['losses']:,}")
    bounds = f"{percent(pairs['unreadable_as_losses'])} or {percent(pairs['unreadable_as_wins'])}"
    _show_unreadable(pairs, f"were all these pairs lost, or won, the share would be {bounds}", console)


def _show_unreadable(figures: dict[str, Any], bounds: str, console: Console) -> None:
    if not figures["unreadable"]:
        return
    _line(console, f"  {figures['unreadable']:,} of {figures['replies']:,} replies cannot be read; {bounds}")
    for reason, problem in list(figures["problems"].items())[:5]:
        example = f", such as {problem['example'][:60]!r}" if problem["example"] else ""
        _line(console, f"    {problem['count']:,} × {reason}{example}")


def _range(figure: dict[str, Any]) -> str:
    return "95 %: -" if figure["interval"] is None else "95 %: {:.2f} to {:.2f}".format(*figure["interval"])


def _line(console: Console, text: str) -> None:
    console.print(visible(text), highlight=False, soft_wrap=True)
