"""Instructions with answers that are computed, in the shapes of the templates that the product uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from make_text_english import (
    TENSES,
    VOWELS,
    Clause,
    article,
    capital,
    ing,
    number_words,
    plural,
    roman,
    third_person,
    with_articles,
)
from make_text_grammar import Grammar, capitalised, parsed

PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)
QUESTIONS = {  # rule of questions: what they ask for
    "ask_person": "a person or a group",
    "ask_place": "a place",
    "ask_time": "a time",
    "ask_number": "a number",
    "ask_meaning": "an explanation",
    "ask_short": "a short form",
    "ask_thing": "a thing",
}
MESSAGES = {  # rule of messages: what they are
    "text": "a private message",
    "advert": "an advert",
    "scam": "spam",
    "notice": "a reminder or notice",
    "mail": "a letter or mail",
    "good": "a review",
    "bad": "a review",
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
PLANETS = ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune")
PERSONAL = (  # adjectives that suit a person
    *("tall", "quick", "strong", "old", "young", "happy", "busy", "funny", "brave", "nice", "kind", "lazy"),
    *("noisy", "famous", "careful", "popular", "sad", "loud"),
)
COUNTABLE = (  # categories whose words take "a" and a plural
    *("animal", "bird", "insect", "tool", "musical instrument", "vehicle", "job", "building", "flower", "tree", "toy"),
    *("piece of clothing", "piece of furniture", "piece of stationery", "kitchen utensil", "room", "shape"),
)
UNIT_PAIRS = (  # bigger unit, smaller unit, how many of the smaller make one
    ("kilometres", "metres", 1000),
    ("metres", "centimetres", 100),
    ("centimetres", "millimetres", 10),
    ("kilograms", "grams", 1000),
    ("litres", "millilitres", 1000),
    ("tonnes", "kilograms", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("feet", "inches", 12),
    ("yards", "feet", 3),
    ("pounds", "pence", 100),
    ("dollars", "cents", 100),
    ("dozens", "eggs", 12),
    ("centuries", "years", 100),
)


class Task(NamedTuple):
    """An instruction, the text that it is about (often empty) and the right response."""

    instruction: str
    given: str
    response: str


def alpaca(task: Task) -> str:
    middle = f"\n\n### Input:\n{task.given}" if task.given else ""
    return f"### Instruction:\n{task.instruction}{middle}\n\n### Response:\n{task.response}"


def asked(task: Task) -> str:
    return f"{task.instruction}\n{task.given}" if task.given else task.instruction


def rows(block: str) -> list[list[str]]:
    return [entry.split(" / ") for line in block.splitlines() for entry in line.split("; ") if entry]


class Tasks:
    """Writes instructions; every method named in ``makers`` makes one kind of them."""

    def __init__(self, facts: Mapping, grammar: Grammar) -> None:
        self.grammar, self.pick, self.some = grammar, grammar.pick, grammar.some
        self.number, self.chance = grammar.number, grammar.chance
        self.categories = {name: block.split("; ") for name, block in facts["categories"].items()}
        self.category = {word: name for name, members in self.categories.items() for word in members}
        self.facts = {name: rows(block) for name, block in facts.items() if isinstance(block, str)}
        self.irregular = dict(self.facts["irregular_plurals"])
        self.transitive, self.intransitive = (
            [(tuple(verb.split()), things.split(", ")) for verb, things in self.facts[name]]
            for name in ("transitive", "intransitive")
        )
        self.words = sorted(word for word in self.category if word.isalpha())
        self.countable = sorted({word for name in COUNTABLE for word in self.categories[name]} - {"pliers"})
        self.opposites = self.partners("antonyms")
        self.alike = self.partners("synonyms")
        self.makers = self.weighted()

    def partners(self, name: str) -> dict[str, list[str]]:
        """Every word of a list of pairs with all its partners, since some words stand in several pairs."""
        found: dict[str, list[str]] = {}
        for one, other in self.facts[name]:
            found.setdefault(one, []).append(other)
            found.setdefault(other, []).append(one)
        return found

    def weighted(self) -> list[Callable[[], Task]]:
        """Kinds with more to say come more often."""
        often = (self.tense, self.voice, self.sentiment, self.arithmetic, self.story, self.who_where, self.asks_for)
        more = (self.negate, self.to_question, self.convert, self.sort_words, self.correct, self.word_class)
        more += (self.category_of, self.odd_one_out, self.compose, self.kind_of_message, self.count_words, self.fact)
        rest = (self.antonym, self.synonym, self.rhyme, self.plural_of, self.plural_sentence, self.spell, self.letters)
        rest += (self.alphabet, self.change_case, self.backwards, self.compare, self.series, self.percent, self.average)
        rest += (self.numerals, self.sort_numbers, self.contract, self.polite, self.formal, self.name_three, self.fill)
        rest += (self.simile, self.idiom, self.capital_city, self.country, self.element, self.animal, self.made_by)
        rest += (self.year, self.how_many, self.superlative, self.place, self.stands_for, self.define, self.why)
        rest += (self.true_false, self.calendar, self.clock, self.planet, self.verb_form, self.compare_adjective)
        rest += (
            self.join,
            self.prefix,
            self.doer,
            self.spelling,
            self.homophone,
            self.parts,
            self.pronoun,
            self.bullets,
        )
        rest += (self.use_word, self.adverb, self.money, self.find_detail, self.same_or_not, self.first_last)
        return [*often * 4, *more * 2, *rest]

    # --- the shape of a document

    def document(self) -> str:
        """One instruction in the Alpaca shape, with or without its preamble, or one to three questions and answers."""
        style = self.grammar.rng.random()
        if style < 0.65:
            return (PREAMBLE if style < 0.45 else "") + alpaca(self.task())
        before, after = self.pick((("Question: ", "Answer: "), ("Q: ", "A: "), ("", "")))
        rounds = [self.task() for _ in range(self.pick((1, 2, 3)))]
        return "\n\n".join(f"{before}{asked(task)}\n{after}{task.response}" for task in rounds)

    def task(self) -> Task:
        self.grammar.begin()
        return self.pick(self.makers)()

    def say(self, frame: str, **values: object) -> str:
        """One of the alternatives of a frame of the grammar, in which <name> stands for a value."""
        text = self.grammar.expand(parsed(f"[{frame}]"))
        return with_articles(re.sub(r"<(\w+)>", lambda match: str(values[match[1]]), text))

    def ask(self, order: str, response: str, **values: object) -> Task:
        return Task(stopped(self.say(order, **values)), "", capital(self.say(response, **values)))

    def about(self, order: str, given: str, response: str, **values: object) -> Task:
        """An order about a text, which stands apart or at the end of the order."""
        order = stopped(self.say(order, **values))
        response = self.say(response, **values)
        response = capital(response) if response.endswith(".") else response
        if self.chance(0.65):
            return Task(order, given, response)
        return Task((order if order.endswith("?") else order[:-1] + ":") + " " + given, "", response)

    # --- sentences

    def clause(self, thing: bool | None = None) -> Clause:
        """A random clause; with an object, without one, or either."""
        subject = self.pick(self.facts["persons"])[0]
        if thing if thing is not None else self.chance(0.6):
            verb, things = self.pick(self.transitive)
            chosen = self.pick(things)
            tail = self.pick(self.facts["extras"])[0] if self.chance(0.5) else ""
        else:
            verb, tails = self.pick(self.intransitive)
            chosen, tail = "", self.pick(tails)
        return Clause(subject.rstrip("+"), subject[-1] == "+", verb, chosen.rstrip("+"), chosen[-1:] == "+", tail)

    def sentence(self) -> str:
        return self.clause().form(self.pick(("past", "past", "future", "present continuous")))

    def tense(self) -> Task:
        clause, (before, after) = self.clause(), self.some(TENSES, 2)
        order = (
            "[rewrite|put] [the|this] sentence in the <after> tense"
            "|[turn|bring] [the|this] sentence into the <after> tense"
        )
        order += "|say it in the <after> tense"
        return self.about(order, clause.form(before), clause.form(after), after=after)

    def voice(self) -> Task:
        clause = self.clause(thing=True)
        tense = self.pick(("present", "past", "past", "future", "present perfect"))
        active, passive = clause.form(tense), clause.passive(tense)
        order = (
            "[change|turn|put] [this|the] sentence into the <voice> voice"
            "|[rewrite|write|say] [it|this] in the <voice> voice"
        )
        if self.chance(0.6):
            return self.about(order, active, passive, voice="passive")
        return self.about(order, passive, active, voice="active")

    def negate(self) -> Task:
        clause, past = self.clause(), self.chance(0.6)
        order = (
            "[make this sentence negative|say the opposite with the word not|turn the statement into a negative one]"
        )
        return self.about(order, clause.form("past" if past else "present"), clause.negative(past))

    def to_question(self) -> Task:
        clause, past = self.clause(), self.chance(0.6)
        order = "[turn|change|make] [this|the] [statement|sentence] into a [yes-or-no question|question]"
        return self.about(order, clause.form("past" if past else "present"), clause.question(past))

    def parts(self) -> Task:
        clause = self.clause(thing=True)
        name, answer = self.pick(
            (("subject", clause.subject), ("verb", clause.verb[1]), ("object", clause.thing)),
        )
        order = "what is the <name> of this sentence?|find the <name> of the sentence|name the <name>"
        sentence = clause.form("past")
        answer = capital(answer) if name == "subject" else answer
        return self.about(order, sentence, "[<answer>|The <name> is: <answer>]", name=name, answer=answer)

    def who_where(self) -> Task:
        """A question about one part of a sentence."""
        clause = self.clause(thing=True)
        base, past, _ = clause.verb
        kinds = [
            (f"Who {past} {clause.rest}?", capital(clause.subject)),
            (f"What did {clause.subject} {base}?", capital(clause.thing)),
            (f"What happened to {clause.thing}?", clause.passive("past")),
        ]
        question, answer = self.pick(kinds)
        return Task(question, clause.form("past"), answer + ("" if answer.endswith(".") else "."))

    def pronoun(self) -> Task:
        subjects: dict[str, tuple[str, ...]] = {
            "she": ("Anna", "my sister", "Maria", "Lena", "her friend Priya", "my grandmother", "Emma")
        }
        subjects |= {"he": ("David", "my brother", "her uncle", "Tom", "the old man", "Peter")}
        subjects |= {"they": ("my parents", "the twins", "the students", "two boys", "our guests")}
        word = self.pick(tuple(subjects))
        clause = self.clause()
        old, new = (
            Clause(who, word == "they", clause.verb, clause.thing, clause.thing_many, clause.tail).form("past")
            for who in (self.pick(subjects[word]), word)
        )
        return self.about("replace the subject [with|by] a pronoun|exchange the subject for a pronoun", old, new)

    def word_class(self) -> Task:
        adjective, adverb = self.pick(PERSONAL), self.pick(self.facts["adverbs"])[0]
        noun, (verb, tails) = (
            self.pick(("farmer", "boy", "girl", "teacher", "singer", "nurse", "driver", "child")),
            (self.pick(self.intransitive)),
        )
        sentence = self.say("The <a> <n> <d> <v> <t>.", a=adjective, n=noun, v=verb[1], d=adverb, t=self.pick(tails))
        kind, word = self.pick((("adjective", adjective), ("noun", noun), ("verb", verb[1]), ("adverb", adverb)))
        if self.chance(0.5):
            order = "[what part of speech|which class of words] is '<word>' in this sentence?"
            return self.about(order, sentence, "[a(n) <kind>|<word> is a(n) <kind>.]", word=word, kind=kind)
        first = "first " if kind == "noun" else ""
        order = "[find|name|pick out|write down] the <first><kind> [in|of] the sentence"
        return self.about(order, sentence, "[<word>|the <first><kind> is <word>.]", word=word, kind=kind, first=first)

    def adverb(self) -> Task:
        adverb, clause = self.pick(self.facts["adverbs"])[0], self.clause()
        past = clause.verb[1]
        answer = clause.sentence(f"{adverb} {past} {clause.rest}")
        return self.about("add the adverb '<adverb>' before the verb", clause.form("past"), answer, adverb=adverb)

    def correct(self) -> Task:
        """A sentence with one mistake, and without it."""
        clause = self.clause()
        right = clause.form("present")
        kind = self.number(0, 4)
        if kind == 0:
            wrong_verb = third_person(clause.verb[0]) if clause.many else clause.verb[0]
            wrong = clause.sentence(f"{wrong_verb} {clause.rest}")
        elif kind == 1:
            right = clause.form("past")
            wrong = right[:1].lower() + right[1:-1]
        elif kind == 2:
            wrong = clause.form("present continuous")
            right, wrong = (
                wrong,
                wrong.replace(" is ", " are ", 1) if " is " in wrong else wrong.replace(" are ", " is ", 1),
            )
        elif kind == 3:
            word = self.pick(self.countable)
            joint, bad = article(word), "an" if article(word) == "a" else "a"
            frame = self.pick(("I saw {} {} in the picture.", "She drew {} {}.", "Is there {} {} in this story?"))
            right, wrong = frame.format(joint, word), frame.format(bad, word)
        else:
            right = clause.form("past")
            spots = right.split()
            at = self.number(1, len(spots) - 2)
            wrong = " ".join([*spots[: at + 1], *spots[at:]])
        order = (
            "[correct|mend|repair] [the|this] sentence"
            "|find the mistake and write the sentence correctly|what should this sentence be?"
        )
        return self.about(order, wrong, right)

    def spelling(self) -> Task:
        wrong, right = self.pick(self.facts["misspelled"])
        if self.chance(0.5):
            order = (
                "[how do you spell|what is the right way to write] '<wrong>' correctly?"
                "|correct the misspelled word '<wrong>'."
            )
            return self.ask(order, "[<right>|it is spelled <right>.]", wrong=wrong, right=right)
        order = "which is right, '<one>' or '<two>'?"
        one, two = self.some((wrong, right), 2)
        return self.ask(order, "'<right>'[ is right.|.]", one=one, two=two, right=right)

    def plural_sentence(self) -> Task:
        number, noun = self.number(2, 12), self.pick(self.countable)
        if self.chance(0.4):
            noun = self.pick(("box", "bus", "key", "story", "baby", "glass", "watch", "child", "knife", "man", "foot"))
        old = self.say("[there is|I can see|we have|they painted|she counted] a(n) <noun>.", noun=noun)
        new = old.replace(f" {article(noun)} {noun}", f" {number_words(number)} {self.many(noun)}").replace(
            "re is ", "re are "
        )
        order = "[rewrite|write] the sentence [for|with] <n> instead of one"
        return self.about(order, capital(old), capital(new), n=number_words(number))

    def join(self) -> Task:
        one, two, word = self.pick(self.facts["joined"])
        comma = "," if word in ("but", "so") else ""
        second = two if two.startswith("I ") else two[:1].lower() + two[1:]
        joined = f"{one[:-1]}{comma} {word} {second}"
        return self.about("[join|combine] the two sentences [with|using] '<word>'", f"{one} {two}", joined, word=word)

    def contract(self) -> Task:
        full, short = self.pick(self.facts["contractions"])
        if self.chance(0.5):
            full, short = short, full
            return self.ask(
                "[write|give] the [long|full] form of '<a>'.|what is '<a>' in full?", "<b>", a=full, b=short
            )
        return self.ask("[shorten|contract] '<a>'.|what is the short form of '<a>'?", "<b>", a=full, b=short)

    def polite(self) -> Task:
        rude, kind = self.pick(self.facts["rude"])
        order = (
            "say this politely|make the sentence more polite|rewrite it in a polite way"
            "|turn the order into a polite request"
        )
        return self.about(order, rude + self.pick((".", "!", "!!")), kind)

    def formal(self) -> Task:
        loose, formal = self.pick(self.facts["informal"])
        order = "[write this in a formal style|make it sound formal|rewrite the message for a business letter]"
        return self.about(order, loose, formal)

    def first_last(self) -> Task:
        sentence = self.sentence()
        words = sentence[:-1].split()
        place, at = self.pick((("first", 0), ("last", -1), ("second", 1), ("third", 2)))
        return self.about("what is the <place> word of [this|the] sentence?", sentence, words[at], place=place)

    def count_words(self) -> Task:
        sentence = self.sentence()
        number = len(sentence.split())
        order = "[how many words are there in this sentence?|count the words of the sentence]"
        return self.about(order, sentence, "[<n>|<n> words|the sentence has <n> words.]", n=number)

    def same_or_not(self) -> Task:
        clause = self.clause(thing=True)
        same = self.chance(0.5)
        other = clause.passive("past") if same else clause.negative(past=True)
        order = "do these two sentences [mean the same|say the same thing]?"
        return Task(capital(self.say(order)), f"1. {clause.form('past')}\n2. {other}", "Yes" if same else "No")

    # --- words

    def many(self, noun: str) -> str:
        return self.irregular.get(noun) or plural(noun)

    def plural_of(self) -> Task:
        if self.chance(0.4):
            one, many = self.pick(self.facts["irregular_plurals"])
        else:
            one = self.pick(self.facts["plain_nouns"])[0]
            many = plural(one)
        if self.chance(0.3) and one != many:
            return self.ask("what is the singular of '<b>'?", "[<a>|the singular is <a>.]", a=one, b=many)
        order = "[what is|give|write] the plural [form |]of '<a>'|one <a>, two ...|how does '<a>' change in the plural"
        return self.ask(order, "[<b>|the plural of <a> is <b>.]", a=one, b=many)

    def antonym(self) -> Task:
        word = self.pick(tuple(self.opposites))
        order = (
            "what is the [opposite|antonym] of '<a>'?"
            "|give [a word that means the opposite of|an antonym for] '<a>'.|not <a>, but ..."
        )
        answer = "[<b>|<b> is the opposite of <a>.]"
        return self.ask(order, answer, a=word, b=self.opposites[word][0])

    def synonym(self) -> Task:
        word = self.pick(tuple(self.alike))
        order = (
            "[give|find|name] a synonym [of|for] '<a>'."
            "|which word means [nearly |almost |]the same as '<a>'?|another word for '<a>', please."
        )
        return self.ask(order, "[<b>|<b> is another word for <a>.]", a=word, b=self.pick(self.alike[word]))

    def rhyme(self) -> Task:
        family = self.pick(self.facts["rhyme_families"])
        one, two, three = self.some(family, 3)
        if self.chance(0.5):
            return self.ask(
                "[what rhymes with '<a>'?|what word rhymes with '<a>'?|give a rhyme for '<a>'.]",
                "[<b>|<b> rhymes with <a>.]",
                a=one,
                b=two,
            )
        order = "[give|name|write] two words that rhyme with '<a>'."
        return self.ask(order, "<b>, <c>", a=one, b=two, c=three)

    def spell(self) -> Task:
        word = self.pick(self.words)
        order = "spell [the word |]'<a>'[ letter by letter|][.| with hyphens.]"
        return self.ask(order, "<b>", a=word, b="-".join(word.upper()))

    def letters(self) -> Task:
        word = self.pick(self.words)
        kind, number = self.pick(
            (
                ("letters", len(word)),
                ("vowels", sum(letter in VOWELS for letter in word.lower())),
                ("consonants", sum(letter not in VOWELS for letter in word.lower())),
                (f"times the letter {word[0].lower()}", word.lower().count(word[0].lower())),
            )
        )
        if kind.startswith("times"):
            return self.ask("how often does <k> occur in '<a>'?", "<n>", k=kind[6:], a=word, n=number)
        order = "[how many <k> does '<a>' have?|count the <k> in '<a>'.|how many <k> are there in the word '<a>'?]"
        return self.ask(order, "[<n>|<a> has <n> <k>.]", k=kind, a=word, n=number)

    def alphabet(self) -> Task:
        at = self.number(1, 24)
        here, before, after = (chr(ord("A") + place) for place in (at, at - 1, at + 1))
        if self.chance(0.4):
            words = self.some(self.words, 2)
            first = min(words, key=str.lower)
            order = "which word comes first in [the dictionary|alphabetical order], '<a>' or '<b>'?"
            return self.ask(order, "<first>", a=words[0], b=words[1], first=first)
        kind, answer = self.pick((("after", after), ("before", before)))
        if self.chance(0.3):
            return self.ask("which place has <a> in the alphabet?", "it is letter number <n>.", a=here, n=at + 1)
        order = "which letter comes [right |just |]<kind> <a>[ in the alphabet|]?"
        return self.ask(order, "[<b>|the letter <b>]", kind=kind, a=here, b=answer)

    def change_case(self) -> Task:
        sentence = self.sentence()
        order, answer = self.pick(
            (
                ("[write|put] [this|the text] in capital letters", sentence.upper()),
                ("[write|put] [this|the text] in small letters", sentence.lower()),
                ("give every word a capital letter", " ".join(capital(word) for word in sentence.split())),
            )
        )
        return self.about(order, sentence, answer)

    def backwards(self) -> Task:
        if self.chance(0.5):
            word = self.pick(self.words)
            return self.ask("[write|spell] '<a>' backwards.|reverse the word '<a>'.", "<b>", a=word, b=word[::-1])
        words = self.some(self.words, self.number(3, 5))
        order = "[turn the list around|write the words in the reverse order]"
        return self.about(order, ", ".join(words), ", ".join(reversed(words)))

    def sort_words(self) -> Task:
        words = self.some(self.words, self.number(3, 6))
        by_length = self.chance(0.3) and len({len(word) for word in words}) == len(words)
        if by_length:
            order, answer = (
                "[sort|order] the words by [length|how long they are], shortest first",
                sorted(words, key=len),
            )
        else:
            order = (
                "[sort|put|arrange] [these|the] words [in|into] alphabetical order|[order|sort] the list from A to Z"
            )
            answer = sorted(words, key=str.lower)
        return self.about(order, ", ".join(words), ", ".join(answer))

    def bullets(self) -> Task:
        words = self.some(self.words, self.number(3, 5))
        mark = self.chance(0.5)
        order = "turn the line into a list with " + ("numbers" if mark else "dashes")
        lines = [f"{place}. {word}" if mark else f"- {word}" for place, word in enumerate(words, 1)]
        return self.about(order, ", ".join(words), "\n".join(lines))

    def category_of(self) -> Task:
        if self.chance(0.5):
            word = self.pick(self.words)
            order = "what [kind of thing |]is '<a>'?|[name|give] the group that '<a>' belongs to."
            return self.ask(order, "[<c>|a(n) <c>|<a>: a(n) <c>]", a=word, c=self.category[word])
        names = self.some(tuple(self.categories), self.number(2, 4))
        chosen = self.pick(names)
        word = self.pick(self.categories[chosen])
        groups = ", ".join(names)
        order = "[choose the right group for|to which of these groups belongs|classify] '<a>': <groups>."
        return self.ask(order, "[<c>|<a> is a(n) <c>.]", a=word, groups=groups, c=chosen)

    def odd_one_out(self) -> Task:
        one, other = self.some(tuple(self.categories), 2)
        members, stranger = self.some(self.categories[one], 3), self.pick(self.categories[other])
        words = self.some((*members, stranger), 4)
        order = "[which word does not belong?|find the odd one out|which one is different?]"
        response = "[<a>|<a>, because it is a(n) <other>.|<a> is the odd one out.]"
        return self.about(order, ", ".join(words), response, a=stranger, other=other)

    def name_three(self) -> Task:
        number = self.number(2, 4)
        name = self.pick([name for name in self.categories if not name.startswith(("kind", "piece", "part"))])
        order = "[name|list|give|think of] <n> [different |]<group>."
        return self.ask(
            order,
            "<list>",
            n=number_words(number),
            group=plural(name),
            list=", ".join(self.some(self.categories[name], number)),
        )

    def verb_form(self) -> Task:
        (base, past, participle), _ = self.pick(self.transitive + self.intransitive)
        kind, answer = self.pick(
            (
                ("past tense", past),
                ("past participle", participle),
                ("-ing form", ing(base)),
                ("third person singular", third_person(base)),
            )
        )
        order = "[what is|give|write] the <kind> of '<a>'|the <kind> of '<a>', please"
        return self.ask(order, "[<b>|the <kind> of <a> is <b>.]", kind=kind, a=base, b=answer)

    def compare_adjective(self) -> Task:
        base, more, most = self.pick(self.facts["adjectives"])
        kind, answer = self.pick((("comparative", more), ("superlative", most)))
        if base not in PERSONAL or self.chance(0.5):
            return self.ask("[what is|give] the <kind> of '<a>'", "[<b>|it is <b>.]", kind=kind, a=base, b=answer)
        one, two = self.some([name for name, *_ in self.facts["persons"] if name[0].isupper() and name[-1] != "+"], 2)
        order = "<one> is <more> than <two>. Which of them is <more>, [<one> or <two>|<two> or <one>]?"
        return self.ask(order, "<one>.", one=one, two=two, more=more)

    def prefix(self) -> Task:
        word, answer = self.pick(self.facts["prefixes"])
        order = (
            "make the opposite of '<a>' with a prefix.|which word with a prefix is the opposite of '<a>'?"
            "|add a negative prefix to '<a>'."
        )
        return self.ask(order, "<b>", a=word, b=answer)

    def doer(self) -> Task:
        verb, person = self.pick(self.facts["families"])
        if self.chance(0.5):
            return self.ask(
                "what do you call [someone|a person] who can <a>?", "[a(n) <b>|a(n) <b>.]", a=verb, b=person
            )
        return self.ask("which verb is [hidden in|behind] the word '<b>'?", "[to <a>|<a>]", a=verb, b=person)

    def homophone(self) -> Task:
        one, two = self.some(self.pick(self.facts["homophones"]), 2)
        order = "[which word sounds like '<a>' but is written differently?|give a word that sounds the same as '<a>'.]"
        return self.ask(order, "<b>", a=one, b=two)

    def use_word(self) -> Task:
        clause = self.clause(thing=True)
        word = clause.verb[1]
        order = "[write|make|give me] a sentence with [the word |]'<a>'."
        return self.ask(order, clause.form("past"), a=word)

    def simile(self) -> Task:
        whole, quality = self.pick(self.facts["similes"])
        last = whole.split(" as ", 1)[1]
        if self.chance(0.5):
            order = "[complete|finish] the [comparison|simile|saying]: as <q> as ..."
            return self.ask(order, "[<last>|<whole>]", q=quality, last=last, whole=whole)
        person = capital(self.pick([name for name, *_ in self.facts["persons"] if name[-1] != "+"]))
        order = "[rewrite|say] [it|this|the sentence] with a [simile|comparison]"
        return self.about(order, f"{person} is very {quality}.", f"{person} is {whole}.")

    def idiom(self) -> Task:
        saying, meaning = self.pick(self.facts["idioms"])
        order = (
            "what does the [saying|idiom|expression] '<a>' mean?|explain the [idiom|saying] '<a>'."
            "|what is meant by '<a>'?"
        )
        return self.ask(order, "[<b>|it means: <b>|<b>.]", a=saying, b=meaning)

    def fill(self) -> Task:
        sentence, word = self.pick(self.facts["collocations"])
        order = "[fill in the [gap|blank]|complete the sentence|which word is missing?|put in the missing word]"
        return self.about(order, sentence, self.pick((word, sentence.replace("___", word))))

    # --- numbers

    def arithmetic(self) -> Task:
        kind = self.number(0, 3)
        if kind == 0:
            a, b = self.number(2, 400), self.number(2, 400)
            sign, name, result = "+", "plus", a + b
        elif kind == 1:
            a = self.number(10, 500)
            b = self.number(1, a)
            sign, name, result = "-", "minus", a - b
        elif kind == 2:
            a, b = self.number(2, 20), self.number(2, 20)
            sign, name, result = "x", "times", a * b
        else:
            b, result = self.number(2, 12), self.number(2, 20)
            a, sign, name = b * result, "/", "divided by"
        order = "[what is|calculate|work out|how much is|solve] <a> [<sign>|<name>] <b>"
        order = self.say(order, a=a, b=b, sign=sign, name=name)
        stop = "?" if order.startswith(("what", "how")) else "."
        return Task(
            capital(order) + stop, "", self.say("[<n>|<a> <sign> <b> = <n>|<n>.]", n=result, a=a, b=b, sign=sign)
        )

    def story(self) -> Task:
        """Arithmetic in words."""
        who = self.pick([name for name, *_ in self.facts["persons"] if name[0].isupper()])
        thing = self.pick(
            ("apples", "books", "stamps", "coins", "eggs", "tickets", "marbles", "pencils", "cards", "roses")
        )
        a, b, c = self.number(10, 60), self.number(2, 9), self.number(2, 12)
        frames = (
            (
                "<who> has <a> <things> and [gives away|loses|sells] <b>. How many [are left|does <who> have left]?",
                a - b,
            ),
            ("<who> has <a> <things> and [buys|finds|gets] <b> more. How many [are there now|is that in all]?", a + b),
            (
                "<who> buys <b> boxes with <c> <things> each. How many <things> [are there|is that] in all?",
                b * c,
            ),
            ("<who> shares <whole> <things> [fairly|equally] among <b> friends. How many does each [friend |]get?", c),
            ("one [bag|box] costs <b> euros. What do <c> of them cost[ in euros|]?", b * c),
            ("<who> reads <b> pages a day. How many pages is that in <c> days?", b * c),
            ("a bus has <a> seats, and <b> are free. How many are taken?", a - b),
            ("<who> is <a> years old. How old was <who> <b> years ago?", a - b),
        )
        frame, result = self.pick(frames)
        values = {"who": who, "things": thing, "a": a, "b": b, "c": c, "whole": b * c}
        return self.ask(frame, "[<n>|<n>.|the answer is <n>.]", n=result, **values)

    def compare(self) -> Task:
        numbers = [self.number(1, 999) for _ in range(self.number(2, 5))]
        word, answer = self.pick((("largest", max(numbers)), ("smallest", min(numbers))))
        if self.chance(0.3):
            n = numbers[0]
            return self.ask("is <n> [even or odd|an even or an odd number]?", "<k>", n=n, k="odd" if n % 2 else "even")
        order = "[which is|find|pick] the <word> [number|of these numbers]"
        return self.about(order, ", ".join(map(str, numbers)), str(answer), word=word)

    def sort_numbers(self) -> Task:
        numbers = self.some(range(1, 200), self.number(3, 6))
        down = self.chance(0.4)
        order = "[sort|arrange|order] the numbers from " + ("large to small" if down else "small to large")
        answer = sorted(numbers, reverse=down)
        return self.about(order, ", ".join(map(str, numbers)), ", ".join(map(str, answer)))

    def series(self) -> Task:
        start, step = self.number(1, 40), self.number(2, 12)
        terms = [start + step * place for place in range(5)]
        if self.chance(0.3):
            terms = terms[::-1]
        order = "[what comes next|which number comes next|continue the series]: <row>, ..."
        return self.ask(order, "<n>", row=", ".join(map(str, terms[:4])), n=terms[4])

    def percent(self) -> Task:
        share, whole = self.pick((10, 20, 25, 50, 75, 5)), 20 * self.number(1, 45)
        answer = share * whole // 100
        if self.chance(0.4):
            name, part = self.pick((("half", 2), ("a quarter", 4), ("a fifth", 5), ("a tenth", 10)))
            return self.ask("[what is|how much is] <name> of <w>?", "<n>", name=name, w=whole, n=f"{whole / part:g}")
        order = "[what is|how much is] <s> [percent|%] of <w>?"
        return self.ask(order, "[<n>|<s>% of <w> is <n>.]", s=share, w=whole, n=answer)

    def average(self) -> Task:
        mean = self.number(4, 60)
        gap, other = self.number(1, 3), self.number(1, 3)
        numbers = self.some((mean - gap, mean + gap, mean - other, mean + other, mean), 5)
        order = "[find|work out|give] the [average|mean] of the numbers"
        return self.about(order, ", ".join(map(str, numbers)), str(mean))

    def numerals(self) -> Task:
        number = self.number(1, 2000) if self.chance(0.6) else self.number(1, 60)
        kind = self.number(0, 3)
        if kind == 0:
            return self.ask("[write|put] <n> in words.", "<w>", n=number, w=number_words(number))
        if kind == 1:
            return self.ask("write '<w>' [in figures|as a number].", "<n>", n=number, w=number_words(number))
        if kind == 2:
            return self.ask(
                "[write <n> in Roman numerals.|what is <n> as a Roman numeral?]", "<r>", n=number, r=roman(number)
            )
        rounded = (number + 5) // 10 * 10
        return self.ask("round <n> to the nearest ten.", "<r>", n=number, r=rounded)

    def convert(self) -> Task:
        big, small, factor = self.pick(UNIT_PAIRS)
        amount = self.number(2, 60)
        if self.chance(0.12):
            celsius = self.number(-4, 20) * 5
            fahrenheit = celsius * 9 // 5 + 32
            order = "[what is <c> degrees Celsius in Fahrenheit?|turn <c> degrees Celsius into Fahrenheit.]"
            return self.ask(order, "<f> degrees[ Fahrenheit|]", c=celsius, f=fahrenheit)
        if self.chance(0.5):
            order = "how many <small> are <n> <big>?|[convert|turn] <n> <big> [to|into] <small>."
            return self.ask(order, "[<m> <small>|<m>]", small=small, big=big, n=amount, m=f"{amount * factor:,}")
        order = "how many <big> are <m> <small>?|[convert|turn] <m> <small> [to|into] <big>."
        return self.ask(order, "[<n> <big>|<n>]", small=small, big=big, n=amount, m=f"{amount * factor:,}")

    def money(self) -> Task:
        price, paid = self.number(5, 19) * 5 / 10, self.pick((10, 20, 50))
        goods = self.say("a(n) {product}")
        order = "<goods> costs <p> euros, and I pay with a <paid> euro note. How much change do I get?"
        return self.ask(order, "<n> euros", goods=goods, p=f"{price:.2f}", paid=paid, n=f"{paid - price:.2f}")

    # --- time

    def calendar(self) -> Task:
        kind = self.number(0, 4)
        at, steps = self.number(0, 6), self.number(1, 12)
        if kind == 0:
            order = "[today is <d>. Which day is it in <n> days?|which day comes <n> days after <d>?]"
            return self.ask(order, "<a>", d=DAYS[at], n=number_words(steps + 1), a=DAYS[(at + steps + 1) % 7])
        if kind == 1:
            word, step = self.pick((("after", 1), ("before", -1)))
            return self.ask("which day [comes|is] <w> <d>?", "<a>", w=word, d=DAYS[at], a=DAYS[(at + step) % 7])
        month = self.number(0, 11)
        if kind == 2:
            word, step = self.pick((("after", 1), ("before", -1)))
            order = "which month [comes|is] [right |]<w> <m>?"
            return self.ask(order, "<a>", w=word, m=MONTHS[month], a=MONTHS[(month + step) % 12])
        if kind == 3:
            days = "28, or in a leap year 29," if month == 1 else str(MONTH_LENGTHS[month])
            order = "how many days [does <m> have|are there in <m>]?"
            return self.ask(order, "[<n>|<m> has <d> days.]", m=MONTHS[month], d=days, n=days.rstrip(","))
        place = number_words(month + 1)
        return self.ask("which is month number <n> of the year?", "<m>", n=place, m=MONTHS[month])

    def clock(self) -> Task:
        hour, minute = self.number(1, 12), self.pick((0, 10, 15, 20, 30, 40, 45, 50))
        if self.chance(0.5):
            late = self.chance(0.6)
            full = hour % 12 + (12 if late else 0)
            twelve = f"{hour}:{minute:02d} {'pm' if late else 'am'}"
            twenty_four = f"{full:02d}:{minute:02d}"
            if self.chance(0.5):
                return self.ask("write <a> [in|on] the 24-hour clock.", "<b>", a=twelve, b=twenty_four)
            return self.ask("[what is <b> with am or pm?|write <b> with am or pm.]", "<a>", a=twelve, b=twenty_four)
        start = self.number(6, 20) * 60 + minute
        length = self.number(1, 18) * 10
        end = start + length
        order = "the [film|lesson|meeting|match|journey] starts at <s> and takes <n> minutes. When does it end?"
        begin, finish = (f"{time // 60 % 24:02d}:{time % 60:02d}" for time in (start, end))
        return self.ask(order, "[at <e>|<e>]", s=begin, n=length, e=finish)

    # --- facts

    def fact(self) -> Task:
        question, answer = self.pick(self.facts["facts"])
        return Task(question, "", self.say("[<a>|<a>.]", a=capital(answer)))

    def capital_city(self) -> Task:
        country, city, *_ = self.pick(self.facts["countries"])
        if self.chance(0.3):
            order = (
                "<city> is the capital of which country?|which country has <city> as its capital?"
                "|whose capital is <city>?"
            )
            return self.ask(order, "[<c>|<c>.|it is the capital of <c>.]", city=city, c=country)
        order = (
            "[name|give|tell me] the capital [city |]of <c>.|which city is the capital of <c>?"
            "|what is <c>'s capital[ city|]?"
        )
        return self.ask(order, "[<city>|<city>.|it is <city>.|<city> is the capital of <c>.]", city=city, c=country)

    def country(self) -> Task:
        name, _, continent, tongue, currency = self.pick(self.facts["countries"])
        kind = self.number(0, 2)
        if kind == 0:
            order = "[on which continent is <c>?|where in the world is <c>?|which continent does <c> belong to?]"
            return self.ask(order, "[<a>|in <a>|<c> is in <a>.]", c=name, a=continent)
        if kind == 1:
            order = "[name an official language of <c>.|which language do many people speak in <c>?]"
            return self.ask(order, "[<a>|<a> is spoken there.]", c=name, a=tongue)
        order = "[with which money do people pay in <c>?|what is the currency of <c> called?]"
        return self.ask(order, "[the <a>|with the <a>]", c=name, a=currency)

    def element(self) -> Task:
        name, symbol, number = self.pick(self.facts["elements"])
        kind = self.number(0, 3)
        if kind == 0:
            return self.ask("[give|write down] the chemical symbol for <e>.", "<s>", e=name, s=symbol)
        if kind == 1:
            return self.ask(
                "which [chemical |]element has the symbol <s>?", "[<e>|<s> is the symbol of <e>.]", e=name, s=symbol
            )
        if kind == 2:
            return self.ask(
                "what is the atomic number of <e>?", "[<n>|<e> has the atomic number <n>.]", e=name, n=number
            )
        many = "" if number == "1" else "s"
        return self.ask("which element has <n> proton<s>[ in its atom|]?", "<e>", n=number, s=many, e=name)

    def animal(self) -> Task:
        name, family, young, sound, home = self.pick(self.facts["animals"])
        kinds = [
            (
                "[what class of animals does a(n) <a> belong to?|is a(n) <a> a mammal, a bird or something else?]",
                "a(n) <f>",
            )
        ]
        kinds += [("what [do we|do you] call the young of a(n) <a>?", "a(n) <y>")] * (young != "-")
        kinds += [("[what does a(n) <a> do when it makes a sound?|which sound does a(n) <a> make?]", "it <s>")] * (
            sound != "-"
        )
        kinds += [("where does a(n) <a> live or make its home? In a ...", "<h>")] * (home not in ("-", "sea", "shell"))
        order, answer = self.pick(kinds)
        answer = "[" + answer + "|" + answer + ".]"
        return self.ask(order, answer, a=name, f=family, y=young, s=sound, h=home)

    def made_by(self) -> Task:
        kind = self.number(0, 4)
        name, verbs = (
            ("works", "[who wrote <w>?|name the author of <w>.|<w> is a work by which writer?]"),
            ("paintings", "[who painted <w>?|which artist painted <w>?]"),
            ("music", "[who composed <w>?|which composer wrote <w>?]"),
            ("inventions", "[who invented <w>?|with whom do we connect the invention of <w>?]"),
            ("discoveries", "[who discovered <w>?|name the discoverer of <w>.]"),
        )[kind]
        work, person = self.pick(self.facts[name])
        return self.ask(verbs, "[<p>|<p>.|it was <p>.]", w=work, p=person)

    def year(self) -> Task:
        event, year = self.pick(self.facts["events"])
        return self.ask("[when|in which year] did <e>?", "[<y>|in <y>]", e=event, y=year)

    def how_many(self) -> Task:
        thing, number = self.pick(self.facts["amounts"])
        return self.ask("how many <t>?", "[<n>|<n>.]", t=thing, n=number)

    def superlative(self) -> Task:
        thing, answer = self.pick(self.facts["superlatives"])
        order = "[what is <t>?|name <t>.|tell me <t>.|can you name <t>?|which one is <t>?]"
        return self.ask(order, "[<a>|<a>.|it is <a>.]", t=thing, a=answer)

    def place(self) -> Task:
        thing, where = self.pick(self.facts["places"])
        thing = thing.replace("Uluru,", "Uluru")
        be = "are" if thing.endswith(("Falls", "Pyramids of Giza")) else "is"
        order = "[where [would I find|can you see|<be>] <t>?|tell me where <t> <be>.]"
        return self.ask(order, "[<w>|<w>.]", t=thing, w=where, be=be)

    def stands_for(self) -> Task:
        short, full = self.pick(self.facts["abbreviations"])
        if self.chance(0.3):
            return self.ask("[what is the short form of|how do you abbreviate] '<f>'?", "<s>", s=short, f=full)
        order = (
            "what does <s> stand for?|<s> is short for ...|write out <s>.|what is <s> short for?"
            "|what is the full form of <s>?"
        )
        return self.ask(order, "[<f>|<s> stands for <f>.]", s=short, f=full)

    def define(self) -> Task:
        word, meaning = self.pick(self.facts["definitions"])
        if self.chance(0.35):
            return self.ask("which word means: <m>?", "<w>", m=meaning, w=word)
        order = (
            "what does '<w>' mean?|define the word '<w>'.|explain '<w>' in a few words."
            "|what is meant by the word '<w>'?"
        )
        return self.ask(order, "[<m>|<m>.]", w=word, m=meaning)

    def why(self) -> Task:
        statement, reason = self.pick(self.facts["why"])
        helper = "does" if statement.startswith(SINGULAR_WHY) else "do"
        order = "[why <h> <s>?|what is the reason why <t>?|explain why <t>.]"
        told = third_person_of(statement) if helper == "does" else statement
        return self.ask(order, "<r>.", h=helper, s=statement, t=told, r=reason)

    def true_false(self) -> Task:
        truth = self.chance(0.5)
        statement = self.pick(self.facts["simple_true" if truth else "simple_false"])[0]
        yes, no = self.pick((("true", "false"), ("yes", "no"), ("right", "wrong")))
        order = {"true": "true or false?", "yes": "is this so?", "right": "right or wrong?"}[yes]
        return self.about(order, statement + ".", capital(yes if truth else no))

    def planet(self) -> Task:
        at = self.number(0, 7)
        if self.chance(0.5) and at < 7:
            order = "which planet is next after <a>, going out from the Sun?"
            return self.ask(order, "<b>", a=PLANETS[at], b=PLANETS[at + 1])
        order = "[which is planet number <n> from the Sun?|counted from the Sun, which planet is number <n>?]"
        return self.ask(order, "<b>", n=number_words(at + 1), b=PLANETS[at])

    # --- messages

    def written(self, rule: str) -> str:
        return capitalised(self.grammar.write(rule))

    def sentiment(self) -> Task:
        good = self.chance(0.5)
        text = self.written("good" if good else "bad")
        orders = (
            ("is [this|the] review positive or negative?", "positive", "negative"),
            ("[what is|tell me] the [sentiment|mood] of [this|the] text", "positive", "negative"),
            ("did the writer like it?", "yes", "no"),
            ("classify the [review|comment] as good or bad", "good", "bad"),
            ("[would the author recommend it?|is the author pleased?]", "yes", "no"),
        )
        order, yes, no = self.pick(orders)
        return self.about(order, text, capital(yes if good else no))

    def kind_of_message(self) -> Task:
        rule = self.pick(tuple(MESSAGES))
        text = self.written(rule)
        if self.chance(0.5) and rule not in ("advert", "good", "bad"):
            order = "is this [message |]spam?|would you put this in the spam folder?"
            return self.about(order, text, "Yes" if rule == "scam" else "No")
        order = (
            "what kind of [text|message] is this?"
            "|[say|decide] what this is: private, advert, spam, notice, mail or review"
        )
        return self.about(order, text, capital(MESSAGES[rule]))

    def asks_for(self) -> Task:
        rule = self.pick(tuple(QUESTIONS))
        order = (
            "what does this question ask for?|which kind of answer is wanted|say what the question asks for"
            "|what is being asked for here?"
        )
        return self.about(order, self.written(rule), capital(QUESTIONS[rule]))

    def compose(self) -> Task:
        orders = (
            ("write a [short |]text message to a friend", "text"),
            ("write a [short |]mail to a company", "mail"),
            ("write an advert", "advert"),
            ("[give an example of|show me] a spam message", "scam"),
            ("write a [positive|good] review", "good"),
            ("write a [negative|bad] review", "bad"),
            ("ask a question about a person", "ask_person"),
            ("ask a question about a place", "ask_place"),
            ("ask a question about a time", "ask_time"),
            ("ask a question with how much, how many or how long", "ask_number"),
            ("write a [short |]reminder", "notice"),
            ("write a [short |]dialogue", "chat_pair"),
        )
        order, rule = self.pick(orders)
        text = self.written("mail_body" if rule == "mail" else rule)
        return Task(capital(self.say(order)) + ".", "", text)

    def find_detail(self) -> Task:
        """A note with a person, a place, a day and a time, and a question about one of them."""
        values = {
            "who": self.say("{name}"),
            "where": self.say("{place}"),
            "day": self.pick(DAYS),
            "time": f"{self.number(1, 12)}:{self.pick(('00', '15', '30', '45'))}",
            "what": self.say("{thing}"),
        }
        note = self.say(
            "[hi, let's meet at <where> on <day> at <time>, and bring your <what>. <who>"
            "|<who> is waiting at <where> on <day> at <time> and has your <what>."
            "|note for <day>: <time> at <where> with <who>, take the <what> along."
            "|on <day> I saw <who> at <where>. It was <time>, and the <what> was gone.]",
            **values,
        )
        key, name = self.pick(
            (("where", "place"), ("day", "day"), ("time", "time"), ("who", "person"), ("what", "thing")),
        )
        order = "[which <q> is named in the message?|read the note: which <q> is named?|find the <q> in this message.]"
        return Task(capital(self.say(order, q=name)), capital(note), capital(values[key]))


def stopped(order: str) -> str:
    """With a capital, and the stop that fits an order or a question."""
    if order[-1] in "?.!":
        return capital(order)
    asks = order.lower().startswith(("what", "which", "who", "how", "is ", "do ", "did ", "would "))
    return capital(order) + ("?" if asks else ".")


SINGULAR_WHY = ("the sky", "ice ", "the Moon", "bread", "sea water")


def third_person_of(statement: str) -> str:
    """The statement of a question with "does": "the sky look blue" is "the sky looks blue"."""
    return re.sub(r"^(the sky|ice|the Moon|bread|sea water) (\w+)", lambda m: f"{m[1]} {third_person(m[2])}", statement)
