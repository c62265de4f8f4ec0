"""Rows become pairs or entries in the receipt; both sides of a pair have the same prompt and differ behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptailor.data.instruction import Record, arrange
from gptailor.data.preference import Pair, collect_pairs, encode_pairs
from gptailor.data.receipt import PreferenceReceipt
from gptailor.data.sources import read_table
from gptailor.data.table import Table
from gptailor.data.templates import Message, open_template
from gptailor.errors import UserError
from gptailor.tokenizer import Tokenizer

BYTES = Tokenizer.train(["ab"], 257)  # no merges: a character is a token
PLAIN, CHATML = open_template("plain"), open_template("chatml")


def table(**columns: list[Any]) -> Table:
    count = len(next(iter(columns.values())))
    return Table(Path("t.json"), "", 0, "json", columns, list(range(1, count + 1)))


def said(*texts: str) -> list[dict[str, str]]:
    """Messages in turn, the last one an answer."""
    first = len(texts) % 2
    return [{"role": ("user", "assistant")[(at + first) % 2], "content": text} for at, text in enumerate(texts)]


def collected(**columns: list[Any]) -> tuple[list[Pair], PreferenceReceipt]:
    receipt = PreferenceReceipt()
    return collect_pairs([table(**columns)], receipt, tolerance=0.9), receipt


def pair(prompt: str, chosen: str, rejected: str, *before: str) -> Pair:
    asked = [Message(("user", "assistant")[at % 2], text) for at, text in enumerate((*before, prompt))]
    return Pair(*(Record([*asked, Message("assistant", text)], "t.json:1") for text in (chosen, rejected)))


def encoded(*pairs: Pair, template: Any = PLAIN, limit: int = 64, **options: Any) -> tuple[list[Pair], dict[str, Any]]:
    receipt = PreferenceReceipt()
    kept = encode_pairs({"train": pairs}, template, BYTES, limit, receipt, **{"tolerance": 1.0, **options})
    return kept["train"], receipt.to_dict()


def learned(side: Record) -> str:
    return BYTES.decode(side.ids[side.learned].tolist())


SYSTEM = {"role": "system", "content": "x"}


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "prompt"),
    [
        ({"instruction": ["q"], "chosen": ["a"], "rejected": ["b"]}, [Message("user", "q")]),
        ({"instruction": ["q"], "input": ["i"], "chosen": ["a"], "rejected": ["b"]}, [Message("user", "q", "i")]),
        ({"prompt": ["q"], "chosen": ["a"], "rejected": ["b"]}, [Message("user", "q")]),
        ({"prompt": ["q"], "chosen": [said("a")], "rejected": [said("b")]}, [Message("user", "q")]),
        ({"prompt": [said("q", "")[:1]], "chosen": [said("a")], "rejected": [said("b")]}, [Message("user", "q")]),
        ({"prompt": ["q"], "chosen": [said("q", "a")], "rejected": [said("q", "b")]}, [Message("user", "q")]),
        (
            {"prompt": [[SYSTEM, *said("q", "r", "s", "")[:3]]], "chosen": [said("s", "a")], "rejected": ["b"]},
            [Message("system", "x"), Message("user", "q"), Message("assistant", "r"), Message("user", "s")],
        ),
        (
            {"prompt": ["q"], "chosen": [[SYSTEM, *said("q", "a")]], "rejected": [[SYSTEM, *said("q", "b")]]},
            [Message("system", "x"), Message("user", "q")],
        ),
        ({"chosen": [said("q", "a")], "rejected": [said("q", "b")]}, [Message("user", "q")]),
        (
            {"chosen": [said("q", "r", "s", "a")], "rejected": [said("q", "r", "s", "b")]},
            [Message("user", "q"), Message("assistant", "r"), Message("user", "s")],
        ),
    ],
)
def test_the_columns_tell_the_shape(columns: dict[str, list[Any]], prompt: list[Message]) -> None:
    (one,), receipt = collected(**columns)
    assert one.chosen.question == one.rejected.question == prompt
    assert (one.chosen.answer, one.rejected.answer) == ("a", "b")
    assert receipt.to_dict()["shapes"][0]["columns"] == [name for name in SHOWN_ORDER if name in columns]


SHOWN_ORDER = ("instruction", "prompt", "chosen", "rejected", "input")


def test_other_columns_are_told_as_not_used() -> None:
    _, receipt = collected(instruction=["q"], output=["a"], chosen=["a"], rejected=["b"])
    assert receipt.to_dict()["shapes"][0]["unused"] == ["output"]


def test_columns_that_hold_no_pairs_are_refused_with_what_does() -> None:
    with pytest.raises(UserError, match="instruction and chosen and rejected") as caught:
        collected(instruction=["q"], output=["a"], chosn=["a"])
    assert "did you mean 'chosen'" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("q", "a", "a"), "has sides that are the same"),
        (("q", "", "b"), "has an empty chosen side"),
        (("q", "a", " "), "has an empty rejected side"),
        (("q", "a", None), "has an empty rejected side"),
        ((" ", "a", "b"), "has no prompt"),
        (("q", 7.5, ["b"]), "has text where a message was expected"),
        (("q", said("other", "a"), said("other", "b")), "has a chosen side that does not begin with the prompt"),
        (("q", said("q", "r", "s", "a"), said("q", "t", "s", "b")), "has sides that differ before their last answer"),
        (("q", said("q", "")[:1], said("q", "b")), "has no answer"),
        (("q", said("q", "a", "more", "")[:3], said("q", "b")), "has a chosen side that ends without an answer"),
    ],
)
def test_a_row_that_is_no_pair_is_an_entry(row: tuple[Any, Any, Any], reason: str) -> None:
    prompt, chosen, rejected = ([value, "x" + name] for name, value in zip("pcr", row, strict=True))
    pairs, receipt = collected(prompt=prompt, chosen=chosen, rejected=rejected)
    assert len(pairs) == 1 and receipt.dropped == {reason: ["t.json:1"]}


def test_the_receipt_counts_identical_pairs_and_empty_sides() -> None:
    _, receipt = collected(prompt=["q"] * 4, chosen=["a", "a", "", "a"], rejected=["a", "", "b", "b"])
    told = receipt.to_dict()
    assert told["identical"] == {"count": 1, "lines": ["t.json:1"]}
    assert told["empty_sides"] == {
        "chosen": {"count": 1, "lines": ["t.json:3"]},
        "rejected": {"count": 1, "lines": ["t.json:2"]},
    }


# --- parts ------------------------------------------------------------------------------------------------------------


def test_a_repeated_pair_is_used_once_and_a_prompt_is_in_one_part() -> None:
    pairs = [pair(f"q{at // 2}", f"a{at}", "b") for at in range(40)]
    receipt = PreferenceReceipt()
    parts = arrange({"data": [*pairs, pair("q1", "a3", "b")]}, receipt, validation_share=0.2, test_share=0.2)
    assert sum(map(len, parts.values())) == 40
    assert receipt.dropped["repeats an earlier record"] == ["t.json:1"]
    prompts = [{one.chosen.question[0].content for one in part} for part in parts.values()]
    assert not prompts[0] & prompts[1] and not prompts[0] & prompts[2] and not prompts[1] & prompts[2]
    turned = pair("q0", "b", "a0")  # the same two answers the other way round are another pair
    assert turned.content() != pairs[0].content() and turned.opening() == pairs[0].opening()


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_learned_are_the_last_answers_with_their_ends_and_the_prompt_is_the_same() -> None:
    (one,), _ = encoded(pair("how", "well", "badly", "hello", "hi"), template=CHATML, limit=200)
    assert (learned(one.chosen), learned(one.rejected)) == ("well<|endoftext|>", "badly<|endoftext|>")
    begin = int(one.chosen.learned.argmax())
    assert begin > 0 and one.chosen.ids[:begin].tolist() == one.rejected.ids[:begin].tolist()


def test_a_side_that_is_too_long_loses_the_end_of_its_last_answer() -> None:
    (one,), told = encoded(pair("how", "well" * 9, "no", "hello", "hi"), template=CHATML, limit=130)
    assert one.chosen.n_inputs == 130 and learned(one.rejected) == "no<|endoftext|>"
    assert learned(one.chosen).startswith("wellwell") and learned(one.chosen).endswith("<|endoftext|>")
    assert told["responses_cut"] == 1 and told["rows"]["cut"] == 1 and told["prompts_over"] == 0


def test_both_sides_cut_is_one_pair_cut() -> None:
    (_,), told = encoded(pair("q", "a" * 30, "b" * 30), limit=20)
    assert told["responses_cut"] == 2 and told["cut"]["count"] == 1


def test_what_cannot_be_told_apart_or_answered_is_left_out() -> None:
    good = pair("q", "yes", "no")
    kept, told = encoded(good, pair("q", "a" * 30 + "x", "a" * 30 + "y"), pair("q" * 30, "a", "b"), limit=20)
    assert kept == [good]
    assert {entry["reason"] for entry in told["dropped"]} == {
        "has sides that do not differ within 20 tokens",
        "its prompt alone has 20 tokens or more",
    }
    kept, told = encoded(good, pair("q", "a" * 30, "b"), limit=20, overlong="drop")
    assert (
        kept == [good] and told["dropped"][0]["reason"] == "longer than 20 tokens" and told["dropped"][0]["count"] == 1
    )


def test_the_length_bias() -> None:
    _, told = encoded(pair("q", "abcd", "ab"), pair("r", "abc", "a"), pair("s", "a", "ab"), pair("t", "a", "b"))
    # With their ends of text: chosen 5, 4, 2, 2 and rejected 3, 2, 3, 2 tokens.
    expected = {"chosen_longer": 0.5, "rejected_longer": 0.25, "mean_chosen": 3.2, "mean_rejected": 2.5}
    assert told["length_bias"] == {"pairs": 4, **expected}
    assert told["tokens"]["train"] == {
        "pairs": 4,
        "chosen": 13,
        "rejected": 10,
        "chosen_longer": 2,
        "rejected_longer": 1,
    }


def test_a_row_of_the_answers_file() -> None:
    expected = {"instruction": "q", "input": "", "output": "a", "chosen": "a", "rejected": "b"}
    assert pair("q", "a", "b").as_row() == expected


def test_the_books_pairs(shared_data: Path) -> None:
    file = shared_data / "instruction" / "instruction-data-with-preference.json"
    receipt = PreferenceReceipt()
    pairs = collect_pairs([read_table(file)], receipt)
    assert len(pairs) == 1094 and len(receipt.identical) == 6
    assert pairs[0].chosen.question[0].input == "freind --> friend"
