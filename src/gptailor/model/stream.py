"""Text while it is being generated: the part that no later token changes, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\ufffd"  # what half a character decodes to, until the token with its other half has come


class TextStream:
    """Turns ids that come one by one into pieces of text that stay as they are.

    Held back are a character that is not whole yet, and the beginning of what may become a stop string. With the stop
    string "END", the tokens "an", " E", "gg", " EN", "D." give "an", " ", "Egg", " ", and then nothing more.

    Args:
        decode: the text of all ids so far, such as ``Tokenizer.decode``.
        stop: strings that end the text and do not belong to it.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        assert all(stop), "an empty stop string would end every text at once"
        self._decode, self._stop = decode, stop
        self._ids: list[int] = []
        self._given = 0
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that has become certain with this id; it may be empty."""
        self._ids.append(token)
        text = self._decode(self._ids)
        before = before_stop(text, self._stop)
        self.stopped = len(before) < len(text)
        return self._give(before if self.stopped else self._certain(text))

    def rest(self) -> str:
        """What was held back, when no more ids will come."""
        return self._give(before_stop(self._decode(self._ids), self._stop))

    def _certain(self, text: str) -> str:
        text = text.rstrip(REPLACEMENT)
        begun = (n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return text[: len(text) - max(begun, default=0)]

    def _give(self, text: str) -> str:
        new = text[self._given :]
        self._given += len(new)
        return new


def before_stop(text: str, stop: Sequence[str]) -> str:
    """``text`` up to the first of the stop strings; all of it when there is none."""
    return text[: min((text.index(one) for one in stop if one in text), default=len(text))]
