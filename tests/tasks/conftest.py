"""What tests of tasks share."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from gptailor.tasks import memory


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine on which a batch of more rows than the number in the list runs out of memory."""
    limit, real = [10**6], memory.try_longest

    def narrow(model: nn.Module, trial: Any, rows: int, n_moments: int) -> None:
        def tried(n_rows: int) -> Tensor:
            if n_rows > limit[0]:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return trial(n_rows)

        real(model, tried, rows, n_moments)

    monkeypatch.setattr(memory, "try_longest", narrow)
    return limit
