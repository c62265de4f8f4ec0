"""The judged file: one JSON line for each reply of a judge, as it came, so that nothing is asked twice."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptailor.errors import UserError
from gptailor.evaluate.questions import Question, Reply, Verdict

_BEGINNING = '{"judge": '


@dataclass(frozen=True)
class Asked:
    """A question and its place: ``record`` is the number of the answer, ``repeat`` counts from 1."""

    record: int
    repeat: int
    question: Question


class Judged:
    """The replies of a judged file, and the file itself: every new reply is written at once, from whatever thread.

    A line holds ``judge``, ``asks`` (score or pair), ``record``, ``repeat``, ``digest`` (of the question), ``verdict``
    and ``problem``, ``reply`` (None where none came), ``form`` and ``cut``. Verdicts are for people: they are read from
    the reply again whenever the file is used.

    Args:
        path: of the file; it need not exist.

    Raises:
        UserError: when it cannot be written, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._lines: dict[tuple[str, str, int, int], dict[str, Any]] = {}
        try:
            whole = self._load(path.read_bytes()) if path.exists() else 0
            self._file = path.open("ab")
            self._file.truncate(whole)
        except OSError as error:
            found = f"{path} cannot be written: {error.strerror or error}"
            raise UserError(found, expected="a place for the judge's replies", hint="--out FILE.jsonl") from None

    def _load(self, raw: bytes) -> int:
        """Takes in the lines; returns the length of all but a last one that a crash cut short."""
        *lines, tail = raw.decode(errors="replace").split("\n")  # and not at the other line ends that a reply may hold
        problem = next((number for number, line in enumerate(lines, 1) if not self._take(line)), None)
        if problem is None and not _BEGINNING.startswith(tail[: len(_BEGINNING)]):
            problem = len(lines) + 1
        if problem:
            found = f"{self.path}:{problem} is no line of a judged file"
            raise UserError(found, expected="replies of a judge, or a new file", hint="--out another FILE.jsonl")
        return raw.rfind(b"\n") + 1

    def _take(self, line: str) -> bool:
        try:
            value = json.loads(line)
            fits = isinstance(value["reply"], str | None) and isinstance(value["form"], str)
            self._lines[value["judge"], value["digest"], value["record"], value["repeat"]] = value
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        return fits

    def holds(self, judge: str, asked: Asked) -> bool:
        """Whether this judge has replied to this; where it gave no reply, it may be asked again."""
        line = self._lines.get(_key(judge, asked))
        return line is not None and line["reply"] is not None

    def add(self, judge: str, asked: Asked, reply: Reply | None, why: str = "") -> None:
        """Keeps a reply; or, with None, ``why`` there was none."""
        verdict, problem = (None, f"no reply: {why}") if reply is None else asked.question.read(reply)
        line = {
            "judge": judge,
            "asks": asked.question.asks,
            "record": asked.record,
            "repeat": asked.repeat,
            "digest": asked.question.digest,
            "verdict": verdict,
            "problem": problem,
            "reply": reply and reply.text,
            "form": reply.form if reply else "",
            "cut": bool(reply and reply.cut),
        }
        with self._lock:
            self._lines[_key(judge, asked)] = line
            self._file.write((json.dumps(line, ensure_ascii=False) + "\n").encode(errors="replace"))
            self._file.flush()

    def read(self, judge: str, asked: Asked) -> tuple[Verdict, str, str]:
        """The verdict, or None; why there is none, or ``""``; and what the judge said."""
        line = self._lines[_key(judge, asked)]
        if line["reply"] is None:
            return None, str(line.get("problem")), ""
        verdict, problem = asked.question.read(Reply(line["reply"], line["form"], bool(line.get("cut"))))
        return verdict, problem, line["reply"]

    def close(self) -> None:
        """Ends the file; one that nothing was written to is not left behind."""
        with self._lock:
            self._file.close()
            if not self._lines:
                self.path.unlink()


def _key(judge: str, asked: Asked) -> tuple[str, str, int, int]:
    return judge, asked.question.digest, asked.record, asked.repeat
