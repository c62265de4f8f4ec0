"""What a task learns from, one by one."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Example:
    """One labelled text: ``where`` is its file and line, ``ids`` its tokens once it is encoded."""

    text: str
    label: str
    where: str
    ids: list[int] = field(default_factory=list)
