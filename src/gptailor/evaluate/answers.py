"""Answers of a model beside their references, and the metrics that need no judge: exact match, chrF and ROUGE-L."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptailor.data.sources import read_table
from gptailor.data.table import Table
from gptailor.errors import UserError, did_you_mean, listing
from gptailor.evaluate.bootstrap import mean_with_interval, paired_difference
from gptailor.evaluate.metrics import accuracy_with_interval


@dataclass(frozen=True)
class Answer:
    """One record of an answers file.

    Args:
        number: 1-based number of the record (of the line, in json lines).
        output: the reference; ``""`` where there is none.
        response: what the model said, which may be ``""``.
    """

    number: int
    instruction: str
    input: str
    output: str
    response: str


def read_answers(path: Path, response: str = "model_response") -> list[Answer]:
    """The records of an answers file, in order: a list of objects, json lines, csv or parquet.

    Args:
        response: the key that holds what the model said.

    Raises:
        UserError: naming the records, when a key or a text is missing or no text, or a row cannot be read; all
            problems together. Nothing is left out in silence: a mean over fewer records is another mean.
    """
    table = read_table(path)
    wanted = ("instruction", "output", response)
    problems = [_missing_key(table, key) for key in wanted if key not in table.columns]
    for reason in sorted({row.reason for row in table.dropped}):
        places = listing([row.line for row in table.dropped if row.reason == reason], 5)
        problems.append(UserError(f"{path}: records that cannot be read ({reason}): {places}"))
    columns = {key: table.columns.get(key, [None] * len(table.lines)) for key in (*wanted, "input")}
    for key in columns:
        problems += _not_texts(table, key, columns[key], may_be_null=key in ("input", "output"))
    if problems:
        raise UserError.joined(problems)
    rows = zip(table.lines, *(columns[key] for key in ("instruction", "input", "output", response)), strict=True)
    return [Answer(line, *(text or "" for text in texts)) for line, *texts in rows]


def _missing_key(table: Table, key: str) -> UserError:
    there = list(table.columns)
    asked = "" if key in ("instruction", "output") else "--response KEY, or generate the responses first"
    return UserError(
        f"{table.path}: no record has the key {key!r}",
        expected=f"instruction, output and a response; there is {listing(map(repr, there))}",
        hint=did_you_mean(key, there) or asked,
    )


def _not_texts(table: Table, key: str, values: Sequence[Any], *, may_be_null: bool) -> list[UserError]:
    """One problem for the values of a column that are no text; a column that is not there has its own problem."""
    if key not in table.columns:
        return []
    allowed = (str, type(None)) if may_be_null else (str,)
    wrong = [line for line, value in zip(table.lines, values, strict=True) if not isinstance(value, allowed)]
    if not wrong:
        return []
    found = f"{table.path}: {key} is no text in the records {listing(wrong, 5)}"
    return [UserError(found, expected='text in quotes; "" for an answer that is empty')]


# --- metrics against the reference ------------------------------------------------------------------------------------


def reference_metrics(references: Sequence[str], responses: Sequence[str]) -> dict[str, Any]:
    """What responses (N,) have of their references (N,), ready for JSON.

    Returns:
        ``exact`` (share with its Wilson interval), ``chrf`` and ``rouge_l`` (means over the records from 0 to 100 with
        bootstrap intervals), ``empty_responses``, and ``no_reference``: records that are left out of all of them.

    Raises:
        UserError: when the libraries are not installed.
    """
    pairs = [(ref, said) for ref, said in zip(references, responses, strict=True) if ref.strip()]
    scores = reference_scores([ref for ref, _ in pairs], [said for _, said in pairs])
    return {
        "n": len(pairs),
        "no_reference": len(references) - len(pairs),
        "empty_responses": sum(not said.strip() for _, said in pairs),
        "exact": accuracy_with_interval(int(scores["exact"].sum()), len(pairs)),
        "chrf": mean_with_interval(scores["chrf"]),
        "rouge_l": mean_with_interval(scores["rouge_l"]),
    }


def reference_differences(
    references: Sequence[str], responses: Sequence[str], others: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """By how much responses (N,) are nearer to their references (N,) than others (N,), ready for JSON.

    Returns:
        ``exact`` (of shares), ``chrf`` and ``rouge_l``, each as ``paired_difference`` has it; records without a
        reference are left out.

    Raises:
        UserError: when the libraries are not installed.
    """
    rows = [row for row in zip(references, responses, others, strict=True) if row[0].strip()]
    known = [ref for ref, _, _ in rows]
    first = reference_scores(known, [said for _, said, _ in rows])
    second = reference_scores(known, [other for _, _, other in rows])
    return {name: paired_difference(first[name], second[name]) for name in first}


def reference_scores(references: Sequence[str], responses: Sequence[str]) -> dict[str, np.ndarray]:
    """Each response (N,) against its reference (N,).

    Returns:
        ``exact`` (N,) bool: equal but for case, spaces and a full stop at the end. ``chrf`` (N,): F2 of character
        1- to 6-grams (sacrebleu's sentence chrF2), 0 to 100. ``rouge_l`` (N,): F1 of the longest common subsequence
        of words, 0 to 100.

    Raises:
        UserError: when the libraries are not installed.
    """
    chrf, rouge = _libraries()
    pairs = list(zip(references, responses, strict=True))
    return {
        "exact": np.array([_plain(ref) == _plain(said) for ref, said in pairs], dtype=bool),
        "chrf": np.array([chrf.sentence_score(said, [ref]).score for ref, said in pairs], dtype=np.float64),
        "rouge_l": np.array([100 * rouge.score(ref, said)["rougeL"].fmeasure for ref, said in pairs], dtype=np.float64),
    }


class _Words:
    """Splits at what is no letter, mark or digit: rouge-score's own splitter knows the letters a to z only."""

    def tokenize(self, text: str) -> list[str]:
        return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text.casefold()).split()


def _libraries() -> tuple[Any, Any]:
    """sacrebleu's chrF and rouge-score's ROUGE-L."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        hint = 'pip install "gptailor[assist]"'
        raise UserError("chrF and ROUGE-L need sacrebleu and rouge-score", hint=hint) from error
    return CHRF(), RougeScorer(["rougeL"], tokenizer=_Words())


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
