"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

OPTIMISERS = {
    "adamw": lambda groups, lr: torch.optim.AdamW(groups, lr=lr),
    "adam": lambda groups, lr: torch.optim.Adam(groups, lr=lr),
    "sgd": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True),
    "rmsprop": lambda groups, lr: torch.optim.RMSprop(groups, lr=lr, momentum=0.9),
}


def optimiser(model: nn.Module, training: Any) -> torch.optim.Optimizer:
    """The optimiser of a run.

    Biases and the scales of normalisation layers (parameters of one dimension) are not decayed. Parameters of a
    module with the attribute `is_pretrained` learn at `lr * backbone_lr_factor`.

    Args:
        model: its trainable parameters are taken.
        training: a run's `training` section.
    """
    pretrained = {
        id(parameter)
        for module in model.modules()
        if getattr(module, "is_pretrained", False)
        for parameter in module.parameters()
    }
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in pretrained, parameter.ndim > 1), []).append(parameter)
    settings: Iterable[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": training.lr * (training.backbone_lr_factor if backbone else 1.0),
            "weight_decay": training.weight_decay if decayed else 0.0,
        }
        for (backbone, decayed), parameters in groups.items()
    ]
    return OPTIMISERS[training.optimizer](settings, training.lr)


def factor(step: int, *, total: int, warmup: int, schedule: str) -> float:
    """The learning rate at a step, as a share of its peak.

    Args:
        step: 0-based.
        total: number of steps of the run.
        warmup: steps of linear rise before the schedule.
        schedule: `constant`, `linear` (to 0) or `cosine` (to 0; Loshchilov and Hutter 2017, equation 5).
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - done if schedule == "linear" else 1.0
