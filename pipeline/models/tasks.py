"""What a network is trained for: loss and prediction of each task around any network.

A model has `loss(batch)`, a dict of named scalars, among them "loss", and `predict(images)`, a Prediction per image;
a generator has `loss(batch)` and `sample(n, generator, **options)`, [n, C, H, W].
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import PipelineError
from pipeline.models import backbones
from pipeline.structures import IGNORE, Batch, DatasetInfo, Prediction


class Classification(nn.Module):
    """Softmax cross-entropy around a network that maps [B, C, H, W] to logits [B, K]."""

    def __init__(self, network: nn.Module, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.label_smoothing = label_smoothing

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy in nats; against `label_weights` where mixup made them."""
        target = batch.labels if batch.label_weights is None else batch.label_weights
        assert target is not None
        return {"loss": F.cross_entropy(self.network(batch.images), target, label_smoothing=self.label_smoothing)}

    def predict(self, images: Tensor) -> list[Prediction]:
        """Class probabilities."""
        probabilities = self.network(images).float().softmax(1).cpu().numpy()
        return [Prediction(scores=scores) for scores in probabilities]


class Detection(nn.Module):
    """A detector with torchvision's interface: targets in, named losses out; images in, boxes out."""

    def __init__(self, network: nn.Module, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.network = network

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of the detector's own losses, and each of them."""
        assert batch.boxes is not None
        assert batch.box_labels is not None
        targets = [{"boxes": b, "labels": c} for b, c in zip(batch.boxes, batch.box_labels, strict=True)]
        training = self.network.training
        self.network.training = True  # the module's own flag only: its layers stay as they are
        parts = self.network(list(batch.images), targets)
        self.network.training = training
        return {"loss": sum(parts.values()), **parts}  # type: ignore[dict-item]

    def predict(self, images: Tensor) -> list[Prediction]:
        """Boxes before suppression, in pixels of `images`."""
        return [
            Prediction(
                boxes=out["boxes"].float().cpu().numpy(),
                scores=out["scores"].float().cpu().numpy(),
                labels=out["labels"].cpu().numpy(),
            )
            for out in self.network(list(images))
        ]


class Segmentation(nn.Module):
    """Pixel cross-entropy and soft Dice around a network that maps [B, C, H, W] to logits [B, K, H, W].

    Dice (Milletari et al. 2016) is averaged over the classes that a batch shows, so that small objects
    weigh as much as the background.
    """

    def __init__(self, network: nn.Module, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.label_smoothing = label_smoothing

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of both parts, and each of them."""
        assert batch.semantic is not None
        logits = self.network(batch.images).float()
        cross_entropy = F.cross_entropy(
            logits, batch.semantic, ignore_index=IGNORE, label_smoothing=self.label_smoothing
        )
        dice = soft_dice_loss(logits, batch.semantic)
        return {"loss": cross_entropy + dice, "cross_entropy": cross_entropy, "dice": dice}

    def predict(self, images: Tensor) -> list[Prediction]:
        """The most likely class of each pixel, in pixels of `images`."""
        label_maps = self.network(images).argmax(1).to(torch.uint8).cpu().numpy()
        return [Prediction(label_map=label_map) for label_map in label_maps]


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - 2 |P T| / (|P| + |T|) with P the probabilities, averaged over classes in `target`.

    Args:
        logits: [B, K, H, W].
        target: [B, H, W]; IGNORE pixels are not counted.

    Returns:
        A scalar in 0..1.
    """
    valid = target != IGNORE
    num_classes = logits.shape[1]
    truth = F.one_hot(torch.where(valid, target, 0), num_classes).permute(0, 3, 1, 2) * valid[:, None]
    probabilities = logits.softmax(1) * valid[:, None]
    overlap, size = (probabilities * truth).sum((0, 2, 3)), (probabilities + truth).sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    scores = 2 * overlap / size.clamp_min(1e-6)
    return 1 - (scores * present).sum() / present.sum().clamp_min(1)


TASKS = {"classification": Classification, "detection": Detection, "segmentation": Segmentation}


def builder(model: str) -> Any:
    """The `build` of `pipeline/models/<model>.py`; its keyword-only signature is the schema of model_params."""
    return importlib.import_module(f"pipeline.models.{model.replace('/', '.')}").build


def build(model: str, info: DatasetInfo, model_params: dict[str, Any], label_smoothing: float = 0.0) -> nn.Module:
    """The model of a run: the network of `pipeline/models/<model>.py` and its task around it.

    Args:
        model: path under pipeline/models, such as `classification/resnet`.
        info: the data; `image_size` is the size of batches.
        model_params: keyword arguments of the file's `build`.
        label_smoothing: of the cross-entropy, 0..1.
    """
    network = builder(model)(info, **model_params)
    task = model.split("/")[0]
    return network if task == "generative" else TASKS[task](network, label_smoothing)


def for_restoring(model_params: dict[str, Any]) -> dict[str, Any]:
    """`model_params` that give the same network without reading the pretrained weights that a checkpoint replaces."""
    return {
        key: backbones.FROM_CHECKPOINT if key == "weights" and value != "none" else value
        for key, value in model_params.items()
    }


def restore(model: str, info: DatasetInfo, model_params: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    """A trained model from a checkpoint's content, in evaluation mode.

    Raises:
        PipelineError: the weights do not fit; names the tensor and both shapes.
    """
    built = build(model, info, for_restoring(model_params))
    own = built.state_dict()
    for key in sorted(own.keys() | arrays.keys()):
        have = tuple(arrays[key].shape) if key in arrays else None
        want = tuple(own[key].shape) if key in own else None
        if have != want:
            raise PipelineError(
                f"checkpoint of {model}: {key} is {'missing' if have is None else have}, "
                f"the network wants {'none' if want is None else want}"
            )
    built.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    return built.eval()


def at_size(info: DatasetInfo, image_size: tuple[int, int]) -> DatasetInfo:
    """The same data, brought to another image size."""
    return replace(info, image_size=list(image_size))
