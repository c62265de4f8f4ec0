"""How sure the labels of a set are: do texts that are nearly the same carry the same label?

    python benchmarks/agreement.py DATA

DATA is the folder of the data sets. Texts are nearly the same when the TF-IDF of their runs of two to four characters,
numbers apart, has a cosine of 0.9 or more; texts that are linked by others are one group; exact repeats are left out
first. Of each group it is told what share of its pairs have one label: the mean over the groups with its interval,
beside the share when the same labels are dealt out among these texts at random.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer
from transfer import SETS

from gptailor.config import ClassifierConfig, load_config
from gptailor.evaluate.bootstrap import mean_with_interval
from gptailor.tasks.prepare import prepare

SIMILAR = 0.9


@dataclass
class Agreement:
    """How well labels agree in groups of nearly the same texts.

    Attributes:
        shares: of each group, the share of its pairs with one label, in 0..1.
        n_texts: in all groups.
        chance: what ``shares`` would be on average with the same labels dealt out at random.
    """

    shares: list[float]
    n_texts: int
    chance: float


def agreement(texts: Sequence[str], labels: Sequence[int]) -> Agreement:
    """Raises ``ValueError`` when no two texts are nearly the same."""
    plain = [re.sub(r"\d+", "0", text.lower()) for text in texts]
    found = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit_transform(plain)
    _, group_of = connected_components(found @ found.T >= SIMILAR, directed=False)
    groups = [np.array(labels)[group_of == group] for group in np.flatnonzero(np.bincount(group_of) > 1)]
    if not groups:
        raise ValueError("no two texts are nearly the same")
    together = np.concatenate(groups)
    return Agreement([_pairs_with_one_label(group) for group in groups], len(together), _pairs_with_one_label(together))


def _pairs_with_one_label(labels: np.ndarray) -> float:
    counts = np.bincount(labels)
    return float((counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description="How sure the labels of a set are.")
    parser.add_argument("data", type=Path, help="folder of the data sets")
    folder = parser.parse_args().data
    print("| data | texts | groups of nearly the same | texts in them | pairs with one label, %, mean | by chance |")
    print("|---|---:|---:|---:|---|---:|")
    for name, files in SETS.items():
        options = {key: str(folder / value) if "/" in value else value for key, value in files.items()}
        prepared = prepare(load_config(ClassifierConfig, None, {**options, "balance": "none"}))
        texts = [example.text for part in prepared.parts.values() for example in part]
        found = agreement(texts, [label for part in prepared.parts for label in prepared.labels(part)])
        told = mean_with_interval(found.shares)
        low, high = told["interval"] or (0.0, 1.0)
        share = f"{100 * told['mean']:.0f} ({100 * low:.0f}-{100 * high:.0f})"
        numbers = f"{len(texts):,} | {len(found.shares)} | {found.n_texts}"
        print(f"| {name} | {numbers} | {share} | {100 * found.chance:.0f} |")


if __name__ == "__main__":
    main()
