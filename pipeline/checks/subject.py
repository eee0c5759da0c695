"""A network as its entry in params.yaml says, before any training."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline import paths
from pipeline.data.loader import Loader, common_size
from pipeline.data.store import Store
from pipeline.models import tasks
from pipeline.params import Generator, Params, Run, check_options
from pipeline.structures import Batch
from pipeline.training import memory, seeding, transfer


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
        self._defaults = params.defaults.model_copy(update={"device": "cpu"}) if on_cpu else params.defaults
        self.name, self.entry = name, entry
        training: Any = entry.training
        self.training = training
        mapping = "runs" if isinstance(entry, Run) else "generators"
        check_options(tasks.builder(entry.model), entry.model_params, f"{mapping}.{name}.model_params")
        store = Store(paths.inputs(entry.images))
        self.splits = {split: store.split(split) for split in ("train", "val")}
        self._size = common_size(self.splits["train"], training.image_size)
        self.info = tasks.at_size(store.info, self._size)
        self._start = transfer.parent(entry) if isinstance(entry, Run) else None
        self._compute = seeding.set_up(self._defaults)
        self.batch_size = memory.batch_size(
            training.batch_size,
            self.make(),
            self.splits["train"],
            self._size,
            self._compute,
            num=1,
            name=name,
        )

    def make(self) -> Any:
        """The model as training begins with it, the same at each call."""
        compute = seeding.set_up(self._defaults)
        model = tasks.build(self.entry.model, self.info, self.entry.model_params, self.training)
        if isinstance(self.entry, Run):
            model = transfer.begin(model, self._start, self.info, self.training, self.name)
        return model.to(compute.device)

    def batches(self, size: int, num: int) -> list[Batch]:
        """The first batches of the training split in a random order, on the device; fewer of a small split."""
        train = self.splits["train"]
        order = np.random.default_rng(seeding.derive(self._defaults.seed, "order", 0)).permutation(len(train))
        loader = Loader(train, size, self._size)
        return [batch.to(self._compute.device) for batch in loader.batches(order[: size * num])]

    def batch(self, size: int) -> Batch:
        """So many images of the training split, or all of a smaller one."""
        return self.batches(size, 1)[0]
