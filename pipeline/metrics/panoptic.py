"""Panoptic quality of segment maps (Kirillov et al. 2019), by the rules of panopticapi.

A predicted and a true segment of one class match where their intersection is more than half of their union, pixels
without truth (void) left out of the prediction: then a segment has one match at most. Crowds match nothing; a
predicted segment that lies by more than half on void and on crowds of its class is no mistake. Where an image has
several crowds of a class, panopticapi sees only the last of them; here all count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.metrics import Metric, bootstrap
from pipeline.structures import Segments

METRICS = {
    "pq": Metric(True, "panoptic quality: sq * rq of each class, mean over the classes"),
    "sq": Metric(True, "segmentation quality: mean intersection over union of matched segments, over the classes"),
    "rq": Metric(True, "recognition quality: F1 of matched segments, mean over the classes"),
    "pq_things": Metric(True, "pq of the classes that can be counted"),
    "sq_things": Metric(True, "sq of the classes that can be counted"),
    "rq_things": Metric(True, "rq of the classes that can be counted"),
    "pq_stuff": Metric(True, "pq of the classes that cannot be counted"),
    "sq_stuff": Metric(True, "sq of the classes that cannot be counted"),
    "rq_stuff": Metric(True, "rq of the classes that cannot be counted"),
}
VOID = 0
THINGS, STUFF = "things", "stuff"


class Counts(NamedTuple):
    """What became of the segments of each class, [..., K] each, in one image or in many.

    Attributes:
        iou: float64, sum of intersection over union of the matched pairs.
        tp: int64, matched pairs.
        fp: int64, predicted segments without match that are mistakes.
        fn: int64, true segments without match.
    """

    iou: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray


@dataclass
class Result:
    """Everything one evaluation gives.

    Attributes:
        metrics: the figures of `METRICS`, None where no class occurs.
        per_class: one dict per class: pq, sq, rq, None where it does not occur, and its tp, fp, fn.
        per_image: what `resampled` needs, a row per image.
    """

    metrics: dict[str, float | None]
    per_class: list[dict[str, Any]]
    per_image: pa.Table


def match(*, prediction: Segments, target: Segments, num_classes: int, iscrowd: np.ndarray | None = None) -> Counts:
    """Matches the segments of one image.

    Args:
        prediction: ids [H, W], 0 where nothing is predicted; every other id is among its `segment_ids`, of which each
            has a pixel.
        target: ids [H, W]; what is not among its `segment_ids` is void.
        num_classes: K, labels are 0 to K - 1.
        iscrowd: [S] bool, of the segments of `target`; None for none.

    Raises:
        ValueError: sizes differ, or the prediction has an id or a label that is not known, or a segment of no pixel.
    """
    if prediction.ids.shape != target.ids.shape:
        raise ValueError(f"a prediction of {prediction.ids.shape} pixels for a truth of {target.ids.shape}")
    for of in (prediction, target):
        for label in of.labels[(of.labels < 0) | (of.labels >= num_classes)][:1]:
            raise ValueError(f"label {label} of {num_classes} classes")
    crowd = np.zeros(len(target.labels), bool) if iscrowd is None else np.asarray(iscrowd, bool)
    shared = _intersections(target, prediction)
    areas, on_void, shared = shared.sum(0)[:-1], shared[-1, :-1], shared[:-1]
    for index in np.flatnonzero(areas == 0)[:1]:
        raise ValueError(f"segment {prediction.segment_ids[index]} of the prediction has no pixel")
    true_areas, shared = shared.sum(1), shared[:, :-1]
    union = true_areas[:, None] + areas - shared - on_void
    comparable = (target.labels[:, None] == prediction.labels) & ~crowd[:, None]
    rows, columns = np.nonzero(comparable & (2 * shared > union))
    missed, wrong = ~crowd, np.ones(len(areas), bool)
    missed[rows], wrong[columns] = False, False
    on_crowd = (shared * (crowd[:, None] & (target.labels[:, None] == prediction.labels))).sum(0)
    wrong &= 2 * (on_void + on_crowd) <= areas
    labels = target.labels[rows]
    return Counts(
        np.bincount(labels, shared[rows, columns] / union[rows, columns], num_classes),
        np.bincount(labels, minlength=num_classes),
        np.bincount(prediction.labels[wrong], minlength=num_classes),
        np.bincount(target.labels[missed], minlength=num_classes),
    )


def _intersections(target: Segments, prediction: Segments) -> np.ndarray:
    """[S + 1, P + 1] int64, pixels by true and predicted segment; the last row is void, the last column nothing."""
    true_ids, ids = target.ids.ravel(), prediction.ids.ravel()
    size = len(prediction.segment_ids) + 1
    if not len(ids):
        return np.zeros((len(target.segment_ids) + 1, size), np.int64)
    # segments are made of runs of pixels: these are looked up and counted
    lasts = np.append(np.flatnonzero((true_ids[1:] != true_ids[:-1]) | (ids[1:] != ids[:-1])), len(ids) - 1)
    rows, columns = _places(true_ids[lasts], target.segment_ids), _places(ids[lasts], prediction.segment_ids)
    for unknown in ids[lasts][(columns == size - 1) & (ids[lasts] != VOID)][:1]:
        raise ValueError(f"segment {unknown} of the prediction is not in its list")
    counted = np.bincount(rows * size + columns, np.diff(lasts, prepend=-1), (len(target.segment_ids) + 1) * size)
    return counted.astype(np.int64).reshape(-1, size)


def _places(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[N] int64, where each of ids [N] stands among known [S]; S for one that does not, and for void."""
    if not len(known):
        return np.zeros(len(ids), np.int64)
    order = np.argsort(known, kind="stable")
    place = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)]
    return np.where((known[place] == ids) & (ids != VOID), place, len(known))


def evaluate(
    *,
    predictions: Sequence[Segments],
    targets: Sequence[Segments],
    classes: Sequence[str],
    is_thing: Sequence[bool],
    crowds: Sequence[np.ndarray] | None = None,
) -> Result:
    """Panoptic quality of a set of images.

    Args:
        predictions: one per image; see `match`.
        targets: one per image, in the same order.
        classes: names of the K classes.
        is_thing: for each class whether it can be counted.
        crowds: for each image which of its true segments are crowds; None for none.

    Raises:
        ValueError: see `match`; names the image by its number.
    """
    found = []
    for index, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        iscrowd = None if crowds is None else crowds[index]
        try:
            counts = match(prediction=prediction, target=target, num_classes=len(classes), iscrowd=iscrowd)
        except ValueError as error:
            raise ValueError(f"image {index}: {error}") from None
        found.append(counts)
    stacked = Counts(*(np.array([of[i] for of in found]).reshape(-1, len(classes)) for i in range(4)))
    table = per_image(stacked, is_thing)
    return Result(bootstrap.once(resampled, table), per_class(stacked, classes), table)


def per_class(counts: Counts, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Qualities and numbers of each class, from `Counts` of [N, K] pooled over the images."""
    pooled = Counts(*(values.sum(0, keepdims=True) for values in counts))
    occurs, *values = _qualities(pooled)
    return [
        {
            "class": name,
            **{
                key: float(of[0, i]) if occurs[0, i] else None
                for key, of in zip(("pq", "sq", "rq"), values, strict=True)
            },
            **{key: int(getattr(pooled, key)[0, i]) for key in ("tp", "fp", "fn")},
        }
        for i, name in enumerate(classes)
    ]


def per_image(counts: Counts, is_thing: Sequence[bool]) -> pa.Table:
    """What `resampled` needs of each image: the four of `Counts` as lists, of things and of stuff apart, if any.

    Args:
        counts: of N images, [N, K] each.
        is_thing: for each class whether it can be counted.
    """
    chosen = np.array(is_thing, bool)
    return pa.table(
        {
            f"{name}_{kind}": bootstrap.as_lists(values[:, of])
            for name, values in counts._asdict().items()
            for kind, of in ((THINGS, chosen), (STUFF, ~chosen))
            if of.any()
        }
    )


def resampled(table: pa.Table, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `METRICS` for weighted images.

    Args:
        table: N rows of `per_image`.
        weights: [R, N] integers, how often each image counts.

    Returns:
        Name to [R] float64, the mean over the classes that occur in truth or prediction; NaN where none does.
    """
    keys = [(kind, name) for kind in (THINGS, STUFF) for name in Counts._fields]
    names = [f"{name}_{kind}" for kind, name in keys]
    none = np.zeros((weights.shape[1], 0))  # no class is of the kind
    counted = (bootstrap.as_matrix(table, name) if name in table.column_names else none for name in names)
    sums = bootstrap.sums(weights, *counted)
    parts = {THINGS: _qualities(Counts(*sums[:4])), STUFF: _qualities(Counts(*sums[4:]))}
    parts[""] = tuple(np.hstack(both) for both in zip(parts[THINGS], parts[STUFF], strict=True))
    result = {}
    for name in METRICS:
        quality, _, kind = name.partition("_")
        occurs, *values = parts[kind]
        num, of = occurs.sum(1), dict(zip(("pq", "sq", "rq"), values, strict=True))[quality]
        result[name] = np.divide(of.sum(1), num, out=np.full(len(weights), np.nan), where=num > 0)
    return result


def _qualities(counts: Counts) -> tuple[np.ndarray, ...]:
    """Whether each class occurs, and its pq, sq and rq, 0 where it does not; [R, K] each."""
    whole = counts.tp + counts.fp / 2 + counts.fn / 2
    zero = np.zeros(whole.shape)
    return (
        whole > 0,
        np.divide(counts.iou, whole, out=zero.copy(), where=whole > 0),
        np.divide(counts.iou, counts.tp, out=zero.copy(), where=counts.tp > 0),
        np.divide(counts.tp, whole, out=zero.copy(), where=whole > 0),
    )
