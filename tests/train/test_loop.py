"""The loop on a toy: it learns, divides once, stops when asked, and a resumed run ends where an unbroken one ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from gptailor.train.log import LINES, RunLog, read_history
from gptailor.train.loop import LoopSettings, StopRequest, stop_on_interrupt, train
from gptailor.train.losses import Loss, class_loss
from gptailor.train.optim import adamw, rate
from gptailor.train.state import LAST, Progress, best_file, has_state, load_state

# 42 points in batches of 4 and two batches to a step: 11 batches and 6 steps an epoch, the last one of a single batch.
SETTINGS = LoopSettings(
    epochs=3,
    steps_per_epoch=6,
    accumulate=2,
    lr=0.02,
    warmup=0.1,
    schedule="cosine",
    clip=1.0,
    evaluate_every=None,
    patience=None,
)
STEPS = 18
POINTS = torch.randn(42, 2, generator=torch.Generator().manual_seed(0))
LABELS = (POINTS[:, 0] > 0).long() + (POINTS[:, 1] > 0.5).long()


def network(seed: int = 1) -> nn.Sequential:
    """Dropout makes every step draw random numbers, so that their state matters too."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))


def epoch(number: int) -> list[list[int]]:
    order = torch.randperm(42, generator=torch.Generator().manual_seed(number)).tolist()
    return [order[i : i + 4] for i in range(0, 42, 4)]


@dataclass
class Toy:
    """A run in ``folder``.

    Attributes:
        before_batch: called when a batch is about to be computed.
        scores: of the evaluations at these steps; the others are judged by their loss.
        steps: that the log is told of; more of them make the lines of history fewer.
    """

    folder: Path
    settings: LoopSettings = SETTINGS
    before_batch: Callable[[Toy], None] = lambda toy: None
    scores: dict[int, float] = field(default_factory=dict)
    steps: int = STEPS
    quiet: bool = True

    def run(self, stop: StopRequest | None = None) -> Progress:
        self.stop = stop or StopRequest()
        resuming = has_state(self.folder)
        self.model = network(seed=99 if resuming else 1)
        self.optimizer = adamw(self.model, 1.0, 0.1)
        self.told: list[str] = []
        self.progress = Progress()
        if resuming:
            self.progress = load_state(self.folder, self.model, self.optimizer, self.told.append)
        self.computed = 0
        at, sums = self.progress.step, self.progress.sums
        with RunLog(self.folder, self.steps, console=Console(quiet=self.quiet), resumed_at=at, sums=sums) as log:
            return train(
                self.model,
                self.optimizer,
                self.settings,
                batches=epoch,
                loss=self.loss,
                evaluate=self.evaluate,
                describe=lambda rows: [f"points:{row}" for row in rows],
                folder=self.folder,
                log=log,
                progress=self.progress,
                stop=self.stop,
            )

    def loss(self, rows: list[int]) -> Loss:
        assert self.model.training
        self.computed += 1
        self.before_batch(self)
        return class_loss(self.model(POINTS[rows]), LABELS[rows])

    @torch.no_grad()
    def evaluate(self) -> tuple[dict[str, float], list[float]]:
        assert not self.model.training
        loss = class_loss(self.model(POINTS), LABELS)
        score = self.scores.get(self.progress.step, -float(loss.total))
        return {"validation_loss": float(loss.total) / 42}, [score]

    def history(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in read_history(self.folder) if line["kind"] == kind]


def stop_at(step: int) -> Callable[[Toy], None]:
    """Requests the stop while a batch of this step is computed."""

    def check(toy: Toy) -> None:
        toy.stop.requested = toy.progress.step + 1 == step

    return check


# --- learning ---------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_best_is_kept(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    progress = toy.run()
    losses = [line["validation_loss"] for line in toy.history("evaluate")]
    assert losses[-1] < 0.6 * losses[0]
    assert asdict(progress) | {"seconds": 0, "best_score": None, "loss_before": None, "sums": {}} == asdict(
        Progress(epoch=3, step=18, examples=126, stale=0, best_step=18)
    ) | {"best": {"epoch": 3, "step": 18, "validation_loss": pytest.approx(losses[-1], abs=1e-6)}}
    for name, tensor in load_file(tmp_path / best_file(18)).items():
        assert torch.equal(tensor, toy.model.state_dict()[name])


def test_every_step_is_told_with_its_rate(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.run()
    lines = toy.history("train")
    rates = [rate(step, STEPS, peak=0.02, warmup=0.1, schedule="cosine") for step in range(STEPS)]
    assert [line["lr"] for line in lines] == rates
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in lines] == [1] * 6 + [2] * 6 + [3] * 6
    assert [line["examples"] for line in lines][:7] == [8, 16, 24, 32, 40, 42, 50]


@pytest.mark.parametrize(
    ("every", "steps", "epochs"),
    [
        (None, [0, 6, 12, 18], [0, 1, 2, 3]),
        (5, [0, 5, 10, 15, 18], [0, 1, 2, 3, 3]),  # the last steps are judged too
        (6, [0, 6, 12, 18], [0, 1, 2, 3]),
        (9, [0, 9, 18], [0, 2, 3]),
        (100, [0, 18], [0, 3]),
    ],
)
def test_when_it_evaluates(tmp_path: Path, every: int | None, steps: list[int], epochs: list[int]) -> None:
    toy = Toy(tmp_path, replace(SETTINGS, evaluate_every=every))
    toy.run()
    assert [line["step"] for line in toy.history("evaluate")] == steps
    assert [line["epoch"] for line in toy.history("evaluate")] == epochs


@pytest.mark.parametrize(
    ("patience", "every", "scores", "steps", "best_step"),
    [
        (1, None, [0, 1, 1, 2], [0, 6, 12], 6),  # the same again is not better
        (2, None, [0, 1, 0, 2], [0, 6, 12, 18], 18),
        (1, None, [3, 2, 4, 5], [0, 6], 0),
        (2, 2, [0, 5, 4, 3, 9], [0, 2, 4, 6], 2),
        (2, 2, [0, 5, 4, 6, 5, 5, 9], [0, 2, 4, 6, 8, 10], 6),
        (None, None, [3, 2, 1, 0], [0, 6, 12, 18], 0),
    ],
)
def test_patience_runs_out_and_the_best_stays(
    tmp_path: Path, patience: int | None, every: int | None, scores: list[float], steps: list[int], best_step: int
) -> None:
    kept: dict[int, dict[str, Tensor]] = {}
    settings = replace(SETTINGS, patience=patience, evaluate_every=every)

    def remember(toy: Toy) -> None:
        weights = {name: tensor.clone() for name, tensor in toy.model.state_dict().items()}
        kept.setdefault(toy.progress.step, weights)

    toy = Toy(tmp_path, settings, remember, dict(zip(steps, scores, strict=False)))
    progress = toy.run()
    remember(toy)
    assert [line["step"] for line in toy.history("evaluate")] == steps
    assert (progress.step, progress.best_step) == (steps[-1], best_step)
    assert progress.best_score == [max(scores[: len(steps)])]
    best = load_file(tmp_path / best_file(best_step))
    assert all(torch.equal(best[name], tensor) for name, tensor in kept[best_step].items())


# --- one division per step --------------------------------------------------------------------------------------------


def linear() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(2, 3)


def one_step(folder: Path, batches: list[list[int]], weights: Tensor | None, clip: float | None) -> list[Tensor]:
    """Parameters after one step of plain gradient descent, whose length shows the size of the gradient."""
    model = linear()
    settings = replace(
        SETTINGS,
        epochs=1,
        steps_per_epoch=1,
        accumulate=len(batches),
        lr=0.5,
        warmup=0,
        schedule="constant",
        clip=clip,
    )
    with RunLog(folder, 1, console=Console(quiet=True)) as log:
        train(
            model,
            torch.optim.SGD(model.parameters(), lr=1.0),
            settings,
            batches=lambda number: batches,
            loss=lambda rows: class_loss(model(POINTS[rows]), LABELS[rows], weights),
            evaluate=lambda: ({}, [0.0]),
            describe=lambda rows: [],
            folder=folder,
            log=log,
            progress=Progress(),
            stop=StopRequest(),
        )
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 1.0, 4.0])])
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("batches", [[[0, 1, 2], [3, 4, 5, 6, 7]], [[7], [6, 5], [4, 3, 2, 1, 0]]])
def test_accumulated_batches_are_one_batch(
    tmp_path: Path, batches: list[list[int]], weights: Tensor | None, clip: float | None
) -> None:
    whole = one_step(tmp_path, [list(range(8))], weights, clip)
    torch.testing.assert_close(one_step(tmp_path, batches, weights, clip), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 1.0, 4.0])])
def test_the_step_is_that_of_the_mean_loss(tmp_path: Path, weights: Tensor | None) -> None:
    stepped = one_step(tmp_path, [[0, 1, 2], [3, 4, 5, 6, 7]], weights, None)

    def expected(*batches: list[int]) -> list[Tensor]:
        """By hand, for the mean over each of these batches and the mean of those."""
        model = linear()
        means = [nn.functional.cross_entropy(model(POINTS[rows]), LABELS[rows], weights) for rows in batches]
        torch.stack(means).mean().backward()
        return [p.detach() - 0.5 * p.grad for p in model.parameters() if p.grad is not None]

    torch.testing.assert_close(stepped, expected(list(range(8))), rtol=0, atol=1e-6)
    averaged = expected([0, 1, 2], [3, 4, 5, 6, 7])  # an average of averages would be told apart
    assert max(float((a - b).abs().max()) for a, b in zip(stepped, averaged, strict=True)) > 1e-3


def test_clipping_limits_the_gradient_of_the_whole_step(tmp_path: Path) -> None:
    start = [parameter.detach() for parameter in linear().parameters()]
    stepped = one_step(tmp_path, [[0, 1, 2], [3, 4, 5, 6, 7]], None, 0.05)
    moved = torch.cat([(a - b).flatten() for a, b in zip(stepped, start, strict=True)])
    assert float(moved.norm()) == pytest.approx(0.5 * 0.05, rel=1e-4)  # rate times the largest norm


# --- stopping and going on --------------------------------------------------------------------------------------------


def final(toy: Toy, progress: Progress) -> dict[str, Any]:
    """All that a run leaves, but for the clock."""
    lines = [{k: v for k, v in line.items() if k != "examples_per_second"} for line in read_history(toy.folder)]
    best = toy.folder / best_file(progress.best_step)
    return {
        "progress": asdict(progress) | {"seconds": 0, "sums": progress.sums | {"seconds": 0}},
        "history": lines,
        "weights": {name: tensor.tolist() for name, tensor in toy.model.state_dict().items()},
        "last": {name: tensor.tolist() for name, tensor in load_file(toy.folder / LAST).items()},
        "best": {name: tensor.tolist() for name, tensor in load_file(best).items()},
    }


SCHEDULES = {
    "by epoch": SETTINGS,
    "every 4": replace(SETTINGS, evaluate_every=4),  # with lines of history that steps share
    "impatient": replace(SETTINGS, evaluate_every=2, patience=3),
    "impatient within an epoch": replace(SETTINGS, evaluate_every=2, patience=3),
}
SCORES = {
    "impatient": {0: 0, 2: 1, 4: 0.9, 6: 2, 8: 1.9, 10: 1.8, 12: 1.7, 14: 9},  # ends at step 12
    "impatient within an epoch": {0: 0, 2: 1, 4: 0.9, 6: 0.8, 8: 0.7, 10: 9},  # ends at step 8
}


@pytest.fixture(scope="module", params=SCHEDULES)
def unbroken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    toy = scheduled(tmp_path_factory.mktemp("unbroken"), request.param)
    return request.param, final(toy, toy.run())


def scheduled(folder: Path, name: str, before_batch: Callable[[Toy], None] = lambda toy: None) -> Toy:
    steps = 3 * LINES if name == "every 4" else STEPS
    return Toy(folder, SCHEDULES[name], before_batch, SCORES.get(name, {}), steps)


@pytest.mark.parametrize("stops", [[1], [3], [5], [6], [7], [8], [11], [12], [13], [17], [18], [2, 6, 7, 12]], ids=str)
def test_a_stopped_run_goes_on_bit_for_bit(
    tmp_path: Path, unbroken: tuple[str, dict[str, Any]], stops: list[int]
) -> None:
    name, expected = unbroken
    for stop in stops:
        progress = scheduled(tmp_path, name, stop_at(stop)).run()
        assert progress.step == min(stop, expected["progress"]["step"])
    toy = scheduled(tmp_path, name)
    assert final(toy, toy.run()) == expected


@pytest.mark.parametrize("crash_at", [1, 3, 9, 13, 15])
def test_a_killed_run_goes_on_from_what_was_saved_last(
    tmp_path: Path, unbroken: tuple[str, dict[str, Any]], crash_at: int
) -> None:
    name, expected = unbroken

    def crash(toy: Toy) -> None:
        if toy.computed == crash_at:
            raise MemoryError

    with pytest.raises(MemoryError):
        scheduled(tmp_path, name, crash).run()
    toy = scheduled(tmp_path, name)
    assert final(toy, toy.run()) == expected


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    toy = scheduled(tmp_path, "every 4")
    before = final(toy, toy.run())
    again = scheduled(tmp_path, "every 4")
    assert final(again, again.run()) == before
    assert again.computed == 0


# --- signals ----------------------------------------------------------------------------------------------------------

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_finishes_the_step_and_saves(tmp_path: Path, number: int) -> None:
    def interrupt(toy: Toy) -> None:
        if toy.computed == 3:  # the first of the two batches of step 2
            signal.raise_signal(number)

    toy = Toy(tmp_path, before_batch=interrupt)
    with stop_on_interrupt() as stop:
        progress = toy.run(stop)
    assert (progress.step, progress.position, toy.computed) == (2, 2, 4)
    assert load_state(tmp_path, toy.model, toy.optimizer, pytest.fail) == progress


@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_signal_stops_at_once(second: int) -> None:
    with stop_on_interrupt() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_the_handlers_before_come_back(error: type[BaseException] | None) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    caught: type[BaseException] | None = None
    try:
        with stop_on_interrupt():
            assert [signal.getsignal(number) for number in SIGNALS] != before
            if error:
                raise error
    except (KeyboardInterrupt, ValueError) as raised:
        caught = type(raised)
    assert caught is error
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_outside_the_main_thread_no_handler_is_set() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[Any] = []

    def work() -> None:
        with stop_on_interrupt() as stop:
            seen.extend([stop.requested, [signal.getsignal(number) for number in SIGNALS]])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, before]
