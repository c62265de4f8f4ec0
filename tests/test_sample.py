import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY / "src" / "gptailor" / "assets" / "sample"

Rows = list[tuple[str, str]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    with (SAMPLE / "messages.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == ["text", "label"]
        return [(row["text"], row["label"]) for row in reader]


@pytest.fixture(scope="module")
def similarity(rows: Rows) -> np.ndarray:
    """Jaccard similarity (N, N) of the messages' character 5-grams, zero on the diagonal."""
    counts = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True, dtype=np.float32)
    grams = counts.fit_transform([plain(text) for text, _ in rows])
    common = (grams @ grams.T).toarray()
    sizes = common.diagonal()
    jaccard = common / (sizes[:, None] + sizes[None, :] - common)
    np.fill_diagonal(jaccard, 0)
    return jaccard


def plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z ]", "", text.lower()).split())


def default_split(labels: list[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of train (70 %) and test (20 %); the 10 % for validation are left aside."""
    rest, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    train, _ = train_test_split(rest, test_size=0.125, stratify=np.array(labels)[rest], random_state=seed)
    return train, test


def test_rows_per_label_are_those_of_the_readme(rows: Rows) -> None:
    table = re.findall(r"^\| `(\w+)` \| (\d+) \|", (SAMPLE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert Counter(label for _, label in rows) == {label: int(count) for label, count in table}
    assert len(table) == 4


def test_no_message_occurs_twice(rows: Rows) -> None:
    assert len({plain(text).replace(" ", "") for text, _ in rows}) == len(rows)


def test_no_near_duplicates(similarity: np.ndarray) -> None:
    assert similarity.max() <= 0.4


def test_no_test_message_has_a_near_duplicate_in_training(rows: Rows, similarity: np.ndarray) -> None:
    train, test = default_split([label for _, label in rows], seed=123)
    assert (similarity[np.ix_(test, train)] >= 0.8).sum() == 0


def test_messages_are_filled_in_and_name_nobody(rows: Rows) -> None:
    """No slot or alternative is left over, and nothing looks like a phone number, a link or a real mail address."""
    for text, _ in rows:
        assert 10 <= len(text) <= 300, text
        assert not re.search(r"[{}|\[\]\n]|  | [,.!?]|\d{5}|https?:|www\.", text), text
        assert all(address.endswith("@example.com") for address in re.findall(r"\S+@[\w.]+\w", text)), text


def test_word_statistics_learn_it_but_do_not_solve_it(rows: Rows) -> None:
    """Around 86 %: far above the commonest label (31 %), with room left for a model that knows more words."""
    texts, labels = np.array([text for text, _ in rows]), np.array([label for _, label in rows])
    train, test = default_split(labels.tolist(), seed=123)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=500)
    )
    accuracy = model.fit(texts[train], labels[train]).score(texts[test], labels[test])
    assert 0.8 < accuracy < 0.97
