"""Batches of tensors from a split of a store."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.data.store import Split
from pipeline.errors import PipelineError
from pipeline.structures import Batch, Sample

CACHE_BYTES = 2**30


class Loader:
    """Decodes a split into batches; splits that fit into CACHE_BYTES are decoded once.

    Args:
        split: the images.
        batch_size: B; the last batch of an epoch may be smaller.
        image_size: height and width that every image is stretched to.
    """

    def __init__(self, split: Split, batch_size: int, image_size: tuple[int, int]) -> None:
        self.split = split
        self.batch_size = batch_size
        self.image_size = image_size
        num_bytes = len(split) * image_size[0] * image_size[1] * (split.info.channels + 1)
        self._cache: dict[int, Sample] | None = {} if num_bytes <= CACHE_BYTES else None

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def batches(self, order: np.ndarray | None = None) -> Iterator[Batch]:
        """All batches.

        Args:
            order: [N] positions in the split; as stored when None.
        """
        positions = np.arange(len(self.split)) if order is None else order
        for start in range(0, len(positions), self.batch_size):
            yield collate([self._sample(int(i)) for i in positions[start : start + self.batch_size]], self.image_size)

    def _sample(self, index: int) -> Sample:
        if self._cache is None:
            return self.split.read(index)
        if index not in self._cache:
            self._cache[index] = self.split.read(index)
        return self._cache[index]


def common_size(split: Split, wanted: int | None) -> tuple[int, int]:
    """Height and width of batches: the wanted side, or the size that all images share.

    Raises:
        PipelineError: the images differ in size and none is wanted.
    """
    if wanted is not None:
        return wanted, wanted
    if split.info.image_size is None:
        raise PipelineError(
            f"dataset {split.info.name}: its images differ in size; fix: set training.image_size in params.yaml"
        )
    height, width = split.info.image_size
    return height, width


def collate(samples: list[Sample], image_size: tuple[int, int]) -> Batch:
    """Samples as one batch; images, boxes and label maps are stretched alike."""
    batch = Batch(
        images=torch.stack([_image(s.image, image_size) for s in samples]).contiguous(
            memory_format=torch.channels_last
        ),
        image_ids=[s.image_id for s in samples],
        sizes=[(s.image.shape[0], s.image.shape[1]) for s in samples],
    )
    labels, objects, maps = ([getattr(s, kind) for s in samples] for kind in ("label", "objects", "semantic"))
    if labels[0] is not None:
        batch.labels = torch.tensor(labels)
    if objects[0] is not None:
        scales = [torch.tensor([image_size[1] / width, image_size[0] / height] * 2) for height, width in batch.sizes]
        batch.boxes = [torch.from_numpy(o.boxes) * scale for o, scale in zip(objects, scales, strict=True)]
        batch.box_labels = [torch.from_numpy(o.labels) for o in objects]
    if maps[0] is not None:
        batch.semantic = torch.stack([_label_map(m, image_size) for m in maps])
    return batch


def _image(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    if pixels.shape[1:] != size:
        pixels = torch.nn.functional.interpolate(
            pixels[None], size, mode="bilinear", align_corners=False, antialias=True
        )[0]
    return pixels


def _label_map(label_map: np.ndarray, size: tuple[int, int]) -> Tensor:
    values = torch.from_numpy(label_map.astype(np.int64))
    if values.shape != size:
        values = torch.nn.functional.interpolate(values[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    return values
