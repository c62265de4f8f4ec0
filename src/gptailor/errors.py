"""What a user is told when something cannot be done: found X, expected Y, try Z."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """A mistake that the user can mend; the command line prints it without a traceback.

    Args:
        found: what is there, with the file and line where that applies.
        expected: what should have been there.
        hint: what to try next.

    Attributes:
        problems: the errors that this one joins; itself alone when it joins none.
    """

    def __init__(self, found: str, *, expected: str = "", hint: str = "") -> None:
        self.found, self.expected, self.hint = found, expected, hint
        self.problems: list[UserError] = [self]
        lines = [found]
        if expected:
            lines.append(f"  expected: {expected}")
        if hint:
            lines.append(f"  try:      {hint}")
        super().__init__("\n".join(lines))

    @classmethod
    def joined(cls, problems: Sequence[UserError]) -> UserError:
        """One error that reports all of ``problems`` together; a single one is returned as it is."""
        if len(problems) == 1:
            return problems[0]
        listed = "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, 1))
        joined = cls(f"{len(problems)} problems:\n{listed}")
        joined.problems = list(problems)
        return joined


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"did you mean 'lr'?"`` for the closest known word, or ``""`` when none is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def listing(items: Iterable[object], limit: int = 10) -> str:
    """``"3, 7, 12 and 4 more"``: the first ``limit`` items, and how many were left out."""
    shown = [str(item) for item in items]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")
