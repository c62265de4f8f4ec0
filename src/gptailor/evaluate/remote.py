"""Judges on a server: Ollama, OpenAI, and whatever speaks OpenAI's protocol."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from gptailor.errors import UserError, listing
from gptailor.evaluate.questions import FORMS, Question, Reply, Unanswered
from gptailor.evaluate.server import Failed, Refused, Server, at, names, parsed

ATTEMPTS = 5
WAIT = 1.0  # seconds before the second attempt; doubled before each further one
OPENAI = "https://api.openai.com/v1"
CONTEXT = 2048  # tokens of question and reply that Ollama is asked to hold, as long as that is enough
CONTEXT_LIMIT = 131_072


class Remote:
    """A judge on a server: several attempts, in the strictest form of reply that the server takes.

    What a server does not take (a form of reply, a temperature, a seed) is left out from then on, and ``said``.

    Args:
        name: under which its replies are kept.
        server: where it is.
    """

    def __init__(self, name: str, server: Server) -> None:
        self.name, self.server = name, server
        self.said: list[str] = []
        self.wishes = ("temperature", "seed")
        self.form = 0  # the place in FORMS to begin at

    def ask(self, question: Question, seed: int) -> Reply:
        """Its reply at temperature 0; raises ``Unanswered``, and ``UserError`` when the server is gone."""
        refusals: list[str] = []
        for place in range(self.form, len(FORMS)):
            try:
                reply = self._patiently(lambda form=FORMS[place]: self._ask(question, form, seed))
            except Refused as error:
                refusals.append(str(error))
                continue
            if place > self.form:
                self.form = place
                self.said.append(f"it does not take {listing(FORMS[:place])}: asked for {FORMS[place]} replies")
            return reply
        raise Unanswered(refusals[0])

    def _patiently(self, attempt: Callable[[], Reply]) -> Reply:
        """The reply of the first attempt that does not fail, with longer and longer waits between them."""
        for number in range(ATTEMPTS):
            try:
                return attempt()
            except Failed as error:
                failed = error
            if number + 1 < ATTEMPTS:
                time.sleep(WAIT * 2**number if failed.wait is None else failed.wait)
        if failed.gone:
            raise self.not_there(str(failed))
        raise Unanswered(f"{failed}, {ATTEMPTS} times")

    def _ask(self, question: Question, form: str, seed: int) -> Reply:
        wishes = self.wishes
        values = {"temperature": 0, "seed": seed}
        try:
            return self.request(question, form, {name: values[name] for name in wishes})
        except Refused as error:
            unwanted = [name for name in wishes if re.search(rf"\b{name}\b", str(error))]
            if not unwanted:
                raise
        self.wishes = tuple(name for name in wishes if name not in unwanted)
        self.said.append(f"it does not take {listing(unwanted)}: left to its default")
        return self._ask(question, form, seed)

    def request(self, question: Question, form: str, settings: dict[str, Any]) -> Reply:
        """One attempt. Raises ``Failed`` or ``Refused``."""
        raise NotImplementedError

    def not_there(self, why: str) -> UserError:
        """What to say when nobody answers."""
        raise NotImplementedError


class Ollama(Remote):
    """A model of an Ollama server, on this machine or where ``OLLAMA_HOST`` says.

    Its chat protocol streams one JSON object per line, the last of which says that the reply is done.
    """

    def __init__(self, model: str) -> None:
        super().__init__(f"ollama:{model}", Server(_ollama_address()))
        self.model, self.context = model, CONTEXT

    def check(self) -> None:
        """Raises ``UserError`` when there is no server, or it does not have the model."""
        try:
            there = names(at(self.server.ask_json("GET", "/api/tags"), "models"), "name")
        except (Failed, Refused) as error:
            raise self.not_there(str(error)) from error
        wanted = self.model if ":" in self.model else f"{self.model}:latest"
        if wanted.lower() not in map(str.lower, there):
            found = f"the Ollama server at {self.server.address} does not have the model {self.model}"
            raise UserError(found, expected=f"one of {listing(there)}" * bool(there), hint=f"ollama pull {self.model}")

    def not_there(self, why: str) -> UserError:
        """How to start a server."""
        hint = f"ollama serve, and once: ollama pull {self.model} (OLLAMA_HOST names a server elsewhere)"
        return UserError(
            f"no Ollama server answers at {self.server.address}: {why}", expected="a running one", hint=hint
        )

    def request(self, question: Question, form: str, settings: dict[str, Any]) -> Reply:
        """One attempt; with a longer context where the model did not see all of the question."""
        messages = question.messages(structured=form != "plain")
        # The server cuts a long prompt without a word. A token is rarely less than two bytes, and the reply is short.
        self._hold(sum(len(each["content"].encode()) for each in messages) // 2 + 256)
        context = self.context
        options = settings | {"num_ctx": context}
        body: dict[str, Any] = {"model": self.model, "messages": messages, "stream": True, "options": options}
        if form != "plain":
            body["format"] = question.schema if form == "json_schema" else "json"
        text, last = _joined(self.server.ask("POST", "/api/chat", body))
        seen = last.get("prompt_eval_count")
        if isinstance(seen, int) and seen >= context - 16:
            self._hold(2 * context)
            return self.request(question, form, settings)
        return Reply(text, form, cut=last.get("done_reason") == "length")

    def _hold(self, tokens: int) -> None:
        """Asks for a longer context from now on, if need be: each change makes the server load the model anew."""
        if tokens > CONTEXT_LIMIT:
            raise Refused(f"the question does not fit into {CONTEXT_LIMIT:,} tokens")
        while self.context < tokens:
            self.context *= 2


def _ollama_address() -> str:
    """Where Ollama's own variable says that it is; ``0.0.0.0`` is where a server listens, not where it is reached."""
    told = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/")
    try:
        parts = urlsplit(told if "://" in told else f"http://{told}")
        port = parts.port or {"": 11434, "http": 80, "https": 443}[parts.scheme if "://" in told else ""]
    except (ValueError, KeyError) as error:
        raise UserError(f"OLLAMA_HOST is {told!r}: {error}", expected="HOST:PORT, or its http address") from None
    host = "127.0.0.1" if parts.hostname in (None, "0.0.0.0") else parts.hostname
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path}"


def _joined(stream: str) -> tuple[str, dict[str, Any]]:
    """The text of a streamed reply, and its last line. Raises ``Failed`` when the reply is no whole one."""
    pieces: list[str] = []
    for line in filter(str.strip, stream.split("\n")):
        value = parsed(line)
        if "error" in value:
            raise Failed(f"it broke off with an error: {str(value['error'])[:200]}")
        piece = at(value, "message", "content")
        if not isinstance(piece, str):
            raise Failed(f"a line without text: {line[:60]!r}")
        pieces.append(piece)
        if value.get("done") is True:
            return "".join(pieces), value
    raise Failed("the reply broke off")


class OpenAI(Remote):
    """A model of OpenAI, or of a server that speaks its chat-completions protocol (llama.cpp, vLLM, LM Studio ...).

    Args:
        address: what stands before ``/chat/completions``.
        model: ``""`` takes the one model that the server has.
        name: under which its replies are kept; by default the address and the model.

    Raises:
        UserError: when there is no model to take.
    """

    def __init__(self, address: str, model: str, key: str = "", name: str = "") -> None:
        super().__init__(name, Server(address, key))
        self.model = model or self._only_model()
        self.name = name or f"{address}#{self.model}"

    def check(self) -> None:
        """Raises ``UserError`` when there is no server, or it does not let us in."""
        self._models()

    def _models(self) -> list[str]:
        """Names of the models; none where the server, as some do, will not tell."""
        try:
            return names(at(self.server.ask_json("GET", "/models"), "data"), "id")
        except Failed as error:
            if error.gone:
                raise self.not_there(str(error)) from error
        except Refused:
            pass
        return []

    def _only_model(self) -> str:
        there = self._models()
        if len(there) != 1:
            found = f"{self.server.address} " + (f"has {len(there)} models" if there else "does not tell its models")
            expected = f"one of {listing(there)}" if there else "an address that ends in /v1, and a model"
            raise UserError(found, expected=expected, hint=f"--with {self.server.address}#MODEL")
        return there[0]

    def not_there(self, why: str) -> UserError:
        """How to start a server."""
        found = f"no server answers at {self.server.address}: {why}"
        if self.server.address == OPENAI:
            return UserError(found, expected="a connection to the internet", hint="--with ollama:llama3 needs none")
        hint = "start it, such as: llama-server -m MODEL.gguf --port 8080, and --with http://127.0.0.1:8080/v1"
        return UserError(found, expected="a running one", hint=hint)

    def request(self, question: Question, form: str, settings: dict[str, Any]) -> Reply:
        """One attempt."""
        body: dict[str, Any] = {"model": self.model, "messages": question.messages(structured=form != "plain")}
        if form == "json_schema":
            schema = {"name": question.asks, "strict": True, "schema": question.schema}
            body["response_format"] = {"type": form, "json_schema": schema}
        elif form == "json_object":
            body["response_format"] = {"type": form}
        choice = at(self.server.ask_json("POST", "/chat/completions", body | settings), "choices", 0)
        text = at(choice, "message", "content")
        text = at(choice, "message", "refusal") if text is None else text
        if not isinstance(text, str):
            raise Failed("an answer without text")
        return Reply(text, form, cut=at(choice, "finish_reason") == "length")
