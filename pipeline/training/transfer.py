"""A run that begins at another run's checkpoint: with its weights (fine-tuning), or with it as a teacher."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from pipeline import paths
from pipeline.errors import PipelineError
from pipeline.models import tasks
from pipeline.params import Run
from pipeline.structures import DatasetInfo
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.seeding import is_main

NAMED = 4  # tensors that a message names before it only counts


def parent(entry: Run) -> Checkpoint | None:
    """The checkpoint that is the input of a run, or None."""
    return None if entry.parent is None else checkpoints.load(paths.checkpoint(entry.parent))


def digest(of: Checkpoint | None) -> str:
    """A key of a checkpoint's weights; empty without one."""
    if of is None:
        return ""
    found = hashlib.blake2b(digest_size=16)
    for name, array in sorted(of.arrays.items()):
        found.update(f"{name} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def begin(model: nn.Module, at: Checkpoint | None, info: DatasetInfo, training: Any, name: str) -> nn.Module:
    """The model of a run that begins at a checkpoint; without one, the model as it is.

    With `training.distillation` the checkpoint's model teaches, else the model takes the tensors that fit.

    Args:
        model: freshly built.
        at: the input of the run.
        info: the data of this run, at the size of its batches.
        training: the run's `training` section.
        name: of the run, for messages.

    Raises:
        PipelineError: no weight fits, or the teacher knows other classes or sizes of images.
    """
    if at is None:
        return model
    if training.distillation is None:
        said = take(model, at.arrays, f"run {name}: the checkpoint of {at.model}")
        if is_main():
            print(f"{name}: {said}", file=sys.stderr)
        return model
    from pipeline.training.distillation import Distilled

    for what, its, own in (
        ("classes", at.info.classes, info.classes),
        ("image_size", at.info.image_size, info.image_size),
    ):
        if its != own:
            raise PipelineError(f"run {name}: its teacher has {what} {its}, it has {own}; fix: train both alike")
    teacher: Any = tasks.restore(at.model, at.info, at.model_params, at.arrays)
    if not isinstance(model, tasks.Classification) or not isinstance(teacher, tasks.Classification):
        raise PipelineError(f"run {name}: {at.model} cannot teach it; fix: only networks that give logits of classes")
    settings = training.distillation
    return Distilled(model, teacher.network, temperature=settings.temperature, weight=settings.weight)


def take(model: nn.Module, arrays: Mapping[str, np.ndarray], where: str) -> str:
    """Gives a model the tensors that have the name and shape of its own, and says which in one line.

    Modules of which every weight was taken are marked as pretrained: they learn at `training.backbone_lr_factor`.

    Args:
        model: its other tensors stay as they are.
        arrays: tensors by name.
        where: their place, for messages.

    Raises:
        PipelineError: no weight of the model is among them.
    """
    own = model.state_dict()
    # how the logits are read is the run's own choice
    fitting = {
        key: torch.from_numpy(arrays[key])
        for key, tensor in own.items()
        if key in arrays and arrays[key].shape == tuple(tensor.shape) and key != tasks.LOSS_KIND
    }
    if not any(key in fitting for key, _ in model.named_parameters()):
        raise PipelineError(f"{where} has no weight of the network's names and shapes; fix: the same model_params")
    model.load_state_dict(fitting, strict=False)
    for name, module in model.named_modules():
        weights = [f"{name}.{key}" if name else key for key, _ in module.named_parameters()]
        if weights and all(weight in fitting for weight in weights):
            cast(Any, module).is_pretrained = True
    left = [key for key in own if key not in fitting]
    names = ", ".join(left[:NAMED]) + (f" and {len(left) - NAMED} more" if len(left) > NAMED else "")
    return f"{len(fitting)} of {len(own)} tensors taken" + (f"; new are {names}" if left else "")
