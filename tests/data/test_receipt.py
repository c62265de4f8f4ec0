"""The receipt accounts for every row: what was read is kept or dropped, with its reason and line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptailor.config import ClassifierConfig
from gptailor.data.classification import collect
from gptailor.data.example import Example
from gptailor.data.inputs import read_parts
from gptailor.data.receipt import SHOWN, InstructionReceipt, PreferenceReceipt, Receipt
from gptailor.data.splits import arrange
from gptailor.data.table import Dropped, Table
from gptailor.errors import UserError

TEXTS = st.sampled_from(["", " ", "a", "b", "c", "d", "e", "f"]) | st.text(max_size=3) | st.none()
LABELS = st.sampled_from(["", "x", "y", "z", " x"]) | st.none()
ENOUGH = [(f"{label} {number}", label) for number in range(8) for label in "xy"]  # for each part to get some
ROWS = st.builds(
    lambda enough, rows: enough + rows,
    st.sampled_from([ENOUGH, ENOUGH, ENOUGH, []]),
    st.lists(st.tuples(TEXTS, LABELS), min_size=1, max_size=40),
)


def table(rows: list[tuple[str | None, str | None]], unreadable: int = 0, name: str = "t.csv") -> Table:
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    dropped = [Dropped(len(rows) + 1 + number, "not valid UTF-8") for number in range(unreadable)]
    return Table(Path(name), "0" * 64, 1, "csv", columns, list(range(1, len(rows) + 1)), dropped)


def receive(tables: dict[str, Table], config: ClassifierConfig) -> tuple[Receipt, bool]:
    """The receipt as a run fills it, and whether the rows were enough for all parts."""
    receipt = Receipt()
    for part, one in tables.items():
        receipt.add_file(part, one)
    given = {part: collect([one], None, None, receipt) for part, one in tables.items()}
    receipt.look([example for examples in given.values() for example in examples])
    try:
        arrange(given, config, receipt)
    except UserError:
        return receipt, False
    return receipt, True


@settings(max_examples=120, deadline=None)
@given(
    rows=ROWS,
    test=st.none() | ROWS,
    unreadable=st.integers(0, 3),
    duplicates=st.sampled_from(["drop", "keep"]),
    balance=st.sampled_from(["none", "undersample"]),
    split=st.sampled_from(["stratified", "book"]),
)
def test_what_is_read_is_kept_or_dropped(
    rows: list[tuple[str | None, str | None]],
    test: list[tuple[str | None, str | None]] | None,
    unreadable: int,
    duplicates: str,
    balance: str,
    split: str,
) -> None:
    options = {"duplicates": duplicates, "balance": balance, "split": split}
    config = ClassifierConfig.model_validate({"data": "t.csv"} | options)
    tables = {"data": table(rows, unreadable)} if test is None else {"train": table(rows), "test": table(test, 0, "u")}
    receipt, enough = receive(tables, config)
    told = receipt.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["rows"]["read"] == len(rows) + len(test or []) + (unreadable if test is None else 0)
    places = [place for places in receipt.dropped.values() for place in places]
    assert len(set(places)) == len(places)  # no row is dropped twice
    if enough:
        assert told["rows"]["read"] == told["rows"]["kept"] + told["rows"]["dropped"]
        for counts in told["labels"].values():
            assert counts["kept"] == counts["train"] + counts["validation"] + counts["test"] <= counts["read"]


def test_a_worked_receipt() -> None:
    rows: list[tuple[str | None, str | None]] = [(f"{label} {n}", label) for label in "xy" for n in range(10)]
    rows += [("x 0", "x"), ("x 0", "x"), ("y 0", "y"), ("both", "x"), ("both", "y"), ("both", "x"), ("", "x")]
    receipt, enough = receive({"data": table(rows, unreadable=1)}, ClassifierConfig(data="t.csv"))
    told = receipt.to_dict()
    assert enough
    assert (told["columns"], receipt.text_columns) == ({"text": "text", "label": "label"}, ["text"])
    assert told["files"] == [
        {"part": "data", "path": "t.csv", "sha256": "0" * 64, "bytes": 1, "format": "csv", "rows": 28, "said": []}
    ]
    assert told["rows"] == {"read": 28, "kept": 20, "dropped": 8, "cut": 0}
    assert told["dropped"] == [
        {"reason": "repeats an earlier text", "count": 3, "lines": ["t.csv:21", "t.csv:22", "t.csv:23"]},
        {
            "reason": "has the same text as a row with another label",
            "count": 3,
            "lines": ["t.csv:24", "t.csv:25", "t.csv:26"],
        },
        {"reason": "not valid UTF-8", "count": 1, "lines": ["t.csv:28"]},
        {"reason": "has no text", "count": 1, "lines": ["t.csv:27"]},
    ]
    assert told["duplicates"] == {"rows": 5, "by_label": {"x": 3, "y": 2}}
    assert told["conflicts"] == {
        "texts": 1,
        "rows": 3,
        "examples": [{"text": "both", "labels": {"x": 2, "y": 1}, "lines": ["t.csv:24", "t.csv:25", "t.csv:26"]}],
    }
    assert told["labels"] == {
        "x": {"read": 14, "kept": 10, "train": 7, "validation": 1, "test": 2},
        "y": {"read": 12, "kept": 10, "train": 7, "validation": 1, "test": 2},
    }
    assert told["shared"] == {"validation": {"n": 2, "in_train": 0}, "test": {"n": 4, "in_train": 0}}
    assert told["warnings"] == []


def test_long_lists_are_shown_in_part_and_counted_whole() -> None:
    receipt = Receipt()
    for line in range(SHOWN + 5):
        receipt.drop("has no text", f"t:{line}")
        receipt.encoded(line + 1, 10, f"t:{line}")
    told = receipt.to_dict()
    assert told["dropped"][0]["count"] == SHOWN + 5
    assert told["dropped"][0]["lines"] == [f"t:{line}" for line in range(SHOWN)]
    assert told["cut"]["count"] == told["rows"]["cut"] == SHOWN + 5 - 10
    assert told["cut"]["limit"] == 10
    assert told["cut"]["lines"][0] == "t:10"  # the eleventh text is the first with more than ten tokens


def test_several_text_columns_are_told_as_they_are_joined() -> None:
    receipt = Receipt()
    assert (receipt.text_columns, receipt.columns, receipt.limit) == ([], {}, 0)
    receipt.add_columns(["title", "body"], "kind")
    assert receipt.text_columns == ["title", "body"]
    assert receipt.to_dict()["columns"] == {"text": "title + body", "label": "kind"}


def test_labels_that_differ_only_in_case_or_spaces_are_told() -> None:
    receipt = Receipt()
    names = ["Not  Spam", "spam", "not spam", "notspam"]
    receipt.look([Example(str(line), name, f"t:{line}") for line, name in enumerate(names)])
    told = "labels that differ only in case or spaces are kept apart: 'Not  Spam', 'not spam'"
    assert receipt.warnings == [told]


def test_test_texts_that_stand_in_validation_are_told() -> None:
    receipt = Receipt()
    parts = {"train": ["a", "b"], "validation": ["c", "d"], "test": ["c", "e", "c"]}
    examples = {name: [Example(text, "x", f"{name}:{text}") for text in texts] for name, texts in parts.items()}
    receipt.look([example for each in examples.values() for example in each])
    receipt.part(examples)
    assert receipt.warnings == ["2 of 3 test texts stand in the validation part, by which the weights are chosen"]


def test_why_rows_are_left_out() -> None:
    receipt = Receipt()
    assert receipt.why() == ""
    receipt.read = 1003
    for reason, where in (("has no text", "t:1"), ("has no text", "t:2"), ("has no label", "t:3")):
        receipt.drop(reason, where)
    assert receipt.why() == " (1,003 rows read; left out: 2 × has no text; 1 × has no label)"


def test_a_warning_is_said_once() -> None:
    receipt = Receipt()
    for message in ("one", "two", "one"):
        receipt.warn(message)
    assert receipt.to_dict()["warnings"] == ["one", "two"]


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ([], {}),
        (
            [1, 2, 2, 4],
            {"mean": 2.2, "median": 2.0, "p95": 3.7, "max": 4, "edges": [0, 1, 2, 3, 4], "counts": [0, 1, 2, 1]},
        ),
    ],
)
def test_lengths_are_described(lengths: list[int], told: dict[str, object]) -> None:
    receipt = Receipt()
    for length in lengths:
        receipt.encoded(length, 100, "t:1")
    assert receipt.to_dict()["lengths"] == told


def test_long_lengths_share_twenty_bars_up_to_the_longest() -> None:
    receipt = Receipt()
    for length in range(1, 1001):
        receipt.encoded(length, 512, "t:1")
    lengths = receipt.to_dict()["lengths"]
    assert lengths["edges"] == [50.0 * number for number in range(21)]
    assert lengths["counts"] == [49, *[50] * 18, 51]  # a bar holds its lower edge; the last holds both
    assert lengths["p95"] == 950.0  # of 950.05, the place of 95 % between the first and the last


def test_edges_are_told_to_a_tenth_of_a_token() -> None:
    receipt = Receipt()
    receipt.encoded(25, 512, "t:1")
    assert receipt.to_dict()["lengths"]["edges"][:3] == [0, 1.2, 2.5]  # steps of 1.25


def test_sms_spam_is_accounted_for(shared_data: Path) -> None:
    config = ClassifierConfig(data=str(shared_data / "sms_spam" / "SMSSpamCollection"))
    receipt = Receipt()
    tables, _ = read_parts(config, receipt)
    examples = collect(tables["data"], None, None, receipt)
    assert Counter(example.label for example in examples) == {"ham": 4827, "spam": 747}
    receipt.look(examples)
    arrange({"data": examples}, config, receipt)
    told = receipt.to_dict()
    assert told["rows"] == {"read": 5574, "kept": 5171, "dropped": 403, "cut": 0}
    assert told["duplicates"] == {"rows": 403, "by_label": {"ham": 309, "spam": 94}}
    assert told["conflicts"] == {"texts": 0, "rows": 0, "examples": []}
    assert [(entry["reason"], entry["count"]) for entry in told["dropped"]] == [("repeats an earlier text", 403)]
    assert {label: counts["kept"] for label, counts in told["labels"].items()} == {"ham": 4518, "spam": 653}
    assert told["shared"]["test"] == {
        "n": told["labels"]["ham"]["test"] + told["labels"]["spam"]["test"],
        "in_train": 0,
    }
    assert any("quotes are ordinary characters" in sentence for sentence in told["files"][0]["said"])


# --- conversations and pairs ------------------------------------------------------------------------------------------


def learned(*flags: int) -> np.ndarray:
    return np.array(flags, bool)


def test_a_worked_receipt_of_conversations() -> None:
    receipt, rows = InstructionReceipt(), table([("a", "b")] * 9)
    receipt.add_file("data", rows)
    receipt.add_shape(rows, "pairs", ["label"])
    receipt.drop("has no answer", "t.csv:9")
    receipt.arranged({"train": ["a", "b", "a"], "validation": ["a", "c"], "test": ["c", "d"]})
    receipt.learn("train", learned(0, 0, 1, 1))
    receipt.learn("train", learned(0, 1, 1, 0, 0))
    receipt.learn("test", learned(0, 1))
    receipt.fitted({"train": 3, "validation": 2, "test": 2}, 64, prompts_over=1)
    receipt.lengths += [3, 4, 1]
    receipt.empty_outputs += [f"t.csv:{line}" for line in range(SHOWN + 1)]
    receipt.unanswered += [f"u.csv:{line}" for line in range(SHOWN + 2)]
    told = receipt.to_dict()
    assert [entry["rows"] for entry in told.pop("files")] == [9]
    assert told.pop("lengths")["max"] == 4
    assert told == {
        "rows": {"read": 9, "kept": 7, "dropped": 1, "cut": 0},
        "dropped": [{"reason": "has no answer", "count": 1, "lines": ["t.csv:9"]}],
        "cut": {"count": 0, "limit": 64, "lines": []},
        "shared": {"validation": {"n": 2, "in_train": 1}, "test": {"n": 2, "in_train": 0}},
        "warnings": ["1 of 2 validation questions stand word for word in the training part"],
        "shapes": [{"path": "t.csv", "shape": "pairs", "columns": ["label"], "unused": ["text"]}],
        "parts": {"train": 3, "validation": 2, "test": 2},
        "empty_outputs": {"count": SHOWN + 1, "lines": [f"t.csv:{line}" for line in range(SHOWN)]},
        "unanswered": {"count": SHOWN + 2, "lines": [f"u.csv:{line}" for line in range(SHOWN)]},
        "prompts_over": 1,
        "responses_cut": 0,
        "turns_cut": 0,
        "tokens": {
            # The first token is no target: nothing foretells it. 4 of 7 targets are learned, one record has no end.
            "train": {"records": 2, "targets": 7, "learned": 4, "ends": 1, "learned_share": 0.5714},
            "test": {"records": 1, "targets": 1, "learned": 1, "ends": 1, "learned_share": 1.0},
        },
    }


def test_a_worked_receipt_of_pairs() -> None:
    receipt, rows = PreferenceReceipt(), table([("a", "b")] * 6)
    receipt.add_file("data", rows)
    receipt.learn("train", learned(0, 0, 1, 1, 1), learned(0, 0, 1, 1))
    receipt.learn("train", learned(0, 1, 1), learned(0, 1))
    receipt.learn("train", learned(0, 1), learned(0, 0, 1, 1, 1, 1))
    for _ in range(3):
        receipt.learn("test", learned(0, 1, 1), learned(0, 0, 1, 1))
    receipt.identical += [f"t.csv:{line}" for line in range(SHOWN + 3)]
    receipt.empty_sides["rejected"] += [f"u.csv:{line}" for line in range(SHOWN + 1)]
    told = receipt.to_dict()
    assert not told.keys() & {"empty_outputs", "unanswered", "turns_cut", "labels", "conflicts", "duplicates"}
    assert (told["responses_cut"], told["prompts_over"], told["shapes"], told["rows"]["read"]) == (0, 0, [], 6)
    assert told["identical"] == {"count": SHOWN + 3, "lines": [f"t.csv:{line}" for line in range(SHOWN)]}
    assert told["empty_sides"] == {
        "chosen": {"count": 0, "lines": []},
        "rejected": {"count": SHOWN + 1, "lines": [f"u.csv:{line}" for line in range(SHOWN)]},
    }
    assert told["tokens"] == {
        "train": {"pairs": 3, "chosen": 6, "rejected": 7, "chosen_longer": 2, "rejected_longer": 1},
        "test": {"pairs": 3, "chosen": 6, "rejected": 6, "chosen_longer": 0, "rejected_longer": 0},
    }
    assert told["length_bias"] == {
        "pairs": 6, "chosen_longer": 0.3333, "rejected_longer": 0.1667, "mean_chosen": 2.0, "mean_rejected": 2.2
    }  # fmt: skip


def test_without_pairs_nothing_is_said_of_their_lengths() -> None:
    told = PreferenceReceipt().to_dict()
    assert [told[key] for key in ("length_bias", "tokens", "lengths", "parts")] == [{}] * 4
