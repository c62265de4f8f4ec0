"""Texts from frames and words: a small grammar whose notation make_text.yaml explains at its top."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from make_text_english import plural, with_articles

Item = TypeVar("Item")
SPARE = 8  # a list at least this long does not give the same word twice in one document


@dataclass(frozen=True)
class Slot:
    name: str
    kept: bool  # drawn once per document
    column: int
    many: bool  # in the plural


@dataclass(frozen=True)
class Number:
    least: int
    most: int


@dataclass(frozen=True)
class Choice:
    options: tuple[tuple, ...]


def parse(frame: str) -> tuple:
    """A frame as the sequence of its parts: strings, slots, numbers and choices of such sequences."""
    tokens = re.findall(r"\{[^}]*\}|[\[\]|]|[^{\[\]|]+", frame)
    parts, rest = parse_parts(tokens, 0, inside=False)
    if rest != len(tokens):
        raise ValueError(f"a ] too many in: {frame}")
    return parts


def parse_parts(tokens: Sequence[str], at: int, inside: bool) -> tuple[tuple, int]:
    parts: list = []
    while at < len(tokens) and not (inside and tokens[at] in "|]") and tokens[at] != "]":
        if tokens[at] == "[":
            choice, at = parse_choice(tokens, at + 1)
            parts.append(choice)
        else:
            parts.append(slot(tokens[at]) if tokens[at][0] == "{" else tokens[at])
            at += 1
    return tuple(parts), at


def parse_choice(tokens: Sequence[str], at: int) -> tuple[Choice, int]:
    options = []
    while True:
        option, at = parse_parts(tokens, at, inside=True)
        options.append(option)
        if tokens[at] == "]":
            return Choice(tuple(options)), at + 1
        at += 1


def slot(token: str) -> Slot | Number:
    if match := re.fullmatch(r"\{#(\d+)-(\d+)\}", token):
        return Number(int(match[1]), int(match[2]))
    match = re.fullmatch(r"\{(=?)([a-z_0-9]+)(?:\.(\d))?(\*?)\}", token)
    if not match:
        raise ValueError(f"not a slot: {token}")
    return Slot(match[2], bool(match[1]), int(match[3] or 0), bool(match[4]))


class Grammar:
    """Writes texts by rule name, drawing on one random source.

    Only ``rng.random()`` is used, the draw that Python keeps the same from version to version.
    """

    def __init__(self, rules: Mapping[str, str], rng: random.Random) -> None:
        lines = {name: block.removesuffix("\n").split("\n") for name, block in rules.items()}
        entries = {name: [entry for line in block for entry in line.split("; ")] for name, block in lines.items()}
        self.rules = {name: [self.entry(text) for text in texts] for name, texts in entries.items()}
        self.rules["_"] = [((" ",),)]
        self.rng = rng
        self.begin()

    @staticmethod
    def entry(text: str) -> tuple[tuple, ...]:
        """The columns of an entry."""
        return tuple(parse(column.strip().replace("\\n", "\n")) for column in text.split(" / "))

    def begin(self) -> None:
        """Start a new document: nothing is kept, every word is fresh."""
        self.kept: dict[str, tuple] = {}
        self.used: set[int] = set()

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self.rng.random() * len(items))]

    def number(self, least: int, most: int) -> int:
        return least + int(self.rng.random() * (most - least + 1))

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def some(self, items: Sequence[Item], count: int) -> list[Item]:
        """``count`` different items in random order."""
        order = sorted((self.rng.random(), place) for place in range(len(items)))
        return [items[place] for _, place in order[:count]]

    def write(self, rule: str) -> str:
        """One document of the rule."""
        self.begin()
        return self.tidy(self.expand((Slot(rule, False, 0, False),)))

    def frame(self, text: str) -> str:
        """Expand a frame that stands in the code."""
        return self.tidy(self.expand(parsed(text)))

    def expand(self, parts: tuple) -> str:
        written = []
        for part in parts:
            if isinstance(part, str):
                written.append(part)
            elif isinstance(part, Choice):
                written.append(self.expand(self.pick(part.options)))
            elif isinstance(part, Number):
                written.append(str(self.number(part.least, part.most)))
            else:
                written.append(self.fill(part))
        return "".join(written)

    def fill(self, part: Slot) -> str:
        if not part.kept:
            columns = self.draw(part.name)
        elif part.name in self.kept:
            columns = self.kept[part.name]
        else:  # a word that is kept must read the same wherever it returns, so its own slots are settled now
            columns = tuple((self.expand(column),) for column in self.draw(part.name))
            self.kept[part.name] = columns
        text = self.expand(columns[part.column])
        return plural(text) if part.many else text

    def draw(self, name: str) -> tuple:
        entries = self.rules[name]
        found = self.pick(entries)
        if len(entries) >= SPARE:
            for _ in range(3):
                if id(found) not in self.used:
                    break
                found = self.pick(entries)
            self.used.add(id(found))
        return found

    @staticmethod
    def tidy(text: str) -> str:
        """Fit articles, blanks and stops that met where parts were joined."""
        text = with_articles(text)
        text = re.sub(r"([?!])\s*[.,!](?=\s|$)", r"\1", text)
        text = re.sub(r"(?<!\.)\.\s*\.(?=\s|$)", ".", text)
        text = re.sub(r" +(?=[.,!?](\s|$))|(?<= ) +| +(?=\n|$)", "", text)
        return re.sub(r"[.,](?=[,.]\s)|,(?=$)", "", text).strip()


@cache
def parsed(frame: str) -> tuple:
    return parse(frame)


def capitalised(text: str) -> str:
    """Capitals at the start of sentences and lines."""
    return re.sub(r"(^|[.!?] |\n|\n\w+: |^\w+: )([a-z])", lambda match: match[1] + match[2].upper(), text)
