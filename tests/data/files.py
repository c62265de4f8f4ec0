"""What the tests of several readers need: files, their rows, and strategies for what may stand in them."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gptailor.data.table import Table

PROPERTY = settings(
    max_examples=int(os.environ.get("GPTAILOR_TEST_EXAMPLES", "40")),  # 1000 takes minutes, for a change to a reader
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# A short file with many control characters counts as binary, and a mark at its very beginning is no part of its text.
NO_TEXT = "\ufeff" + bytes([*range(9), *range(14, 32), 127]).decode("ascii")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=NO_TEXT), max_size=12)
TRICKY = st.text(st.sampled_from("ab\"',;\t\n\r \u2028\u0085é\x0b"), max_size=8)
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=NO_TEXT + "\t\n\r"), max_size=12)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*table.columns.values(), strict=True)]


def grids(cell: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[str]]]:
    widths = st.integers(2, 4)
    return widths.flatmap(lambda n: st.lists(st.lists(cell, min_size=n, max_size=n), min_size=1, max_size=8))
