"""Generation: the plain loop, and its fast twin that keeps keys and values and continues many prompts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from gptailor.model.cache import Cache
from gptailor.model.decoder import Decoder
from gptailor.model.sampling import choose, draw, penalize
from gptailor.model.stream import Decode, TextStream

Ending = Literal["end of text", "stop string", "length", "context"]


@torch.no_grad()
def generate(
    decoder: Decoder,
    input_ids: list[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    end_of_text: int | None = None,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Continues one prompt, the plain way: the whole text goes through the model for every new token.

    The context is cropped to the model's length from the left.

    Args:
        input_ids: the prompt, at least one id.
        temperature: 0 is greedy; above, logits are divided by it and one id is drawn.
        top_k: draw from the k most likely ids only.
        top_p: draw from the fewest ids whose probabilities reach p, in (0, 1].
        end_of_text: stop before this id.

    Returns:
        The new ids, without the prompt.
    """
    ids = list(input_ids)
    decoder.eval()
    device = decoder.token_embedding.weight.device
    for _ in range(max_new_tokens):
        window = torch.tensor([ids[-decoder.config.context_length :]], device=device)
        logits = decoder.logits(decoder(window)[0, -1]).float()  # (V,)
        token = choose(logits, temperature, top_k, top_p, generator)
        if token == end_of_text:
            break
        ids.append(token)
    return ids[len(input_ids) :]


@dataclass(frozen=True)
class Continuation:
    """What was said to one prompt.

    Attributes:
        ids: the new ids, without the prompt and without the end of text. A stop string that ended them is in them, for
            it may begin and end inside a token: ``stream.before_stop`` takes it off the text.
        ended: what ended it; "length" is ``max_new_tokens``, and "context" that the model can read no further.
    """

    ids: list[int]
    ended: Ending


@torch.no_grad()
def generate_batch(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    end_of_text: int | None = None,
    stop: Sequence[str] = (),
    decode: Decode | None = None,
    seeds: Sequence[int] | None = None,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Continuation]:
    """Continues prompts of any lengths together; what is said to one does not depend on the others.

    (But for the last bits of float32: a product over more rows may be rounded otherwise, which matters only where two
    ids are as likely as each other.)

    The ids are those of ``generate`` as long as the context lasts. When it is full, the plain loop crops the text:
    every token moves to another position, so that nothing that was kept is of use. Here the continuation ends instead,
    and says so; a prompt longer than the context gets no ids.

    All prompts are in memory at once (see ``Cache``): who has many passes them in parts.

    Args:
        prompts: at least one id each.
        temperature: as ``top_k``, ``top_p`` and ``end_of_text``, see ``generate``.
        repetition_penalty: above 1, ids that the prompt or the new text already has are less likely; see ``penalize``.
        stop: strings that end the new text; they need ``decode``.
        decode: gives the text of ids.
        seeds: one for each prompt; needed when the temperature is not 0.
        on_token: called with the number of a prompt and a new id of it, as they come.

    Returns:
        One for each prompt, in their order.
    """
    assert all(prompts), "there is nothing to continue in an empty prompt"
    assert not stop or decode is not None, "stop strings are looked for in text"
    assert temperature == 0 if seeds is None else len(seeds) == len(prompts), "one seed for each prompt"
    decoder.eval()
    weight, context = decoder.token_embedding.weight, decoder.config.context_length
    rows = [_Row(number, list(prompt)) for number, prompt in enumerate(prompts)]
    for row in rows:
        row.generator = None if seeds is None else torch.Generator(weight.device).manual_seed(seeds[row.number])
        row.text = TextStream(decode, stop) if decode is not None and stop else None
        row.ended = row.limit(max_new_tokens, context)
    active = [row for row in rows if not row.ended]
    longest = max((len(row.prompt) for row in active), default=0)
    cache = Cache(decoder.config, len(active), min(context, longest + max_new_tokens), weight)
    tokens = [row.prompt for row in active]
    while active:
        logits = decoder.logits(cache.read(decoder, tokens)).float()  # (B, V)
        if repetition_penalty != 1:
            logits = penalize(logits, [row.prompt + row.new for row in active], repetition_penalty)
        chosen = draw(logits, temperature, top_k, top_p, [row.generator for row in active])
        for row, token in zip(active, chosen, strict=True):
            if token == end_of_text:
                row.ended = "end of text"
                continue
            row.add(token)
            row.ended = row.limit(max_new_tokens, context)
            if on_token is not None:
                on_token(row.number, token)
        order = cache.keep([place for place, row in enumerate(active) if not row.ended])
        active = [active[place] for place in order]
        tokens = [row.new[-1:] for row in active]
    return [Continuation(row.new, row.ended) for row in rows if row.ended]  # by now, all of them


@dataclass
class _Row:
    """One prompt on its way."""

    number: int
    prompt: list[int]
    generator: torch.Generator | None = None
    text: TextStream | None = None  # only where stop strings are looked for
    new: list[int] = field(default_factory=list)
    ended: Ending | None = None

    def add(self, token: int) -> None:
        self.new.append(token)
        if self.text is not None:
            self.text.add(token)

    def limit(self, max_new_tokens: int, context: int) -> Ending | None:
        """Why nothing may follow, if so. The token behind a full context is still said; it can only not be read."""
        if self.text is not None and self.text.stopped:
            return "stop string"
        if len(self.new) == max_new_tokens:
            return "length"
        return "context" if len(self.prompt) + len(self.new) > context else None
