"""Images read by a thread while those before them are worked on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np

from pipeline.data.store import Split


class ReadAhead:
    """Batches of decoded images of a split; who asks for one finds the next one under way.

    Args:
        split: the images.
        batch_size: B; the last batch may be smaller.
        stride: from one batch that is asked for to the next, in images.
        prepare: of each image [H, W, C] uint8, in the thread.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        stride: int,
        prepare: Callable[[np.ndarray], np.ndarray] = lambda image: image,
    ) -> None:
        self.split, self.batch_size, self.stride, self.prepare = split, batch_size, stride, prepare
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._next: tuple[int, Future[list[np.ndarray]]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __call__(self, start: int) -> list[np.ndarray]:
        """The images from position `start` on.

        Raises:
            PipelineError: an image cannot be read.
        """
        mine = (
            self._next[1] if self._next is not None and self._next[0] == start else self._pool.submit(self._read, start)
        )
        after = start + self.stride
        self._next = (after, self._pool.submit(self._read, after)) if after < len(self.split) else None
        return mine.result()

    def _read(self, start: int) -> list[np.ndarray]:
        end = min(start + self.batch_size, len(self.split))
        return [self.prepare(self.split.read(index).image) for index in range(start, end)]
