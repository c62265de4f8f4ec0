"""Write the sample of instructions, src/gptailor/assets/sample/instructions.json, the same on every run.

    python scripts/make_instructions.py [--apart FILE]

Short instructions of ten kinds with computed answers, from the tables of make_text.py. With --apart, none stands in the
pretraining text FILE (jsonl): neither the same order about the same text, nor the same question.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from make_text import FOLDER, table
from make_text_check import words
from make_text_grammar import Grammar
from make_text_tasks import Task, Tasks

OUT = FOLDER.parent / "src" / "gptailor" / "assets" / "sample" / "instructions.json"
SEED = 11
NUMBER = 800
KINDS = (
    *("tense", "voice", "negate", "to_question", "who_where"),
    *("word_class", "category_of", "antonym", "plural_sentence", "compare_adjective"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample of instructions.")
    parser.add_argument("--apart", type=Path, help="jsonl of pretraining text that no record may stand in")
    known = pretrained(parser.parse_args().apart)
    tables = table("make_text.yaml")
    grammar = Grammar(tables["words"] | tables["frames"], random.Random(SEED))
    tasks = Tasks(table("make_text_facts.yaml"), grammar)
    records: dict[tuple[str, str], str] = {}
    while len(records) < NUMBER:
        grammar.begin()
        task: Task = getattr(tasks, grammar.pick(KINDS))()
        if joined(f"{task.instruction} {task.given}") not in known:
            records.setdefault((task.instruction, task.given), task.response)
    rows = [{"instruction": order, "input": given, "output": answer} for (order, given), answer in records.items()]
    OUT.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(rows)} records in {OUT}")


def pretrained(file: Path | None) -> set[str]:
    """What the documents of FILE ask, in words: everything between the order and its answer."""
    asked: set[str] = set()
    for line in file.read_text(encoding="utf-8").splitlines() if file else []:
        text = json.loads(line)["text"]
        _, marked, order = text.partition("### Instruction:\n")
        if marked:
            asked.add(joined(order.partition("\n\n### Response:")[0].replace("\n\n### Input:\n", " ")))
        for round_ in text.split("\n\n"):
            before, _, _ = round_.rpartition("\n")
            asked.add(joined(before.removeprefix("Question: ").removeprefix("Q: ")))
    return asked


def joined(text: str) -> str:
    return " ".join(words(text))


if __name__ == "__main__":
    main()
