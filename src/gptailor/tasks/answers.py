"""Answers of a model to many questions, in order; what was said before an interruption is not said again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from gptailor.model.decoder import Decoder
from gptailor.model.generate import generate_batch
from gptailor.model.stream import before_stop
from gptailor.tokenizer import Tokenizer

AT_ONCE = 16  # questions that are answered together


def answer(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[str],
    kept: Path,
    console: Console,
    told: str,
) -> list[str]:
    """The likeliest answer to each prompt, token by token (greedy), without the prompt.

    Args:
        stop: strings that end an answer besides the end of text.
        kept: jsonl file in which finished answers are kept; those that it holds are taken from it.
        told: what the progress bar says.
    """
    answers = _whole_lines(kept)
    starts = range(len(answers), len(prompts), AT_ONCE)
    for start in track(starts, told, console=console, transient=True, disable=not console.is_terminal):
        part = generate_batch(
            decoder,
            prompts[start : start + AT_ONCE],
            max_new_tokens=max_new_tokens,
            end_of_text=tokenizer.end_of_text,
            stop=stop,
            decode=tokenizer.decode,
        )
        said = [before_stop(tokenizer.decode(one.ids), stop).strip() for one in part]
        with kept.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(text) + "\n" for text in said))
        answers += said
    return answers


def _whole_lines(kept: Path) -> list[str]:
    """The answers in the file; half a line, which a kill leaves, is taken off it."""
    if not kept.exists():
        return []
    lines = kept.read_bytes().split(b"\n")[:-1]
    kept.write_bytes(b"".join(line + b"\n" for line in lines))
    return [json.loads(line) for line in lines]
