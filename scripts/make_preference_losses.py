"""Prints what TRL says of the pairs in tests/train/test_preference.py: losses, and their gradients by both answers.

It needs an environment with trl (1.16 was used), which the tests do not need: pip install trl
DPO and IPO are DPOTrainer's, given the log-probabilities as those of one token each; the rest is ORPOTrainer's and
CPOTrainer's (SimPO, and DPO with smoothing, for which it is given the differences from the reference).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor
from trl import DPOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.train.test_preference import MEANS, REFERENCE, SUMS

CPU = SimpleNamespace(device=torch.device("cpu"))


def with_gradients(losses: Callable[[Tensor, Tensor], Tensor], pairs: Any) -> list[tuple[float, ...]]:
    """Each loss, and its gradient by the chosen and the rejected number."""
    chosen, rejected = (torch.tensor(row, requires_grad=True) for row in pairs)
    found = losses(chosen, rejected)
    found.sum().backward()
    return [
        tuple(round(float(value), 6) for value in row) for row in zip(found, chosen.grad, rejected.grad, strict=True)
    ]


def of_dpo_trainer(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Losses of ``DPOTrainer``, which gives the mean of a batch: one pair at a time."""
    none = {"aux_loss_enabled": False, "ld_alpha": None, "use_weighting": False, "label_smoothing": 0.0}
    how = {"precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "loss_types": [kind], "loss_weights": [1.0]}
    trainer = MagicMock(beta=0.1, **none, **how)
    trainer.accelerator = MagicMock(device=CPU.device, gather_for_metrics=lambda x: x, gather=lambda x: x)

    def loss(chosen: Tensor, rejected: Tensor, row: int) -> Tensor:
        zeros = torch.zeros(2, 1)
        seen = {"entropy": zeros, "mean_logits": zeros, "is_top1": zeros.bool()}
        outputs = MagicMock(log_probs=torch.stack([chosen, rejected])[:, None], **seen)
        inputs = {"input_ids": torch.zeros(2, 2, dtype=torch.long), "completion_mask": torch.tensor([[0, 1], [0, 1]])}
        inputs["attention_mask"] = torch.ones(2, 2, dtype=torch.long)
        for name, values in zip(("ref_chosen_logps", "ref_rejected_logps"), REFERENCE, strict=True):
            inputs[name] = torch.tensor(values[row : row + 1])
        return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)

    return lambda a, b: torch.stack([loss(a[row], b[row], row) for row in range(len(a))])


def main() -> None:
    cpo = SimpleNamespace(alpha=0.0, accelerator=CPU)
    smoothed = SimpleNamespace(**vars(cpo), loss_type="sigmoid", beta=0.1, label_smoothing=0.1)
    simpo = SimpleNamespace(**vars(cpo), loss_type="simpo", beta=2.0, label_smoothing=0.0, simpo_gamma=1.0)
    orpo = SimpleNamespace(beta=0.1, accelerator=CPU)
    before = [torch.tensor(row) for row in REFERENCE]
    print("dpo", with_gradients(of_dpo_trainer("sigmoid"), SUMS))
    print(
        "dpo, smoothing 0.1",
        with_gradients(lambda a, b: CPOTrainer.cpo_loss(smoothed, a - before[0], b - before[1])[0], SUMS),
    )
    print("ipo", with_gradients(of_dpo_trainer("ipo"), SUMS))
    print("simpo", with_gradients(lambda a, b: CPOTrainer.cpo_loss(simpo, a, b)[0], MEANS))
    print("orpo", with_gradients(lambda a, b: -a - ORPOTrainer.odds_ratio_loss(orpo, a, b)[0], MEANS))


if __name__ == "__main__":
    main()
