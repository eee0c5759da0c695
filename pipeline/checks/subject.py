"""A network as its entry in params.yaml says, before any training."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.data.loader import Loader
from pipeline.params import Generator, Params, Run
from pipeline.structures import Batch
from pipeline.training import seeding
from pipeline.training.beginning import Beginning


class Subject:
    """A network, built afresh as often as wanted, and its batches without augmentation.

    Args:
        params: of the project.
        name: of the entry.
        entry: of `runs` or `generators`, with a training.
        on_cpu: whatever `defaults.device` says.

    Attributes:
        training: the entry's.
        splits: train and val.
        info: the data at the size of the batches.
        batch_size: of the training.
    """

    def __init__(self, params: Params, name: str, entry: Run | Generator, *, on_cpu: bool = False) -> None:
        defaults = params.defaults.model_copy(update={"device": "cpu"}) if on_cpu else params.defaults
        self.name, self.entry = name, entry
        self._beginning = Beginning(entry, name, defaults)
        self.training, self.info = self._beginning.training, self._beginning.info
        self.splits = {split: self._beginning.store.split(split) for split in ("train", "val")}
        model, self._compute = self._beginning.model()
        self.batch_size = self._beginning.batch_size(model, self.splits["train"], self._compute)

    def make(self) -> Any:
        """The model as training begins with it, the same at each call."""
        model, compute = self._beginning.model()
        return model.to(compute.device)

    def batches(self, size: int, num: int) -> list[Batch]:
        """The first batches of the training split in a random order, on the device; fewer of a small split."""
        train = self.splits["train"]
        order = np.random.default_rng(seeding.derive(self._beginning.defaults.seed, "order", 0)).permutation(len(train))
        loader = Loader(train, size, self._beginning.size)
        return [batch.to(self._compute.device) for batch in loader.batches(order[: size * num])]

    def batch(self, size: int) -> Batch:
        """So many images of the training split, or all of a smaller one."""
        return self.batches(size, 1)[0]
