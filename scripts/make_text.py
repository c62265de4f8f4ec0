"""Write text for pretraining a small model: messages, adverts, opinions, questions, answers, some Swahili.

    python scripts/make_text.py OUT.jsonl --documents 200000 --seed 1 --data FOLDER
    python scripts/make_text.py --check FILE... --data FOLDER

Every line of OUT.jsonl is {"text": ..., "kind": ...}. Frames and words come from make_text.yaml, those of opinions,
customers' messages and Swahili from make_text_opinion.yaml, make_text_service.yaml and make_text_swahili.yaml, the
facts and words of the instructions from make_text_facts.yaml; the answers are computed (make_text_tasks.py). What
make_text_mail.yaml and the folder written add, and the rules ..._said, are for make_text_labels.py alone. The same seed
writes the same bytes. No document is written twice, and none that shares text with the sample of the repository or,
where --data names their folder, with the sets that models are measured on: such a document is drawn afresh. --check
reports the documents of a file that do.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from make_text_check import Checker, evaluation_texts
from make_text_grammar import Grammar, capitalised
from make_text_tasks import QUESTIONS, Tasks

FOLDER = Path(__file__).parent
GRAMMARS = (
    "make_text.yaml",
    "make_text_opinion.yaml",
    "make_text_service.yaml",
    "make_text_mail.yaml",
    "make_text_swahili.yaml",
)
WRITTEN = {  # file of the folder written, texts that stand behind their label: how the names of its rules begin
    "inbox.tsv": "ev_inbox_",
    "reviews.tsv": "op_review_",
    "posts.tsv": "sw_post_",
    # in sets: about one thing, in many of the same words, a text of each label
    "mail.tsv": "ev_set_",
    "films.tsv": "op_set_",
    "phone.tsv": "phone_set_",
    "questions.tsv": "ask_set_",
    "swahili.tsv": "sw_set_",
}
SHARES = {  # kind: its share of the documents
    "text": 0.09,
    "chat": 0.035,
    "mail": 0.04,
    "advert": 0.035,
    "scam": 0.04,
    "notice": 0.04,
    "review": 0.10,
    "question": 0.07,
    "instruction": 0.24,
    "service": 0.10,
    "opinion": 0.14,
    "swahili": 0.07,
}
ATTEMPTS = 1000  # draws of one document before the kind counts as used up


def table(name: str) -> dict:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def rules() -> dict[str, str]:
    """The rules of all grammars together, by name."""
    parts = [table(file)[part] for file in GRAMMARS for part in ("words", "frames")]
    parts += [written(file, prefix) for file, prefix in WRITTEN.items()]
    return {name: rule for part in parts for name, rule in part.items()}


def written(file: str, prefix: str) -> dict[str, str]:
    """The rules of a file of texts: for each label, the texts that it stands before."""
    texts: dict[str, list[str]] = {}
    for line in (FOLDER / "written" / file).read_text(encoding="utf-8").splitlines():
        label, text = line.split("\t")
        texts.setdefault(prefix + label, []).append(text)
    return {name: "\n".join(rule) for name, rule in texts.items()}


class Writer:
    """Writes documents of every kind."""

    def __init__(self, seed: int) -> None:
        self.grammar = Grammar(rules(), random.Random(seed))
        self.tasks = Tasks(table("make_text_facts.yaml"), self.grammar)
        pairs = [entry.split(" / ") for entry in table("make_text.yaml")["texting"].strip().split("; ")]
        self.texting = dict(pairs)
        self.texting_pattern = re.compile(rf"\b({'|'.join(map(re.escape, self.texting))})\b")
        self.kinds: dict[str, Callable[[], str]] = {
            "text": lambda: self.lines(lambda: self.typed(self.grammar.write("text"))),
            "chat": lambda: self.typed(self.grammar.write("chat")),
            "mail": lambda: capitalised(self.grammar.write("mail")),
            "advert": lambda: capitalised(self.grammar.write("advert")),
            "scam": lambda: self.shouted(capitalised(self.grammar.write("scam"))),
            "notice": lambda: capitalised(self.grammar.write("notice")),
            "review": lambda: self.reviewed(self.grammar.write(self.grammar.pick(("good", "bad")))),
            "question": lambda: self.lines(self.question),
            "instruction": self.tasks.document,
            "service": lambda: self.customer(self.grammar.write("service")),
            "opinion": lambda: self.reviewed(self.grammar.write("opinion"), apart=0.5),
            "swahili": lambda: self.tweeted(self.grammar.write("swahili")),
        }

    def lines(self, write: Callable[[], str]) -> str:
        """One to four texts of a kind, a line each: short texts alone would soon repeat themselves."""
        number = self.grammar.pick((1, 1, 1, 1, 2, 2, 3, 4))
        return "\n".join(write() for _ in range(number))

    def typed(self, text: str) -> str:
        """The text as someone types it on a phone: in full, in small letters, or in short forms."""
        style = self.grammar.rng.random()
        if style < 0.25:
            text = self.texting_pattern.sub(self.shortened, text.lower())
        elif style < 0.5:
            text = text.lower().rstrip(".")
        else:
            text = capitalised(text)
        if self.grammar.chance(0.12):
            text = re.sub(r"(?<=[a-z])'(?=[a-z])", "", text)
        return self.slipped(text) if self.grammar.chance(0.08) else text

    def shortened(self, match: re.Match[str]) -> str:
        return self.texting[match[0]] if self.grammar.chance(0.6) else match[0]

    def slipped(self, text: str) -> str:
        """Two letters of one longer word swapped."""
        spots = [match.start() for match in re.finditer(r"\B[a-z](?=[a-z]{3})", text)]
        if not spots:
            return text
        at = self.grammar.pick(spots)
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]

    def shouted(self, text: str) -> str:
        style = self.grammar.rng.random()
        if style < 0.05:
            return text.upper()
        if style < 0.15:
            return self.texting_pattern.sub(self.shortened, text)
        return text.lower() if style < 0.2 else text

    def reviewed(self, text: str, apart: float = 0.25) -> str:
        """As typed by a guest, or in small letters with every stop set apart, as old collections of texts have it."""
        style = self.grammar.rng.random()
        if style < apart:
            return set_apart(text.lower())
        return text.lower() if style < apart + 0.1 else capitalised(text)

    def customer(self, text: str) -> str:
        """As a customer writes it: mostly with care, now and then in small letters."""
        return text.lower() if self.grammar.chance(0.15) else capitalised(text)

    def tweeted(self, text: str) -> str:
        """With capitals, without them, or all in capitals."""
        style = self.grammar.rng.random()
        if style < 0.3:
            return text.lower()
        return text.upper() if style < 0.34 else capitalised(text)

    def question(self) -> str:
        text = capitalised(self.grammar.write(self.grammar.pick(tuple(QUESTIONS))))
        style = self.grammar.rng.random()
        if style < 0.3:
            return set_apart(text)
        if style < 0.4:
            return text.lower()
        return text.rstrip("?") if style < 0.45 else text

    def documents(self, number: int, checker: Checker) -> Iterator[dict[str, str]]:
        """``number`` documents as {"text", "kind"}, in random order of kinds, none twice, none that ``checker`` finds.

        Raises ``RuntimeError`` when a kind has nothing new to say.
        """
        seen: set[str] = set()
        for _ in range(number):
            kind = self.kind()
            text = self.fresh(kind, seen, checker)
            seen.add(text)
            yield {"text": text, "kind": kind}

    def fresh(self, kind: str, seen: set[str], checker: Checker) -> str:
        for _ in range(ATTEMPTS):
            text = self.kinds[kind]()
            if text not in seen and not checker.find(text):
                return text
        raise RuntimeError(f"{ATTEMPTS} documents of kind {kind!r} in a row were not new")

    def kind(self) -> str:
        spot = self.grammar.rng.random()
        for kind, share in SHARES.items():
            if spot < share:
                return kind
            spot -= share
        return kind


def set_apart(text: str) -> str:
    return re.sub(r" ?([,.!?;:]|--)(?=\s|$)", r" \1", text)


def write(path: Path, number: int, seed: int, data: Path | None) -> None:
    checker = Checker(evaluation_texts(data))
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for document in Writer(seed).documents(number, checker):
            file.write(json.dumps(document, ensure_ascii=False) + "\n")


def report(files: list[Path], data: Path | None) -> int:
    """Print what the checker finds; 1 if it finds anything, else 0."""
    checker = Checker(evaluation_texts(data))
    read = found = 0
    for path in files:
        with path.open(encoding="utf-8") as file:
            for place, line in enumerate(file, 1):
                read += 1
                hits = checker.find(json.loads(line)["text"])
                found += bool(hits)
                if hits:
                    print(f"{path}:{place}: {hits[0]!r}")
    print(f"{found} of {read} documents share text with a set that must stay unseen")
    return int(found > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write text for pretraining a small model.")
    parser.add_argument("out", type=Path, nargs="?", help="the jsonl file to write")
    parser.add_argument("--documents", type=int, default=200_000, help="how many (default 200000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed writes the same text (default 1)")
    parser.add_argument("--check", type=Path, nargs="+", metavar="FILE", help="report text of evaluation sets in FILEs")
    parser.add_argument("--data", type=Path, help="the folder of the evaluation sets")
    options = parser.parse_args()
    if options.check:
        return report(options.check, options.data)
    if options.out is None:
        parser.error("found no file to write; name one, as in: make_text.py OUT.jsonl")
    write(options.out, options.documents, options.seed, options.data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
