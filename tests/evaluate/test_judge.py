"""A judge at work: nothing is asked twice, nothing is lost, and the figures are arithmetic that can be redone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptailor.errors import UserError
from gptailor.evaluate.answers import Answer
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
from gptailor.evaluate.questions import Question, Reply, Unanswered

NAN = float("nan")


class Fake:
    """Replies what ``say`` returns; raises it, when it is an exception."""

    def __init__(self, say: Callable[[Question, int], str | Exception], name: str = "fake") -> None:
        self.say, self.name, self.said = say, name, []
        self.asked: list[tuple[Question, int]] = []
        self.checked = 0

    def check(self) -> None:
        self.checked += 1

    def ask(self, question: Question, seed: int) -> Reply:
        self.asked.append((question, seed))
        said = self.say(question, seed)
        if isinstance(said, Exception):
            raise said
        return Reply(said)


def answers(count: int, response: str = "answer") -> list[Answer]:
    return [Answer(number, f"task {number}", "", "reference", f"{response} {number}") for number in range(1, count + 1)]


def run(asked: Sequence[Asked], judge: Fake, file: Path, **how: Any) -> Verdicts:
    with closing(Judged(file)) as judged:
        return ask_all(asked, judge, judged, **how)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def by_number(question: Question, seed: int) -> str:
    return question.responses[0].split()[-1]


# --- asking -----------------------------------------------------------------------------------------------------------


def test_every_answer_is_asked_once_and_every_reply_kept(tmp_path: Path) -> None:
    judge, file = Fake(by_number), tmp_path / "judged.jsonl"
    verdicts = run(score_questions(answers(7)), judge, file)
    assert verdicts.values.tolist() == [[1], [2], [3], [4], [5], [6], [7]]
    assert len(judge.asked) == 7 and {seed for _, seed in judge.asked} == {123}
    kept = sorted(lines(file), key=lambda line: line["record"])
    assert [(line["record"], line["verdict"], line["reply"]) for line in kept] == [(n, n, str(n)) for n in range(1, 8)]
    assert kept[0].keys() == {
        "judge", "asks", "record", "repeat", "digest", "verdict", "problem", "reply", "form", "cut"
    }  # fmt: skip


def test_repeats_have_seeds_of_their_own(tmp_path: Path) -> None:
    judge = Fake(lambda question, seed: str(seed - 100))
    verdicts = run(score_questions(answers(3), repeats=2), judge, tmp_path / "judged.jsonl")
    assert verdicts.values.tolist() == [[23, 24]] * 3


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file, asked = tmp_path / "judged.jsonl", score_questions(answers(6))

    def interrupted(question: Question, seed: int) -> str | Exception:
        return KeyError("stopped") if question.responses[0] == "answer 4" else by_number(question, seed)

    with pytest.raises(KeyError):
        run(asked, Fake(interrupted), file, workers=1)
    assert [line["record"] for line in lines(file)] == [1, 2, 3]
    with file.open("a") as torn:
        torn.write('{"judge": "fake", "asks": "sco')  # the power went off here
    again, told = Fake(by_number), []
    assert run(asked, again, file, told=told.append).values.ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert sorted(question.responses[0] for question, _ in again.asked) == ["answer 4", "answer 5", "answer 6"]
    assert told == [3, 1, 1, 1] and len(lines(file)) == 6
    idle = Fake(by_number)
    assert run(asked, idle, file).values.ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert idle.asked == [] and idle.checked == 0, "without a question, no judge needs to be there"


def test_only_what_changed_is_asked_again(tmp_path: Path) -> None:
    file, first = tmp_path / "judged.jsonl", answers(4)
    run(score_questions(first), Fake(by_number), file)
    changed = [*first[:2], Answer(3, "task 3", "", "reference", "another 77"), first[3]]
    judge = Fake(by_number)
    assert run(score_questions(changed), judge, file).values.ravel().tolist() == [1, 2, 77, 4]
    assert len(judge.asked) == 1
    run(score_questions(first, repeats=2), judge, file)
    assert len(judge.asked) == 1 + 4, "only the second repeat is new"
    other = Fake(by_number, "another judge")
    run(score_questions(first), other, file)
    assert len(other.asked) == 4, "what one judge said is not another's"


def test_verdicts_are_read_from_the_replies_again(tmp_path: Path) -> None:
    file = tmp_path / "judged.jsonl"
    run(score_questions(answers(1)), Fake(lambda *_: "85"), file)
    (line,) = lines(file)
    file.write_text(json.dumps({**line, "verdict": 3}) + "\n", encoding="utf-8")
    assert run(score_questions(answers(1)), Fake(by_number), file).values.tolist() == [[85]]


def test_questions_are_asked_at_the_same_time_and_not_more_than_allowed(tmp_path: Path) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def slow(question: Question, seed: int) -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return "50"

    run(score_questions(answers(12)), Fake(slow), tmp_path / "judged.jsonl", workers=3)
    assert most == 3


def test_what_gets_no_reply_is_counted_and_asked_again_next_time(tmp_path: Path) -> None:
    file = tmp_path / "judged.jsonl"

    def sometimes(question: Question, seed: int) -> str | Exception:
        return Unanswered("HTTP 500, 5 times") if question.responses[0] == "answer 2" else "80"

    verdicts = run(score_questions(answers(3)), Fake(sometimes), file)
    told = score_figures(verdicts)
    assert (told["mean"], told["n"], told["replies"], told["unreadable"]) == (80, 2, 3, 1)
    assert told["problems"] == {"no reply: HTTP 500, 5 times": {"count": 1, "example": ""}}
    judge = Fake(lambda *_: "20")
    assert score_figures(run(score_questions(answers(3)), judge, file))["mean"] == 60
    assert len(judge.asked) == 1


def test_a_judge_that_never_replies_is_not_asked_for_ever(tmp_path: Path) -> None:
    def never(question: Question, seed: int) -> Exception:
        time.sleep(0.02)
        return Unanswered("HTTP 500, 5 times")

    judge, file = Fake(never), tmp_path / "judged.jsonl"
    with pytest.raises(UserError, match=r"no reply to 5 questions in a row: HTTP 500"):
        run(score_questions(answers(100)), judge, file, workers=2)
    assert len(judge.asked) < 10 and 5 <= len(lines(file)) < 10


def test_what_no_question_will_better_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wrong key"):
        run(score_questions(answers(9)), Fake(lambda *_: UserError("wrong key")), tmp_path / "judged.jsonl")
    assert not (tmp_path / "judged.jsonl").exists(), "a file without replies is not left behind"


@pytest.mark.parametrize(
    "content",
    [
        '[{"instruction": "x"}]',
        '{"instruction": "x"}\n',
        "hello\n",
        '{"judge": "a"}\n',
        '{"judges": 1',
        '{"judge": [], "digest": {}, "record": 1, "repeat": 1, "reply": "", "form": ""}\n',
        '{"judge": "a", "digest": "b", "record": 1, "repeat": 1, "reply": 85, "form": ""}\n',
    ],
)
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    file = tmp_path / "answers.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"answers\.json:1 is no line of a judged file"):
        Judged(file)
    assert file.read_text(encoding="utf-8") == content


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--out"):
        Judged(tmp_path / "absent" / "judged.jsonl")


def test_odd_characters_in_a_reply_are_kept(tmp_path: Path) -> None:
    said = "nine\u2028and \x85 more\n \N{PILE OF POO} { 'done'"
    file = tmp_path / "judged.jsonl"
    run(score_questions(answers(2)), Fake(lambda *_: said), file)
    judge = Fake(by_number)
    told = score_figures(run(score_questions(answers(2)), judge, file))
    assert judge.asked == [] and told["problems"]["not a whole number alone"] == {"count": 2, "example": said}


# --- figures ----------------------------------------------------------------------------------------------------------


def scores(*rows: Sequence[float]) -> Verdicts:
    return Verdicts("fake", np.array(rows, dtype=float), {})


def test_score_figures_by_hand() -> None:
    # Records: 80, (70 and unreadable) = 70, and one that cannot be read at all.
    told = score_figures(scores([80, 80], [70, NAN], [NAN, NAN]))
    assert told["mean"] == 75 and told["n"] == 2 and told["interval"] == [70, 80]
    assert told["by_repeat"] == [75, 80]
    assert (told["replies"], told["unreadable"]) == (6, 3)
    assert told["unreadable_as_0"] == pytest.approx((80 + 35 + 0) / 3)
    assert told["unreadable_as_100"] == pytest.approx((80 + 85 + 100) / 3)
    json.dumps(told, allow_nan=False)


def test_figures_of_nothing_readable_are_none_and_still_json() -> None:
    told = score_figures(scores([NAN], [NAN]))
    assert (told["mean"], told["n"], told["interval"], told["by_repeat"]) == (None, 0, None, [None])
    assert (told["unreadable_as_0"], told["unreadable_as_100"]) == (0, 100)
    json.dumps([told, difference_figures(scores([NAN]), scores([1])), pair_figures(scores([NAN, 1]))], allow_nan=False)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.one_of(st.just(NAN), st.integers(0, 100)), min_size=2, max_size=2), min_size=1))
def test_the_bounds_enclose_every_way_to_fill_the_gaps(rows: list[list[float]]) -> None:
    told = score_figures(scores(*rows))
    low, high = told["unreadable_as_0"], told["unreadable_as_100"]
    filled = np.nan_to_num(np.array(rows), nan=37.0).mean()
    assert 0 <= low <= filled <= high <= 100
    assert high - low == pytest.approx(100 * told["unreadable"] / told["replies"])


def test_a_difference_is_taken_where_both_have_a_score() -> None:
    told = difference_figures(scores([80], [60], [NAN], [10]), scores([70], [40], [50], [NAN]))
    assert (told["difference"], told["n"], told["left_out"]) == (15, 2, 2)
    assert told["interval"] == [10, 20]


def judged_pairs(tmp_path: Path, say: Callable[[Question, int], str], **how: Any) -> dict[str, Any]:
    asked = pair_questions(answers(4, "short"), answers(4, "long long"), **how)
    return pair_figures(run(asked, Fake(say), tmp_path / "pairs.jsonl"))


def test_a_judge_that_likes_one_answer_is_heard_in_both_orders(tmp_path: Path) -> None:
    told = judged_pairs(tmp_path, lambda question, _: "A" if question.responses[0].startswith("short") else "B")
    assert (told["wins"], told["ties"], told["losses"], told["disagreed"], told["mean"]) == (4, 0, 0, 0, 1.0)
    assert told["replies"] == 8
    shown = {line["digest"] for line in lines(tmp_path / "pairs.jsonl")}
    assert len(shown) == 8, "both orders are questions of their own"


def test_a_judge_that_likes_what_stands_first_has_no_say(tmp_path: Path) -> None:
    told = judged_pairs(tmp_path, lambda *_: "A", repeats=2)
    assert (told["wins"], told["ties"], told["losses"], told["disagreed"], told["mean"]) == (0, 8, 0, 8, 0.5)


def test_pair_figures_by_hand() -> None:
    # Shown first / shown second; the second column is about the swapped order, where A is the other answer.
    told = pair_figures(scores([1, 0], [0, 1], [0.5, 0.5], [1, 0.5], [1, NAN]))
    assert (told["wins"], told["losses"], told["ties"], told["disagreed"]) == (1, 1, 2, 1)
    assert told["mean"] == 0.5 and told["n"] == 4 and told["unreadable"] == 1 and told["replies"] == 10
    assert told["unreadable_as_losses"] == pytest.approx(2 / 5) and told["unreadable_as_wins"] == pytest.approx(3 / 5)
