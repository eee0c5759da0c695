"""Optimisers and learning-rate schedules by name, and which weights learn how fast.

Gradient descent over the whole training split is `sgd` with `batch_size: all` and `momentum: 0`; with small batches the
same line is stochastic gradient descent.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError


class LBFGS(torch.optim.LBFGS):
    """L-BFGS with a line search for the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 7.4 and 3.5).

    One step takes up to 20 directions, each along the loss of all images at once; `lr` is where each search begins.

    Args:
        groups: as other optimisers have them; all learn alike, `weight_decay` is an L2 penalty of each.
        lr: of the first trial along a direction.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float) -> None:
        super().__init__([p for group in groups for p in group["params"]], lr=lr, line_search_fn="strong_wolfe")
        self._decays = [(group["weight_decay"], group["params"]) for group in groups if group["weight_decay"]]

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Goes down the loss; the penalty is part of what the line search sees.

        Args:
            closure: clears the gradients, computes them anew and returns the loss, the same at each call.
        """

        @torch.enable_grad()
        def penalised() -> Tensor:
            loss = torch.as_tensor(closure()).detach()
            for decay, parameters in self._decays:
                for parameter in parameters:
                    loss = loss + decay / 2 * parameter.detach().square().sum()
                    if parameter.grad is not None:
                        parameter.grad.add_(parameter.detach(), alpha=decay)
            return loss

        return super().step(penalised)


OPTIMISERS: dict[str, Callable[[Sequence[dict[str, Any]], Any], torch.optim.Optimizer]] = {
    # decay apart from the gradient: w -= lr * weight_decay * w (Loshchilov and Hutter 2019, algorithm 2)
    "adamw": lambda groups, training: torch.optim.AdamW(groups, lr=training.lr),
    # decay within the gradient, so that it too is divided by the gradient's running size (Kingma and Ba 2015)
    "adam": lambda groups, training: torch.optim.Adam(groups, lr=training.lr),
    "sgd": lambda groups, training: torch.optim.SGD(
        groups, lr=training.lr, momentum=training.momentum, nesterov=training.nesterov and training.momentum > 0
    ),
    "rmsprop": lambda groups, training: torch.optim.RMSprop(groups, lr=training.lr, momentum=training.momentum),
    "adagrad": lambda groups, training: torch.optim.Adagrad(groups, lr=training.lr),  # Duchi et al. 2011
    "lbfgs": lambda groups, training: LBFGS(groups, training.lr),
}


def optimiser(model: nn.Module, training: Any) -> torch.optim.Optimizer:
    """The optimiser of a run.

    Parameters whose names begin as `freeze` says are fixed. Biases and the scales of normalisation layers (parameters
    of one dimension) are not decayed, nor held small by `l1`. Parameters of a module with the attribute `is_pretrained`
    learn at `lr * backbone_lr_factor`, those of each layer at `layer_decay` of the rate of the layer after it.

    `l1` is not in the loss that is told: after each step of size lr it moves each weight towards zero by lr * l1 and
    stops there, the proximal step of that penalty (Beck and Teboulle 2009, equation 2.6), so that weights become
    exactly zero. With `weight_decay` it is an elastic net (Zou and Hastie 2005).

    Args:
        model: its trainable parameters are taken.
        training: a run's `training` section.

    Raises:
        ParamsError: `freeze` names nothing, or all.
    """
    freeze(model, training.freeze)
    pretrained = {
        id(parameter)
        for module in model.modules()
        if getattr(module, "is_pretrained", False)
        for parameter in module.parameters()
    }
    above = heights(model) if training.layer_decay < 1 else {}
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (id(parameter) in pretrained, parameter.ndim > 1, training.layer_decay ** above.get(name, 0))
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ParamsError(f"training.freeze: nothing is left to train ({', '.join(training.freeze)}); fix: name less")
    settings: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": training.lr * (training.backbone_lr_factor if backbone else 1.0) * layer_factor,
            "weight_decay": training.weight_decay if decayed else 0.0,
        }
        for (backbone, decayed, layer_factor), parameters in groups.items()
    ]
    made = OPTIMISERS[training.optimizer](settings, training)
    if training.l1:
        made.register_step_post_hook(lambda stepped, _arguments, _options: _shrink(stepped, training.l1))
    return made


@torch.no_grad()
def _shrink(stepped: torch.optim.Optimizer, l1: float) -> None:
    """The proximal step of an L1 penalty: sign(w) max(0, |w| - lr * l1)."""
    for group in stepped.param_groups:
        for parameter in group["params"]:
            if parameter.ndim > 1:
                parameter.copy_(nn.functional.softshrink(parameter, group["lr"] * l1))


def freeze(model: nn.Module, beginnings: Sequence[str]) -> None:
    """Fixes parameters by the beginnings of their names.

    A beginning ends where a part of a name does: `a.b` means `a.b` and `a.b.c`, not `a.bc`.
    Batch norms whose parameters are all fixed normalise by their running averages from then on and keep them.

    Args:
        model: changed in place.
        beginnings: of names as in the checkpoint, such as `network.1.layer1`.

    Raises:
        ParamsError: no parameter's name begins so; tells near ones.
    """
    names = [name for name, _ in model.named_parameters()]
    for beginning in beginnings:
        fixed = [name for name in names if _begins(name, beginning)]
        if not fixed:
            prefixes = {
                ".".join(name.split(".")[:end]): None for name in names for end in range(1, name.count(".") + 2)
            }
            near = difflib.get_close_matches(beginning, prefixes, n=5, cutoff=0.3) or list(prefixes)[:5]
            what = f"training.freeze {beginning!r}: no parameter's name begins so"
            raise ParamsError(f"{what}; fix: write one such as {', '.join(near)}")
        for name in fixed:
            model.get_parameter(name).requires_grad_(False)
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and _begins(name, beginning):
                module.register_forward_pre_hook(_evaluate)


def _begins(name: str, beginning: str) -> bool:
    return f"{name}.".startswith(f"{beginning.rstrip('.')}.")


def _evaluate(module: nn.Module, _inputs: Any) -> None:
    module.eval()


def heights(model: nn.Module) -> dict[str, int]:
    """How many layers stand above each parameter, by name; 0 for the last layer.

    The layers of a timm network are those of its `group_matcher`, such as the blocks of a ResNet or a ViT. Elsewhere
    each module with a weight of two or more dimensions opens one, and what follows without such a weight (a norm)
    belongs to it. Layers stand in the order in which the network's file makes them.
    """
    inside: dict[str, tuple[str, int]] = {}
    for prefix, module in model.named_modules():
        if hasattr(module, "group_matcher"):
            from timm.models import group_parameters

            layers: Any = group_parameters(module, module.group_matcher(coarse=False), reverse=True)
            inside |= {f"{prefix}.{name}".removeprefix("."): (prefix, layer) for name, layer in layers.items()}
    places: dict[str, tuple[int, int]] = {}
    opened, owner = 0, None
    for index, (name, parameter) in enumerate(model.named_parameters()):
        is_inside = name in inside
        network, layer = inside.get(name, ("", 0))
        holder = (is_inside, network if is_inside else name.rpartition(".")[0])
        leaves = owner is not None and owner[0]
        if holder != owner and (is_inside or leaves or parameter.ndim > 1 or owner is None):
            opened, owner = index, holder
        places[name] = (opened, layer)
    order = {place: rank for rank, place in enumerate(sorted(set(places.values()), reverse=True))}
    return {name: order[place] for name, place in places.items()}


def scheduled(training: Any, *, total: int, warmup: int) -> Callable[[int], float]:
    """From a step, 0-based, to the share of its peak that a run's learning rate has there; see `factor`."""
    return lambda step: factor(  # a plain function, which a scheduler's state leaves out
        step,
        total=total,
        warmup=warmup,
        schedule=training.schedule,
        milestones=training.milestones,
        step_factor=training.step_factor,
    )


def factor(
    step: int, *, total: int, warmup: int, schedule: str, milestones: Sequence[float], step_factor: float
) -> float:
    """The learning rate at a step, as a share of its peak.

    Args:
        step: 0-based.
        total: number of steps of the run.
        warmup: steps of linear rise before the schedule.
        schedule: `constant`; `linear` (to 0); `cosine` (to 0; Loshchilov and Hutter 2017, equation 5); `step` (times
            `step_factor` at each milestone; He et al. 2016, section 4.2); `inverse_sqrt` (sqrt(warmup / n) at the n-th
            step, without warm-up sqrt(1 / n); Vaswani et al. 2017, equation 3).
        milestones: shares of `total`.
        step_factor: of each milestone.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "step":
        return step_factor ** sum(step >= round(share * total) for share in milestones)
    if schedule == "inverse_sqrt":
        return math.sqrt(max(1, warmup) / (step + 1))
    done = (step - warmup) / max(1, total - warmup)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - done if schedule == "linear" else 1.0
