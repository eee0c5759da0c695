"""A run trained with other options, of which only the log is wanted: what a search tries."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.params import Defaults, Run, check_options, is_fitted, with_value
from pipeline.training.checkpoint import Snapshots, run_digest

if TYPE_CHECKING:
    from pipeline.training.state import Row


class Trials:
    """Trainings of one run.

    Args:
        entry: the run.
        name: its name in `runs`.
        defaults: of params.yaml; its seed, or the run's first, is that of every trial, so that they differ by their
            options alone.
    """

    def __init__(self, entry: Run, name: str, defaults: Defaults) -> None:
        seeds = entry.training.seeds if entry.training is not None else []
        self.entry, self.name = entry, name
        self.defaults = defaults.model_copy(update={"seed": seeds[0]}) if seeds else defaults
        self._loader = cache(self._make_loader)  # all trials share them, so that images are decoded once

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
            from pipeline.training import fitted, fitting

            fitting.plan(fitted.module_of(entry.model).fit, entry.model_params, where)
        else:
            from pipeline.models import tasks

            check_options(tasks.builder(entry.model), entry.model_params, where)

    def digest(self, settings: Mapping[str, Any], *, on_all_machines: bool = False) -> str:
        """A key of all that the trials depend on: the run, the defaults, its data and code, and further settings.

        On all machines the key is the same: files count by name, size and what their info.json says, not by time.
        """
        content = {"run": self.entry.model_dump(), "defaults": self.defaults.model_dump(exclude={"device"}), **settings}
        models = [self.entry.model]
        if self.entry.parent is not None:
            from pipeline.training import transfer

            start = transfer.parent(self.entry)
            assert start is not None
            content["start"] = transfer.digest(start)
            models.append(start.model)
        folder = paths.inputs(self.entry.images)
        if not on_all_machines:
            return run_digest(content, folder, *models)
        files = sorted((str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*.*"))
        info = (folder / "info.json").read_text(encoding="utf-8") if (folder / "info.json").is_file() else ""
        nothing = Path(os.devnull)  # in which there are no files
        return run_digest({**content, "files": files, "info": info}, nothing, *models)

    def fit(self, entry: Run, watch: Callable[[Row], None], place: Path) -> None:
        """Trains a changed run from its beginning, or goes on where a kill ended it.

        Args:
            entry: of `changed`.
            watch: called with the row of each epoch, again after a kill, and once with the row of a model that has no
                epochs. What it raises ends the training.
            place: a folder of this training's own for its snapshots; it is gone at the end.

        Raises:
            DivergedError: a loss or a gradient is not finite.
        """
        if is_fitted(entry.model):
            from pipeline.training import fitting

            watch(fitting.fitted(entry, self.name, self.defaults.seed)[2])
            return
        from pipeline.training import loop
        from pipeline.training.beginning import Beginning

        beginning = Beginning(entry, self.name, self.defaults)
        model, compute = beginning.model()
        batch_size = beginning.batch_size(model, beginning.store.split("train"), compute)
        loop.fit(
            model,
            self._loader("train", beginning.size, batch_size),
            self._loader("val", beginning.size, batch_size),
            beginning.training,
            seed=self.defaults.seed,
            compute=compute,
            snapshots=_Watched(place, self.digest({"trial": entry.model_dump(), "device": compute.device.type}), watch),
            name=self.name,
            watch=watch,
        )
        shutil.rmtree(place, ignore_errors=True)

    def _make_loader(self, split: str, size: tuple[int, int], batch_size: int) -> Any:
        from pipeline.data.loader import Loader
        from pipeline.data.store import Store

        return Loader(Store(paths.inputs(self.entry.images)).split(split), batch_size, size)


class _Watched(Snapshots):
    """Snapshots of a trial; who goes on from one is shown the rows that it holds instead of writing them to a log."""

    def __init__(self, folder: Path, digest: str, watch: Callable[[Row], None]) -> None:
        super().__init__(str(folder.relative_to(paths.RESUME)), 0, digest)
        self._watch = watch

    def write_log(self, rows: Sequence[Mapping[str, float]]) -> None:
        for row in rows:
            self._watch(dict(row))

    def add_to_log(self, row: Mapping[str, float]) -> None:
        pass
