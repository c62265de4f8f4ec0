"""The data receipt: what became of every row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from gptailor.data.example import Example
from gptailor.data.table import Table
from gptailor.errors import listing

SHOWN = 20  # places listed for each reason; the counts are always complete


class Receipt:
    """Collects, as rows pass through the rooms of ``data``, what was read, kept, cut and dropped, and why."""

    def __init__(self) -> None:
        self.files: list[dict[str, Any]] = []
        self.columns: dict[str, str] = {}
        self.text_columns: list[str] = []
        self.dropped: dict[str, list[str]] = defaultdict(list)
        self.cut: list[str] = []
        self.limit = 0
        self.lengths: list[int] = []
        self.labels: dict[str, Counter[str]] = {}
        self.duplicates: Counter[str] = Counter()
        self.conflicts: list[dict[str, Any]] = []
        self.shared: dict[str, dict[str, int]] = {}
        self.warnings: list[str] = []
        self.read = self.kept = 0

    def add_file(self, part: str, table: Table) -> None:
        """A file was read: ``part`` is data, train, validation or test."""
        rows = len(table.lines) + len(table.dropped)
        self.read += rows
        self.files.append(
            {
                "part": part,
                "path": str(table.path),
                "sha256": table.sha256,
                "bytes": table.bytes,
                "format": table.format,
                "rows": rows,
                "said": table.said,
            }
        )

    def add_columns(self, text: list[str], label: str) -> None:
        """The columns that were chosen; several text columns are joined."""
        self.text_columns = text
        self.columns = {"text": " + ".join(text), "label": label}

    def drop(self, reason: str, where: str) -> None:
        """The row at ``where`` (file:line) is not used."""
        self.dropped[reason].append(where)

    def warn(self, message: str) -> None:
        """Something the user should know before trusting the result; said once."""
        if message not in self.warnings:
            self.warnings.append(message)

    def encoded(self, n_tokens: int, limit: int, where: str) -> None:
        """A text has ``n_tokens``; more than ``limit`` are cut."""
        self.lengths.append(n_tokens)
        self.limit = limit
        if n_tokens > limit:
            self.cut.append(where)

    def look(self, examples: Sequence[Example]) -> None:
        """Counts labels, repeated texts and contradicting labels among all labelled rows, before any is left out."""
        by_text: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            by_text[example.text].append(example)
            self.labels.setdefault(example.label, Counter())["read"] += 1
        for text, group in by_text.items():
            self.duplicates.update(example.label for example in group[1:])
            labels = Counter(example.label for example in group)
            if len(labels) > 1:
                lines = [example.where for example in group]
                self.conflicts.append({"text": text, "labels": dict(labels), "lines": lines[:SHOWN]})

        spellings: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.labels):
            spellings[" ".join(name.casefold().split())].append(name)
        for names in spellings.values():
            if len(names) > 1:
                told = listing(map(repr, names))
                self.warn(f"labels that differ only in case or spaces are kept apart: {told}")

    def why(self) -> str:
        """Why rows are left out, in half a sentence for an error message; ``""`` when none is."""
        reasons = [f"{len(places):,} × {reason}" for reason, places in self.dropped.items()]
        return f" ({self.read:,} rows read; left out: {'; '.join(reasons)})" if reasons else ""

    def part(self, parts: Mapping[str, Sequence[Example]]) -> None:
        """Counts what each part holds, and which texts of it stand in the training part word for word."""
        self.kept = sum(len(examples) for examples in parts.values())
        trained_on = {example.text for example in parts["train"]}
        for name, examples in parts.items():
            for example in examples:
                self.labels[example.label][name] += 1
                self.labels[example.label]["kept"] += 1
            if name != "train":
                shared = sum(example.text in trained_on for example in examples)
                self.shared[name] = {"n": len(examples), "in_train": shared}
        chosen_by = {example.text for example in parts.get("validation", ())}
        seen = sum(example.text in chosen_by for example in parts.get("test", ()))
        if seen:
            n_test = len(parts["test"])
            self.warn(
                f"{seen:,} of {n_test:,} test texts stand in the validation part, by which the weights are chosen"
            )

    def to_dict(self) -> dict[str, Any]:
        """The receipt as it is saved in ``receipt.json``."""
        columns = ("read", "kept", "train", "validation", "test")
        dropped = sum(len(places) for places in self.dropped.values())
        return {
            "files": self.files,
            "columns": self.columns,
            "rows": {"read": self.read, "kept": self.kept, "dropped": dropped, "cut": len(self.cut)},
            "dropped": [
                {"reason": reason, "count": len(places), "lines": places[:SHOWN]}
                for reason, places in sorted(self.dropped.items(), key=lambda item: -len(item[1]))
            ],
            "cut": {"count": len(self.cut), "limit": self.limit, "lines": self.cut[:SHOWN]},
            "duplicates": {"rows": sum(self.duplicates.values()), "by_label": dict(sorted(self.duplicates.items()))},
            "conflicts": {
                "texts": len(self.conflicts),
                "rows": sum(sum(conflict["labels"].values()) for conflict in self.conflicts),
                "examples": self.conflicts[:SHOWN],
            },
            "shared": self.shared,
            "labels": {name: {key: counts[key] for key in columns} for name, counts in sorted(self.labels.items())},
            "lengths": _distribution(self.lengths),
            "warnings": self.warnings,
        }


class InstructionReceipt(Receipt):
    """What became of every row of instruction data, and of the tokens that are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[dict[str, Any]] = []
        self.empty_outputs: list[str] = []
        self.unanswered: list[str] = []
        self.parts: dict[str, int] = {}
        self.tokens: dict[str, Counter[str]] = {}
        self.prompts_over = self.responses_cut = self.turns_cut = 0

    def add_shape(self, table: Table, shape: str, columns: Sequence[str]) -> None:
        """A table was recognised as ``shape`` by its columns; the others are not used."""
        unused = [name for name in table.columns if name not in columns]
        self.shapes.append({"path": str(table.path), "shape": shape, "columns": list(columns), "unused": unused})

    def arranged(self, openings: Mapping[str, Sequence[Hashable]]) -> None:
        """The records of each part by their first question; counts those that training also has."""
        trained_on = set(openings["train"])
        for name in ("validation", "test"):
            shared = sum(opening in trained_on for opening in openings[name])
            self.shared[name] = {"n": len(openings[name]), "in_train": shared}
            if shared:
                self.warn(
                    f"{shared} of {len(openings[name])} {name} questions stand word for word in the training part"
                )

    def learn(self, part: str, *sides: np.ndarray) -> None:
        """A record was encoded: ``learned`` (t,) tells which of its tokens, the end of text last, are learned."""
        for learned in sides:
            counts = {"targets": len(learned) - 1, "learned": int(learned.sum()), "ends": int(learned[-1])}
            self.tokens.setdefault(part, Counter()).update({"records": 1, **counts})

    def fitted(self, kept: Mapping[str, int], limit: int, *, prompts_over: int) -> None:
        """What is left of each part once all records have ids; ``prompts_over`` have no room for an answer."""
        self.parts, self.kept, self.limit, self.prompts_over = dict(kept), sum(kept.values()), limit, prompts_over

    def to_dict(self) -> dict[str, Any]:
        """The receipt as it is saved in ``receipt.json``."""
        of_labels = ("columns", "labels", "conflicts", "duplicates")
        return {
            **{key: value for key, value in super().to_dict().items() if key not in of_labels},
            "shapes": self.shapes,
            "parts": self.parts,
            "empty_outputs": {"count": len(self.empty_outputs), "lines": self.empty_outputs[:SHOWN]},
            "unanswered": {"count": len(self.unanswered), "lines": self.unanswered[:SHOWN]},
            "prompts_over": self.prompts_over,
            "responses_cut": self.responses_cut,
            "turns_cut": self.turns_cut,
            "tokens": {part: _with_share(numbers) for part, numbers in self.tokens.items()},
        }


class PreferenceReceipt(InstructionReceipt):
    """What became of every row of pairs, and how long their sides are."""

    def __init__(self) -> None:
        super().__init__()
        self.identical: list[str] = []
        self.empty_sides: dict[str, list[str]] = {"chosen": [], "rejected": []}

    def learn(self, part: str, *sides: np.ndarray) -> None:
        """A pair was encoded: which tokens (t,) of the chosen and of the rejected side are learned."""
        chosen, rejected = (int(learned.sum()) for learned in sides)
        counts = {"pairs": 1, "chosen": chosen, "rejected": rejected}
        longer = {"chosen_longer": chosen > rejected, "rejected_longer": chosen < rejected}
        self.tokens.setdefault(part, Counter()).update({**counts, **longer})

    def to_dict(self) -> dict[str, Any]:
        """The receipt as it is saved in ``receipt.json``."""
        of_answers = ("empty_outputs", "unanswered", "turns_cut")
        empty = {side: {"count": len(lines), "lines": lines[:SHOWN]} for side, lines in self.empty_sides.items()}
        return {
            **{key: value for key, value in super().to_dict().items() if key not in of_answers},
            "identical": {"count": len(self.identical), "lines": self.identical[:SHOWN]},
            "empty_sides": empty,
            "tokens": {part: dict(numbers) for part, numbers in self.tokens.items()},
            "length_bias": self._length_bias(),
        }

    def _length_bias(self) -> dict[str, Any]:
        """How often the longer side is the chosen one, and how long both are, in tokens with the end of text."""
        whole = sum(self.tokens.values(), Counter())
        if not whole["pairs"]:
            return {}
        shares = {key: round(whole[key] / whole["pairs"], 4) for key in ("chosen_longer", "rejected_longer")}
        means = {f"mean_{side}": round(whole[side] / whole["pairs"], 1) for side in ("chosen", "rejected")}
        return {"pairs": whole["pairs"], **shares, **means}


def _with_share(numbers: Mapping[str, int]) -> dict[str, Any]:
    return {**numbers, "learned_share": round(numbers["learned"] / max(1, numbers["targets"]), 4)}


def _distribution(lengths: Sequence[int]) -> dict[str, Any]:
    """Mean, median, 95th percentile and maximum, and a histogram up to the maximum."""
    if not lengths:
        return {}
    counts, edges = np.histogram(lengths, bins=min(20, max(lengths)), range=(0, max(lengths)))
    return {
        "mean": round(float(np.mean(lengths)), 1),
        "median": float(np.median(lengths)),
        "p95": round(float(np.percentile(lengths, 95)), 1),
        "max": max(lengths),
        "edges": [round(float(edge), 1) for edge in edges],
        "counts": counts.tolist(),
    }
