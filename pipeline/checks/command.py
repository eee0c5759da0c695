"""`pipeline check-run` and `pipeline check-gradients`: tables on standard output, nothing in the project."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline import launch, paths
from pipeline.errors import ParamsError
from pipeline.params import HEADS, Generator, Params, Run, is_fitted, load
from pipeline.progress import progress, told_progress

if TYPE_CHECKING:
    from pipeline.checks.subject import Subject
    from pipeline.structures import Batch
    from pipeline.training.sanity import Check, Sweep

FEW, FEW_OTHERS = 20, 4
"""Images that are learnt by heart: by a classifier, and by the larger networks of other tasks."""
STEPS, STEPS_OTHERS = 150, 60
SWEEP_STEPS = 80
BURN_IN = 5
"""Steps before gradients are looked at: a fresh network has scales of zero, behind which nothing is to be seen."""
BARS, BAR = 14, 40


class Outcome(NamedTuple):
    """What a command prints, and whether all is well."""

    lines: list[str]
    is_well: bool


def check_run(name: str, picture: Path | None) -> Outcome:
    """The sanity steps of one entry of `runs` or `generators`.

    Args:
        name: of the entry.
        picture: a PNG of the sweep over learning rates; None: none.

    Raises:
        ParamsError: there is no such entry.
        PipelineError: its inputs are not there.
    """
    params = load()
    entry = params.learner(name)
    launch.prepare_environment(params)
    more: list[str] = []
    if is_fitted(entry.model):
        checks = list(_of_fitted(params, name, entry))
    else:
        from pipeline.checks.subject import Subject

        subject = Subject(params, name, entry)
        checks = list(_of_network(subject))
        if subject.training.optimizer != "lbfgs":  # which asks for the loss several times in a step
            from pipeline.training import sanity

            found = _sweep(subject)
            checks.append(sanity.judged(found, subject.training.lr))
            more = bars(found)
            if picture is not None:
                from pipeline.reporting import landscape

                landscape.learning_rates(picture, found, subject.training.lr)
                more.append(f"{picture} shows it.")
    failed = [check for check in checks if check.state == "fail"]
    passed = sum(check.state == "pass" for check in checks)
    end = f"{name}: {passed} pass, {len(failed)} fail{': ' if failed else ''}{', '.join(one.what for one in failed)}"
    return Outcome([*table([(c.state, c.what, c.found, c.wanted) for c in checks]), *more, end], not failed)


def check_gradients(name: str, entries: int, num_images: int) -> Outcome:
    """The numeric against the analytic gradient of a run or generator, on a small batch in float64.

    Args:
        name: of the entry.
        entries: numbers of each tensor that are looked at.
        num_images: of the batch.

    Raises:
        ParamsError: there is no such entry, or its model has no backward pass.
    """
    params = load()
    entry = params.learner(name)
    if is_fitted(entry.model):
        networks = [key for key, one in params.learners.items() if not is_fitted(one.model)]
        raise ParamsError(
            f"{paths.PARAMS} runs.{name}.model: {entry.model} is fitted without a backward pass; "
            f"fix: name a network ({', '.join(networks) or 'there is none'})"
        )
    launch.prepare_environment(params)
    import torch

    from pipeline.checks.subject import Subject
    from pipeline.training import gradients, sanity

    subject = Subject(params, name, entry, on_cpu=True)
    with gradients.in_float64():
        model = subject.make().double().train()
        batch = _doubled(subject.batch(num_images))

        def loss() -> torch.Tensor:
            torch.manual_seed(params.defaults.seed)  # the same dropout and noise at each call
            return model.loss(batch)["loss"]  # type: ignore[no-any-return]

        optimiser = sanity.adam(model, subject.training.lr)
        for _ in range(BURN_IN):
            optimiser.zero_grad(set_to_none=True)
            loss().backward()
            optimiser.step()
        parameters = {key: value for key, value in model.named_parameters() if value.requires_grad}
        checked = gradients.check(loss, parameters, entries=entries, seed=params.defaults.seed)
        found = list(progress(checked, f"check-gradients {name}", total=len(parameters)))
    rows = [(one.verdict, one.name, f"{one.error:.1e}", one.note) for one in found]
    wrong = [one.name for one in found if one.verdict == "wrong"]
    explained = (
        f"Relative error |a - n| / max(|a|, |n|) of the analytic gradient and the central difference, the worst of "
        f"{entries} entries:\nup to {gradients.RIGHT:g} right, up to {gradients.FINE:g} fine with kinks (ReLU, max), "
        "above wrong."
    )
    end = f"{name}: {len(found)} tensors, {len(wrong)} wrong{': ' + ', '.join(wrong[:5]) if wrong else ''}"
    return Outcome([*table(rows), explained, end], not wrong)


def _of_network(subject: Subject) -> Iterator[Check]:
    from pipeline.checks import inputs
    from pipeline.training import sanity

    yield from inputs.of_images(subject)
    batches = subject.batches(subject.batch_size, sanity.FIRST_STEPS)
    yield from sanity.initial_loss(subject.make(), batches[0])
    yield from sanity.reached(subject.make(), batches, subject.training)
    is_classifier = subject.entry.task == "classification"
    num, steps = (FEW, STEPS) if is_classifier else (FEW_OTHERS, STEPS_OTHERS)
    with _telling(f"{subject.name} learns {num} images", steps) as tell:
        yield sanity.overfit(subject.make, subject.batch(num), steps=steps, tell=tell)


def _sweep(subject: Subject) -> Sweep:
    """The range test of learning rates, with the batches of the run."""
    from pipeline.training import sanity

    batches = subject.batches(subject.batch_size, SWEEP_STEPS)
    with _telling(f"{subject.name} at rising learning rates", SWEEP_STEPS) as tell:
        return sanity.sweep(subject.make(), batches, subject.training, steps=SWEEP_STEPS, tell=tell)


def _of_fitted(params: Params, name: str, entry: Run | Generator) -> Iterator[Check]:
    """The numbers of a head or a regression, and whether a head learns a few of them by heart."""
    import numpy as np

    from pipeline.checks import inputs
    from pipeline.data import features as feature_files
    from pipeline.training import fitting
    from pipeline.training.sanity import SOLVED, Check

    folder = paths.inputs(entry.inputs)
    info = feature_files.info_of(folder)
    train, val = (feature_files.read(folder, split) for split in ("train", "val"))
    yield from inputs.of_features(train, val)
    if not entry.model.startswith(f"{HEADS}/"):
        yield inputs.of_targets(train.targets)
        return
    problem = fitting.Classes(entry.model, info, str(folder), params.defaults.seed)
    labels = problem.checked(train).labels
    assert labels is not None
    yield inputs.of_labels(labels, info.classes)
    options = fitting.plan(problem.module.fit, entry.model_params, f"runs.{name}.model_params")[0][0]
    few = fitting.some(train, np.random.default_rng(params.defaults.seed).permutation(len(labels))[:FEW])
    share = problem.figures(problem.fit(options, few), few)["top1"]
    what = f"learns {len(few.image_ids)} samples by heart"
    yield Check(what, "pass" if share >= SOLVED else "fail", f"{share:.0%} right", f"at least {SOLVED:.0%}")


def _doubled(batch: Batch) -> Batch:
    """The batch with its real numbers in float64."""
    from dataclasses import replace

    boxes = None if batch.boxes is None else [boxes.double() for boxes in batch.boxes]
    return replace(batch, images=batch.images.double(), boxes=boxes)


@contextmanager
def _telling(words: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with each step done."""
    with told_progress(total) as tell:
        yield lambda step: tell(step + 1, words)


def bars(found: Sweep) -> list[str]:
    """A sweep over learning rates as text: the loss at some rates, with a bar each."""
    every = max(1, -(-len(found.rates) // BARS))
    shown = list(zip(found.rates, found.losses, strict=True))[::every]
    top = max((loss for _, loss in shown), default=0.0) or 1.0
    lines = [f"  {rate:8.1e}  {loss:9.4g}  {'#' * round(BAR * max(loss, 0.0) / top)}" for rate, loss in shown]
    return ["", "The loss at rising learning rates:", *lines, ""]


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows with columns of even width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
