"""A run trained with other options, of which only the log is wanted: what a search tries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pipeline import paths
from pipeline.params import Defaults, Run, check_options, is_fitted, with_value
from pipeline.training.checkpoint import run_digest

Row = dict[str, float]


class Trials:
    """Trainings of one run.

    Args:
        entry: the run.
        name: its name in `runs`.
        defaults: of params.yaml; its seed is that of every trial, so that they differ by their options alone.
    """

    def __init__(self, entry: Run, name: str, defaults: Defaults) -> None:
        self.entry, self.name, self.defaults = entry, name, defaults
        self._loader = cache(self._make_loader)

    def changed(self, values: Mapping[str, Any]) -> Run:
        """The run with other values of dotted keys, such as `training.lr`; those of model_params hold no dots."""
        content = self.entry.model_dump(include={"model_params", "training"})
        for key, value in values.items():
            part, _, inner = key.partition(".")
            content = with_value(content, [part, *inner.split(".")], value)
        training = self.entry.training and type(self.entry.training).model_validate(content["training"])
        return self.entry.model_copy(update={"model_params": content["model_params"], "training": training})

    def check(self, entry: Run, where: str) -> None:
        """Holds a changed run's model_params against what the model takes; `where` is their place, for messages.

        Raises:
            ParamsError: a key that it does not have, or a value of another type.
        """
        if is_fitted(entry.model):
            from pipeline.training import fitting

            fitting.plan(fitting.module_of(entry.model).fit, entry.model_params, where)
        else:
            from pipeline.models import tasks

            check_options(tasks.builder(entry.model), entry.model_params, where)

    def digest(self, settings: Mapping[str, Any]) -> str:
        """A key of all that the trials depend on: the run, the defaults, its data and code, and further settings."""
        own = {"run": self.entry.model_dump(), "defaults": self.defaults.model_dump(exclude={"device"})}
        return run_digest({**own, **settings}, paths.inputs(self.entry.images))

    def fit(self, entry: Run, watch: Callable[[Row], None]) -> None:
        """Trains a changed run from its beginning.

        Args:
            entry: of `changed`.
            watch: called with the row of each epoch, and once with the row of a model that has no epochs. What it
                raises ends the training.

        Raises:
            DivergedError: a loss or a gradient is not finite.
        """
        if is_fitted(entry.model):
            from pipeline.training import fitting

            watch(fitting.fitted(entry, self.name, self.defaults.seed)[1][-1])
            return
        from pipeline.models import tasks
        from pipeline.training import loop, seeding

        training: Any = entry.training
        compute = seeding.set_up(self.defaults)
        train, val = (self._loader(split, training.batch_size, training.image_size) for split in ("train", "val"))
        info = tasks.at_size(train.split.info, train.image_size)
        model = tasks.build(entry.model, info, entry.model_params, training)
        loop.fit(model, train, val, training, seed=self.defaults.seed, compute=compute, name=self.name, watch=watch)

    def _make_loader(self, split: str, batch_size: int, image_size: int | None) -> Any:
        """A loader that all trials share, so that images are decoded once."""
        from pipeline.data.loader import Loader, common_size
        from pipeline.data.store import Store

        images = Store(paths.inputs(self.entry.images)).split(split)
        return Loader(images, batch_size, common_size(images, image_size))
