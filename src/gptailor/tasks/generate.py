"""``gptailor generate``: a language model continues a text, an assistant answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gptailor.config import user_path
from gptailor.data.instruction import prompt_ids
from gptailor.data.templates import TEMPLATE_FILE, Message, Template, open_template
from gptailor.errors import UserError
from gptailor.model.device import choose_device
from gptailor.model.generate import generate_batch
from gptailor.model.stream import TextStream
from gptailor.weights.base import open_base


def generate_command(
    name: str,
    prompt: str,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    device: str,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    input: str = "",
    on_text: Callable[[str], None] = lambda piece: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> str:
    """The prompt and its continuation, or an assistant's answer alone; see ``gptailor generate --help``.

    Args:
        input: what an assistant's instruction is about.
        on_text: called with each piece of the result as it comes, the prompt first.
        on_note: called with what the user should know besides.
    """
    base = open_base(name)
    if base.tokenizer is None:
        raise UserError(f"{name} has nothing to say: its weights are random", expected="a trained language model")
    tokenizer, context, template = base.tokenizer, base.config.context_length, _template(name)
    if input and template is None:
        raise UserError(f"--input for {name}, which only continues texts", expected="an assistant, or one prompt")
    if template is not None and prompt:
        (ids,) = prompt_ids([[Message("user", prompt, input)]], template, tokenizer)
        stop, begun = [*stop, *filter(None, [template.closing])], ""
    else:
        ids, begun = tokenizer.encode(prompt), prompt
    _check(len(ids), context, stop, (temperature, top_p, repetition_penalty))
    decoder = base.load(tokenizer).to(choose_device(device))
    stream, pieces = TextStream(tokenizer.decode, stop), [begun]
    on_text(begun)

    def take(piece: str) -> None:
        pieces.append(piece)
        on_text(piece)

    (said,) = generate_batch(
        decoder,
        [ids],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        end_of_text=tokenizer.end_of_text,
        stop=stop,
        decode=tokenizer.decode,
        seeds=[seed],
        on_token=lambda row, token: take(stream.add(token)),
    )
    take(stream.rest())
    if said.ended == "context":
        on_note(f"the text ends here because the model reads no more than {context} tokens")
    return "".join(pieces)


def _template(name: str) -> Template | None:
    """How the folder's model is asked; None for one that continues texts."""
    folder = user_path(name)
    return open_template(folder) if (folder / TEMPLATE_FILE).is_file() else None


def _check(n_tokens: int, context: int, stop: Sequence[str], numbers: Sequence[float | None]) -> None:
    """One error for all that is wrong."""
    problems = []
    if n_tokens == 0:
        problems.append(UserError("the prompt is empty", expected="a text to continue"))
    if n_tokens > context:
        found = f"the prompt has {n_tokens:,} tokens"
        problems.append(UserError(found, expected=f"at most {context:,}, which is what the model can read"))
    if not all(stop):
        problems.append(UserError("--stop is empty", expected="a string that ends the text"))
    if not all(number is None or math.isfinite(number) for number in numbers):
        found = "--temperature, --top-p or --repetition-penalty is no finite number"
        problems.append(UserError(found, expected="numbers such as 0.8"))
    if problems:
        raise UserError.joined(problems)
