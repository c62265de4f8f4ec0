"""The head before training: a logistic regression, of the texts that the base has read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gptailor.config import ClassifierConfig, load_config
from gptailor.errors import UserError
from gptailor.tasks import classifier
from gptailor.tasks.feed import Feed, build
from gptailor.tasks.prepare import prepare
from gptailor.tasks.probe import begin_with_probe, logistic_regression
from tests.tiny import StopAfter, run


def texts(data: Path, **options: Any) -> Feed:
    return build(prepare(load_config(ClassifierConfig, None, {"data": str(data), "base": "thimble", **options})))


def drawn(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = np.arange(60) % n_classes
    return (rng.normal(size=(60, 5)) + labels[:, None]).astype(np.float32), labels


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_penalised_loss_is_least(n_classes: int) -> None:
    """At the least of it the gradient of the summed loss and that of the penalty, w / C, cancel."""
    read, labels = drawn(n_classes)
    head = logistic_regression(read, labels.tolist(), n_classes)
    assert head.shape == (n_classes, 5)
    assert head.dtype == np.float32
    logits = read @ head.T
    odds = np.exp(logits - logits.max(1, keepdims=True))
    off = odds / odds.sum(1, keepdims=True) - np.eye(n_classes)[labels]
    pull = head * np.square(read).sum(1).mean()
    if n_classes == 2:  # there one vector is fitted, the difference of the rows
        off, pull = off[:, 1:], 2 * pull[1:]
    np.testing.assert_allclose(off.T @ read, -pull, atol=0.05)
    assert np.abs(pull).max() > 1


def test_the_length_of_the_states_says_nothing() -> None:
    read, labels = drawn(3)
    head = logistic_regression(read, labels.tolist(), 3)
    np.testing.assert_allclose(logistic_regression(100 * read, labels.tolist(), 3), head / 100, rtol=0.01, atol=1e-5)


def test_a_label_without_texts_begins_at_zero_and_a_heavy_one_counts_more() -> None:
    read, labels = drawn(3)
    few = labels != 1
    head = logistic_regression(read[few], labels[few].tolist(), 3)
    assert not head[1].any()
    np.testing.assert_allclose(head[0], -head[2])
    weights = np.where(labels == 2, 9.0, 1.0)
    said = [(read @ logistic_regression(read, labels.tolist(), 3, each).T).argmax(1) for each in (None, weights)]
    assert (said[1] == 2).sum() > (said[0] == 2).sum()


def test_the_head_knows_the_labels_before_training(moods: Path) -> None:
    feed = texts(moods)
    before = feed.evaluate()[0]
    begin_with_probe(feed)
    after = feed.evaluate()[0]
    assert after["validation_accuracy"] > max(0.7, before["validation_accuracy"])
    assert after["validation_loss"] < math.log(2)


def test_with_frozen_blocks_and_weighted_labels_too(moods: Path) -> None:
    whole, part = texts(moods), texts(moods, layers="1", balance="weights")
    part.keep_trunk(moods.parent)
    for feed in (whole, part):
        begin_with_probe(feed)
    assert part.class_weights is not None
    torch.testing.assert_close(part.model.head.weight, whole.model.head.weight, rtol=0.05, atol=0.01)


def test_a_base_that_gives_no_numbers_is_told_as_ever(moods: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def broken(prepared: Any) -> Feed:
        feed = build(prepared)
        feed.model.decoder.norm.weight.data[0] = math.nan
        return feed

    monkeypatch.setattr(classifier, "build", broken)
    with pytest.raises(UserError, match=r"validation part is judged as .* after step 0"):
        run(moods, tmp_path / "run", head="probe")


def test_a_resumed_run_does_not_begin_anew(moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(moods, tmp_path / "whole", head="probe")
    folder = run(moods, tmp_path / "cut", head="probe", stop=StopAfter(5))
    monkeypatch.setattr(classifier, "begin_with_probe", lambda feed: pytest.fail("the head was set again"))
    run(moods, folder, head="probe", resume=True)
    first, second = load_file(whole / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_texts_of_one_label_leave_the_head_as_it_was(moods: Path) -> None:
    feed = texts(moods)
    before = feed.model.head.weight.clone()
    feed.labels[: feed.n_train] = [1] * feed.n_train
    begin_with_probe(feed)
    assert torch.equal(feed.model.head.weight, before)
