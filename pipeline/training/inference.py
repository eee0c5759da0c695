"""A trained run applied to images: what `predict` writes of a split, and `corrupt` of images that it has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.errors import PipelineError
from pipeline.params import Params, Run, is_fitted
from pipeline.structures import Prediction, Sample, in_floats
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.fitted import answers, gives_probabilities, of_extractor

BOXES = pa.list_(pa.list_(pa.float32(), 4))
SCHEMAS = {
    "classification": {"scores": pa.list_(pa.float32())},
    "detection": {"boxes": BOXES, "scores": pa.list_(pa.float32()), "labels": pa.list_(pa.int32())},
    "segmentation": {"label_map": pa.binary()},
    "regression": {"value": pa.float32()},
}
"""The columns of predictions.arrow by task, besides image_id."""


class Network:
    """A network with its weights, on its device; its answers are means over views of each image.

    Args:
        params: of which `defaults` say how it computes.
        checkpoint: the network.
        kinds: of the views besides the image itself, see `views.views`.
        fold: put batch norms inside the layers before them, see `layers.folded`.
    """

    def __init__(
        self, params: Params, checkpoint: Checkpoint, kinds: Sequence[str] = (), *, fold: bool = False
    ) -> None:
        from pipeline.models import layers, tasks
        from pipeline.training import seeding

        self.compute = seeding.set_up(params.defaults)
        self.model: Any = tasks.restore(checkpoint.model, checkpoint.info, checkpoint.model_params, checkpoint.arrays)
        if fold:
            network: Any = self.model.network
            self.model.network = layers.folded(network)
        self.model.to(self.compute.device)
        if checkpoint.info.image_size is None:
            raise PipelineError(f"checkpoint of {checkpoint.model}: no image_size; fix: dvc repro --force its train")
        height, width = checkpoint.info.image_size
        self.image_size = height, width
        self.kinds = kinds
        self.probabilities = bool(getattr(self.model, "probabilities", False))

    def rows(self, batch: Any) -> list[dict[str, Any]]:
        """The columns of each image of a `Batch`, boxes and maps in pixels of the image as stored."""
        import torch

        from pipeline.training.views import views

        images = in_floats(batch.images.to(self.compute.device, non_blocking=True))
        with torch.inference_mode(), self.compute.autocast():
            answers = [self.model.predict(view) for view in views(images, self.kinds)]
        of_views = [
            [columns(prediction, self.image_size, size) for prediction, size in zip(answer, batch.sizes, strict=True)]
            for answer in answers
        ]
        return [mean(rows) for rows in zip(*of_views, strict=True)]

    def __call__(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """The columns of each image, [H, W, C] uint8 of any size."""
        from pipeline.data.loader import collate

        samples = (Sample("", "", image) for image in images)
        return self.rows(collate(samples, len(images), self.image_size))


class Fitted:
    """A model that was fitted to features, behind the backbone that made them."""

    def __init__(self, params: Params, entry: Run, checkpoint: Checkpoint) -> None:
        from pipeline.models import extractors
        from pipeline.training import seeding

        name = entry.inputs.partition("/")[2]
        space = params.features[name]
        compute = seeding.set_up(params.defaults) if extractors.is_network(space.backbone) else None
        self.extractor = extractors.extractor(
            space.backbone,
            space.weights,
            space.image_size,
            options=space.options,
            where=f"features.{name}",
            channels=checkpoint.info.channels,
            device=compute.device if compute else None,
            state=of_extractor(checkpoint.arrays),
        )
        self.model = entry.model
        self.arrays = checkpoint.arrays
        self.probabilities = gives_probabilities(entry.model)

    def __call__(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """The columns of each image, [H, W, C] uint8 of any size."""
        return answers(self.model, self.arrays, self.extractor(list(images)))


class Ensemble:
    """Networks of several seeds, whose answers are averaged."""

    def __init__(self, members: Sequence[Network]) -> None:
        self.members = members
        self.probabilities = members[0].probabilities

    def __call__(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """The columns of each image, [H, W, C] uint8 of any size."""
        return [mean(rows) for rows in zip(*(member(images) for member in self.members), strict=True)]


def predictor(params: Params, entry: Run, *checkpoints: Checkpoint) -> Network | Fitted | Ensemble:
    """What turns images into the rows of a run's predictions, from the checkpoints of `weights`."""
    if is_fitted(entry.model):
        return Fitted(params, entry, checkpoints[0])
    prediction = entry.prediction
    members = [Network(params, each, prediction.augment, fold=prediction.fold) for each in checkpoints]
    return Ensemble(members) if len(members) > 1 else members[0]


def weights(entry: Run, name: str) -> list[Path]:
    """The folders of the checkpoints whose answers a run's are made of: the first seed's, or of an ensemble all."""
    first = paths.checkpoint(name)
    seeds = entry.training.seeds if entry.training and entry.prediction.ensemble else []
    return [first, *(paths.of_seed(first, seed) for seed in seeds[1:])]


def mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of several answers of a classifier for one image; a single answer as it is."""
    if len(rows) == 1:
        return rows[0]
    return {"scores": np.mean([row["scores"] for row in rows], axis=0, dtype=np.float64).astype(np.float32)}


def columns(prediction: Prediction, size: tuple[int, int], original: tuple[int, int]) -> dict[str, Any]:
    """The columns of one image, boxes and maps brought back from the model's size to the original's (height, width)."""
    if prediction.label_map is not None:
        from pipeline.data.store import encode_png

        rows, places = (((np.arange(o) + 0.5) * s / o).astype(int) for o, s in zip(original, size, strict=True))
        return {"label_map": encode_png(prediction.label_map[rows][:, places])}
    if prediction.boxes is not None:
        scale = np.array([original[1] / size[1], original[0] / size[0]] * 2, np.float32)
        return {"boxes": list(prediction.boxes * scale), "scores": prediction.scores, "labels": prediction.labels}
    return {"scores": prediction.scores}
