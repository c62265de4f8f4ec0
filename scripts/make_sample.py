"""Write the sample message set, src/gptailor/assets/sample/messages.csv, byte for byte the same on every run.

    python scripts/make_sample.py [FOLDER]

A small company's inbox with four labels. Besides the hand-written messages that lie next to it, the set holds messages
composed from the tables in make_sample.yaml. An *event* ("the parcel", "arrived late") is put into a *frame* ("I was
told {bad_name} would {bad_base}, but {bad_no}."), which decides the label; context, closing, greeting, signature and a
style of writing go around it. The same events, wishes and contexts serve every label, so that a single word tells
little and the sense of the sentence tells all.
"""

from __future__ import annotations

import csv
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[1] / "src" / "gptailor" / "assets" / "sample"
TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SEED = 7
GENERATED = {"problem": 298, "question": 236, "praise": 248, "change": 185}
CLOSINGS = {  # label: what may follow the frame, in which share of the messages
    "problem": ("{fix}", 0.75),
    "question": ("{thanks_ahead}", 0.3),
    "praise": ("{cheer}", 0.85),
    "change": ("{why}", 0.35),
}
NEAR_DUPLICATE = 0.6  # the largest Jaccard similarity of character 5-grams that two messages may have
LONGEST = 300  # characters


class Deck:
    """Cards dealt one by one in random order; each is dealt once before any is dealt again."""

    def __init__(self, cards: Sequence[str], rng: random.Random) -> None:
        self.cards, self.rng = cards, rng
        self.left: list[str] = []

    def deal(self, taken: Iterable[str] = ()) -> str:
        """The next card that is not among those ``taken``."""
        self.left = self.left or shuffled(self.cards, self.rng)
        card = self.left.pop()
        return self.deal(taken) if card in taken else card


def decks(blocks: Mapping[str, str], rng: random.Random) -> dict[str, Deck]:
    return {name: Deck(block.splitlines(), rng) for name, block in blocks.items()}


def shuffled(items: Sequence, rng: random.Random) -> list:
    """A random order that rests on rng.random() alone, the one draw that Python keeps the same across versions."""
    return [item for _, _, item in sorted((rng.random(), place, item) for place, item in enumerate(items))]


class Slots(dict):
    """What the {slots} of one message stand for, dealt when first needed and then kept: it speaks of one item."""

    def __init__(self, topic: dict[str, Deck], pieces: dict[str, Deck], rng: random.Random) -> None:
        super().__init__(number=str(int(1000 + 9000 * rng.random())))
        self.decks = pieces | topic

    def __missing__(self, slot: str) -> str:
        kind = slot.split("_")[0]
        if kind in ("good", "bad"):
            self.update(event(self.decks[kind].deal(), kind))
        elif slot in ("ask", "whether"):
            self["ask"], self["whether"] = self.decks["ask"].deal().split(" | ")
        else:
            self[slot] = self.decks[slot.rstrip("23")].deal(self.values()).split(" | ")[0]
        return self[slot]

    def fill(self, template: str) -> str:
        """Replace slots until none is left; what they stand for holds slots itself."""
        while "{" in template:
            template = template.format_map(self)
        return re.sub(r" +(?=[ .,:!?]|$)", "", template)


def event(line: str, kind: str) -> dict[str, str]:
    """All forms of one event.

    ``event("the parcel | arrive/arrived late", "bad")`` is {"bad": "the parcel arrived late", "bad_name": "the parcel",
    "bad_base": "arrive late", "bad_not": "the parcel did not arrive late", "bad_why": "did the parcel arrive late",
    "bad_no": "it did not", "bad_yes": "it did"}.
    """
    subject, predicate = line.split(" | ")
    name, _, pronoun = subject.partition(" > ")
    verb, _, rest = predicate.partition(" ")
    base, _, past = verb.partition("/")
    pronoun = pronoun or "it"
    if past:
        helper = short = "did"
    else:  # a form of "to be", which is its own helper
        helper, short, past = verb, "was" if pronoun == "it" else "were", verb
    verb = base if helper == "did" else ""
    return {
        kind: f"{name} {past} {rest}",
        f"{kind}_name": name,
        f"{kind}_base": f"{verb or 'be'} {rest}",
        f"{kind}_not": f"{name} {helper} not {verb} {rest}",
        f"{kind}_why": f"{helper} {name} {verb} {rest}",
        f"{kind}_no": f"{pronoun} {short} not",
        f"{kind}_yes": f"{pronoun} {short}",
    }


class Composer:
    """Composes messages from the tables, drawing on one seeded random source."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.frames = decks(TABLES["frames"], self.rng)
        self.pieces = decks(TABLES["pieces"], self.rng)
        self.topics = {name: decks(blocks, self.rng) for name, blocks in TABLES["topics"].items()}
        self.topic_names = Deck(list(self.topics), self.rng)

    def message(self, label: str) -> str:
        slots = Slots(self.topics[self.topic_names.deal()], self.pieces, self.rng)
        frame = self.chosen(self.frames[label].deal())
        closing, share = CLOSINGS[label]
        has_closing = any(slot in frame for slot in (closing, "cheer", "reason"))
        parts = (
            ("{greeting}", 0.25),
            ("{about}", 0.3),
            (frame, 1),
            (closing, 0 if has_closing else share),
            ("{farewell}", 0.25),
        )
        return self.styled(slots.fill(" ".join(part for part, share in parts if self.chance(share))))

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def chosen(self, frame: str) -> str:
        """The frame with one alternative of each [this|that]."""
        return re.sub(r"\[([^]]*)\]", lambda match: shuffled(match[1].split("|"), self.rng)[0], frame)

    def styled(self, text: str) -> str:
        if self.chance(0.5):
            text = replace_words(text, TABLES["contractions"])
        text = with_capitals(text)
        style = self.rng.random()
        if style < 0.1:
            text = replace_words(text.lower(), TABLES["texting"]).rstrip(".").replace("'", "")
        elif style < 0.2:
            text = text.lower().rstrip(".")
        elif style < 0.25:
            text = re.sub(r"[.,!](?= |$)", "", text)
        elif style < 0.33 and text.endswith(("!", "?")):
            text += text[-1]
        return self.mistyped(text) if self.chance(0.12) else text

    def mistyped(self, text: str) -> str:
        """One slip of the finger inside one longer word: two letters swapped, or one left out."""
        words = [match.span() for match in re.finditer(r"\b[a-z]{6,}\b", text)]
        if not words:
            return text
        start, end = shuffled(words, self.rng)[0]
        at = start + 1 + int(self.rng.random() * (end - start - 3))
        slip = text[at + 1] + text[at] if self.chance(0.5) else text[at]
        return text[:at] + slip + text[at + 2 :]


def replace_words(text: str, table: Mapping[str, str]) -> str:
    """Only before another word: "it's late", but "as it is."."""
    return re.sub(rf"\b({'|'.join(table)})(?= [a-z])", lambda match: table[match[0]], text)


def with_capitals(text: str) -> str:
    return re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def grams(text: str) -> set[str]:
    """The character 5-grams of a text without its capitals, punctuation and digits."""
    text = " ".join(re.sub(r"[^a-z ]", "", text.lower()).split())
    return {text[i : i + 5] for i in range(len(text) - 4)}


class Seen:
    """The messages so far, found by the 5-grams that they share with a new one."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.places: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, text: str) -> None:
        for gram in grams(text):
            self.places[gram].append(len(self.sizes))
        self.sizes.append(len(grams(text)))

    def has_near(self, text: str) -> bool:
        own = grams(text)
        shared = Counter(place for gram in own for place in self.places.get(gram, ()))
        return any(n > NEAR_DUPLICATE * (len(own) + self.sizes[place] - n) for place, n in shared.items())


def compose(handwritten: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The whole set as (text, label): the hand-written messages and the composed ones, mixed."""
    composer, rows, seen = Composer(SEED), list(handwritten), Seen()
    for text, _ in rows:
        seen.add(text)
    for label, count in GENERATED.items():
        goal = len(rows) + count
        while len(rows) < goal:
            text = composer.message(label)
            if len(text) <= LONGEST and not seen.has_near(text):
                rows.append((text, label))
                seen.add(text)
    return shuffled(rows, composer.rng)


def read(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("text", "label"))
        writer.writerows(rows)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    write(folder / "messages.csv", compose(read(FOLDER / "handwritten.csv")))
