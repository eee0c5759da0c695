"""Batches of tensors from a split of a store, made by threads while the model works on earlier ones.

Threads rather than processes: decoders, NumPy and torch release the interpreter's lock, the memory-mapped files are
shared as they are, and nothing goes through /dev/shm. A batch depends on its images alone, never on the threads.

Images that are not stretched stay bytes until `Batch.to` has them on their device: a quarter of the memory to fill, to
pin and to send.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.store import Split
from pipeline.errors import PipelineError
from pipeline.machine import cores
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
        pin_memory: whether batches lie in memory from which a GPU copies by itself; None: where one is at work.
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
        left = cores() - torch.get_num_threads()
        self.workers = workers or min(MAX_WORKERS, max(1, left))
        self.pin_memory = pin_memory
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
        batch = collate(self._samples(positions.tolist()), len(positions), self.image_size, self._buffers)
        is_pinned = torch.cuda.is_initialized() if self.pin_memory is None else self.pin_memory
        return _pinned(batch) if is_pinned else batch

    def _samples(self, positions: list[int]) -> Iterator[Sample]:
        """Each read when it is asked for, and once; only what stands several times is held.

        The pixels of a whole batch in memory of their own would come page by page from the system at every batch.
        """
        times = Counter(positions)
        held: dict[int, Sample] = {}
        for position in positions:
            sample = held[position] if position in held else self._sample(position)
            if times[position] > 1:
                held[position] = sample
            yield sample

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

    def take(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """An array of that shape and type, with any content."""
        with self._lock:
            for index in range(len(self._all)):
                # held by the list and by this call alone; a tensor made of a part of it would hold it too
                is_free = sys.getrefcount(self._all[index]) == 2
                length, *rest = self._all[index].shape
                fits = length >= shape[0] and tuple(rest) == shape[1:] and self._all[index].dtype == dtype
                if is_free and fits:
                    return self._all[index][: shape[0]]
            self._all.append(np.empty(shape, dtype))
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


def collate(samples: Iterable[Sample], num: int, image_size: tuple[int, int], buffers: Buffers | None = None) -> Batch:
    """Samples as one batch; images, boxes and label maps are stretched alike.

    Args:
        samples: with the same kinds of truth; each is let go before the next is taken.
        num: B, how many they are.
        image_size: height and width.
        buffers: memory for the images; None: fresh.
    """
    pixels = _Pixels(num, image_size, buffers or Buffers())
    truths: list[tuple[Any, ...]] = []
    for sample in samples:
        pixels.add(sample.image)
        truths.append((sample.image_id, sample.image.shape[:2], sample.label, sample.objects, sample.semantic))
    ids, sizes, labels, objects, maps = (list(values) for values in zip(*truths, strict=True))
    batch = Batch(images=pixels.images(), image_ids=ids, sizes=sizes)
    if labels[0] is not None:
        batch.labels = torch.tensor(labels)
    if objects[0] is not None:
        scales = [torch.tensor([image_size[1] / width, image_size[0] / height] * 2) for height, width in sizes]
        batch.boxes = [torch.from_numpy(o.boxes) * scale for o, scale in zip(objects, scales, strict=True)]
        batch.box_labels = [torch.from_numpy(o.labels) for o in objects]
    if maps[0] is not None:
        batch.semantic = torch.stack([_label_map(m, image_size) for m in maps])
    return batch


class _Pixels:
    """The images of a batch one after the other: bytes, or float32 in 0..1 once one had to be stretched.

    Args:
        num: B.
        size: height and width.
        buffers: memory.
    """

    def __init__(self, num: int, size: tuple[int, int], buffers: Buffers) -> None:
        self._num, self._size, self._buffers = num, size, buffers
        self._pixels = np.empty(0, np.uint8)
        self._filled = 0
        self._last: np.ndarray | None = None

    def add(self, image: np.ndarray) -> None:
        """Places the next image, [H, W, C] uint8 of any size."""
        shape, index = (self._num, *self._size, image.shape[2]), self._filled
        is_stretched = image.shape[:2] != self._size
        if index == 0:
            self._pixels = self._buffers.take(shape, np.float32 if is_stretched else np.uint8)
        elif is_stretched and self._pixels.dtype == np.uint8:
            floats = self._buffers.take(shape, np.float32)
            floats[:index] = _floats(self._pixels[:index])
            self._pixels = floats
        if image is self._last:  # stands in for one that another process works on
            self._pixels[index] = self._pixels[index - 1]
        elif is_stretched:
            self._pixels[index] = _stretched(image, self._size)
        else:
            self._pixels[index] = image if self._pixels.dtype == np.uint8 else _floats(image)
        self._filled, self._last = index + 1, image

    def images(self) -> Tensor:
        """[B, C, H, W]; channels lie last in memory."""
        return torch.from_numpy(self._pixels).permute(0, 3, 1, 2)


def _floats(pixels: np.ndarray) -> np.ndarray:
    """uint8 as float32 in 0..1, as `structures.in_floats` has them."""
    return np.divide(pixels, np.float32(255))


def _stretched(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W, C] float32 in 0..1."""
    whole = torch.from_numpy(_floats(image)).permute(2, 0, 1)[None]
    stretched = torch.nn.functional.interpolate(whole, size, mode="bilinear", align_corners=False, antialias=True)
    return stretched[0].permute(1, 2, 0).numpy()


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
