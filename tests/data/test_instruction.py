"""Rows become conversations or entries in the receipt, and conversations become parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gptailor.data.encoding import encode
from gptailor.data.instruction import Record, arrange, collect
from gptailor.data.packing import collate_records
from gptailor.data.receipt import InstructionReceipt
from gptailor.data.sources import read_table
from gptailor.data.table import Dropped, Table
from gptailor.data.templates import Message, open_template
from gptailor.errors import UserError
from gptailor.tokenizer import END_OF_TEXT, Tokenizer


def table(*rows: tuple[Any, Any] | tuple[Any, Any, Any], dropped: tuple[Dropped, ...] = ()) -> Table:
    columns = {name: [(*row, "")[at] for row in rows] for at, name in enumerate(("instruction", "output", "input"))}
    return Table(Path("t.json"), "", 0, "json", columns, list(range(1, len(rows) + 1)), list(dropped))


def talk(*said: str, where: str = "t.json:1") -> Record:
    """Questions and answers in turn."""
    return Record([Message(("user", "assistant")[at % 2], text) for at, text in enumerate(said)], where)


# --- collect ----------------------------------------------------------------------------------------------------------


def test_every_row_becomes_a_record_or_an_entry() -> None:
    receipt = InstructionReceipt()
    rows = table(
        ("a", "b"), ("c", ""), (None, "d"), ("e", ["f"]), ("g", "h", "i"), dropped=(Dropped(9, "not valid JSON"),)
    )
    receipt.add_file("data", rows)
    records = collect([rows], receipt, tolerance=0.9)
    assert [(record.messages, record.where) for record in records] == [
        ([Message("user", "a"), Message("assistant", "b")], "t.json:1"),
        ([Message("user", "g", "i"), Message("assistant", "h")], "t.json:5"),
    ]
    assert receipt.dropped == {
        "not valid JSON": ["t.json:9"],
        "has an empty output": ["t.json:2"],
        "has no instruction": ["t.json:3"],
        "output is a list where text was expected": ["t.json:4"],
    }
    told = receipt.to_dict()
    assert told["rows"]["read"] == 6
    assert told["empty_outputs"] == {"count": 1, "lines": ["t.json:2"]}


def test_empty_outputs_can_be_kept_and_are_counted_all_the_same() -> None:
    receipt = InstructionReceipt()
    assert [record.answer for record in collect([table(("a", " "))], receipt, keep_empty=True)] == [" "]
    assert receipt.to_dict()["empty_outputs"]["count"] == 1


def test_a_last_question_without_an_answer_is_left_out_and_counted() -> None:
    said = [{"role": role, "content": role[0]} for role in ("user", "assistant", "user")]
    receipt = InstructionReceipt()
    rows = Table(Path("t.jsonl"), "", 0, "jsonl", {"messages": [said], "id": [7]}, [4])
    assert collect([rows], receipt)[0].messages == [Message("user", "u"), Message("assistant", "a")]
    told = receipt.to_dict()
    assert told["unanswered"] == {"count": 1, "lines": ["t.jsonl:4"]}
    assert told["shapes"] == [
        {"path": "t.jsonl", "shape": "lists of messages", "columns": ["messages"], "unused": ["id"]}
    ]


def test_too_many_bad_records_are_told_together_with_their_lines() -> None:
    rows = table(*[("a", "b")] * 7, ("c", None), (["d"], "e"), (None, "f"), (["g"], "h"))
    expected = (
        r"^4 of 11 records cannot be used\n"
        r"  2 × instruction is a list where text was expected: t\.json:9, t\.json:11\n"
        r"  1 × has no output: t\.json:8\n"
        r"  1 × has no instruction: t\.json:10\n"
        r"  expected: 30% of them at most, as --tolerance says\n"
        r"  try:      mend them, or a larger --tolerance$"
    )
    with pytest.raises(UserError, match=expected):
        collect([rows], InstructionReceipt(), tolerance=0.3)
    assert len(collect([rows], InstructionReceipt(), tolerance=0.4)) == 7


def test_no_record_at_all_is_told_whatever_is_tolerated() -> None:
    with pytest.raises(UserError, match=r"^no record can be used\n  2 × has no output: t.json:1, t.json:2$"):
        collect([table(("a", None), ("b", None))], InstructionReceipt(), tolerance=1.0)


def test_a_record_as_a_row() -> None:
    asked = [Message("user", "q"), Message("assistant", "a"), Message("user", "r", "i"), Message("assistant", "b")]
    assert Record(asked[2:], "").as_row() == {"instruction": "r", "input": "i", "output": "b"}
    history = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert Record(asked, "").as_row() == {"instruction": "r", "input": "i", "output": "b", "history": history}


# --- arrange ----------------------------------------------------------------------------------------------------------


def wheres(parts: dict[str, list[Record]]) -> dict[str, list[str]]:
    return {name: [record.where for record in records] for name, records in parts.items()}


def test_the_book_s_split_keeps_the_order_and_tells_what_it_leaks() -> None:
    records = [talk(f"q{at % 18}", f"a{at}", where=str(at)) for at in range(20)]
    receipt = InstructionReceipt()
    parts = arrange({"data": records}, receipt, split="book")
    assert wheres(parts) == {"train": [*map(str, range(17))], "validation": ["19"], "test": ["17", "18"]}
    assert receipt.shared == {"validation": {"n": 1, "in_train": 1}, "test": {"n": 2, "in_train": 1}}
    assert receipt.warnings[1] == "1 of 2 test questions stand word for word in the training part"
    with pytest.raises(UserError, match="--split book with separate files for train, test\n  expected: one file"):
        arrange({"train": records, "test": records}, InstructionReceipt(), split="book")


def test_repeats_are_dropped_and_answers_to_one_question_stay_together() -> None:
    records = [talk(f"q{at % 30}", f"a{at % 60}", where=str(at)) for at in range(70)]
    receipt = InstructionReceipt()
    parts = arrange({"data": records}, receipt, test_share=0.2)
    assert receipt.dropped == {"repeats an earlier record": [str(at) for at in range(60, 70)]}
    assert {name: len(part) for name, part in parts.items()} == {"train": 46, "validation": 2, "test": 12}
    assert receipt.shared["test"] == {"n": 12, "in_train": 0}
    assert wheres(parts) != wheres(arrange({"data": records}, InstructionReceipt(), test_share=0.2, seed=4))


def test_parts_that_are_given_stay() -> None:
    records = [talk(f"q{at}", "a", where=str(at)) for at in range(20)]
    receipt = InstructionReceipt()
    parts = arrange({"train": records[:18], "test": [*records[18:], records[0]]}, receipt)
    assert wheres(parts)["test"] == ["18", "19", "0"]
    assert (len(parts["train"]), len(parts["validation"])) == (17, 1)
    assert receipt.shared["test"]["n"] == 3
    with pytest.raises(UserError, match="too few records: train 2, validation 0, test 0"):
        arrange({"data": [talk("q", "a"), talk("q", "b")]}, InstructionReceipt())


# --- bad files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("t.json", "", r"t\.json is empty"),
        ("t.json", "[]", r"t\.json has no row that can be read"),
        (
            "t.json",
            '[{"question": "a", "answer": "b"}]',
            r"t\.json has the columns question, answer\n  expected: instr",
        ),
        ("t.json", '[{"instruction": "a"}]', r"t\.json has the columns instruction\n"),
        (
            "t.jsonl",
            '{"instruction": "a", "output": null}\n\n{"instruction": [], "output": "b"}',
            r"no record can be used\n  1 × has no output: t\.jsonl:1\n  1 × instruction is a list .*: t\.jsonl:3",
        ),
        (
            "t.jsonl",
            '{"instruction": "a", "output": "b"}\nno\n[1]',
            r"2 of 3 records cannot be used\n  1 × not valid JSON: t\.jsonl:2\n  1 × a list where an .*: t\.jsonl:3",
        ),
        ("t.csv", "messages,id\nhi,1\n", r"1 × messages are text where a list was expected: t\.csv:2"),
    ],
)
def test_a_bad_file_is_told_with_its_lines(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        collect([read_table(tmp_path / name)], InstructionReceipt())


# --- real data --------------------------------------------------------------------------------------------------------


def test_the_book_s_records_to_the_token(shared_data: Path) -> None:
    file = shared_data / "instruction" / "instruction-data.json"
    tokenizer, template = Tokenizer.load(shared_data / "gpt2_tokenizer"), open_template("alpaca")
    receipt = InstructionReceipt()
    parts = arrange({"data": collect([read_table(file)], receipt)}, receipt, split="book")
    parts = encode(parts, template, tokenizer, 1024, receipt, learn="all")
    assert {name: len(records) for name, records in parts.items()} == {"train": 935, "validation": 55, "test": 110}
    rows = json.loads(file.read_text())
    for row, record in zip(rows, [*parts["train"], *parts["test"], *parts["validation"]], strict=True):
        assert record.as_row() == row
        # Encoding in segments moves no token: the book encodes the whole text at once.
        text = template.render(record.messages).removesuffix(END_OF_TEXT)
        assert record.ids.tolist() == [*tokenizer.encode(text), tokenizer.end_of_text]
    torch.manual_seed(123)
    loader = torch.utils.data.DataLoader(range(935), batch_size=8, shuffle=True, drop_last=True)  # type: ignore[arg-type]
    batches = [[[parts["train"][row]] for row in rows.tolist()] for rows in loader]
    shapes = [tuple(collate_records(rows, 50256).input_ids.shape) for rows in batches[:10]]
    assert shapes == [(8, width) for width in (61, 76, 73, 68, 65, 72, 80, 67, 62, 75)]  # as the book prints them
    assert len(batches) == 116


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("instruction-data", 1100),
        ("instruction-data-with-preference", 1100),
        ("instruction-data-with-response", 110),
        ("eval-example-data", 100),
        ("instruction-examples", 200),
        ("instruction-examples-modified", 200),
        ("instruction-data-llama3-7b", 4),  # of five records, the third has no instruction
    ],
)
def test_every_file_of_the_book_is_read(shared_data: Path, name: str, kept: int) -> None:
    rows = read_table(shared_data / "instruction" / f"{name}.json")
    assert len(collect([rows], InstructionReceipt(), tolerance=0.2)) == kept


def test_alpaca_is_accounted_for(shared_data: Path) -> None:
    rows = read_table(shared_data / "alpaca" / "alpaca_data.json.xz")
    receipt = InstructionReceipt()
    receipt.add_file("data", rows)
    parts = arrange({"data": collect([rows], receipt)}, receipt)
    assert {name: len(records) for name, records in parts.items()} == {"train": 44178, "validation": 2599, "test": 5197}
    told = receipt.to_dict()
    assert told["rows"]["read"] == 52002
    assert [(entry["reason"], entry["count"]) for entry in told["dropped"]] == [("has an empty output", 28)]
    assert told["empty_outputs"]["count"] == 28
    kept = arrange({"data": collect([rows], InstructionReceipt(), keep_empty=True)}, InstructionReceipt(), split="book")
    assert [len(records) for records in kept.values()] == [44201, 2601, 5200]


def test_dolly_is_accounted_for(shared_data: Path) -> None:
    receipt = InstructionReceipt()
    rows = read_table(shared_data / "dolly_open_qa" / "dolly_open_qa.jsonl")
    parts = arrange({"data": collect([rows], receipt)}, receipt)
    assert {name: len(records) for name, records in parts.items()} == {"train": 3178, "validation": 187, "test": 374}
    told = receipt.to_dict()
    assert [(entry["reason"], entry["count"]) for entry in told["dropped"]] == [("repeats an earlier record", 3)]
    assert told["shapes"][0]["unused"] == ["category"]
    assert told["shared"]["test"] == {"n": 374, "in_train": 0}
