"""HTTP to a server that judges: one request, and what can go wrong with it sorted by what helps."""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import urlsplit

from gptailor.errors import UserError

TIMEOUTS = {"GET": 30.0, "POST": 300.0}  # seconds without a byte: a large model may have to be loaded to reply
LONGEST = 900.0  # seconds for one answer
LARGEST = 4_000_000  # bytes of one answer
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for


class Failed(Exception):
    """One attempt that another may better.

    Args:
        wait: seconds that the server asks to wait.
        gone: whether nobody answers at the address.
    """

    def __init__(self, why: str, *, wait: float | None = None, gone: bool = False) -> None:
        super().__init__(why)
        self.wait, self.gone = wait, gone


class Refused(Exception):
    """The server understood, and will not have this request as it is."""


class Server:
    """One server, used from several threads at once.

    Args:
        address: everything before the paths that are asked for, without a slash at its end.
        key: sent as a bearer token; it is in nothing that this class says.
    """

    def __init__(self, address: str, key: str = "") -> None:
        import httpx2

        self.address, self.key = address, key
        near = urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")
        self.client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=not near,  # a proxy to the internet does not lead back to this machine
        )

    def ask(self, method: str, path: str, body: object = None) -> str:
        """The text of a successful answer.

        Raises:
            Failed: when another attempt may succeed.
            Refused: when this request will not be answered.
            UserError: when the server lets nobody in with this key.
        """
        import httpx2

        timeout = httpx2.Timeout(TIMEOUTS[method], connect=10.0)
        try:
            with self.client.stream(method, self.address + path, json=body, timeout=timeout) as response:
                text = _read(response)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Failed(self._plain(str(error)) or "no connection", gone=True) from error
        except httpx2.TimeoutException as error:
            raise Failed(f"no answer within {TIMEOUTS[method]:g} seconds") from error
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise Failed(f"the connection broke: {self._plain(str(error)) or type(error).__name__}") from error
        if response.status_code >= 300:
            self._complain(response.status_code, response.headers.get("retry-after", ""), text)
        return text

    def ask_json(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The one JSON object of a successful answer; raises as ``ask`` does."""
        return parsed(self.ask(method, path, body))

    def _complain(self, status: int, retry_after: str, text: str) -> None:
        told = f"HTTP {status}: {self._plain(_reason(text)) or 'no reason given'}"
        if status in (401, 403):
            expected = "a valid key in the environment: OPENAI_API_KEY for openai:MODEL, JUDGE_API_KEY for an address"
            raise UserError(f"{self.address} does not let us in: {told}", expected=expected)
        # Some servers call it an internal error when they do not know a form of reply.
        about_form = "response_format" in told or "json_schema" in told
        if status in (408, 425, 429) or (status >= 500 and not about_form):
            raise Failed(told, wait=_seconds(retry_after))
        raise Refused(told)

    def _plain(self, text: str) -> str:
        """A server's words on one line, not too many of them, and without our key, which some of them repeat."""
        return " ".join((text.replace(self.key, "***") if self.key else text).split())[:300]


def _read(response: Any) -> str:
    """The whole answer, unless the server goes on for ever."""
    pieces, size, begun = [], 0, time.monotonic()
    for piece in response.iter_bytes():
        size += len(piece)
        if size > LARGEST or time.monotonic() - begun > LONGEST:
            raise Failed("it would not stop replying")
        pieces.append(piece)
    return b"".join(pieces).decode(errors="replace")


def _seconds(value: str) -> float | None:
    return min(float(value), LONGEST_WAIT) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", value) else None


def _reason(text: str) -> str:
    """What an error answer says: ``{"error": "..."}``, ``{"error": {"message": "..."}}``, or its text."""
    try:
        error = parsed(text).get("error", text)
    except Failed:
        return text
    told = error.get("message", text) if isinstance(error, dict) else error
    return told if isinstance(told, str) else text


def parsed(text: str) -> dict[str, Any]:
    """A JSON object. Raises ``Failed`` for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Failed(f"no JSON: {text[:60]!r}") from None
    if not isinstance(value, dict):
        raise Failed(f"JSON of another kind: {text[:60]!r}")
    return value


def at(value: object, *path: str | int) -> Any:
    """What lies at ``path`` in parsed JSON; None where that is not there."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def names(value: object, key: str) -> list[str]:
    """The texts under ``key`` in a list of JSON objects; none when it is no such list."""
    found = [at(each, key) for each in value] if isinstance(value, list) else []
    return [name for name in found if isinstance(name, str)]
