"""What a network is trained for: loss and prediction of each task around any network.

A model has `loss(batch)`, a dict of named scalars, among them "loss", and `predict(images)`, a Prediction per image;
a generator has `loss(batch)` and `sample(n, generator, **options)`, [n, C, H, W].
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ParamsError, PipelineError
from pipeline.models import backbones
from pipeline.models.initialisation import initialise
from pipeline.models.self_supervised import SelfSupervised
from pipeline.structures import IGNORE, Batch, DatasetInfo, Prediction

LOSS_KIND = "loss_kind"  # name of a tensor


def cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """Softmax cross-entropy in nats, mean over images; ln K where all classes are equally likely."""
    return F.cross_entropy(logits, target, label_smoothing=label_smoothing)


def hinge(logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """The multiclass hinge loss of Weston and Watkins (1999), mean over images; K - 1 where all scores are equal.

    Of an image: the sum over the wrong classes j of max(0, s_j - s_y + 1).

    Raises:
        ParamsError: shares of classes, or smoothed ones: a margin is from one class.
    """
    if label_smoothing or target.ndim == 2:
        what = "label_smoothing" if label_smoothing else "online.mixup or online.cutmix"
        raise ParamsError(
            f"training.loss: hinge knows one class of an image, not the shares of {what}; fix: set it to 0"
        )
    truth = target[:, None]
    margins = (logits - logits.gather(1, truth) + 1).clamp_min(0)
    return margins.scatter(1, truth, 0.0).sum(1).mean()


def binary_cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """The log-losses of K logistic regressions, each class against the rest, summed; mean over images.

    K ln 2 where all logits are zero. Labels are smoothed as for the cross-entropy: (1 - e) y + e / K.
    """
    num_classes = logits.shape[1]
    shares = F.one_hot(target, num_classes) if target.ndim == 1 else target
    shares = shares * (1 - label_smoothing) + label_smoothing / num_classes
    return F.binary_cross_entropy_with_logits(logits, shares.to(logits.dtype), reduction="none").sum(1).mean()


LOSSES = {"cross_entropy": cross_entropy, "hinge": hinge, "binary_cross_entropy": binary_cross_entropy}


class Classification(nn.Module):
    """One class per image, by a network that maps [B, C, H, W] to logits [B, K].

    Attributes:
        probabilities: whether what it predicts are probabilities; those of the hinge loss are scores.
    """

    def __init__(self, network: nn.Module, *, loss: str = "cross_entropy", label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.criterion = loss
        self.label_smoothing = label_smoothing
        self.probabilities = loss != "hinge"
        if loss != "cross_entropy":  # the weights themselves tell `restore` how to read the logits
            self.register_buffer(LOSS_KIND, torch.tensor(list(LOSSES).index(loss)))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """See `label_loss`."""
        return self.losses(self.network(batch.images), batch)

    def losses(self, logits: Tensor | list[tuple[float, Tensor]], batch: Batch) -> dict[str, Tensor]:
        """The loss of logits that are known already."""
        return {"loss": self.label_loss(logits, batch)}

    def measure(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
        """What `loss` gives, and as metric top1: how many images have their class for the likeliest, of how many."""
        assert batch.labels is not None
        logits = self.network(batch.images)
        hits = (logits.argmax(1) == batch.labels).sum()
        return self.losses(logits, batch), {"top1": (hits, torch.tensor(len(batch.labels), device=hits.device))}

    def label_loss(self, logits: Tensor | list[tuple[float, Tensor]], batch: Batch) -> Tensor:
        """The loss of LOSSES that was chosen; against `label_weights` where mixup or cutmix made them.

        Args:
            logits: [B, K]; of a network with auxiliary classifiers in training a list of the main logits and theirs,
                each behind the weight of its loss.
            batch: the truth.
        """
        if isinstance(logits, list):
            return torch.stack([weight * self.label_loss(each, batch) for weight, each in logits]).sum()
        target = batch.labels if batch.label_weights is None else batch.label_weights
        assert target is not None
        return LOSSES[self.criterion](logits.float(), target, self.label_smoothing)

    def predict(self, images: Tensor) -> list[Prediction]:
        """Class probabilities; of the binary losses each one's own, divided by their sum; of the hinge loss scores."""
        logits = self.network(images).float()
        if self.criterion == "binary_cross_entropy":
            logits = F.logsigmoid(logits)
        if self.probabilities:
            logits = logits.softmax(1)
        return [Prediction(scores=scores) for scores in logits.cpu().numpy()]


class Detection(nn.Module):
    """A detector with torchvision's interface: targets in, named losses out; images in, boxes out."""

    def __init__(self, network: nn.Module) -> None:
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

    def __init__(self, network: nn.Module, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.label_smoothing = label_smoothing

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of both parts, and each of them."""
        return self.losses(self.network(batch.images).float(), batch)

    def measure(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
        """What `loss` gives, and as metrics pixel_accuracy and miou: intersection and union of each class [K]."""
        assert batch.semantic is not None
        logits = self.network(batch.images).float()
        is_scored = batch.semantic != IGNORE
        num_classes = logits.shape[1]
        pairs = num_classes * batch.semantic[is_scored] + logits.argmax(1)[is_scored]
        counts = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
        overlap = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - overlap
        return self.losses(logits, batch), {"miou": (overlap, union), "pixel_accuracy": (overlap.sum(), counts.sum())}

    def losses(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The loss of logits that are known already, and its parts; 0 where no pixel is scored."""
        assert batch.semantic is not None
        scored = (batch.semantic != IGNORE).any()
        target = torch.where(scored, batch.semantic, 0)  # the mean over no pixel, and its gradient, would be NaN
        cross_entropy = pixel_cross_entropy(logits, target, self.label_smoothing)
        cross_entropy, dice = cross_entropy * scored, soft_dice_loss(logits, target) * scored
        return {"loss": cross_entropy + dice, "cross_entropy": cross_entropy, "dice": dice}

    def predict(self, images: Tensor) -> list[Prediction]:
        """The most likely class of each pixel, in pixels of `images`."""
        label_maps = self.network(images).argmax(1).to(torch.uint8).cpu().numpy()
        return [Prediction(label_map=label_map) for label_map in label_maps]


def pixel_cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """Softmax cross-entropy in nats, mean over scored pixels.

    Args:
        logits: [B, K, H, W].
        target: [B, H, W]; IGNORE pixels are not counted.
        label_smoothing: share of an answer that goes evenly to all classes.
    """
    loss = partial(F.cross_entropy, logits, target, ignore_index=IGNORE, label_smoothing=label_smoothing)
    if logits.is_cuda:  # whose own mean over maps adds up in any order
        return loss(reduction="none").sum() / (target != IGNORE).sum()
    return loss()


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


def check_one_pass(model: str, where: str) -> None:
    """Refuses a model that is no single pass from an image to an answer.

    Raises:
        ParamsError: names `where`.
    """
    if not model.startswith(("classification/", "segmentation/")):
        raise ParamsError(f"{where}: {model} is no single pass from image to answer; fix: a classifier")


def bare(model: str, info: DatasetInfo, model_params: dict[str, Any]) -> nn.Module:
    """The network of `pipeline/models/<model>.py` alone, without what it is trained for: [B, C, H, W] -> anything."""
    built = builder(model)(info, **model_params)
    return getattr(built, "network", built)  # what learns without labels brings its own loss around it


def build(model: str, info: DatasetInfo, model_params: dict[str, Any], training: Any = None) -> nn.Module:
    """The model of a run: the network of `pipeline/models/<model>.py` and its task around it.

    Args:
        model: path under pipeline/models, such as `classification/resnet`.
        info: the data; `image_size` is the size of batches.
        model_params: keyword arguments of the file's `build`.
        training: the run's `training` section, of which the task takes what its own keyword-only arguments name, and
            `init` says how the weights begin; None: as the files say.
    """
    network = builder(model)(info, **model_params)
    if training is None:
        return _around(model, network, {})
    initialise(network, training.init)
    return _around(model, network, {key: getattr(training, key) for key in _options(model)})


def _around(model: str, network: nn.Module, options: dict[str, Any]) -> nn.Module:
    """The task around a network; generators and what learns without labels are their own."""
    task = model.split("/")[0]
    return network if task == "generative" or isinstance(network, SelfSupervised) else TASKS[task](network, **options)


def _options(model: str) -> list[str]:
    """The keyword-only arguments of a model's task."""
    task = TASKS.get(model.split("/")[0])
    parameters = inspect.signature(task).parameters.values() if task else ()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def with_weights(model: str, model_params: dict[str, Any], weights: str) -> dict[str, Any]:
    """`model_params` with other `weights`, where the model has pretrained ones, by name or by default."""
    default = getattr(inspect.signature(builder(model)).parameters.get("weights"), "default", "none")
    return model_params if model_params.get("weights", default) == "none" else {**model_params, "weights": weights}


def for_restoring(model: str, model_params: dict[str, Any]) -> dict[str, Any]:
    """`model_params` that give the same network without reading the pretrained weights that a checkpoint replaces."""
    return with_weights(model, model_params, backbones.FROM_CHECKPOINT)


def restore(model: str, info: DatasetInfo, model_params: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    """A trained model from a checkpoint's content, in evaluation mode.

    Raises:
        PipelineError: the weights do not fit; names the tensor and both shapes.
    """
    network = builder(model)(info, **for_restoring(model, model_params))
    options = (
        {"loss": list(LOSSES)[int(arrays[LOSS_KIND])]} if LOSS_KIND in arrays and "loss" in _options(model) else {}
    )
    built = _around(model, network, options)
    own = built.state_dict()
    for key in sorted(own.keys() | arrays.keys()):
        have = tuple(arrays[key].shape) if key in arrays else None
        want = tuple(own[key].shape) if key in own else None
        if have != want:
            raise PipelineError(
                f"checkpoint of {model}: {key} is {'missing' if have is None else have}, "
                f"the network wants {'none' if want is None else want}; fix: train again"
            )
    built.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    return built.eval()


def at_size(info: DatasetInfo, image_size: tuple[int, int]) -> DatasetInfo:
    """The same data, brought to another image size."""
    return replace(info, image_size=list(image_size))
