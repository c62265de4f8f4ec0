"""A judge at work: the questions about answers, asked at most once each, and the figures that come of its verdicts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from gptailor.errors import UserError
from gptailor.evaluate.answers import Answer
from gptailor.evaluate.bootstrap import mean_with_interval, paired_difference
from gptailor.evaluate.judged import Asked, Judged
from gptailor.evaluate.judges import Judge
from gptailor.evaluate.questions import Question, Unanswered

SEED = 123  # of the first repeat; each further one has the next
IN_A_ROW = 5  # questions without a reply, one after the other, after which asking on is no use
_POINTS = {"A": 1.0, "tie": 0.5, "B": 0.0}  # of the response that is shown first


@dataclass(frozen=True)
class Verdicts:
    """What a judge replied to a list of questions.

    Args:
        values: (records, questions about each), nan where there is no verdict: scores from 0 to 100; or for pairs, 1,
            0.5 and 0 where the response that was shown first is better, neither is, or the second one is.
        problems: for each reason why there is no verdict, its ``count`` and an ``example`` of what the judge said.
    """

    judge: str
    values: np.ndarray
    problems: dict[str, dict[str, Any]]


def score_questions(answers: Sequence[Answer], repeats: int = 1) -> list[Asked]:
    """Asks for the score of each answer (N,), ``repeats`` (R) times: (N * R,), the repeats of a record together."""
    questions = [Question(each.instruction, each.input, each.output, (each.response,)) for each in answers]
    return [
        Asked(answer.number, repeat, question)
        for answer, question in zip(answers, questions, strict=True)
        for repeat in range(1, repeats + 1)
    ]


def pair_questions(first: Sequence[Answer], second: Sequence[Answer], repeats: int = 1) -> list[Asked]:
    """Asks which of two answers (N,) to the same record is better, in both orders, ``repeats`` (R) times.

    Returns:
        (N * R * 2,): after each question, the same one with the responses swapped.
    """
    return [
        Asked(one.number, repeat, Question(one.instruction, one.input, one.output, responses))
        for one, other in zip(first, second, strict=True)
        for repeat in range(1, repeats + 1)
        for responses in ((one.response, other.response), (other.response, one.response))
    ]


def ask_all(
    asked: Sequence[Asked],
    judge: Judge,
    judged: Judged,
    *,
    workers: int = 4,
    told: Callable[[int], None] = lambda done: None,
) -> Verdicts:
    """Asks what ``judged`` does not hold yet, several questions at a time, and keeps each reply as it comes.

    A question that gets no reply is kept as such; the next call asks it again.

    Args:
        asked: from ``score_questions`` or ``pair_questions``.
        told: called with the number of questions that were dealt with since it was called last.

    Returns:
        The verdicts of all that was asked, now or before.

    Raises:
        UserError: when the judge cannot be asked, or several questions in a row get no reply. What was replied is kept.
    """
    pending = [each for each in asked if not judged.holds(judge.name, each)]
    told(len(asked) - len(pending))
    if pending:
        judge.check()
    in_a_row = 0
    for failure in _failures(pending, judge, judged, workers):
        if failure and not isinstance(failure, Unanswered):
            raise failure
        in_a_row = in_a_row + 1 if failure else 0
        told(1)
        if in_a_row == IN_A_ROW:
            raise UserError(
                f"{judge.name} gave no reply to {IN_A_ROW} questions in a row: {failure}",
                hint=f"the same command again: it goes on from what is kept in {judged.path}",
            )
    return _collect(asked, judge.name, judged)


def _failures(pending: Sequence[Asked], judge: Judge, judged: Judged, workers: int) -> Iterator[Exception | None]:
    """Asks, and gives for each question, as it is dealt with, why it was not answered; None where it was.

    The threads keep the replies themselves, so that none is lost when the caller is interrupted. They die with the
    program: whoever stops it need not wait for a slow server.
    """
    waiting: SimpleQueue[Asked] = SimpleQueue()
    done: SimpleQueue[Exception | None] = SimpleQueue()
    stopped = threading.Event()
    for each in pending:
        waiting.put(each)

    def deal_with(each: Asked) -> Exception | None:
        try:
            judged.add(judge.name, each, judge.ask(each.question, SEED + each.repeat - 1))
        except Unanswered as error:
            judged.add(judge.name, each, None, str(error))
            return error
        return None

    def work() -> None:
        while not stopped.is_set():
            try:
                done.put(deal_with(waiting.get_nowait()))
            except Empty:
                return
            except Exception as error:  # whatever it is, the thread that waits raises it
                stopped.set()
                done.put(error)

    for _ in range(min(workers, len(pending))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in pending:
            yield done.get()
    finally:
        stopped.set()


# --- figures ----------------------------------------------------------------------------------------------------------


def _collect(asked: Sequence[Asked], judge: str, judged: Judged) -> Verdicts:
    values: list[float] = []
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for each in asked:
        verdict, problem, said = judged.read(judge, each)
        values.append(np.nan if verdict is None else _POINTS[verdict] if isinstance(verdict, str) else verdict)
        if problem:
            reasons[problem] += 1
            examples.setdefault(problem, said[:200])
    problems = {reason: {"count": count, "example": examples[reason]} for reason, count in reasons.most_common()}
    records = len({each.record for each in asked})
    return Verdicts(judge, np.array(values, dtype=np.float64).reshape(records, -1), problems)


def score_figures(verdicts: Verdicts) -> dict[str, Any]:
    """What the replies to ``score_questions`` say, ready for JSON.

    Returns:
        ``mean`` over the records that have a readable score (a record's score is the mean over its readable replies),
        with ``n`` and the bootstrap ``interval``; ``by_repeat``, the mean of each repeat; the accounts; and
        ``unreadable_as_0`` and ``unreadable_as_100``, what the mean over all records would be if every unreadable
        reply had been the worst or the best.
    """
    scores = verdicts.values
    return {
        "judge": verdicts.judge,
        **mean_with_interval(_readable_means(scores)),
        "by_repeat": [mean_with_interval(column[~np.isnan(column)])["mean"] for column in scores.T],
        **_accounts(verdicts),
        "unreadable_as_0": _filled_mean(scores, 0),
        "unreadable_as_100": _filled_mean(scores, 100),
    }


def difference_figures(first: Verdicts, second: Verdicts) -> dict[str, Any]:
    """The mean of ``first - second`` by paired bootstrap, both replies to ``score_questions``, ready for JSON.

    Only records count that have a readable score in both; ``left_out`` says how many have not.
    """
    both = ~(np.isnan(first.values).all(axis=1) | np.isnan(second.values).all(axis=1))
    told = paired_difference(_readable_means(first.values[both]), _readable_means(second.values[both]))
    return told | {"left_out": int((~both).sum())}


def pair_figures(verdicts: Verdicts) -> dict[str, Any]:
    """How often the first of two answers was found better: what the replies to ``pair_questions`` say, ready for JSON.

    The two orders of a pair make one verdict: what both say, and a tie where they differ. Where one of them is
    unreadable, so is the verdict.

    Returns:
        ``wins``, ``ties``, ``losses`` and ``disagreed`` (ties because the orders differ), counted in verdicts;
        ``mean``, the share of wins with ties as halves, over the records, with ``n`` and the bootstrap ``interval``;
        the accounts; and ``unreadable_as_losses`` and ``unreadable_as_wins``.
    """
    shown_first, shown_second = verdicts.values[:, 0::2], 1 - verdicts.values[:, 1::2]
    joint = np.where(shown_first == shown_second, shown_first, 0.5)
    joint[np.isnan(shown_first) | np.isnan(shown_second)] = np.nan
    counts = {name: int((joint == value).sum()) for name, value in (("wins", 1), ("ties", 0.5), ("losses", 0))}
    return {
        "judge": verdicts.judge,
        **mean_with_interval(_readable_means(joint)),
        **counts,
        "disagreed": int(((shown_first != shown_second) & ~np.isnan(joint)).sum()),
        **_accounts(verdicts),
        "unreadable_as_losses": _filled_mean(joint, 0),
        "unreadable_as_wins": _filled_mean(joint, 1),
    }


def _accounts(verdicts: Verdicts) -> dict[str, Any]:
    unreadable = int(np.isnan(verdicts.values).sum())
    return {"replies": verdicts.values.size, "unreadable": unreadable, "problems": verdicts.problems}


def _readable_means(table: np.ndarray) -> np.ndarray:
    """The mean of what is readable in each row, for the rows in which something is."""
    some = table[~np.isnan(table).all(axis=1)]
    return np.nanmean(some, axis=1) if len(some) else np.zeros(0)


def _filled_mean(table: np.ndarray, value: float) -> float:
    return float(np.where(np.isnan(table), value, table).mean())
