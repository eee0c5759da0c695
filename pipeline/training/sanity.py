"""What to look at before a long training: the recipe of the course notes ("Before learning: sanity checks").

The loss before learning is what chance gives; a few images can be learnt by heart; every parameter is reached; and over
rising learning rates the loss falls, then explodes, which says what rates are worth trying.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from pipeline.models import tasks
from pipeline.structures import IGNORE, Batch
from pipeline.training import optim

TOLERANCE = 0.3
"""How far the loss before learning may be from theory, as a share of it: logits are near zero then, not zero."""
SOLVED = 0.95
"""Share of the few images that must be right: nearly all, for two of them may be the same but for the label."""
RATES = (1e-3, 1e-2, 1e-4)
"""Of Adam, by which the few images are learnt; the first that does it is enough."""
FALL = 0.5
"""Of other tasks: the share to which the loss on the few images must fall."""
FIRST_STEPS = 3
"""In which every parameter must be reached: behind a scale that begins at zero the first gradient is zero."""
LOWEST, HIGHEST = 1e-6, 10.0
EXPLODED = 4.0
"""Times its lowest value so far: the loss at which the sweep over learning rates ends."""
FALLEN = 0.95
"""Times its first value: below that the smoothed loss of the sweep has fallen by more than chance."""
SMOOTHING = 0.8
"""Of losses over steps: the share that the mean of those before keeps."""

State = Literal["pass", "fail", "note"]


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        what: was looked at.
        state: pass or fail; note: there is nothing to hold it against.
        found, wanted: in words.
    """

    what: str
    state: State
    found: str
    wanted: str = ""


def expected_losses(model: Any, batch: Batch) -> dict[str, tuple[float, str]]:
    """What each loss is of a network that has learnt nothing and so prefers no answer, and the formula.

    Args:
        model: a model of `pipeline/models/tasks.py` or a generator, in training mode.
        batch: with its truth.

    Returns:
        By name in what `loss` gives: softmax over K classes ln K; hinge with a margin of 1 over K - 1 others K - 1; K
        logistic regressions K ln 2; a Dice loss what even probabilities overlap; centre-ness of a detector, pixels of
        a VAE: ln 2 each; noise that is predicted by zeros: 1. Nothing where there is no theory.
    """
    ln2 = math.log(2)
    if type(model) is tasks.Classification:
        with torch.no_grad():
            logits = model.network(batch.images)
        weight = sum(weight for weight, _ in logits) if isinstance(logits, list) else 1.0  # of auxiliary classifiers
        num_classes = (logits[0][1] if isinstance(logits, list) else logits).shape[1]
        value, formula = {
            "cross_entropy": (math.log(num_classes), "ln K"),
            "hinge": (num_classes - 1.0, "K - 1"),
            "binary_cross_entropy": (num_classes * ln2, "K ln 2"),
        }[model.criterion]
        return {"loss": (weight * value, formula if weight == 1 else f"{weight:g} {formula}")}
    if type(model) is tasks.Segmentation:
        assert batch.semantic is not None
        with torch.no_grad():
            num_classes = model.network(batch.images).shape[1]
        return {
            "cross_entropy": (math.log(num_classes), "ln K"),
            "dice": (even_dice(batch.semantic, num_classes), "even probabilities"),
        }
    if isinstance(model, tasks.Detection):
        return {"bbox_ctrness": (ln2, "ln 2")}
    num_pixels = math.prod(batch.images.shape[1:])
    return {
        "pipeline.models.generative.vae": {"reconstruction": (num_pixels * ln2, "CHW ln 2")},
        "pipeline.models.generative.ddpm": {"loss": (1.0, "variance of the noise")},
    }.get(type(model).__module__, {})


def even_dice(target: torch.Tensor, num_classes: int) -> float:
    """The soft Dice loss of the probability 1/K everywhere: of a class with n of N pixels 1 - 2 (n/K) / (N/K + n).

    Args:
        target: [B, H, W]; IGNORE pixels are not counted.
        num_classes: K.

    Returns:
        The mean over the classes that there are.
    """
    counts = torch.bincount(target[target != IGNORE], minlength=num_classes).double()
    present, total = counts[counts > 0], counts.sum()
    return float((1 - 2 * (present / num_classes) / (total / num_classes + present)).mean())


def initial_loss(model: Any, batch: Batch) -> list[Check]:
    """The losses of a fresh model on a batch against `expected_losses`."""
    model.train()
    with torch.no_grad():
        losses = {name: value.item() for name, value in model.loss(batch).items()}
    if not all(math.isfinite(value) for value in losses.values()):
        return [Check("loss before learning", "fail", _shown(losses), "finite")]
    expected = expected_losses(model, batch)
    checks = []
    for name, (value, formula) in expected.items():
        if name in losses:
            is_near = abs(losses[name] - value) <= TOLERANCE * value
            what = "loss before learning" + (f": {name}" if name != "loss" else "")
            wanted = f"{formula} = {value:.4g}, by {TOLERANCE:.0%}"
            checks.append(Check(what, "pass" if is_near else "fail", f"{losses[name]:.4g}", wanted))
    return checks or [Check("loss before learning", "note", _shown(losses), "no theory says what it should be")]


def reached(model: Any, batches: Sequence[Batch], training: Any) -> list[Check]:
    """Whether each trainable parameter gets a gradient that is not zero within the first steps of a training.

    Args:
        model: fresh; it is trained by these steps.
        batches: at least one.
        training: a run's `training` section.
    """
    model.train()
    optimiser = adam(model, training.lr)
    largest = {name: 0.0 for name, parameter in model.named_parameters() if parameter.requires_grad}
    for step in range(FIRST_STEPS):
        optimiser.zero_grad(set_to_none=True)
        model.loss(batches[step % len(batches)])["loss"].backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and name in largest:
                largest[name] = max(largest[name], parameter.grad.abs().max().item())
        optimiser.step()
    broken = [name for name, value in largest.items() if not math.isfinite(value)]
    unreached = [name for name, value in largest.items() if value == 0]
    wanted = f"each of {len(largest)} tensors, in the first {FIRST_STEPS} steps"
    if broken or unreached:
        names = broken or unreached
        kind = "not finite" if broken else "zero"
        return [Check("gradient reaches", "fail", f"{kind}: {', '.join(names[:3])} ({len(names)} in all)", wanted)]
    frozen = sum(not parameter.requires_grad for parameter in model.parameters())
    found = f"all{f'; {frozen} tensors are frozen' if frozen else ''}"
    return [Check("gradient reaches", "pass", found, wanted)]


def overfit(make: Callable[[], Any], batch: Batch, *, steps: int, tell: Callable[[int], None]) -> Check:
    """Whether a fresh model learns a few images by heart, with nothing that regularises.

    Args:
        make: builds it.
        batch: the few images.
        steps: of Adam, at most, for each of RATES.
        tell: called with each step done.
    """
    what = f"learns {len(batch.images)} images by heart"
    best: tuple[float, str] | None = None
    for rate in RATES:
        model = make()
        optimiser = adam(model, rate)
        is_classifier = isinstance(model, tasks.Classification)
        first = smoothed = math.nan
        wanted = f"at least {SOLVED:.0%} right" if is_classifier else f"loss below {FALL:.0%} of its first value"
        with unregularised(model):
            for step in range(steps):
                optimiser.zero_grad(set_to_none=True)
                loss = model.loss(batch)["loss"]
                if not math.isfinite(loss.item()):
                    break
                first = loss.item() if step == 0 else first
                smoothed = loss.item() if step == 0 else SMOOTHING * smoothed + (1 - SMOOTHING) * loss.item()
                loss.backward()
                optimiser.step()
                tell(step)
                if is_classifier:
                    done = share_right(model, batch)
                    score, text = done, f"{done:.0%} after {step + 1} steps of Adam at {rate:g}"
                else:
                    score = 1 - smoothed / first
                    text = f"{first:.3g} to {smoothed:.3g} in {step + 1} steps of Adam at {rate:g}"
                if best is None or score > best[0]:
                    best = score, text
                if score >= (1.0 if is_classifier else 1 - FALL):
                    return Check(what, "pass", text, wanted)
    if best is None:
        return Check(what, "fail", "the loss is not finite", wanted)
    return Check(what, "pass" if is_classifier and best[0] >= SOLVED else "fail", best[1], wanted)


def share_right(model: Any, batch: Batch) -> float:
    """The share of images whose most likely class is theirs; batch norms see the batch itself, as in training."""
    assert batch.labels is not None
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    with torch.no_grad():
        answers = [int(prediction.scores.argmax()) for prediction in model.predict(batch.images)]
    for module, mode in modes.items():
        module.training = mode
    return sum(answer == label for answer, label in zip(answers, batch.labels.tolist(), strict=True)) / len(answers)


def adam(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Adam over what is trainable, without decay."""
    return torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=rate)


@contextmanager
def unregularised(model: Any) -> Iterator[None]:
    """Training mode, but for dropout of whatever kind, and without smoothed labels."""
    model.train()
    for module in model.modules():
        if "drop" in type(module).__name__.lower():
            module.eval()
    smoothing = getattr(model, "label_smoothing", None)
    if smoothing is not None:
        model.label_smoothing = 0.0
    try:
        yield
    finally:
        if smoothing is not None:
            model.label_smoothing = smoothing


@dataclass(frozen=True)
class Sweep:
    """A range test of learning rates (Smith 2017, section 3.3).

    Attributes:
        rates, losses: one for each step; losses are smoothed.
        suggested: a tenth of the rate with the least loss, where it still falls; None where it never fell.
        limit: the rate at which the loss exploded; None where it did not.
    """

    rates: list[float]
    losses: list[float]
    suggested: float | None
    limit: float | None


def sweep(model: Any, batches: Sequence[Batch], training: Any, *, steps: int, tell: Callable[[int], None]) -> Sweep:
    """Trains while the learning rate rises by a constant factor from step to step, until the loss explodes.

    Args:
        model: fresh; it is trained by this.
        batches: used in turn.
        training: a run's `training` section: its optimiser.
        steps: from LOWEST to HIGHEST.
        tell: called with each step done.
    """
    model.train()
    optimiser = optim.optimiser(model, training)
    shares = [group["lr"] / training.lr for group in optimiser.param_groups]
    rates: list[float] = []
    losses: list[float] = []
    average, limit = 0.0, None
    for step in range(steps):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1))
        for group, share in zip(optimiser.param_groups, shares, strict=True):
            group["lr"] = rate * share
        optimiser.zero_grad(set_to_none=True)
        loss = model.loss(batches[step % len(batches)])["loss"]
        average = SMOOTHING * average + (1 - SMOOTHING) * loss.item()
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smoothed) or (losses and smoothed > EXPLODED * min(losses)):
            limit = rate
            break
        rates.append(rate)
        losses.append(smoothed)
        loss.backward()
        optimiser.step()
        tell(step)
    lowest = min(range(len(losses)), key=losses.__getitem__, default=0)
    has_fallen = bool(losses) and losses[lowest] < FALLEN * losses[0]
    return Sweep(rates, losses, float(f"{rates[lowest] / 10:.1e}") if has_fallen else None, limit)


def judged(found: Sweep, rate: float) -> Check:
    """The learning rate of a run against the sweep."""
    what = "learning rate"
    if found.suggested is None:
        return Check(what, "fail", f"{rate:g}; the loss falls at no rate", "a rate at which it falls")
    limit = f", explodes at {found.limit:.2g}" if found.limit is not None else ""
    wanted = f"about {found.suggested:g}{limit}"
    is_below = found.limit is None or rate < found.limit
    return Check(what, "pass" if is_below else "fail", f"{rate:g}", wanted)


def _shown(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
