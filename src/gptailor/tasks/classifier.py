"""From labelled texts to a proven classifier: configuration -> data -> model -> loop -> report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from gptailor.config import ClassifierConfig, load_config, user_path, with_absolute_paths
from gptailor.evaluate.card import write_classifier_card
from gptailor.evaluate.classification import evaluate_classifier, unseen_texts, write_predictions
from gptailor.evaluate.metrics import softmax
from gptailor.evaluate.report import write_report
from gptailor.model.freeze import count_parameters
from gptailor.predict import TOLERANCE, TOLERANCE_HALF, TextClassifier, load, logits_of, require, rounding, self_check
from gptailor.show import show_plan, show_receipt, show_trunk
from gptailor.tasks.feed import Feed, build
from gptailor.tasks.fit import check_device, fit
from gptailor.tasks.memory import fit_into_memory
from gptailor.tasks.prepare import prepare
from gptailor.tasks.probe import begin_with_probe
from gptailor.tasks.run import RunFolder, run_here
from gptailor.train.log import check_board
from gptailor.train.loop import StopRequest
from gptailor.train.losses import class_loss
from gptailor.train.state import Progress, has_state
from gptailor.weights.folder import ClassifierFolder, save_classifier

CHECKED = 16  # texts on which a saved folder is proven


def train_classifier(data: str | Path, *, resume: bool = False, quiet: bool = False, **options: Any) -> TextClassifier:
    """Trains a classifier and opens it; the same as ``gptailor train classifier``.

    Args:
        data: a file, a folder with train, validation and test files, or a catalogue name.
        resume: continue the run in ``out``.
        quiet: print nothing.
        options: those of ``ClassifierConfig``, such as ``base="gpt2-small"``, ``out="runs/mine"``, ``epochs=3``.

    Raises:
        UserError: for anything in data or options that cannot work; nothing is written then.
    """
    config = load_config(ClassifierConfig, None, {"data": str(data), **options})
    return load(run_here(run_classifier, config, resume=resume, quiet=quiet), config.device)


def run_classifier(config: ClassifierConfig, *, resume: bool, console: Console, stop: StopRequest) -> Path:
    """Trains one model, or one for each seed, and returns the folder.

    With several seeds the folder is that of the first; those of the others lie in ``seeds/`` below it, and its metrics
    hold mean and spread over all of them. Each seed draws its own split, initial weights and order.

    Raises:
        UserError: before anything is written, for what cannot work.
    """
    if config.tensorboard:
        check_board()
    config = with_absolute_paths(config)
    folder = user_path(config.out or str(Path("runs") / Path(config.data).name.split(".")[0]))
    metrics = []
    for index in range(config.seeds):
        seed = config.seed + index
        place = folder / "seeds" / str(seed) if index else folder
        going_on = resume and (index == 0 or (place / "run.yaml").exists())
        if config.seeds > 1:
            console.print(f"seed {seed} ({index + 1} of {config.seeds}) -> {place}", markup=False, highlight=False)
        own = config.model_copy(update={"seed": seed, "seeds": 1 if index else config.seeds})
        with RunFolder(place, resume=going_on) as run:
            metrics.append(_one_run(own, run, console, stop))
        if stop.requested:
            return folder
        decided = {name: run.options[name] for name in ("batch_size", "accumulate", "auto_batch")}
        config = config.model_copy(update=decided)  # one for all seeds, or their spread would be of two things
    if config.seeds > 1:
        spread = {part: _spread(metrics, part, config.seed) for part in ("test", "test_unseen")}
        RunFolder(folder, resume=True).write_json("metrics.json", metrics[0] | {"seeds": spread})
        write_report(folder)
        write_classifier_card(folder)
    return folder


def _spread(metrics: list[dict[str, Any]], part: str, first: int) -> dict[str, Any]:
    """Mean and standard deviation (of a sample, n - 1) of the accuracy over the seeds that have such texts."""
    each = [{"seed": first + i, **{key: run[part][key] for key in ("accuracy", "n")}} for i, run in enumerate(metrics)]
    values = [one["accuracy"] for one in each if one["accuracy"] is not None]
    mean = float(np.mean(values)) if values else None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"seeds": len(values), "mean": mean, "sd": sd, "values": each}


def _one_run(config: ClassifierConfig, run: RunFolder, console: Console, stop: StopRequest) -> dict[str, Any]:
    with run.timed("data"), console.status("reading the data"):
        prepared = prepare(config)
        feed = build(prepared)
    config = fit_into_memory(prepared.config, run, feed.work, feed.device, feed.model, feed.trial, console)
    feed.prepared, receipt = replace(prepared, config=config), prepared.receipt.to_dict()
    run.claim(config, receipt)
    if run.finished:
        console.print("this run is finished already: nothing to resume")
        return run.read_json("metrics.json")
    parameters = count_parameters(feed.model)
    show_receipt(console, receipt)
    layers = f"{config.layers}{'; the head begins as a probe' if config.head == 'probe' else ''}"
    show_plan(console, config, parameters, str(feed.device), layers=layers, bf16=feed.in_bf16)
    check_device(config, feed, feed.model, console)
    with run.timed("trunk"), console.status("computing the frozen blocks"):
        feed.keep_trunk(run.checkpoints)
    show_trunk(console, feed.depth, kept=feed.trunk is not None)
    progress, kept = fit_classifier(feed, run.path, run.checkpoints, console, stop)
    run.timings["train"] = progress.seconds
    with run.timed("evaluate"), console.status("evaluating"):
        metrics = _finish(feed, run, kept, finished=not stop.requested)
    described = dict(zip(("base", "parameters", "trainable"), (config.base, *parameters), strict=True))
    run.write_manifest(config, str(feed.device), receipt["files"], described)
    write_report(run.path)
    write_classifier_card(run.path)
    if metrics["finished"] and not config.keep_checkpoints:
        run.remove_checkpoints()
    return metrics


def fit_classifier(
    feed: Feed, folder: Path, checkpoints: Path, console: Console, stop: StopRequest
) -> tuple[Progress, dict[str, Any]]:
    """Trains the model of ``feed``; see ``fit``."""
    config = feed.prepared.config
    if config.head == "probe" and not has_state(checkpoints):
        with console.status("beginning the head with a probe of the base"):
            begin_with_probe(feed)
    return fit(
        feed.model,
        config,
        batches=feed.epoch,
        loss=feed.loss,
        evaluate=feed.evaluate,
        describe=feed.describe,
        choices=len(feed.prepared.names) if config.head == "random" else None,
        work=feed.work,
        evaluate_every=config.evaluate_every,
        folder=folder,
        checkpoints=checkpoints,
        console=console,
        stop=stop,
    )


def _finish(feed: Feed, run: RunFolder, kept: dict[str, Any], *, finished: bool) -> dict[str, Any]:
    """Evaluates, saves and proves the model; the test part is touched only when the run has come to its end."""
    prepared, model, pad = feed.prepared, feed.model.eval(), feed.prepared.tokenizer.end_of_text
    labels = {part: np.array(prepared.labels(part)) for part in prepared.parts}
    outputs = {"validation": (feed.outputs(range(feed.n_train, len(feed.ids))), labels["validation"])}
    metrics: dict[str, Any] = {"task": "classifier", "finished": finished, "labels": prepared.names}
    chosen = class_loss(*map(torch.from_numpy, outputs["validation"]))
    judged = {
        "validation_loss": float(chosen.total) / chosen.count,
        "validation_accuracy": int(chosen.correct) / chosen.count,
    }
    metrics["kept"] = {**kept, **judged}
    settings = prepared.settings.model_copy(update={"text_columns": prepared.receipt.text_columns or None})
    if finished:
        outputs["train"] = (feed.outputs(range(feed.n_train)), labels["train"])
        outputs["test"] = (feed.logits_of(prepared.ids("test")), labels["test"])
        weigh = prepared.config.balance == "weights"
        metrics |= evaluate_classifier(outputs, prepared.parts, prepared.names, weigh=weigh)
        settings = settings.model_copy(update={"temperature": metrics["calibration"]["temperature"]})
        probabilities = softmax(outputs["test"][0], settings.temperature)
        unseen = unseen_texts(prepared.parts)
        predictions = run.path / "predictions.csv"
        write_predictions(predictions, prepared.parts["test"], unseen, probabilities, prepared.names)
    saved = ClassifierFolder(model, prepared.tokenizer, prepared.names, settings)
    save_classifier(run.path, saved, adapter_on=feed.adapter_on)
    checked = [example.text for example in prepared.parts["validation"][:CHECKED]]
    exact = logits_of(model, prepared.ids("validation")[:CHECKED], pad, feed.device)
    if feed.in_bf16:
        metrics["rounding"] = rounding(outputs["validation"][0][:CHECKED], exact)
    tolerance = TOLERANCE_HALF if prepared.config.frozen_in == "bf16" else TOLERANCE
    del model, saved, feed.model, feed.trunk  # or there would be two models in memory
    metrics["self_check"] = self_check(load(run.path, str(feed.device)), checked, exact, tolerance)
    run.write_metrics(metrics)
    require(metrics["self_check"])
    return metrics
