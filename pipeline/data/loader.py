"""Batches of tensors from a split of a store, made by threads while the model works on earlier ones.

Threads rather than processes: decoders, NumPy and torch release the interpreter's lock, the memory-mapped files are
shared as they are, and nothing goes through /dev/shm. A batch depends on its images alone, never on the threads.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.store import Split
from pipeline.errors import PipelineError
from pipeline.structures import Batch, Sample

CACHE_BYTES = 2**30
MAX_WORKERS = 8  # more only wait for the interpreter's lock
AHEAD = 2  # batches that wait, besides those that the workers are making


class Loader:
    """Decodes a split into batches; splits that fit into CACHE_BYTES are decoded once.

    Args:
        split: the images.
        batch_size: B; the last batch of an epoch may be smaller.
        image_size: height and width that every image is stretched to.
        workers: threads; None: as many as torch leaves cores, at least one and at most MAX_WORKERS.
        pin_memory: whether batches lie in memory from which a GPU copies by itself; None: where there is a GPU.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        image_size: tuple[int, int],
        *,
        workers: int | None = None,
        pin_memory: bool | None = None,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.image_size = image_size
        left = len(os.sched_getaffinity(0)) - torch.get_num_threads()
        self.workers = workers or min(MAX_WORKERS, max(1, left))
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        num_bytes = len(split) * image_size[0] * image_size[1] * (split.info.channels + 1)
        self._cache: dict[int, Sample] | None = {} if num_bytes <= CACHE_BYTES else None
        self._buffers = Buffers()

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def batches(self, order: np.ndarray | None = None) -> Iterator[Batch]:
        """All batches.

        Args:
            order: [N] positions in the split; as stored when None.

        Raises:
            PipelineError: an image cannot be read; names it.
        """
        positions = np.arange(len(self.split)) if order is None else order
        starts = iter(range(0, len(positions), self.batch_size))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        under_way: deque[Future[Batch]] = deque()
        try:
            while True:
                while len(under_way) < self.workers + AHEAD and (start := next(starts, None)) is not None:
                    under_way.append(pool.submit(self._batch, positions[start : start + self.batch_size]))
                if not under_way:
                    return
                yield under_way.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, positions: np.ndarray) -> Batch:
        read = {position: self._sample(position) for position in dict.fromkeys(positions.tolist())}
        batch = collate([read[position] for position in positions.tolist()], self.image_size, self._buffers)
        return _pinned(batch) if self.pin_memory else batch

    def _sample(self, index: int) -> Sample:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        try:
            sample = self.split.read(index)
        except PipelineError:
            raise
        except Exception as error:  # whatever a decoder says of this image
            name = self.split.row(index)["file_name"]
            raise PipelineError(
                f"dataset {self.split.info.name} image {index} {name}: cannot be read "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); fix: make the dataset anew, "
                "dvc repro --force its stage"
            ) from error
        if self._cache is not None:
            self._cache[index] = sample
        return sample


class Buffers:
    """Memory for images, used again once nobody holds the batch that was made in it.

    Fresh memory of a batch's size comes page by page from the system, which can take longer than decoding.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of that shape, float32, with any content."""
        with self._lock:
            for index in range(len(self._all)):
                # held by the list and by this call alone; a tensor made of a part of it would hold it too
                is_free = sys.getrefcount(self._all[index]) == 2
                length, *rest = self._all[index].shape
                if is_free and length >= shape[0] and tuple(rest) == shape[1:]:
                    return self._all[index][: shape[0]]
            self._all.append(np.empty(shape, np.float32))
            return self._all[-1][:]


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


def collate(samples: list[Sample], image_size: tuple[int, int], buffers: Buffers | None = None) -> Batch:
    """Samples as one batch; images, boxes and label maps are stretched alike.

    Args:
        samples: with the same kinds of truth.
        image_size: height and width.
        buffers: memory for the images; None: fresh.
    """
    batch = Batch(
        images=_images([s.image for s in samples], image_size, buffers or Buffers()),
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


def _images(images: list[np.ndarray], size: tuple[int, int], buffers: Buffers) -> Tensor:
    """[B, C, H, W] float32 in 0..1, stretched to the size; channels lie last in memory."""
    # NumPy where it can: torch would split these few pixels over all its threads, which wait for one another
    pixels = buffers.take((len(images), *size, images[0].shape[2]))
    last: np.ndarray | None = None
    for index, (place, image) in enumerate(zip(pixels, images, strict=True)):
        if image is last:  # stands in for one that another process works on
            place[:] = pixels[index - 1]
        elif image.shape[:2] == size:
            place[:] = image
            place /= np.float32(255)  # in two steps, for NumPy converts slowly while it divides
        else:
            whole = torch.from_numpy(np.divide(image, np.float32(255))).permute(2, 0, 1)[None]
            stretched = torch.nn.functional.interpolate(
                whole, size, mode="bilinear", align_corners=False, antialias=True
            )
            place[:] = stretched[0].permute(1, 2, 0).numpy()
        last = image
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory."""

    def pin(value: Any) -> Any:
        if isinstance(value, list):
            return [pin(item) for item in value]
        return value.pin_memory() if isinstance(value, Tensor) else value

    return replace(batch, **{name: pin(value) for name, value in vars(batch).items()})


def _label_map(label_map: np.ndarray, size: tuple[int, int]) -> Tensor:
    values = torch.from_numpy(label_map.astype(np.int64))
    if values.shape != size:
        values = torch.nn.functional.interpolate(values[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    return values
