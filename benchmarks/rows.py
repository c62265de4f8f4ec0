"""What is measured: a row for each goal. One more contestant is a line here, and a function in a file of ``peers/``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import floors
from work import Contestant, Work


@dataclass(frozen=True)
class Row:
    """One table; the first contestant is the one that the others are compared with.

    Attributes:
        unit: ``"s"`` is the whole process from its start, imports and all; a rate is what the contestant did by its
            own clock, with the model loaded.
        contestants: by name; a list of words is a command.
        floor: what the machine allows, in the same unit.
    """

    about: str
    unit: str
    contestants: Mapping[str, Contestant | list[str]]
    floor: Callable[[Work, floors.Machine, Contestant], float | None] | None = None


BOOK = {"pad_to": "data", "read": "last-position"}
BEST = {"best": True}

ROWS = {
    "spam": Row(
        "spam: 5 epochs of the book's split, last block trained, all evaluations, the whole process",
        "s",
        {
            "textbook": Contestant("textbook"),
            "transformers": Contestant("huggingface"),
            "transformers, best": Contestant("huggingface", options=BEST),
            "transformers, best, bf16": Contestant("huggingface", "bf16", BEST),
            "gptailor": Contestant("gptailor"),
            "gptailor, bf16": Contestant("gptailor", "bf16"),
            "gptailor, book's padding": Contestant("gptailor", options=BOOK),
            "gptailor, book's padding, bf16": Contestant("gptailor", "bf16", BOOK),
        },
        floors.spam,
    ),
    "instructions": Row(
        "instructions: full fine-tuning, one epoch",
        "tokens/s",
        {
            "textbook": Contestant("textbook"),
            "transformers": Contestant("huggingface"),
            "transformers, best": Contestant("huggingface", options=BEST),
            "transformers, best, bf16": Contestant("huggingface", "bf16", BEST),
            "LitGPT": Contestant("litgpt"),
            "LitGPT, bf16": Contestant("litgpt", "bf16"),
            "gptailor": Contestant("gptailor"),
            "gptailor, bf16": Contestant("gptailor", "bf16"),
        },
        floors.training,
    ),
    "lora": Row(
        "lora: rank 16 on every matrix of the blocks, one epoch of the instructions",
        "tokens/s",
        {
            "transformers + PEFT": Contestant("peft"),
            "transformers + PEFT, best, bf16": Contestant("peft", "bf16", BEST),
            "LitGPT": Contestant("litgpt"),
            "LitGPT, bf16": Contestant("litgpt", "bf16"),
            "gptailor": Contestant("gptailor"),
            "gptailor, frozen in bf16": Contestant("gptailor", options={"frozen_in": "bf16"}),
            "gptailor, bf16": Contestant("gptailor", "bf16"),
            "gptailor, bf16, frozen in bf16": Contestant("gptailor", "bf16", {"frozen_in": "bf16"}),
        },
        floors.adapters,
    ),
    "classify": Row(
        "classify: many texts",
        "texts/s",
        {
            "textbook": Contestant("textbook"),
            "transformers": Contestant("huggingface"),
            "transformers, pipeline": Contestant("huggingface", work="pipeline_classify"),
            "transformers, best": Contestant("huggingface", options=BEST),
            "transformers, best, bf16": Contestant("huggingface", "bf16", BEST),
            "gptailor": Contestant("gptailor"),
            "gptailor, bf16": Contestant("gptailor", "bf16"),
            "gptailor, int8": Contestant("gptailor", "int8"),
        },
        floors.classify,
    ),
    "generate": Row(
        "generate: one prompt, 64 new tokens, greedy",
        "tokens/s",
        {
            "textbook, with a cache": Contestant("textbook"),
            "textbook": Contestant("textbook", options={"cache": False}),
            "transformers": Contestant("huggingface"),
            "transformers, bf16": Contestant("huggingface", "bf16"),
            "gptailor": Contestant("gptailor"),
            "gptailor, bf16": Contestant("gptailor", "bf16"),
            "gptailor, int8": Contestant("gptailor", "int8"),
        },
        floors.generate,
    ),
    "generate_many": Row(
        "generate_many: 110 prompts, 64 new tokens each, greedy",
        "tokens/s",
        {
            "transformers, 16 at once": Contestant("huggingface"),
            "transformers, 16 at once, bf16": Contestant("huggingface", "bf16"),
            "transformers, best, bf16": Contestant("huggingface", "bf16", BEST),
            "gptailor": Contestant("gptailor"),
            "gptailor, bf16": Contestant("gptailor", "bf16"),
            "gptailor, int8": Contestant("gptailor", "int8"),
        },
        floors.generate_many,
    ),
    "cold_start": Row(
        "cold_start: from the command to its answer, files in the page cache",
        "s",
        {
            "transformers, first label": Contestant("huggingface", work="first_label"),
            "gptailor, first label": ["gptailor", "predict", "{folder}/classifier", "a text"],
            "gptailor --help": ["gptailor", "--help"],
            "import torch": ["python", "-c", "import torch"],
        },
    ),
    "scaling": Row(
        "scaling: what ten times the work costs; training a classifier, the whole process",
        "s",
        {
            "once": Contestant("gptailor"),
            "10x the texts": Contestant("gptailor", options={"texts": 10}),
            "10x the length": Contestant("gptailor", options={"length": 10}),
            "10x the epochs": Contestant("gptailor", options={"epochs": 10}),
        },
    ),
}
