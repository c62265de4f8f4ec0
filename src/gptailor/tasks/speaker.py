"""A language model in use: how it is asked, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from gptailor.data.encoding import prompt_ids
from gptailor.data.templates import Message, open_template
from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.device import choose_device
from gptailor.model.freeze import count_parameters
from gptailor.model.generate import Ending, generate_batch
from gptailor.model.precision import check_precision, lower, read_in
from gptailor.model.sampling import Sampling
from gptailor.model.stream import TextStream
from gptailor.weights.base import open_base

CONTINUED, ANSWERED = 60, 256  # most new tokens, when --max-new-tokens is left open


class Speaker:
    """A model that continues texts, or an assistant that answers; its weights are read when they are first needed.

    Args:
        precision: of weights and products, see ``model.precision.lower``.

    Attributes:
        context: how many tokens it can read.
        template: how it is asked; None for one that continues texts.
        sampling: as given, with the template's end of an answer and the most new tokens filled in.

    Raises:
        UserError: there is no such model, it has learned nothing, or there is no such precision here.
    """

    def __init__(self, name: str, sampling: Sampling, device: str, precision: str = "fp32") -> None:
        where = choose_device(device)
        check_precision(precision, where)
        base = open_base(name)
        if base.tokenizer is None:
            raise UserError(f"{name} has nothing to say: its weights are random", expected="a trained language model")
        self.name, self.tokenizer, self.context = name, base.tokenizer, base.config.context_length
        self.template = open_template(base.template) if base.template else None
        closing = (self.template.closing,) if self.template and self.template.closing else ()
        most = sampling.max_new_tokens or (ANSWERED if self.template else CONTINUED)
        self.sampling = replace(sampling, max_new_tokens=most, stop=(*sampling.stop, *closing))
        self._base, self._device, self._precision = base, where, precision

    @cached_property
    def decoder(self) -> Decoder:
        """The model itself."""
        decoder = self._base.load(self.tokenizer, read_in(self._precision)).to(self._device)
        lower(decoder, self._precision)
        return decoder

    @property
    def n_parameters(self) -> int:
        """How many numbers the model has learned, in whatever they are kept."""
        with torch.device("meta"):
            return count_parameters(Decoder(self._base.config))[0]

    @property
    def has_turns(self) -> bool:
        """Whether a second question may follow the first answer."""
        return self.template is not None and self.template.has_turns

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens that an answer follows; without a template, those of the last message.

        Raises:
            UserError: the template has no room for the messages.
        """
        if self.template is None:
            return self.tokenizer.encode(messages[-1].content)
        return prompt_ids([messages], self.template, self.tokenizer)[0]

    def say(self, ids: list[int], seed: int, on_text: Callable[[str], None]) -> Ending:
        """Continues the tokens of one prompt; what it says comes in pieces. Returns what ended it."""
        stream = TextStream(self.tokenizer.decode, self.sampling.stop)
        (said,) = generate_batch(
            self.decoder,
            [ids],
            **self.sampling.options(),
            end_of_text=self.tokenizer.end_of_text,
            decode=self.tokenizer.decode,
            seeds=[seed],
            on_token=lambda row, token: on_text(stream.add(token)),
        )
        on_text(stream.rest())
        return said.ended

    def cut_short(self, ended: Ending) -> str:
        """Why there might have been more, in half a sentence; ``""`` where there might not."""
        if ended == "context":
            return f"because the model reads no more than {self.context:,} tokens"
        if ended == "length" and self.template is not None:
            return f"because of --max-new-tokens {self.sampling.max_new_tokens}"
        return ""


def check_sampling(sampling: Sampling) -> list[UserError]:
    """What is wrong with the options."""
    problems = []
    if not all(sampling.stop):
        problems.append(UserError("--stop is empty", expected="a string that ends the text"))
    numbers = (sampling.temperature, sampling.top_p, sampling.repetition_penalty)
    if not all(number is None or math.isfinite(number) for number in numbers):
        found = "--temperature, --top-p or --repetition-penalty is no finite number"
        problems.append(UserError(found, expected="numbers such as 0.8"))
    return problems
