"""Splits: every text in one part, balanced, seeded; and the book's own split, draw for draw."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptailor.config import ClassifierConfig
from gptailor.data.classification import collect
from gptailor.data.example import Example
from gptailor.data.inputs import read_parts
from gptailor.data.receipt import Receipt
from gptailor.data.splits import Parts, arrange, book, grouped, in_order, stratified, undersample
from gptailor.errors import UserError

# Most texts have one label, some contradict themselves, many repeat; three of each label make a split possible.
ENOUGH = [(f"{label} {number}", label) for label in "ab" for number in range(3)]
PAIRS = st.builds(
    lambda begin, pairs: begin + [(str(number), label or "abc"[number % 3]) for number, label in pairs],
    st.sampled_from([ENOUGH, ENOUGH, []]),
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([None, None, None, None, "a", "b"])), max_size=80),
)
SHARE = st.floats(0.001, 0.4999)


def rows(pairs: list[tuple[str, str]], name: str = "t") -> list[Example]:
    return [Example(text, label, f"{name}:{line}") for line, (text, label) in enumerate(pairs, 1)]


def distinct(name: str = "t", **counts: int) -> list[Example]:
    return rows(
        [(f"{name} {label} {number}", label) for label, count in counts.items() for number in range(count)], name
    )


def split(given: Parts, **options: Any) -> tuple[Parts, Receipt]:
    receipt = Receipt()
    receipt.look([example for examples in given.values() for example in examples])
    return arrange(given, ClassifierConfig.model_validate({"data": "t", **options}), receipt), receipt


def wheres(parts: Parts) -> dict[str, list[str]]:
    return {name: [example.where for example in examples] for name, examples in parts.items()}


def by_label(examples: list[Example]) -> Counter[str]:
    return Counter(example.label for example in examples)


# --- stratified -------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    pairs=PAIRS,
    duplicates=st.sampled_from(["drop", "keep"]),
    balance=st.sampled_from(["none", "undersample"]),
    seed=st.integers(0, 2**31 - 1),
    shares=st.tuples(SHARE, SHARE),
)
def test_every_row_is_in_one_part_or_receipted_and_no_text_in_two(
    pairs: list[tuple[str, str]], duplicates: str, balance: str, seed: int, shares: tuple[float, float]
) -> None:
    examples, receipt = rows(pairs), Receipt()
    receipt.look(examples)
    options: dict[str, Any] = {"duplicates": duplicates, "balance": balance, "seed": seed}
    options |= {"validation_share": shares[0], "test_share": shares[1]}
    try:
        parts = arrange({"data": examples}, ClassifierConfig.model_validate({"data": "t", **options}), receipt)
    except UserError as error:
        assert "too few texts" in str(error)
        return
    kept = [where for part in wheres(parts).values() for where in part]
    dropped = [where for places in receipt.dropped.values() for where in places]
    assert sorted(kept + dropped) == sorted(example.where for example in examples)
    texts = [{example.text for example in part} for part in parts.values()]
    assert sum(map(len, texts)) == len(set().union(*texts))
    assert all(shared["in_train"] == 0 for shared in receipt.shared.values())


@settings(max_examples=150, deadline=None)
@given(n=st.integers(3, 200), shares=st.tuples(SHARE, SHARE), seed=st.integers(0, 1000))
def test_a_part_has_its_share_of_each_label_to_within_one_text(n: int, shares: tuple[float, float], seed: int) -> None:
    named = dict(zip(("validation", "test"), shares, strict=True))
    parts = stratified(distinct(a=n, b=50), named, seed, Receipt())
    for label, count in (("a", n), ("b", 50)):
        held = {name: by_label(part)[label] for name, part in parts.items()}
        assert sum(held.values()) == count
        assert min(held.values()) >= 1
        assert all(abs(held[name] - share * count) < 1 for name, share in named.items())


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(3, (1, 1, 1)), (4, (2, 1, 1)), (10, (7, 1, 2)), (15, (10, 2, 3)), (100, (70, 10, 20)), (1000, (700, 100, 200))],
)
def test_the_usual_shares(n: int, sizes: tuple[int, int, int]) -> None:
    parts, _ = split({"data": distinct(a=n, b=n)})
    assert [by_label(parts[name]) for name in ("train", "validation", "test")] == [{"a": m, "b": m} for m in sizes]


@pytest.mark.parametrize("n", [4, 6, 10])
def test_large_shares_still_leave_something_to_train_on(n: int) -> None:
    parts, _ = split({"data": distinct(a=n, b=n)}, validation_share=0.49, test_share=0.49)
    assert by_label(parts["train"]) == {"a": 1, "b": 1}


def test_the_seed_decides_the_split() -> None:
    examples = distinct(a=40, b=20)
    first, again, other = (wheres(split({"data": examples}, seed=seed)[0]) for seed in (1, 1, 2))
    assert first == again
    assert all(set(first[name]) != set(other[name]) for name in first)


def test_parts_are_shuffled_across_labels() -> None:
    train = [example.label for example in split({"data": distinct(a=100, b=100)})[0]["train"]]
    changes = sum(left != right for left, right in pairwise(train))
    assert changes > len(train) / 4  # sorted by label there would be one, and about half are expected


@pytest.mark.parametrize("n", [1, 2])
def test_a_label_with_too_few_texts_is_only_trained(n: int) -> None:
    parts, receipt = split({"data": distinct(common=20, rare=n)})
    assert [by_label(parts[name])["rare"] for name in ("train", "validation", "test")] == [n, 0, 0]
    assert receipt.warnings == ["1 label(s) with fewer than 3 different texts are trained but not tested: rare"]


def test_repeats_that_are_kept_stay_together() -> None:
    examples = distinct(a=30, b=30) * 3
    parts, receipt = split({"data": examples}, duplicates="keep")
    assert sum(map(len, parts.values())) == 180
    assert all(set(Counter(e.text for e in part).values()) == {3} for part in parts.values())
    assert not receipt.dropped


def test_too_few_texts_are_refused() -> None:
    expected = (
        r"^too few texts for 2 labels: train 4, validation 0, test 0\n"
        r"  expected: at least three different texts for a label\n"
        r"  try:      is --label the right column\?$"
    )
    with pytest.raises(UserError, match=expected):
        split({"data": distinct(a=2, b=2)})


@pytest.mark.parametrize("balance", ["none", "undersample", "weights"])
def test_nothing_but_contradictions_is_refused(balance: str) -> None:
    examples = rows([("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")])
    with pytest.raises(
        UserError, match=r"too few texts for 0 labels: train 0.*4 × has the same text as a row with another label"
    ):
        split({"data": examples}, balance=balance)


# --- balancing --------------------------------------------------------------------------------------------------------


def test_undersampling_leaves_as_many_of_each_label_in_file_order() -> None:
    examples, receipt = distinct(a=30, b=7, c=12), Receipt()
    kept = undersample(examples, 5, receipt)
    assert by_label(kept) == {"a": 7, "b": 7, "c": 7}
    places = [examples.index(example) for example in kept]
    assert places == sorted(places)
    left_out = [example.where for example in examples if example not in kept]
    assert receipt.dropped == {"left out to balance the labels": left_out}
    assert len(left_out) == 28


def test_undersampling_is_seeded() -> None:
    examples = distinct(a=30, b=7)
    drawn = [[example.where for example in undersample(examples, seed, Receipt())] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_split_that_undersamples_is_seeded() -> None:
    examples = distinct(a=40, b=10)
    drawn = [wheres(split({"data": examples}, balance="undersample", seed=seed)[0]) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_undersampling_draws_from_the_whole_file() -> None:
    examples = distinct(a=1000, b=100)
    drawn = [examples.index(example) for example in undersample(examples, 0, Receipt()) if example.label == "a"]
    assert min(drawn) < 100
    assert max(drawn) >= 900


# --- parts that the user has made -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (("test",), {"validation": 10}),
        (("validation",), {"test": 20}),
        (("validation", "test"), {}),
    ],
)
def test_what_is_given_stays_and_what_is_missing_comes_from_train(given: tuple[str, ...], made: dict[str, int]) -> None:
    own = {name: distinct(name, a=30, b=10) for name in given}
    train = distinct("train", a=100, b=100)
    parts, receipt = split({"train": train, **own})
    assert list(parts) == ["train", "validation", "test"]
    for name, examples in own.items():
        assert wheres(parts)[name] == [example.where for example in examples]  # its rows, order and balance
    for name, count in made.items():
        assert by_label(parts[name]) == {"a": count, "b": count}
        assert all(example.where.startswith("train:") for example in parts[name])
    rest = 100 - sum(made.values())
    assert by_label(parts["train"]) == {"a": rest, "b": rest}
    assert not receipt.dropped
    assert not receipt.warnings


def test_balancing_leaves_a_given_test_part_as_it_is() -> None:
    parts, _ = split({"train": distinct("train", a=50, b=20), "test": distinct(a=9, b=3)}, balance="undersample")
    assert by_label(parts["test"]) == {"a": 9, "b": 3}
    assert by_label(parts["train"]) == {"a": 18, "b": 18}


def test_texts_that_the_user_put_into_two_parts_stay_and_are_reported() -> None:
    train = distinct("train", a=20, b=20)
    test = [*distinct("test", a=5, b=5), *rows([(e.text, e.label) for e in train[:2]], "shared")]
    parts, receipt = split({"train": train, "validation": distinct("validation", a=2, b=2), "test": test})
    assert wheres(parts)["test"] == [example.where for example in test]
    assert receipt.shared == {"validation": {"n": 4, "in_train": 0}, "test": {"n": 12, "in_train": 2}}
    assert receipt.warnings == ["2 of 12 test texts stand word for word in the training part"]


def test_a_label_that_is_only_tested_is_reported() -> None:
    given = {"train": distinct("train", a=20, b=20), "test": distinct("test", a=5, b=5, new=1)}
    assert split(given)[1].warnings == ["label 'new' is in the test part but not in the training part"]


# --- the book's split -------------------------------------------------------------------------------------------------


def sms(shared_data: Path, quoting: str) -> list[Example]:
    receipt = Receipt()
    path = shared_data / "sms_spam" / "SMSSpamCollection"
    tables, _ = read_parts(ClassifierConfig.model_validate({"data": str(path), "quoting": quoting}), receipt)
    return collect(tables["data"], None, None, receipt)


# The counts are those of pandas 3 and the book's code with quoting=csv.QUOTE_NONE and with pandas' default quoting.
@pytest.mark.parametrize(("quoting", "read", "in_train"), [("no", 5574, (13, 36)), ("yes", 5572, (13, 37))])
def test_the_books_split_of_sms_spam(shared_data: Path, quoting: str, read: int, in_train: tuple[int, int]) -> None:
    examples = sms(shared_data, quoting)
    parts, receipt = split({"data": examples}, split="book")
    assert len(examples) == read
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [1045, 149, 300]
    assert by_label([example for part in parts.values() for example in part]) == {"ham": 747, "spam": 747}
    assert receipt.shared == {
        "validation": {"n": 149, "in_train": in_train[0]},
        "test": {"n": 300, "in_train": in_train[1]},
    }
    assert len(receipt.dropped["left out to balance the labels"]) == read - 1494


def test_the_books_draws_are_those_of_numpys_old_generator(shared_data: Path) -> None:
    lines = (shared_data / "sms_spam" / "SMSSpamCollection").read_text(encoding="utf-8").splitlines()
    pairs = [(text, label) for label, _, text in (line.partition("\t") for line in lines)]
    ham = [pair for pair in pairs if pair[1] == "ham"]
    spam = [pair for pair in pairs if pair[1] == "spam"]
    # Drawing without replacement is the beginning of a permutation.
    balanced = [ham[n] for n in np.random.RandomState(123).permutation(4827)[:747]] + spam
    expected = [balanced[n] for n in np.random.RandomState(123).permutation(1494)]
    parts, _ = split({"data": sms(shared_data, "no")}, split="book")
    found = [(example.text, example.label) for part in parts.values() for example in part]
    assert found == expected
    # As printed by pandas 3: DataFrame.sample(n, random_state=123), concat, sample(frac=1, random_state=123).
    assert [label for _, label in found[:3]] == ["ham", "ham", "spam"]
    assert [text[:24] for text, _ in found[:3]] == [
        "Dude how do you like the",
        "Ü mean it's confirmed...",
        "Reminder: You have not d",
    ]


def test_the_books_split_takes_all_of_the_rarest_label_and_another_seed_draws_others() -> None:
    examples = distinct(a=30, b=10, c=20)
    first, again, other = (book(examples, ["a", "b", "c"], seed, Receipt()) for seed in (1, 1, 2))
    assert by_label([e for part in first.values() for e in part]) == {"a": 10, "b": 10, "c": 10}
    assert [len(part) for part in first.values()] == [21, 3, 6]
    assert wheres(first) == wheres(again) != wheres(other)


def test_the_books_split_needs_one_file() -> None:
    expected = r"^--split book with separate files for train, test\n  expected: one file with all rows$"
    with pytest.raises(UserError, match=expected):
        split({"train": distinct(a=9, b=9), "test": distinct("t2", a=3, b=3)}, split="book")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"duplicates": "keep"}, "--duplicates"),
        ({"validation_share": 0.2, "test_share": 0.1}, "--validation-share, --test-share"),
        ({"balance": "weights"}, "--balance weights"),
    ],
)
def test_the_books_split_has_its_own_balance_and_shares(options: dict[str, Any], named: str) -> None:
    expected = rf"^--split book with {named}\n  expected: the book's own balance and shares$"
    with pytest.raises(UserError, match=expected):
        split({"data": distinct(a=20, b=20)}, split="book", **options)
    split({"data": distinct(a=20, b=20)}, split="book", balance="undersample")  # which is what the book does


# --- records without labels -------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(keys=st.lists(st.integers(0, 30), max_size=80), validation=SHARE, test=SHARE, seed=st.integers(0, 3))
def test_a_grouped_split_keeps_every_item_once_and_equal_keys_together(
    keys: list[int], validation: float, test: float, seed: int
) -> None:
    items = list(enumerate(keys))
    shares = {"validation": validation, "test": test}
    parts = grouped(items, lambda item: item[1], shares, seed)
    assert sorted(item for members in parts.values() for item in members) == items
    assert all(members == sorted(members) for members in parts.values())
    held = [{key for _, key in members} for members in parts.values()]
    assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    assert all(len(parts[name]) <= max(1, round(share * len(items))) for name, share in shares.items())
    assert parts == grouped(items, lambda item: item[1], shares, seed)


def test_a_grouped_split_of_different_items_has_the_shares_to_the_item() -> None:
    parts = grouped(range(1100), lambda item: item, {"validation": 0.05, "test": 0.1}, 123)
    assert {name: len(members) for name, members in parts.items()} == {"train": 935, "validation": 55, "test": 110}


def test_the_book_s_order() -> None:
    parts = in_order(range(1100))
    assert {name: (members[0], members[-1]) for name, members in parts.items()} == {
        "train": (0, 934),
        "test": (935, 1044),
        "validation": (1045, 1099),
    }
