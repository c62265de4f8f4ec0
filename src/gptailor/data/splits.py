"""Seeded splits into train, validation and test, in which no text stands in two parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from gptailor.config import ClassifierConfig
from gptailor.data.classification import drop_repeats, label_names
from gptailor.data.example import Example
from gptailor.data.receipt import Receipt
from gptailor.errors import UserError, listing

Parts = dict[str, list[Example]]
T = TypeVar("T")


def arrange(given: Parts, config: ClassifierConfig, receipt: Receipt) -> Parts:
    """The parts train, validation and test as the configuration wants them, receipted.

    Args:
        given: ``{"data": [...]}``, or ``train`` with or without the other two, as the user's files have it. A part that
            is not given is split off the training part. Parts that are given keep their balance, and a text that the
            user has put into two of them stays in both and is reported.

    Raises:
        UserError: when the options do not fit the data.
    """
    if config.split == "book":
        if given.keys() != {"data"}:
            raise UserError(
                f"--split book with separate files for {', '.join(given)}", expected="one file with all rows"
            )
        ignored = [name for name in ("duplicates", "validation_share", "test_share") if _changed(config, name)]
        if ignored or config.balance == "weights":
            options = ", ".join("--" + name.replace("_", "-") for name in ignored or ["balance weights"])
            raise UserError(f"--split book with {options}", expected="the book's own balance and shares")
        parts = book(given["data"], label_names(given["data"]), config.seed, receipt)
    else:
        if config.duplicates == "drop":
            given = {name: drop_repeats(members, receipt) for name, members in given.items()}
        train = given.get("data", given.get("train", []))
        if config.balance == "undersample":
            train = undersample(train, config.seed, receipt)
        shares = {"validation": config.validation_share, "test": config.test_share}
        missing = {name: share for name, share in shares.items() if name not in given}
        parts = {**given, **stratified(train, missing, config.seed, receipt)}
        parts = {name: parts[name] for name in ("train", "validation", "test")}
    receipt.part(parts)
    _check(parts, receipt)
    return parts


def _changed(config: ClassifierConfig, name: str) -> bool:
    return getattr(config, name) != type(config).model_fields[name].default


def _check(parts: Parts, receipt: Receipt) -> None:
    """Every part must have texts, and what is tested must have been trained on."""
    empty = [name for name, members in parts.items() if not members]
    if empty:
        sizes = ", ".join(f"{name} {len(members)}" for name, members in parts.items())
        labels = {example.label for members in parts.values() for example in members}
        found = f"too few texts for {len(labels)} labels: {sizes}{receipt.why()}"
        raise UserError(
            found, expected="at least three different texts for a label", hint="is --label the right column?"
        )
    trained = {example.label for example in parts["train"]}
    for name in ("validation", "test"):
        for label in sorted({example.label for example in parts[name]} - trained):
            receipt.warn(f"label {label!r} is in the {name} part but not in the training part")
        shared = receipt.shared[name]
        if shared["in_train"]:
            receipt.warn(f"{shared['in_train']} of {shared['n']} {name} texts stand word for word in the training part")


def stratified(examples: Sequence[Example], shares: Mapping[str, float], seed: int, receipt: Receipt) -> Parts:
    """Splits so that each part has the label balance of the whole, and all rows of one text are in one part.

    Args:
        shares: share of each part but ``train``, which gets the rest: of 10 texts with one label, 0.1 and 0.2 give
            1, 2 and 7. Each part gets at least one text of a label; a label with fewer texts than there are parts is
            only trained on, with a warning in the receipt.
        seed: seed of the shuffle.
    """
    random = np.random.default_rng(seed)
    parts: Parts = {"train": [], **{name: [] for name in shares}}
    rare: list[str] = []
    for label, groups in sorted(_texts_by_label(examples).items()):
        order = [groups[index] for index in random.permutation(len(groups))]
        testable = len(order) > len(shares)
        if not testable:
            rare.append(label)
        begin = 0
        for to_come, (name, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
            most = len(order) - begin - to_come  # so that the parts to come, with train, get one each
            end = begin + min(max(1, round(share * len(order))), most) * testable
            parts[name] += [example for group in order[begin:end] for example in group]
            begin = end
        parts["train"] += [example for group in order[begin:] for example in group]
    if rare:
        few = f"fewer than {len(shares) + 1} different texts"
        receipt.warn(f"{len(rare)} label(s) with {few} are trained but not tested: {listing(rare)}")
    return {name: [members[index] for index in random.permutation(len(members))] for name, members in parts.items()}


def _texts_by_label(examples: Sequence[Example]) -> dict[str, list[list[Example]]]:
    """The rows of each different text, under the label of the first of them."""
    by_text: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_text[example.text].append(example)
    by_label: dict[str, list[list[Example]]] = defaultdict(list)
    for group in by_text.values():
        by_label[group[0].label].append(group)
    return by_label


def book(examples: Sequence[Example], names: Sequence[str], seed: int, receipt: Receipt) -> Parts:
    """The book's split: balance by undersampling, shuffle, then 70 / 10 / 20 in order, repeats and all.

    With seed 123 the draws are those of pandas' ``sample(random_state=123)``, so the parts are the book's. It reads its
    file with quotes as delimiters, which swallows two rows: then 37 test texts stand in the training part, else 36.
    """
    by_label = [[example for example in examples if example.label == name] for name in names]
    size = min(len(members) for members in by_label)
    balanced: list[Example] = []
    for members in by_label:
        chosen = np.random.RandomState(seed).choice(len(members), size, replace=False)
        balanced += members if len(members) == size else [members[index] for index in chosen]
    _drop_rest(examples, balanced, receipt)
    order = np.random.RandomState(seed).choice(len(balanced), len(balanced), replace=False)
    shuffled = [balanced[index] for index in order]
    train, validation = int(0.7 * len(shuffled)), int(0.1 * len(shuffled))
    return {
        "train": shuffled[:train],
        "validation": shuffled[train : train + validation],
        "test": shuffled[train + validation :],
    }


def undersample(examples: Sequence[Example], seed: int, receipt: Receipt) -> list[Example]:
    """As many examples of every label as the rarest has, drawn by ``seed``; file order is kept."""
    random = np.random.default_rng(seed)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        rows[example.label].append(row)
    size = min((len(members) for members in rows.values()), default=0)
    chosen = sorted(int(row) for _, members in sorted(rows.items()) for row in random.permutation(members)[:size])
    kept = [examples[row] for row in chosen]
    _drop_rest(examples, kept, receipt)
    return kept


def _drop_rest(examples: Sequence[Example], kept: Sequence[Example], receipt: Receipt) -> None:
    stay = {id(example) for example in kept}
    for example in examples:
        if id(example) not in stay:
            receipt.drop("left out to balance the labels", example.where)


def grouped(
    items: Sequence[T], key: Callable[[T], Hashable], shares: Mapping[str, float], seed: int
) -> dict[str, list[T]]:
    """Splits so that items with the same key are in one part; each part keeps the order of the items.

    Args:
        shares: share of the items in each part but ``train``, which gets the rest; at least one item.
        seed: decides which groups fill a part; one that is too large for the room that is left goes elsewhere.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, item in enumerate(items):
        groups[key(item)].append(row)
    ordered, room = list(groups.values()), {name: max(1, round(share * len(items))) for name, share in shares.items()}
    parts: dict[str, list[int]] = {"train": [], **{name: [] for name in shares}}
    for index in np.random.default_rng(seed).permutation(len(ordered)):
        group = ordered[index]
        parts[next((name for name in shares if len(parts[name]) + len(group) <= room[name]), "train")] += group
    return {name: [items[row] for row in sorted(rows)] for name, rows in parts.items()}


def in_order(items: Sequence[T]) -> dict[str, list[T]]:
    """The book's split of instructions: the first 85 % to train on, the next 10 % to test, the rest for validation."""
    train, test = int(0.85 * len(items)), int(0.1 * len(items))
    return {
        "train": list(items[:train]),
        "validation": list(items[train + test :]),
        "test": list(items[train : train + test]),
    }
