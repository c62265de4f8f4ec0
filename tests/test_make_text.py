import importlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
NUMBER = 4000
OFFENSIVE = (
    r"\b(sex\w*|nude|porn\w*|damn|shit\w*|fuck\w*|bitch\w*|bastard\w*|whore|slut|nazi\w*|nigg\w*|rape\w*|kill\w*)\b"
)


class Nothing:
    """A checker that finds nothing."""

    def find(self, text: str) -> list[str]:
        return []


@pytest.fixture(scope="module")
def scripts() -> Iterator[None]:
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def make_text(scripts: None) -> ModuleType:
    return importlib.import_module("make_text")


@pytest.fixture(scope="module")
def check(scripts: None) -> ModuleType:
    return importlib.import_module("make_text_check")


@pytest.fixture(scope="module")
def documents(make_text: ModuleType) -> list[dict[str, str]]:
    return list(make_text.Writer(5).documents(NUMBER, Nothing()))


@pytest.fixture(scope="module")
def tasks(make_text: ModuleType):
    return make_text.Writer(8).tasks


def texts(documents: list[dict[str, str]], *kinds: str) -> list[str]:
    return [row["text"] for row in documents if row["kind"] in kinds]


def made(tasks, name: str, number: int = 150) -> list:
    """Many instructions of one kind."""
    found = []
    for _ in range(number):
        tasks.grammar.begin()
        found.append(getattr(tasks, name)())
    return found


def hit(pattern: str, text: str) -> re.Match[str]:
    match = re.search(pattern, text)
    assert match, text
    return match


def whole(task) -> str:
    return f"{task.instruction} {task.given}"


def test_same_seed_same_documents_and_another_seed_others(make_text: ModuleType, documents: list) -> None:
    assert list(make_text.Writer(5).documents(300, Nothing())) == documents[:300]
    others = list(make_text.Writer(6).documents(300, Nothing()))
    assert sum(a == b for a, b in zip(others, documents, strict=False)) < 5


def test_script_writes_jsonl(make_text: ModuleType, tmp_path: Path) -> None:
    make_text.write(tmp_path / "a.jsonl", 200, 5, None)
    make_text.write(tmp_path / "b.jsonl", 200, 5, None)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 200
    assert all(set(row) == {"text", "kind"} and row["text"].strip() == row["text"] != "" for row in rows)


def test_no_document_twice_and_few_runs_shared(documents: list, check: ModuleType) -> None:
    assert len({row["text"] for row in documents}) == NUMBER
    runs = Counter()
    for text in (row["text"].replace("appropriately completes the request", "") for row in documents):
        found = check.words(text.partition("### Instruction:")[2] or text)
        runs.update(tuple(found[i : i + 8]) for i in range(len(found) - 7))
    assert len(runs) > 0.85 * runs.total()


def test_kinds_come_in_their_shares(make_text: ModuleType, documents: list) -> None:
    assert sum(make_text.SHARES.values()) == pytest.approx(1)
    counts = Counter(row["kind"] for row in documents)
    for kind, share in make_text.SHARES.items():
        assert counts[kind] / NUMBER == pytest.approx(share, abs=0.02)


def test_no_slot_and_no_bracket_is_left(documents: list) -> None:
    for row in documents:
        assert not re.search(r"[{}\[\]|]|\ba\(n\)|<\w{2,}>", row["text"]), row["text"]
        assert not re.search(r"\b(a|A) [aeio][a-z]|\ban [bcdfgjklmnpqrstvwxz]", row["text"]) or wrong_on_purpose(
            row["text"]
        )


def wrong_on_purpose(text: str) -> bool:
    """Exercises in which a mistake is to be found, and "a one..."."""
    return re.search(r"mistake|orrect|epair|end t|should this|the letter|\ba one", text) is not None


def test_every_slot_names_a_rule(make_text: ModuleType) -> None:
    rules = make_text.rules()
    slots = {name for block in rules.values() for name in re.findall(r"\{=?([a-z_0-9]+)[.\d]*\*?\}", block)}
    assert slots - set(rules) == {"_"}
    labels = importlib.import_module("make_text_labels").LABELS.values()
    drawn = {*make_text.SHARES, *make_text.QUESTIONS, "good", "bad"} | {rule for names, _ in labels for rule in names}
    assert set(rules) - slots <= drawn, "rules that nothing draws"
    parts = [make_text.table(file)[part] for file in make_text.GRAMMARS for part in ("words", "frames")]
    written = [make_text.written(file, prefix) for file, prefix in make_text.WRITTEN.items()]
    assert sum(map(len, parts + written)) == len(rules), "two grammars have a rule of the same name"


def test_sets_hold_one_text_of_each_label(make_text: ModuleType) -> None:
    for file in (file for file, prefix in make_text.WRITTEN.items() if prefix.endswith("_set_")):
        lines = (SCRIPTS / "written" / file).read_text(encoding="utf-8").splitlines()
        labels = [line.split("\t")[0] for line in lines]
        kinds = sorted(set(labels))
        for at in range(0, len(lines), len(kinds)):
            assert sorted(labels[at : at + len(kinds)]) == kinds, f"{file}:{at + 1}"


def test_what_was_written_one_by_one_is_written_once(make_text: ModuleType) -> None:
    for file in make_text.WRITTEN:
        lines = (SCRIPTS / "written" / file).read_text(encoding="utf-8").splitlines()
        words = [re.sub(r"\W+", " ", line.lower()) for line in lines]
        assert len(set(words)) == len(words), file
        strange = [line for line in lines if re.search(r"; | / |\{(?!#\d+-\d+\}|name\}|day\}|month\})", line)]
        assert not strange, file


def test_the_grammar_is_wide(make_text: ModuleType, tasks) -> None:
    tables = make_text.table("make_text.yaml")
    words = [entry for block in tables["words"].values() for entry in re.split(r"; |\n", block.strip())]
    facts = [row[0] for rows in tasks.facts.values() for row in rows] + list(tasks.category)
    assert len(set(words) | set(facts)) >= 2500
    frames = [line for block in tables["frames"].values() for line in block.strip().splitlines()]
    assert len(set(frames)) >= 300
    assert len(set(tasks.makers)) >= 60


def test_messages_hold_no_real_address_and_nothing_offensive(documents: list) -> None:
    everything = "\n".join(row["text"] for row in documents)
    assert "@" not in "\n".join(row["text"] for row in documents if row["kind"] != "swahili")
    assert set(re.findall(r"\w\.(com|org|net|co\.uk|info)\b", everything)) == set()
    assert not re.search(OFFENSIVE, everything)
    numbers = re.findall(r"\b0\d{3,4} \d{6,7}\b|\b555-\d{4}", everything)
    assert len(numbers) > 50  # all of them from the ranges that are kept free for fiction
    assert all(re.match(r"08081 570|07700 900|01632 960|0909 8790|555-01", number) for number in numbers)


def test_instructions_have_the_shapes_of_the_templates(documents: list) -> None:
    found = texts(documents, "instruction")
    alpaca = [text for text in found if "### Instruction:" in text]
    preamble = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    )
    shape = rf"({re.escape(preamble)})?### Instruction:\n.+?(\n\n### Input:\n.+?)?\n\n### Response:\n.+"
    assert all(re.fullmatch(shape, text, re.DOTALL) for text in alpaca)
    assert 0.6 < len(alpaca) / len(found) < 0.7
    assert 0.6 < sum(text.startswith(preamble) for text in alpaca) / len(alpaca) < 0.8
    assert sum("### Input:" in text for text in alpaca) > 0.2 * len(alpaca)


def test_every_kind_of_instruction_has_a_response(tasks) -> None:
    for maker in dict.fromkeys(tasks.makers):
        for task in made(tasks, maker.__name__, 30):
            assert task.instruction[-1] in ".?" or re.search("[:?] ", task.instruction), task
            assert task.instruction[0].isupper() and task.response.strip(), task
            assert "|" not in "".join(task), task


def test_sums_are_right(tasks) -> None:
    signs = {"plus": "+", "minus": "-", "times": "*", "x": "*", "divided by": "//", "/": "//"}
    for task in made(tasks, "arithmetic"):
        a, sign, b = hit(r"(\d+) (\D+) (\d+)", task.instruction).groups()
        expected = eval(f"{a} {signs.get(sign, sign)} {b}")
        assert int(hit(r"(\d+)\.?$", task.response)[1]) == expected, task


def test_word_problems_are_right(tasks) -> None:
    for task in made(tasks, "story"):
        numbers = [int(n) for n in re.findall(r"\d+", task.instruction)]
        a, b = numbers
        result = int(hit(r"(\d+)\.?$", task.response)[1])
        if "shares" in task.instruction:
            assert result * b == a, task
        elif re.search(r"each|cost|pages", task.instruction):
            assert result == a * b, task
        elif re.search(r"more|in all", task.instruction):
            assert result == a + b, task
        else:
            assert result == a - b, task


def test_sorted_lists_and_extremes_are_right(tasks) -> None:
    for task in made(tasks, "sort_numbers"):
        given = [int(n) for n in re.findall(r"\d+", whole(task))]
        assert task.response == ", ".join(map(str, sorted(given, reverse="large to small" in task.instruction)))
    for task in made(tasks, "sort_words"):
        given = (task.given or task.instruction.split(": ")[1]).split(", ")
        key = len if re.search("length|long", task.instruction) else str.lower
        assert task.response == ", ".join(sorted(given, key=key)), task
    for task in made(tasks, "average"):
        given = [int(n) for n in re.findall(r"\d+", whole(task))]
        assert sum(given) / len(given) == int(task.response)
    for task in made(tasks, "series"):
        row = [int(n) for n in re.findall(r"\d+", task.instruction)]
        assert int(task.response) - row[3] == row[3] - row[2] == row[1] - row[0]


def test_letters_and_words_are_counted_right(tasks) -> None:
    for task in made(tasks, "letters"):
        word = hit(r"'(\w+)'", task.instruction)[1].lower()
        kind = hit(r"vowels|consonants|letters|letter (\w)", task.instruction)
        number = int(hit(r"\d+", task.response)[0])
        vowels = len(re.findall("[aeiou]", word))
        if kind[1]:
            assert number == word.count(kind[1]), task
        else:
            assert number == {"vowels": vowels, "consonants": len(word) - vowels, "letters": len(word)}[kind[0]], task
    for task in made(tasks, "count_words"):
        sentence = task.given or task.instruction.partition("? ")[2] or task.instruction.partition(": ")[2]
        assert int(hit(r"\d+", task.response)[0]) == len(sentence.split()), task


def test_numerals_and_units_are_right(tasks, scripts: None) -> None:
    english = importlib.import_module("make_text_english")
    assert [english.roman(n) for n in (4, 9, 14, 1999, 2000)] == ["IV", "IX", "XIV", "MCMXCIX", "MM"]
    assert english.number_words(342) == "three hundred and forty-two"
    assert english.number_words(1005) == "one thousand and five"
    factors = {"minutes": 60, "hours": 3600, "seconds": 1, "days": 86400, "weeks": 604800}
    checked = 0
    for task in made(tasks, "convert", 400):
        amounts = re.findall(r"([\d,]+) (\w+)", f"{task.instruction} = {task.response}")
        if len(amounts) == 2 and {unit for _, unit in amounts} <= set(factors):
            seconds = {int(n.replace(",", "")) * factors[unit] for n, unit in amounts}
            checked += 1
            assert len(seconds) == 1, task
    assert checked > 20


def test_forms_of_verbs_and_nouns(scripts: None) -> None:
    english = importlib.import_module("make_text_english")
    forms = {
        "run": "running",
        "write": "writing",
        "visit": "visiting",
        "open": "opening",
        "see": "seeing",
        "lie": "lying",
    }
    assert {base: english.ing(base) for base in forms} == forms
    plurals = {
        "box": "boxes",
        "baby": "babies",
        "day": "days",
        "wolf": "wolves",
        "octopus": "octopuses",
        "bench": "benches",
    }
    assert {one: english.plural(one) for one in plurals} == plurals
    articles = {"hour": "an", "uniform": "a", "umbrella": "an", "e-reader": "an", "pear": "a", "one": "a", "oboe": "an"}
    assert {word: english.article(word) for word in articles} == articles


def test_clauses_in_every_form(scripts: None) -> None:
    clause = importlib.import_module("make_text_english").Clause(
        "they", True, ("write", "wrote", "written"), "a letter", False, "at home"
    )
    assert clause.form("present") == "They write a letter at home."
    assert clause.form("past continuous") == "They were writing a letter at home."
    assert clause.form("present perfect") == "They have written a letter at home."
    assert clause.passive("past") == "A letter was written by them at home."
    assert clause.negative(past=False) == "They do not write a letter at home."
    assert clause.question(past=True) == "Did they write a letter at home?"


def test_sentiment_answers_follow_the_review(tasks, make_text: ModuleType) -> None:
    grammar = make_text.Writer(2).grammar
    answers = Counter(task.response for task in made(tasks, "sentiment", 300))
    assert set(answers) == {"Positive", "Negative", "Yes", "No", "Good", "Bad"}
    tables = make_text.table("make_text.yaml")["words"]
    only_bad = tables["verdict_bad"].strip().split("; ")
    good = [grammar.write("good").lower() for _ in range(500)]
    assert not any(verdict.lower() in text for verdict in only_bad for text in good)


def entries(make_text: ModuleType, *names: str) -> list[str]:
    """The entries of these rules that hold no slot and no choice."""
    found = [entry.strip() for name in names for entry in re.split(r"; |\n", make_text.rules()[name].strip())]
    return [entry for entry in found if not re.search(r"[{\[]", entry)]


def test_words_of_praise_and_of_blame_are_many_and_none_is_both(make_text: ModuleType) -> None:
    for kind in ("pos", "noun", "adv", "does", "say"):
        good = entries(make_text, "op_pos" if kind == "pos" else f"op_good_{kind}")
        bad = entries(make_text, "op_neg" if kind == "pos" else f"op_bad_{kind}")
        assert not set(good) & set(bad)
        assert min(len(good), len(bad)) >= (300 if kind == "pos" else 35), kind
    assert not set(entries(make_text, "sw_good_word")) & set(entries(make_text, "sw_bad_word"))


@pytest.mark.parametrize(("side", "other"), [("good", "bad"), ("bad", "good")])
def test_an_opinion_never_names_the_other_verdict(make_text: ModuleType, side: str, other: str) -> None:
    grammar = make_text.Writer(3).grammar
    verdicts = set(entries(make_text, f"op_{other}_say")) - set(entries(make_text, "op_pos", "op_neg"))
    for _ in range(600):
        lines = re.split(r"\n|(?<=[.!?:]) ", grammar.write(f"op_{side}_doc").lower())
        assert not {line.strip(" .!:") for line in lines} & {verdict.lower() for verdict in verdicts}, lines


def test_half_of_the_opinions_are_set_apart_in_small_letters(documents: list) -> None:
    found = texts(documents, "opinion")
    apart = [text for text in found if text == text.lower() and not re.search(r"\w[.,!?](\s|$)", text)]
    assert 0.4 < len(apart) / len(found) < 0.6


def test_a_customers_message_comes_with_what_it_is(make_text: ModuleType) -> None:
    grammar = make_text.Writer(4).grammar
    named = Counter()
    for _ in range(600):
        grammar.begin()
        message, name, meaning, answer = grammar.frame("{=sv_case}|{=sv_case.1}|{=sv_case.2}|{=sv_case.3}").split("|")
        assert message and name and meaning and answer
        named.update(re.findall(r"complain|question|praise|change|order|apolog|confirm|suggest|cancel", meaning))
    assert len(named) == 9
    assert named["question"] > 20 and named["complain"] > 20


def test_calendar_and_planets_are_right(tasks) -> None:
    import calendar

    days, months = list(calendar.day_name), list(calendar.month_name)[1:]
    for task in made(tasks, "calendar", 300):
        if match := re.search(r"day (?:comes|is) (after|before) (\w+)\?", task.instruction):
            assert task.response == days[(days.index(match[2]) + (1 if match[1] == "after" else -1)) % 7]
        if match := re.search(r"month (?:comes|is) (?:right )?(after|before) (\w+)\?", task.instruction):
            assert task.response == months[(months.index(match[2]) + (1 if match[1] == "after" else -1)) % 12]
        if (match := re.search(r"(?:does|in) (\w+)(?: have)?\?$", task.instruction)) and match[1] in months[2:]:
            length = calendar.monthrange(2023, months.index(match[1]) + 1)[1]
            assert str(length) in task.response, task


def test_checker_finds_a_planted_sentence(check: ModuleType) -> None:
    long = "The old harbour master counted, slowly, every single boat that came home."
    checker = check.Checker([long, "Don't feed the big geese!", "two words"])
    assert checker.find("He said: THE OLD harbour master counted slowly every single thing")
    assert checker.find("please dont feed the big geese, thank you")
    assert not checker.find("the old harbour master counted slowly every boat that came back home")
    assert not checker.find("two words, and then feed the big geese")


def test_writer_draws_afresh_what_the_checker_finds(make_text: ModuleType, check: ModuleType, documents: list) -> None:
    planted = next(row["text"] for row in documents[:300] if len(check.words(row["text"])) > 8)
    checker = check.Checker([planted])
    clean = list(islice(make_text.Writer(5).documents(300, checker), 300))
    assert not any(checker.find(row["text"]) for row in clean)


def test_nothing_of_the_sample_is_written(check: ModuleType, make_text: ModuleType, tmp_path: Path) -> None:
    make_text.write(tmp_path / "out.jsonl", 3000, 21, None)
    assert make_text.report([tmp_path / "out.jsonl"], None) == 0
    assert len(list(check.sample_texts())) > 1200


def test_nothing_of_the_evaluation_sets_is_written(shared_data: Path, make_text: ModuleType, tmp_path: Path) -> None:
    make_text.write(tmp_path / "out.jsonl", 3000, 22, shared_data)
    assert make_text.report([tmp_path / "out.jsonl"], shared_data) == 0
    first = (
        (shared_data / "sms_spam" / "SMSSpamCollection").read_text(encoding="utf-8").split("\n")[0].partition("\t")[2]
    )
    with (tmp_path / "out.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": f"He wrote: {first}", "kind": "text"}) + "\n")
    assert make_text.report([tmp_path / "out.jsonl"], shared_data) == 1


def test_labelled_texts(scripts: None) -> None:
    module = importlib.import_module("make_text_labels")
    rows = list(module.Labeller(5).rows(1500, Nothing()))
    assert list(module.Labeller(5).rows(1500, Nothing())) == rows
    assert len({text for text, _ in rows}) == len(rows)
    assert {label for _, label in rows} == set(module.LABELS)
    assert not [text for text, _ in rows if re.search(r"[{}|]|^\s|\s$", text)]
    swahili = ("nzuri", "mbaya", "kawaida")  # where nazi is a coconut
    english = [text for text, label in rows if label not in swahili]
    assert not [text for text in english if re.search(OFFENSIVE, text.lower())]


def test_labelled_texts_are_written_by_the_rules_of_their_label(scripts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("make_text_labels")
    labeller, number = module.Labeller(5), count()
    monkeypatch.setattr(labeller.grammar, "write", lambda rule: f"{rule} {next(number)}")
    monkeypatch.setattr(labeller, "slipped", lambda text: text)
    for text, label in labeller.rows(500, Nothing()):
        rule = text.lower().split()[0]
        assert "_" not in rule or rule in module.LABELS[label][0]  # "text" may become "txt"


def test_labelled_texts_keep_away_from_what_is_measured(scripts: None, check: ModuleType) -> None:
    module = importlib.import_module("make_text_labels")
    first = next(module.Labeller(5).rows(1, Nothing()))[0]
    assert next(module.Labeller(5).rows(1, check.Checker([first])))[0] != first
