"""Who can be asked to judge: a model on a server, or fixed rules that need none."""

from __future__ import annotations

import os
from typing import Protocol
from urllib.parse import urlsplit

from gptailor.errors import UserError
from gptailor.evaluate.answers import reference_scores
from gptailor.evaluate.questions import Question, Reply
from gptailor.evaluate.remote import OPENAI, Ollama, OpenAI

EXPECTED = "rules, ollama:MODEL, openai:MODEL, or the address of an OpenAI-compatible server: http://HOST:PORT/v1#MODEL"


class Judge(Protocol):
    """Whoever replies to questions; used from several threads at once.

    ``name`` stands beside each of its replies; ``said`` gathers what a user should know of how it replies.
    """

    name: str
    said: list[str]

    def check(self) -> None:
        """Raises ``UserError`` when it cannot be asked."""

    def ask(self, question: Question, seed: int) -> Reply:
        """Its reply. Raises ``Unanswered``, or ``UserError`` when no other question will fare better."""
        ...


def open_judge(name: str) -> Judge:
    """The judge of this name: ``rules``, ``ollama:MODEL``, ``openai:MODEL`` or ``http(s)://.../v1#MODEL``.

    Raises:
        UserError: for another name, a missing key, or an address without a model where the server has several.
    """
    kind, _, model = name.partition(":")
    if name == "rules":
        return Rules()
    if kind == "ollama" and model:
        return Ollama(model)
    if kind == "openai" and model:
        return OpenAI(OPENAI, model, _key("OPENAI_API_KEY", needed=True), name)
    if kind in ("http", "https"):
        address, _, model = name.partition("#")
        return OpenAI(_checked_address(address), model, _key("JUDGE_API_KEY", needed=False))
    raise UserError(f"no judge is called {name!r}", expected=EXPECTED)


def _key(variable: str, *, needed: bool) -> str:
    """An API key from the environment; ``""`` when there is none and none is needed."""
    key = os.environ.get(variable, "").strip()
    if needed and not key:
        raise UserError(f"{variable} is not set", expected="an API key", hint=f"export {variable}=...")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{variable} holds characters that no API key has", expected="the key alone")
    return key


def _checked_address(address: str) -> str:
    """The address without its last slash; it is written down with every reply, so it must hold no secret."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"{address!r} is no address: {error}", expected=EXPECTED) from None
    if not host:
        raise UserError(f"{address!r} names no server", expected=EXPECTED)
    if parts.username or parts.password or parts.query:
        expected = "the address alone; a key goes into the environment variable JUDGE_API_KEY"
        raise UserError(f"the address of {host} holds a user name, password or query", expected=expected)
    return address.rstrip("/")


class Rules:
    """Compares a response with its reference by their letters and words; it understands neither.

    The score is 100 where they are equal but for case, spaces and a full stop at the end, else the mean of chrF and
    ROUGE-L, rounded, and at most 99. Of two responses the one with the higher score is better.
    """

    def __init__(self) -> None:
        self.name, self.said = "rules", []

    def check(self) -> None:
        """Raises ``UserError`` when the libraries of the metrics are not installed."""
        reference_scores([], [])

    def ask(self, question: Question, seed: int) -> Reply:
        """Always the same reply; no verdict where there is no reference."""
        if not question.reference.strip():
            return Reply("there is no reference to compare with")
        scores = [_score(question.reference, response) for response in question.responses]
        if question.asks == "score":
            return Reply(str(scores[0]))
        return Reply("A" if scores[0] > scores[1] else "B" if scores[1] > scores[0] else "tie")


def _score(reference: str, response: str) -> int:
    scores = reference_scores([reference], [response])
    mean = (scores["chrf"][0] + scores["rouge_l"][0]) / 2
    return 100 if scores["exact"][0] else min(99, round(float(mean)))
