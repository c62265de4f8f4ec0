"""What the generated instructions need to know of English: forms of verbs and nouns, and simple clauses."""

from __future__ import annotations

import re
from dataclasses import dataclass

VOWELS = "aeiou"
OBJECT_CASE = {"she": "her", "he": "him", "they": "them", "we": "us"}
UNITS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
ROMAN = {1000: "M", 900: "CM", 500: "D", 400: "CD", 100: "C", 90: "XC", 50: "L", 40: "XL", 10: "X", 9: "IX"} | {
    5: "V",
    4: "IV",
    1: "I",
}


def article(word: str) -> str:
    """``a`` or ``an``, by how the word sounds: "an hour", "a uniform"."""
    word = word.lower()
    sounds_open = word.startswith(("hour", "honest", "heir")) or (
        word[:1] in tuple(VOWELS) and not re.match(r"uni(?![mn])|use|usu|ut[ei]|eu|one|once|ufo|ura", word)
    )
    return "an" if sounds_open or re.match(r"8|11\b|18\b", word) else "a"


def with_articles(text: str) -> str:
    """Replace every "a(n)" by the article that fits the next word."""
    return re.sub(r"\b([Aa])\(n\) (\W*)(\w+)", lambda m: m[1] + article(m[3])[1:] + " " + m[2] + m[3], text)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def plural(noun: str) -> str:
    """The regular plural of a noun, or of the last word of several."""
    if noun.endswith(("wolf", "calf")):
        return noun[:-1] + "ves"
    if noun.endswith(("salmon", "goldfish", "series")):
        return noun
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    return noun[:-1] + "ies" if re.search(r"[^aeiou]y$", noun) else noun + "s"


def third_person(base: str) -> str:
    return "has" if base == "have" else base + "es" if base.endswith("o") else plural(base)


def ing(base: str) -> str:
    """The -ing form; the last consonant doubles after a single stressed vowel: run, running; visit, visiting."""
    if base.endswith("e") and not base.endswith(("ee", "oe")):
        return (base[:-2] + "y" if base.endswith("ie") else base[:-1]) + "ing"
    doubles = re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", base) or base == "travel"
    return base + (base[-1] if doubles else "") + "ing"


def number_words(number: int) -> str:
    """0 to 9,999 in British English: 342 is "three hundred and forty-two"."""
    if number < 20:
        return UNITS[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{UNITS[number % 10]}" if number % 10 else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    head, rest = divmod(number, size)
    joint = " and " if rest < 100 else " "
    return f"{number_words(head)} {name}" + (joint + number_words(rest) if rest else "")


def roman(number: int) -> str:
    text = ""
    for value, letters in ROMAN.items():
        text += letters * (number // value)
        number %= value
    return text


@dataclass(frozen=True)
class Clause:
    """Someone does something, with every form that the exercises ask for.

    ``verb`` holds base, past and participle. ``thing`` is the object, empty after an intransitive verb; ``tail`` is
    what follows it. ``many`` and ``thing_many`` say whether subject and object are plural.
    """

    subject: str
    many: bool
    verb: tuple[str, ...]
    thing: str
    thing_many: bool
    tail: str

    def sentence(self, predicate: str, end: str = ".") -> str:
        return capital(f"{self.subject} {predicate}") + end

    @property
    def rest(self) -> str:
        return " ".join(part for part in (self.thing, self.tail) if part)

    @property
    def finite(self) -> str:
        return self.verb[0] if self.many else third_person(self.verb[0])

    def form(self, tense: str) -> str:
        """The sentence in one of the tenses named in ``TENSES``."""
        base, past, participle = self.verb
        am, was, have = ("are", "were", "have") if self.many else ("is", "was", "has")
        predicate = {
            "present": self.finite,
            "past": past,
            "future": f"will {base}",
            "present perfect": f"{have} {participle}",
            "past perfect": f"had {participle}",
            "present continuous": f"{am} {ing(base)}",
            "past continuous": f"{was} {ing(base)}",
        }[tense]
        return self.sentence(f"{predicate} {self.rest}")

    def negative(self, past: bool) -> str:
        helper = "did" if past else "do" if self.many else "does"
        return self.sentence(f"{helper} not {self.verb[0]} {self.rest}")

    def question(self, past: bool, word: str = "") -> str:
        helper = "did" if past else "do" if self.many else "does"
        return capital(f"{word} {helper} {self.subject} {self.verb[0]} {self.rest}?".strip())

    def passive(self, tense: str) -> str:
        """The passive in present, past, future or present perfect."""
        be = {
            "present": "are" if self.thing_many else "is",
            "past": "were" if self.thing_many else "was",
            "future": "will be",
            "present perfect": "have been" if self.thing_many else "has been",
        }[tense]
        agent = OBJECT_CASE.get(self.subject, self.subject)
        return capital(f"{self.thing} {be} {self.verb[2]} by {agent} {self.tail}".strip() + ".")


TENSES = ("present", "past", "future", "present perfect", "past perfect", "present continuous", "past continuous")
