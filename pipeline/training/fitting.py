"""Models that are fitted at once to stored numbers: heads, and regressions on a table or on features.

An option that is given as a list where the model takes one value is chosen on held-out data: every combination of the
values is tried, on the val split or on `folds` parts of train and val, and the best is fitted again. Images of a group
lie in one fold, and so do an image and its augmented copies, which are not held out themselves.
"""

from __future__ import annotations

import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pipeline import paths
from pipeline.data import features as feature_files
from pipeline.data import splits
from pipeline.data.features import FeatureSplit
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from pipeline.params import HEADS, Run, check_options
from pipeline.structures import DatasetInfo
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.fitted import EXTRACTOR, module_of
from pipeline.training.seeding import derive

if TYPE_CHECKING:
    from pipeline.training.state import Row


@dataclass(frozen=True)
class Choice:
    """How options are chosen and what the chosen ones are fitted to.

    Attributes:
        folds: parts of train and val, each held out once; 0: val alone is held out.
        retrain: whether the model itself is fitted to train and val instead of train.
        by: what the best of heads has on what is held out: the highest top1, or the least loss, which differs less by
            chance and is only fair to probabilities.
    """

    folds: int
    retrain: bool
    by: Literal["top1", "loss"]


def choice(
    *,
    folds: Annotated[int, Field(ge=0, le=100)] = 0,
    retrain: bool = False,
    choose_by: Literal["top1", "loss"] = "top1",
) -> Choice:
    """The options that every fitted model has beside its own; see `Choice`."""
    return Choice(folds, retrain, choose_by)


def fitted(entry: Run, name: str, seed: int) -> tuple[Checkpoint, list[Row], Row]:
    """Fits a run's model.

    Args:
        entry: of `runs`.
        name: its name there.
        seed: of the model's own randomness and of the folds.

    Returns:
        The checkpoint, with the options that were chosen; the rows of its log: one for each combination of options
        that was tried, with the means over what was held out; without any, one for the model, or of a regression one
        for each kept step; and of these the row of the model itself.

    Raises:
        ParamsError: an option that the model does not have, or of another type.
        PipelineError: what the model needs is not there.
    """
    folder = paths.inputs(entry.inputs)
    info = feature_files.info_of(folder)
    problem = (Classes if entry.model.startswith(f"{HEADS}/") else Targets)(entry.model, info, str(folder), seed)
    tried, how = plan(problem.module.fit, entry.model_params, f"runs.{name}.model_params")
    train, val = (problem.checked(feature_files.read(folder, split)) for split in ("train", "val"))
    rows: list[Row] = []
    if len(tried) > 1 or how.folds:
        groups = _groups(entry.dataset) if how.folds else {}
        found = [problem.held_out(options, train, val, how.folds, groups) for options in tried]
        rows = [{"epoch": number, **row} for number, row in enumerate(found, 1)]
        best = min(range(len(tried)), key=lambda index: problem.badness(found[index], how.by))
        print(f"{name}: {_said(tried[best])}: {_said(found[best])}")
        tried, chosen = [tried[best]], rows[best]
    (options,) = tried
    arrays = problem.fit(options, train)
    if not rows:
        rows = problem.log(arrays, train, val)
        chosen = rows[-1]
    if how.retrain:
        arrays = problem.fit(options, joined(train, val))
    arrays |= {f"{EXTRACTOR}{key}": array for key, array in feature_files.state_of(folder).items()}
    return Checkpoint(entry.model, options, info, arrays), rows, chosen


def plan(fit: Any, model_params: dict[str, Any], where: str) -> tuple[list[dict[str, Any]], Choice]:
    """The combinations of options that are to be tried, in the order in which they are listed, and how.

    Raises:
        ParamsError: an option that the model does not have, or of another type.
    """
    own = {key: value for key, value in model_params.items() if key not in inspect.signature(choice).parameters}
    shared = {key: value for key, value in model_params.items() if key not in own}
    check_options(choice, shared, where)
    annotations = {key: str(parameter.annotation) for key, parameter in inspect.signature(fit).parameters.items()}
    listed = {
        key: value for key, value in own.items() if isinstance(value, list) and "list[" not in annotations.get(key, "")
    }
    tried = [own | dict(zip(listed, values, strict=True)) for values in itertools.product(*listed.values())]
    for options in tried or [own]:
        check_options(fit, options, where)
    return tried, choice(**shared)


def _groups(dataset: str) -> dict[str, str]:
    """The groups of a dataset's images by id, which stored features do not say; empty where it has none."""
    return {
        image_id: group
        for split in map(Store(paths.raw(dataset)).split, ("train", "val"))
        if "group" in split.table.column_names
        for image_id, group in zip(split.column("image_id"), split.column("group"), strict=True)
    }


def joined(first: FeatureSplit, second: FeatureSplit) -> FeatureSplit:
    """The samples of two splits as one."""

    def both(one: np.ndarray | None, other: np.ndarray | None) -> Any:
        return None if one is None or other is None else np.concatenate([one, other])

    return FeatureSplit(
        image_ids=first.image_ids + second.image_ids,
        features=both(first.features, second.features),
        labels=both(first.labels, second.labels),
        targets=both(first.targets, second.targets),
    )


def some(split: FeatureSplit, rows: np.ndarray) -> FeatureSplit:
    """The samples at some positions."""
    return replace(
        split,
        image_ids=[split.image_ids[row] for row in rows],
        features=split.features[rows],
        labels=None if split.labels is None else split.labels[rows],
        targets=None if split.targets is None else split.targets[rows],
    )


def folds_of(labels: np.ndarray | None, units: list[str], folds: int, seed: int) -> np.ndarray:
    """The fold of each sample [N].

    Args:
        labels: [N], or None; with labels, the units of each class are dealt out in turn.
        units: of the samples, as `splits.units` names them; the folds have equally many up to one.
        folds: their number.
        seed: of who belongs to which.
    """
    position = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    unit_of = np.array([position[unit] for unit in units])
    order = np.random.default_rng(derive(seed, "folds")).permutation(len(position))
    if labels is not None:
        order = order[np.argsort(_most_frequent(labels, unit_of)[order], kind="stable")]
    fold_of = np.empty(len(position), np.int64)
    fold_of[order] = np.arange(len(position)) % folds
    return fold_of[unit_of]


def _most_frequent(labels: np.ndarray, unit_of: np.ndarray) -> np.ndarray:
    """The label [U] that most samples of each unit have, of equally many the least."""
    (units, found), counts = np.unique(np.stack([unit_of, labels]), axis=1, return_counts=True)
    result = np.empty(unit_of.max() + 1, np.int64)
    rising = np.lexsort((-found, counts))
    result[units[rising]] = found[rising]  # of several the last stays
    return result


@dataclass
class _Problem(ABC):
    """A model on its data.

    Attributes:
        model: its path under pipeline/models.
        info: the dataset.
        place: the folder of its numbers, for messages.
        seed: of the model and of the folds.
    """

    model: str
    info: DatasetInfo
    place: str
    seed: int

    def __post_init__(self) -> None:
        self.module = module_of(self.model)

    @abstractmethod
    def checked(self, split: FeatureSplit) -> FeatureSplit:
        """The split, if it has what the model learns from."""

    @abstractmethod
    def fit(self, options: dict[str, Any], split: FeatureSplit) -> dict[str, np.ndarray]:
        """The model's arrays."""

    @abstractmethod
    def figures(self, arrays: dict[str, np.ndarray], split: FeatureSplit) -> Row:
        """How well it does on a split."""

    @abstractmethod
    def badness(self, row: Row, by: str) -> tuple[float, ...]:
        """What the best of several options has least of."""

    def log(self, arrays: dict[str, np.ndarray], train: FeatureSplit, val: FeatureSplit) -> list[Row]:
        """One row with the figures of both splits."""
        return [{"epoch": 1, **self.row(arrays, train, val)}]

    def row(self, arrays: dict[str, np.ndarray], train: FeatureSplit, val: FeatureSplit) -> Row:
        """The figures on what was fitted, and those on what was held out."""
        held_out = {f"val_{key}": value for key, value in self.figures(arrays, val).items()}
        return {**self.figures(arrays, train), **held_out}

    def held_out(
        self, options: dict[str, Any], train: FeatureSplit, val: FeatureSplit, folds: int, groups: dict[str, str]
    ) -> Row:
        """The means of `row` over the folds, or on val alone; `groups` are those of the images, by id."""
        rows = [
            self.row(self.fit(options, fitted_to), fitted_to, left)
            for fitted_to, left in self._parts(train, val, folds, groups)
        ]
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}

    def _parts(
        self, train: FeatureSplit, val: FeatureSplit, folds: int, groups: dict[str, str]
    ) -> Iterator[tuple[FeatureSplit, FeatureSplit]]:
        if not folds:
            yield train, val
            return
        both = joined(train, val)
        units, are_copies = splits.units(both.image_ids, [groups.get(image_id) for image_id in both.image_ids])
        num = len(set(units))
        if not 2 <= folds <= num:
            raise PipelineError(f"{self.place}: {folds} folds of {num} samples or groups; fix: folds from 2 to {num}")
        fold = folds_of(both.labels, units, folds, self.seed)
        for number in range(folds):
            is_left = (fold == number) & ~np.array(are_copies)
            yield some(both, np.flatnonzero(fold != number)), some(both, np.flatnonzero(is_left))


class Classes(_Problem):
    """A head; of equal top1 on what is held out the one with the least loss is best."""

    def checked(self, split: FeatureSplit) -> FeatureSplit:
        """The split.

        Raises:
            PipelineError: it has no labels.
        """
        if split.labels is None:
            raise PipelineError(
                f"{self.place}: its images have no class labels, which {self.model} needs; fix: other data"
            )
        return split

    def fit(self, options: dict[str, Any], split: FeatureSplit) -> dict[str, np.ndarray]:
        """The head's arrays.

        Raises:
            PipelineError: all samples are of one class.
        """
        assert split.labels is not None
        known = np.unique(split.labels)
        if len(known) < 2:
            what = f"all {len(split.labels)} samples are of class {self.info.classes[known[0]]!r}" if len(known) else ""
            raise PipelineError(
                f"{self.place}: {what or 'no samples'}, and {self.model} tells classes apart; fix: a dataset or folds "
                "with at least two classes in what is fitted"
            )
        return self.module.fit(split.features, split.labels, len(self.info.classes), self.seed, **options)

    def figures(self, arrays: dict[str, np.ndarray], split: FeatureSplit) -> Row:
        """Loss and top1; the loss is the log-loss of probabilities, else the hinge loss of distances."""
        assert split.labels is not None
        scores = self.module.scores(arrays, split.features)
        if self.module.PROBABILITIES:
            of_truth = scores[np.arange(len(scores)), split.labels]
            loss = float(-np.log(np.maximum(of_truth, 1e-7)).mean())
        else:  # multiclass hinge loss of the distances (Crammer and Singer 2001)
            of_truth = scores[np.arange(len(scores)), split.labels, None]
            others = np.where(np.arange(scores.shape[1]) == split.labels[:, None], -np.inf, scores)
            loss = float(np.maximum(0, 1 + others.max(1, keepdims=True) - of_truth).mean())
        return {"loss": loss, "top1": float((scores.argmax(1) == split.labels).mean())}

    def badness(self, row: Row, by: str) -> tuple[float, ...]:
        """Smaller is better; what is not finite is worst."""
        if not np.isfinite(row["val_loss"]):
            return (np.inf,)
        return (row["val_loss"],) if by == "loss" else (-row["val_top1"], row["val_loss"])


class Targets(_Problem):
    """A regression; the best has the least mean squared error on what is held out, whatever a head would go by."""

    def checked(self, split: FeatureSplit) -> FeatureSplit:
        """The split.

        Raises:
            PipelineError: it has no targets, or one is missing.
        """
        if split.targets is None or not np.isfinite(split.targets).all():
            raise PipelineError(
                f"{self.place}: not every sample has a target, which {self.model} needs; fix: other data"
            )
        return split

    def fit(self, options: dict[str, Any], split: FeatureSplit) -> dict[str, np.ndarray]:
        """The model's arrays."""
        assert split.targets is not None
        return self.module.fit(split.features, split.targets, self.names(split), self.seed, **options)

    def names(self, split: FeatureSplit) -> list[str]:
        """Of the features, where they have any."""
        named = self.info.feature_names
        return named if len(named) == split.features.shape[1] else []

    def figures(self, arrays: dict[str, np.ndarray], split: FeatureSplit) -> Row:
        """Loss: the mean squared error."""
        assert split.targets is not None
        errors = self.module.values(arrays, split.features).astype(np.float64) - split.targets
        return {"loss": float((errors**2).mean())}

    def badness(self, row: Row, by: str) -> tuple[float, ...]:
        """Smaller is better."""
        return (row["val_loss"],)

    def log(self, arrays: dict[str, np.ndarray], train: FeatureSplit, val: FeatureSplit) -> list[Row]:
        """One row for each kept step of descent."""
        losses, val_losses = (self.module.history(arrays, one.features, one.targets) for one in (train, val))
        found = zip(arrays["steps"], losses, val_losses, strict=True)
        return [{"epoch": int(step), "loss": float(loss), "val_loss": float(held)} for step, loss, held in found]


def _said(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )
