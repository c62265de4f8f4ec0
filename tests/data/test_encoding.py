"""Conversations become ids with what is learned of them; each answer ends with an end of text that is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptailor.data.encoding import encode, prompt_ids
from gptailor.data.instruction import Record
from gptailor.data.receipt import InstructionReceipt
from gptailor.data.templates import TEMPLATE_FILE, Message, Template, open_template
from gptailor.errors import UserError
from gptailor.tokenizer import END_OF_TEXT, Tokenizer

BYTES = Tokenizer.train(["ab"], 257)  # no merges: a character is a token
END = BYTES.end_of_text
PLAIN, CHATML = open_template("plain"), open_template("chatml")
SHORT = Template(
    "short", "{% for m in messages %}{{ m.content + (eos_token if m.role[0] == 'a' else '?') }}{% endfor %}"
)


def talk(*said: str, where: str = "t.json:1") -> Record:
    """Questions and answers in turn."""
    return Record([Message(("user", "assistant")[at % 2], text) for at, text in enumerate(said)], where)


def encoded(*records: Record, template: Template = PLAIN, limit: int = 64, **options: Any) -> tuple[list[Record], Any]:
    receipt = InstructionReceipt()
    options = {"tolerance": 1.0, **options}
    return encode({"train": records}, template, BYTES, limit, receipt, **options)["train"], receipt.to_dict()


def shown(record: Record) -> tuple[str, str]:
    """The whole text, and what is learned of it."""
    return BYTES.decode(record.ids.tolist()), BYTES.decode(record.ids[record.learned].tolist())


# --- encode -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learn", "learned"),
    [
        ("response", f"b{END_OF_TEXT}dd{END_OF_TEXT}"),
        ("last", f"dd{END_OF_TEXT}"),
        ("all", f"?b{END_OF_TEXT}c?dd{END_OF_TEXT}"),
    ],
)
def test_what_is_learned(learn: str, learned: str) -> None:
    records, told = encoded(talk("a", "b", "c", "dd"), template=SHORT, learn=learn)
    assert shown(records[0]) == (f"a?b{END_OF_TEXT}c?dd{END_OF_TEXT}", learned)
    assert records[0].ids.dtype == np.int32
    count = int(records[0].learned.sum())
    assert told["tokens"]["train"] == {
        "records": 1, "targets": 8, "learned": count, "ends": 1, "learned_share": round(count / 8, 4)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "text", "learned"),
    [
        (8, "abc\ndefgh", "efgh"),
        (9, "abc\ndefgh", "defgh"),
    ],
)
def test_lengths_count_what_is_read(limit: int, text: str, learned: str) -> None:
    """Nine tokens and the end of text are nine to read; within eight, the last letter makes room for the end."""
    records, told = encoded(talk("abc", "defgh"), limit=limit)
    whole = limit == 9
    assert shown(records[0])[0] == (text if whole else text[:8]) + END_OF_TEXT
    assert shown(records[0])[1] == ("defgh" if whole else "defg") + END_OF_TEXT
    assert records[0].n_inputs == limit
    assert told["cut"]["count"] == told["responses_cut"] == (0 if whole else 1)
    assert told["lengths"]["max"] == 9  # before it was cut


@pytest.mark.parametrize(("limit", "answers"), [(12, 3), (11, 2), (8, 2), (7, 1), (4, 1)])
def test_whole_turns_are_cut_from_the_end(limit: int, answers: int) -> None:
    """Each of three turns is a letter, a question mark, a letter and the end: 4, 8 and 12 tokens."""
    records, told = encoded(talk("a", "b", "c", "d", "e", "f"), template=SHORT, limit=limit - 1)
    text = "".join(f"{pair[0]}?{pair[1]}{END_OF_TEXT}" for pair in ("ab", "cd", "ef")[:answers])
    assert shown(records[0]) == (text, "".join(f"{answer}{END_OF_TEXT}" for answer in "bdf"[:answers]))
    assert (told["turns_cut"], told["responses_cut"]) == (int(answers < 3), 0)


def test_where_no_turn_fits_the_first_answer_is_cut() -> None:
    records, told = encoded(talk("a", "bbbbbb", "c", "d"), template=SHORT, limit=5)
    assert shown(records[0]) == (f"a?bbb{END_OF_TEXT}", f"bbb{END_OF_TEXT}")
    assert (told["turns_cut"], told["responses_cut"]) == (0, 1)


@pytest.mark.parametrize(("limit", "text"), [(8, "a?b|c?dd|"), (7, "a?b|c?d|")])
def test_with_earlier_turns_kept_only_the_last_answer_is_cut(limit: int, text: str) -> None:
    records, _ = encoded(talk("a", "b", "c", "ddd"), template=SHORT, limit=limit, keep_turns=True)
    text = text.replace("|", END_OF_TEXT)
    assert shown(records[0]) == (text, text.removeprefix(f"a?b{END_OF_TEXT}c?")), "nothing else is learned"


def test_what_happens_to_several_records_adds_up() -> None:
    turns = [talk("a", "b", "c", "d", where=f"turns:{n}") for n in range(2)]
    answers = [talk("a", "b" * 9, where=f"answers:{n}") for n in range(3)]
    prompts = [talk("a" * 9, "b", where=f"prompts:{n}") for n in range(4)]
    records, told = encoded(*turns, *answers, *prompts, template=SHORT, limit=6)
    assert [told[key] for key in ("turns_cut", "responses_cut", "prompts_over")] == [2, 3, 4]
    assert told["cut"]["count"] == 5 and len(records) == 5
    lengths = [7] * 2 + [11] * 3 + [11] * 4
    assert told["lengths"]["max"] == 11 and told["lengths"]["mean"] == pytest.approx(sum(lengths) / 9, abs=0.1)


def test_a_turn_that_becomes_the_last_is_closed_where_the_template_closes_only_the_whole() -> None:
    template = Template(
        "t", "{% for m in messages %}{{ m.content }};{% endfor %}{{ '' if add_generation_prompt else eos_token }}"
    )
    for limit, text in ((8, f"a;b;c;d;{END_OF_TEXT}"), (7, f"a;b;{END_OF_TEXT}"), (4, f"a;b;{END_OF_TEXT}")):
        records, _ = encoded(talk("a", "b", "c", "d"), template=template, limit=limit, learn="last")
        assert shown(records[0]) == (text, text[-2 - len(END_OF_TEXT) :])


def test_a_prompt_without_room_for_an_answer_is_left_out() -> None:
    fits, over = talk("abc", "defgh", where="t:1"), talk("abcd", "e", where="t:2")
    records, told = encoded(fits, over, limit=5)
    assert [shown(record)[0] for record in records] == [f"abc\nd{END_OF_TEXT}"]
    assert told["dropped"] == [{"reason": "its prompt alone has 5 tokens or more", "count": 1, "lines": ["t:2"]}]
    assert (told["prompts_over"], told["responses_cut"], told["parts"]) == (1, 1, {"train": 1})


def test_long_records_can_be_left_out_instead() -> None:
    records, told = encoded(talk("a", "b", where="t:1"), talk("a", "bcd", where="t:2"), limit=4, overlong="drop")
    assert [record.where for record in records] == ["t:1"]
    assert told["dropped"] == [{"reason": "longer than 4 tokens", "count": 1, "lines": ["t:2"]}]
    assert told["rows"]["cut"] == 0


def test_too_many_long_records_stop_the_run() -> None:
    records = [talk("a", "b" * (3 + 3 * (at > 6)), where=f"t:{at}") for at in range(10)]
    records[0] = talk("a" * 8, "b", where="t:0")
    expected = (
        r"^4 of 10 records do not fit as they are\n"
        r"  3 × longer than 6 tokens, and so cut: t:7, t:8, t:9\n"
        r"  1 × its prompt alone has 6 tokens or more: t:0\n"
        r"  expected: 30% of them at most, as --tolerance says\n"
        r"  try:      a larger --max-length, .*; or a larger --tolerance$"
    )
    with pytest.raises(UserError, match=expected):
        encoded(*records, limit=6, tolerance=0.3)
    assert len(encoded(*records, limit=6, tolerance=0.4)[0]) == 9


def test_a_context_shorter_than_every_prompt_is_told() -> None:
    expected = (
        r"^no prompt leaves room for an answer within 4 tokens: the shortest, t:2, has 5\n  try:      a larger --max-l"
    )
    with pytest.raises(UserError, match=expected):
        encoded(talk("abcde", "f", where="t:1"), talk("abcd", "e", where="t:2"), limit=4)


def test_records_that_the_template_has_no_room_for_are_told() -> None:
    talks = [talk("a", "b", "c", "d", where="t:1"), talk("a", "b", where="t:2"), talk("c", "d", "e", "f", where="t:3")]
    records, told = encoded(*talks)
    assert [record.where for record in records] == ["t:2"]
    assert told["dropped"][0]["lines"] == ["t:1", "t:3"]
    with pytest.raises(
        UserError, match=r"no record for train fits\n  1 × template plain: it has room for one .*: t:1$"
    ):
        encoded(talks[0])
    with pytest.raises(UserError, match="no record for test fits"):
        parts = {"train": [talks[1]], "test": [talks[0]]}
        encode(parts, PLAIN, BYTES, 64, InstructionReceipt(), tolerance=1.0)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from([END_OF_TEXT, "<|im_end|>\n"])


@settings(max_examples=150, deadline=None)
@given(
    said=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3),
    limit=st.integers(40, 400),
    learn=st.sampled_from(["response", "last", "all"]),
)
def test_every_kept_record_fits_and_ends_with_a_learned_end(
    said: list[tuple[str, str]], limit: int, learn: str
) -> None:
    pieces = [text for pair in said for text in pair]
    good = talk("a", "b", where="t:2")
    records, told = encoded(talk(*pieces), good, template=CHATML, limit=limit + 30, learn=learn)
    for record in records:
        assert record.n_inputs <= limit + 30
        assert record.ids[-1] == END
        assert record.learned[-1] and not record.learned[0]
        assert learn == "last" or record.learned[record.ids == END].all()
        assert record.learned.sum() > 1 or "" in pieces
    ends = sum(int((record.ids == END).sum()) for record in records)
    assert ends <= len(said) + 1  # the end of text in a user's words is thirteen characters and never the end
    assert told["tokens"]["train"]["ends"] == len(records)
    assert told["rows"]["kept"] + told["rows"]["dropped"] == 2
    assert json.loads(json.dumps(told, allow_nan=False)) == told


# --- generation -------------------------------------------------------------------------------------------------------


def test_what_generation_starts_from_is_what_stood_before_the_answer() -> None:
    tokenizer = Tokenizer.train(["the cat sat on the mat", "assistant user", "\n\n"] * 5, 300)
    records = [talk("the cat", " sat", "on the ", "mat"), talk("the", "the")]
    encode({"train": records}, CHATML, tokenizer, 200, InstructionReceipt(), learn="last")
    for record, prompt in zip(
        records, prompt_ids([record.question for record in records], CHATML, tokenizer), strict=True
    ):
        assert prompt == record.ids[: len(prompt)].tolist()
        assert not record.learned[: len(prompt)].any()
        assert record.learned[len(prompt) :].all()


def test_transformers_makes_the_same_prompt_of_our_template(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 5, 280)
    tokenizer.save(tmp_path, context_length=64)
    (tmp_path / TEMPLATE_FILE).write_text(CHATML.source, encoding="utf-8")
    asked = [Message("user", "the cat <|endoftext|> sat")]
    (ours,) = prompt_ids([asked], CHATML, tokenizer)
    transformers = AutoTokenizer.from_pretrained(tmp_path)
    how = {"add_generation_prompt": True, "return_dict": False}
    assert transformers.apply_chat_template(CHATML.as_dicts(asked), **how) == ours
    turns = [Message("user", "the cat"), Message("assistant", " sat"), Message("user", "on what?")]
    (ours,) = prompt_ids([turns], CHATML, tokenizer)
    whole = {"split_special_tokens": False}  # from the second question on, as the guide says
    assert transformers.apply_chat_template(CHATML.as_dicts(turns), **how, tokenizer_kwargs=whole) == ours
