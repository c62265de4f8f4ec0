"""Write short texts with labels, from the rules of make_text.py: what a base model learns to tell apart.

    python scripts/make_text_labels.py OUT.csv --texts 420000 --seed 8 --data FOLDER

Every row of OUT.csv is a text and what it is: the wish of a customer, the opinion on a film or a purchase, what a
question asks for, what kind of message it is, the mood of a Swahili post. The same seed writes the same bytes; no text
is written twice, and none that shares text with the sample of the repository or, where --data names their folder, with
the sets that models are measured on.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from make_text import Writer, set_apart
from make_text_check import Checker, evaluation_texts
from make_text_grammar import capitalised

LABELS = {  # label: rules of the grammars that write such a text, and its share relative to the others
    "complaint": (("sv_complaint", *["ev_complaint_mail"] * 3, *["ev_inbox_complaint"] * 4), 20),
    "question to a company": (("sv_question", *["ev_question_mail"] * 3, *["ev_inbox_question"] * 4), 10),
    "praise": (("sv_praise", *["ev_praise_mail"] * 3, *["ev_inbox_praise"] * 4), 20),
    "change": (("sv_change", *["ev_change_mail"] * 3, *["ev_inbox_change"] * 4), 12),
    "order": (("sv_order",), 1),
    "apology": (("sv_sorry",), 1),
    "confirmation": (("sv_confirm",), 1),
    "idea": (("sv_idea",), 1),
    "offer": (("sv_offer",), 1),
    "good work": (("op_good_line", "op_good_said", "op_set_good", *["op_review_good"] * 2), 16),
    "bad work": (("op_bad_line", "op_bad_said", "op_set_bad", *["op_review_bad"] * 2), 16),
    "good visit or purchase": (("good",), 2),
    "bad visit or purchase": (("bad",), 2),
    "private message": (("text", "chat", "phone_set_private"), 4),
    "advert": (("advert", "phone_set_advert"), 2),
    "scam": (("scam", "phone_set_scam"), 2),
    "notice": (("notice", "phone_set_notice"), 2),
    "mail": (("mail", "phone_set_mail"), 1),
    "who": (("ask_person", "ask_set_person"), 2),
    "where": (("ask_place", "ask_set_place"), 2),
    "when": (("ask_time", "ask_set_time"), 2),
    "how many": (("ask_number", "ask_set_number"), 2),
    "what it means": (("ask_meaning", "ask_set_meaning"), 2),
    "what is short for": (("ask_short", "ask_set_short"), 1),
    "which thing": (("ask_thing", "ask_set_thing"), 2),
    "nzuri": (("sw_good", "sw_good_said", "sw_set_nzuri", *["sw_post_nzuri"] * 3), 4),
    "mbaya": (("sw_bad", "sw_bad_said", "sw_set_mbaya", *["sw_post_mbaya"] * 3), 4),
    "kawaida": (("sw_plain", "sw_plain_said", "sw_set_kawaida", *["sw_post_kawaida"] * 3), 6),
}


class Labeller(Writer):
    """Writes labelled texts: a label is a kind of text."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.kinds = {label: partial(self.text, rules) for label, (rules, _) in LABELS.items()}

    def rows(self, number: int, checker: Checker) -> Iterator[tuple[str, str]]:
        """``number`` different (text, label); raises ``RuntimeError`` when a label has nothing new to say."""
        seen: set[str] = set()
        shares = [share for _, share in LABELS.values()]
        for label in self.grammar.rng.choices(list(LABELS), shares, k=number):
            text = self.fresh(label, seen, checker)
            seen.add(text)
            yield text, label

    def text(self, rules: tuple[str, ...]) -> str:
        rule = self.grammar.pick(rules)
        return self.typing(rule)(self.grammar.write(rule))

    def typing(self, rule: str) -> Callable[[str], str]:
        """How texts of a rule are typed."""
        if rule.startswith("ask_"):
            return lambda text: set_apart(capitalised(text)) if self.grammar.chance(0.4) else capitalised(text)
        if rule.startswith("phone_"):
            return str  # they were written as one types on a phone
        if rule.startswith("op_"):
            return lambda text: self.reviewed(text, apart=0.5)
        prefixes = {"sv_": self.customer, "ev_": self.mailed, "sw_": self.tweeted}
        whole = {"good": self.reviewed, "bad": self.reviewed, "text": self.typed, "chat": self.typed}
        whole["scam"] = lambda text: self.shouted(capitalised(text))
        return prefixes.get(rule[:3]) or whole.get(rule) or capitalised

    def mailed(self, text: str) -> str:
        """As a customer writes it, with "didn't" for "did not" as often as not, or as someone types it on a phone."""
        if self.grammar.chance(0.5):
            text = re.sub(r"\b(did|does|was|were|is|would|should|could) not\b", r"\1n't", text)
        return self.typed(text) if self.grammar.chance(0.3) else self.customer(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write short texts with labels for a small model.")
    parser.add_argument("out", type=Path, help="the csv file to write")
    parser.add_argument("--texts", type=int, default=420_000, help="how many (default 420000)")
    parser.add_argument("--seed", type=int, default=8, help="the same seed writes the same texts (default 8)")
    parser.add_argument("--data", type=Path, help="the folder of the evaluation sets")
    options = parser.parse_args()
    checker = Checker(evaluation_texts(options.data))
    with options.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("text", "label"))
        writer.writerows(Labeller(options.seed).rows(options.texts, checker))


if __name__ == "__main__":
    main()
