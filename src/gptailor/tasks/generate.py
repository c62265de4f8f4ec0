"""``gptailor generate``: a language model continues a text, an assistant answers; one prompt, or a file of them."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from gptailor.config import user_path
from gptailor.data.prompts import Prompt, read_prompts
from gptailor.data.table import Table
from gptailor.data.templates import Message
from gptailor.errors import UserError, listing
from gptailor.evaluate.format import plural
from gptailor.model.generate import Ending
from gptailor.model.sampling import Sampling
from gptailor.show import visible
from gptailor.tasks.answers import answer, endings
from gptailor.tasks.lock import FolderLock
from gptailor.tasks.speaker import Speaker, check_sampling

RESPONSE = "model_response"
CHANGED = {"weights": "the weights of the model have changed", "data": "the file has changed"}


def generate_command(
    name: str,
    prompt: str,
    sampling: Sampling,
    device: str,
    input: str = "",
    on_text: Callable[[str], None] = lambda piece: None,
    on_note: Callable[[str], None] = lambda note: None,
    precision: str = "fp32",
) -> str:
    """The prompt and its continuation, or an assistant's answer alone; see ``gptailor generate --help``.

    Args:
        input: what an assistant's instruction is about.
        on_text: called with each piece of the result as it comes, the prompt first.
        on_note: called with what the user should know besides.
        precision: see ``Speaker``.
    """
    speaker, problems = Speaker(name, sampling, device, precision), check_sampling(sampling)
    if input and speaker.template is None:
        problems.append(UserError(f"--input for {name}, which only continues texts", expected="an assistant"))
    ids = speaker.ids([Message("user", prompt, input)]) if prompt else []
    if not prompt:
        problems.append(UserError("the prompt is empty", expected="a text to continue"))
    if len(ids) > speaker.context:
        found = f"the prompt has {len(ids):,} tokens"
        problems.append(UserError(found, expected=f"at most {speaker.context:,}, which is what the model can read"))
    if problems:
        raise UserError.joined(problems)
    pieces = [] if speaker.template else [prompt]
    for piece in pieces:
        on_text(piece)

    def take(piece: str) -> None:
        pieces.append(piece)
        on_text(piece)

    cut = speaker.cut_short(speaker.say(ids, sampling.seed, take))
    if cut:
        on_note(f"the text ends here {cut}")
    return "".join(pieces)


# --- a file of prompts ------------------------------------------------------------------------------------------------


def check_places(prompt: str | None, input: str, file: Path | None, out: Path | None) -> None:
    """Raises ``UserError`` unless there is a prompt, or a file and a place for its answers."""
    problems = []
    if file is None and prompt is None and out is None:
        problems.append(UserError("no prompt", expected="a text in quotes, or --file FILE --out ANSWERS.json"))
    if file is not None and prompt is not None:
        problems.append(UserError(f"a prompt, and --file {file}", expected="one of them"))
    if file is not None and input:
        problems.append(UserError("--input with --file", expected="inputs in the records of the file"))
    if (file is None) != (out is None):
        given, lacking = ("--file", "--out ANSWERS.json") if out is None else ("--out", "--file FILE")
        problems.append(UserError(f"{given} alone", expected=f"{lacking} with it"))
    if problems:
        raise UserError.joined(problems)


def answer_file(
    name: str,
    file: Path,
    out: Path,
    sampling: Sampling,
    device: str,
    console: Console,
    precision: str = "fp32",
) -> bool:
    """Answers each record of a file and writes them to ``out``; see ``gptailor generate --help``.

    What is finished is kept in ``OUT.unfinished`` until all is. Record n, counted from 0, is drawn with ``seed + n``:
    its answer depends on no other record.

    Returns:
        False when it was stopped by Ctrl-C; the same call goes on.

    Raises:
        UserError: when the model or the file cannot be used, no record can be answered, ``out`` exists, or what is
            unfinished there belongs to other options, another file or another model.
    """
    _check_out(out)
    speaker, problems = Speaker(name, sampling, device, precision), check_sampling(sampling)
    if problems:
        raise UserError.joined(problems)
    prompts, table = read_prompts(file, questions=speaker.template is not None)
    ids = _encode(prompts, table, speaker, console)
    asked = [place for place, one in enumerate(ids) if one]
    model = {"model": name, "weights": _weights(name), "precision": precision}
    settings = {**model, "data": table.sha256, **asdict(sampling)}
    with _unfinished(out, settings) as state:
        kept = state / "answers.jsonl"
        try:
            said = answer(
                speaker.decoder,
                speaker.tokenizer,
                [ids[place] for place in asked],
                **speaker.sampling.options(),
                seeds=[sampling.seed + place for place in asked],
                strip=speaker.template is not None,
                kept=kept,
                console=console,
                told="answering" if speaker.template else "continuing",
            )
        except KeyboardInterrupt:
            done = sum(endings(kept).values())
            told = f"stopped: {done:,} of {len(asked):,} are kept in {state}; the same command goes on from there"
            _say(console, told, note=False)
            return False
        responses = dict(zip(asked, said, strict=True))
        rows = [{**prompt.row, RESPONSE: responses.get(place)} for place, prompt in enumerate(prompts)]
        ended = endings(kept)
        _write_json(out, rows, by_way_of=state / "all.json")
        shutil.rmtree(state)
    _tell(console, speaker, out, len(rows), len(asked), ended)
    return True


def _check_out(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out} exists", expected="a new file", hint="another --out")
    if out.suffix != ".json":
        raise UserError(f"--out {out}", expected="a name that ends in .json, which is what is written")
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent}", expected="a new file in an existing folder")


def _encode(prompts: Sequence[Prompt], table: Table, speaker: Speaker, console: Console) -> list[list[int]]:
    """The tokens of each prompt; none where it cannot be answered, which is said.

    Raises:
        UserError: when none of them can.
    """
    ids: list[list[int]] = []
    reasons: dict[str, list[str]] = defaultdict(list)
    for prompt in prompts:
        found, problem = [], prompt.problem
        try:
            found = [] if problem else speaker.ids(prompt.messages)
        except UserError as error:
            problem = error.found
        if len(found) > speaker.context:
            found, problem = [], f"longer than the {speaker.context:,} tokens that the model reads"
        if problem:
            reasons[problem].append(prompt.where)
        ids.append(found)
    listed = "".join(f"\n  {len(places):,} × {why}: {listing(places, 5)}" for why, places in reasons.items())
    if not any(ids):
        raise UserError(f"no record of {table.path} can be answered{listed}")
    for sentence in table.said:
        _say(console, f"{table.path.name}: {sentence}")
    if any(RESPONSE in prompt.row for prompt in prompts):
        _say(console, f"{table.path.name} has a {RESPONSE} already: the new ones take its place")
    if table.dropped:
        places = listing([f"{row.line} ({row.reason})" for row in table.dropped], 5)
        _say(console, f"left out, as they cannot be read: {plural(len(table.dropped), 'row')}, line {places}")
    if listed:
        without = len(ids) - sum(map(bool, ids))
        _say(console, f"{without:,} of {len(ids):,} records get no answer (null):{listed}")
    return ids


@contextmanager
def _unfinished(out: Path, settings: Mapping[str, Any]) -> Generator[Path]:
    """The folder beside ``out`` that keeps what is finished; meanwhile no other process can use it."""
    state = out.with_name(out.name + ".unfinished")
    try:
        state.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{state} cannot be written: {error.strerror}", hint="another --out") from None
    lock = FolderLock(state)
    try:
        _check_settings(state, json.loads(json.dumps(settings)))
        yield state
    finally:
        lock.release()


def _check_settings(state: Path, wanted: dict[str, Any]) -> None:
    """Raises ``UserError`` when what is kept was answered with other settings; writes them where there are none."""
    file = state / "run.json"
    if not file.exists():
        _write_json(file, wanted, by_way_of=state / ".run.json")
        return
    saved = json.loads(file.read_text(encoding="utf-8"))
    differ = [key for key in wanted if saved.get(key) != wanted[key]]
    if differ:
        told = (CHANGED.get(key, f"{key} was {saved.get(key)!r} and is now {wanted[key]!r}") for key in differ)
        hint = f"the same command as before, another --out, or delete {state}"
        raise UserError(f"{state} holds the answers of another run: {'; '.join(told)}", hint=hint)


def _weights(name: str) -> dict[str, list[int]]:
    """By what it would be seen that a model of this name has been trained anew."""
    files = {file.name: file.stat() for file in user_path(name).glob("*.safetensors")}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in files.items()}


def _write_json(file: Path, value: Any, *, by_way_of: Path) -> None:
    """The file appears whole or not at all."""
    by_way_of.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    by_way_of.replace(file)


def _tell(console: Console, speaker: Speaker, out: Path, rows: int, asked: int, ended: Mapping[Ending, int]) -> None:
    without = f" ({rows - asked:,} without an answer)" if rows > asked else ""
    _say(console, f"{plural(rows, 'record')} -> {out}{without}", note=False)
    for ending, count in ended.items():
        cut = speaker.cut_short(ending)
        if cut:
            _say(console, f"{count:,} of {asked:,} answers end {cut}")


def _say(console: Console, text: str, *, note: bool = True) -> None:
    console.print("[yellow]note:[/] " * note + visible(text), highlight=False, soft_wrap=True)
