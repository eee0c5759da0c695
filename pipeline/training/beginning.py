"""What the training of a network begins with; a training, a trial of a search and `check-run` all begin here."""

from __future__ import annotations

from typing import Any

from pipeline import paths
from pipeline.data.loader import common_size
from pipeline.data.store import Split, Store
from pipeline.models import tasks
from pipeline.params import Defaults, Generator, Run, check_options
from pipeline.training import memory, seeding, transfer


class Beginning:
    """An entry's data at the size of its batches, and its network, built the same at each call.

    Args:
        entry: of `runs` or `generators`, with a training.
        name: its name there.
        defaults: of params.yaml.

    Attributes:
        training: the entry's.
        store: its images.
        size: of its batches, (height, width).
        info: the data at that size.
        start: the checkpoint at which it begins or whose answers it learns, or None.

    Raises:
        ParamsError: model_params that the model does not take.
        PipelineError: images or a checkpoint that are not there, or images of several sizes.
    """

    def __init__(self, entry: Run | Generator, name: str, defaults: Defaults) -> None:
        training: Any = entry.training
        self.entry, self.name, self.defaults, self.training = entry, name, defaults, training
        mapping = "generators" if isinstance(entry, Generator) else "runs"
        check_options(tasks.builder(entry.model), entry.model_params, f"{mapping}.{name}.model_params")
        self.store = Store(paths.inputs(entry.images))
        self.size = common_size(self.store.split("train"), training.image_size)
        self.info = tasks.at_size(self.store.info, self.size)
        self.start = transfer.parent(entry) if isinstance(entry, Run) else None

    def model(self) -> tuple[Any, seeding.Compute]:
        """The network before its first step, on the CPU, and what is to compute with it; everything is seeded anew."""
        compute = seeding.set_up(self.defaults)
        model = tasks.build(self.entry.model, self.info, self.entry.model_params, self.training)
        if isinstance(self.entry, Run):
            model = transfer.begin(model, self.start, self.info, self.training, self.name)
        return model, compute

    def batch_size(self, model: Any, train: Split, compute: seeding.Compute, *, num: int = 1) -> int:
        """Images of a batch of each of `num` processes; see `memory.batch_size`."""
        return memory.batch_size(self.training.batch_size, model, train, self.size, compute, num=num, name=self.name)
