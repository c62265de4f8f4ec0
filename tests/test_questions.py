"""The sample of questions to an invented shop: what makes it fit to train an assistant on, and to test one."""

import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from tests.test_sample import SAMPLE, plain

FILE = SAMPLE / "questions.json"
Records = list[dict[str, str]]


@pytest.fixture(scope="module")
def records() -> Records:
    return json.loads(FILE.read_text(encoding="utf-8"))


def test_each_record_is_a_question_and_its_answer(records: Records) -> None:
    for record in records:
        assert list(record) == ["instruction", "output"]
        assert all(text == text.strip() and 1 < len(text) <= 100 for text in record.values()), record
        assert not re.search(r"[{}|\[\]\n]|  | [,.!?]|https?:|www\.|@", " ".join(record.values())), record


def test_each_record_has_a_line_of_its_own(records: Records) -> None:
    assert FILE.read_text(encoding="utf-8").splitlines() == [
        "[",
        *(f"  {json.dumps(record, ensure_ascii=False)}," for record in records[:-1]),
        f"  {json.dumps(records[-1], ensure_ascii=False)}",
        "]",
    ]


def test_no_question_is_asked_twice(records: Records) -> None:
    """Nor with another answer: what remains without capitals, spaces and punctuation differs everywhere."""
    asked = Counter(re.sub(r"[^a-z0-9]", "", record["instruction"].lower()) for record in records)
    assert [question for question, count in asked.items() if count > 1] == []


def test_no_question_is_a_near_duplicate_of_another(records: Records) -> None:
    """The Jaccard similarity of the character 5-grams stays far below that of one sentence with a word exchanged."""
    counts = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True, dtype=np.float32)
    grams = counts.fit_transform([f"    {plain(record['instruction'])}    " for record in records])
    common = (grams @ grams.T).toarray()
    sizes = common.diagonal()
    jaccard = common / (sizes[:, None] + sizes[None, :] - common)
    np.fill_diagonal(jaccard, 0)
    assert jaccard.max() <= 0.6


def test_every_answer_belongs_to_one_fact(records: Records) -> None:
    """A fact has one answer, its questions stand together, and no two answers share their first four words."""
    facts: dict[str, list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        facts[record["output"]].append(place)
    assert all(places == list(range(places[0], places[-1] + 1)) for places in facts.values())
    assert len({tuple(plain(answer).split()[:4]) for answer in facts}) == len(facts)
    assert all(5 <= len(answer.split()) <= 20 and answer.endswith(".") for answer in facts)
    assert all(len(places) >= 20 for places in facts.values())


def test_counts_are_those_of_the_readme(records: Records) -> None:
    told = re.search(r"(\d+) questions about (\d+) things", (SAMPLE / "README.md").read_text(encoding="utf-8"))
    assert told
    assert told.groups() == (str(len(records)), str(len({record["output"] for record in records})))


def test_word_statistics_find_most_answers(records: Records) -> None:
    """Unseen wordings are within reach, and not trivial: their words tell the fact in most questions, not in all."""
    texts, facts = zip(*((record["instruction"], record["output"]) for record in records), strict=True)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=30))
    parts = StratifiedKFold(5, shuffle=True, random_state=1)
    assert 0.8 < cross_val_score(model, texts, facts, cv=parts).mean() < 0.97
