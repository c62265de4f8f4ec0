"""Answers of a model to many questions, in order; what was said before an interruption is not said again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gptailor.model.decoder import Decoder
from gptailor.model.generate import Ending, generate_batch
from gptailor.model.stream import before_stop
from gptailor.tokenizer import Tokenizer

TOGETHER = 1.2e9  # bytes of keys and values in float32 of the questions that are answered together


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
    seeds: Sequence[int] | None = None,
    strip: bool = True,
    **sampling: Any,
) -> list[str]:
    """The answer to each prompt, without the prompt: the likeliest one, token by token (greedy), or a drawn one.

    Args:
        stop: strings that end an answer besides the end of text.
        kept: jsonl file in which finished answers are kept; those that it holds are taken from it.
        told: what the progress bar says.
        seeds: one for each prompt; needed when a temperature is given.
        strip: leave out white space around an answer.
        sampling: further keywords of ``generate_batch``; none is greedy.
    """
    held = _whole_lines(kept)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    more = TextColumn("{task.fields[tokens]:,} tokens")  # moves where a part takes minutes
    with Progress(*columns, more, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(told, total=len(prompts), completed=len(held), tokens=0)
        tokens = count(1)
        most = int(TOGETHER / (8 * decoder.config.n_layer * decoder.config.n_embd))  # tokens, read and written
        while len(held) < len(prompts):
            part = slice(len(held), _end_of_part([len(ids) + max_new_tokens for ids in prompts], len(held), most))
            said = generate_batch(
                decoder,
                prompts[part],
                max_new_tokens=max_new_tokens,
                end_of_text=tokenizer.end_of_text,
                stop=stop,
                decode=tokenizer.decode,
                seeds=seeds and seeds[part],
                on_token=lambda row, token: bar.update(task, tokens=next(tokens)),
                **sampling,
            )
            new = [{"text": before_stop(tokenizer.decode(one.ids), stop), "ended": one.ended} for one in said]
            with kept.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in new))
            held += new
            bar.update(task, completed=len(held))
    return [line["text"].strip() if strip else line["text"] for line in held]


def _end_of_part(lengths: Sequence[int], start: int, most: int) -> int:
    """Behind the last of those that are answered together, from ``start`` on: one, or ``most`` tokens with padding."""
    longest = 0
    for end in range(start, len(lengths)):
        longest = max(longest, lengths[end])
        if end > start and (end + 1 - start) * longest > most:
            return end
    return len(lengths)


def endings(kept: Path) -> Counter[Ending]:
    """How many of the answers in the file were ended by what."""
    return Counter(line["ended"] for line in _whole_lines(kept))


def _whole_lines(kept: Path) -> list[dict[str, Any]]:
    """What the file holds; half a line, which a kill leaves, is taken off it."""
    if not kept.exists():
        return []
    raw = kept.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        kept.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]
