"""What kinds of errors a detector makes, and the AP to be gained by mending each (TIDE, Bolya et al. 2020).

Departs from the authors' package in that a detection on a crowd is no error, and that classes without truth are left
out of the mean, as everywhere here; without these two it is equal to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.metrics.detection import Detections
from pipeline.metrics.detection_confusion import Pairing, pair
from pipeline.structures import Objects

KINDS = {
    "classification": "overlaps a truth of another class enough",
    "localisation": "overlaps a truth of its class, but too little",
    "both": "of another class than what it overlaps, and overlaps it too little",
    "duplicate": "shows a truth that a better detection has taken",
    "background": "shows nothing",
    "missed": "a truth that no detection shows, not even a wrong one",
}
"""Section 2.2 of the paper; the first five are of detections, the last of truths."""
SPECIAL = {
    "false_positives": "all that is wrong, ranked below all that is right",
    "false_negatives": "all truths that are not found, left out",
}
RIGHT, IGNORED = len(KINDS), len(KINDS) + 1
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(len(KINDS))
RECALL_LEVELS = np.arange(101) / 100
MAX_DETECTIONS = 100
BACKGROUND_IOU = 0.1


@dataclass
class ErrorTypes:
    """The errors of a set of images at one IoU.

    Attributes:
        ap: average precision as it is, 0..1, mean over the classes with truth; None without truth.
        counts: number of each of `KINDS`.
        gains: by kind and by `SPECIAL`, how far AP would rise if these errors alone were mended; None without
            truth, or where mending leaves neither truth nor detections.
        of_detections: per image [N] int64, position in `KINDS`, or `RIGHT`, or `IGNORED` (on a crowd, or beyond the
            most that count).
        missed: per image [M] bool, truths that count as missed; fewer than those not found.
    """

    ap: float | None
    counts: dict[str, int]
    gains: dict[str, float | None]
    of_detections: list[np.ndarray]
    missed: list[np.ndarray]


class _Points(NamedTuple):
    """Detections of all images that count.

    Attributes:
        labels, scores: [P].
        kinds: [P], as `ErrorTypes.of_detections`.
        mended: [P], the class as which a mended detection is right; -1: mending removes it.
        num_truths, num_unfound, num_missed: [K], truths by class: all, those not found, those that count as missed.
    """

    labels: np.ndarray
    scores: np.ndarray
    kinds: np.ndarray
    mended: np.ndarray
    num_truths: np.ndarray
    num_unfound: np.ndarray
    num_missed: np.ndarray


def error_types(
    *,
    predictions: Sequence[Detections],
    targets: Sequence[Objects],
    num_classes: int,
    iou_threshold: float = 0.5,
    background_iou: float = BACKGROUND_IOU,
    max_detections: int = MAX_DETECTIONS,
) -> ErrorTypes:
    """Sorts every wrong detection and every truth that was not found into one kind of error, and weighs the kinds.

    Args:
        predictions: one per image.
        targets: one per image, in the same order.
        num_classes: K.
        iou_threshold: the least IoU of a right detection, the paper's t_f.
        background_iou: up to this IoU a detection shows background, the paper's t_b.
        max_detections: of each image, the best of all classes count.
    """
    of_detections, missed = [], []
    parts: list[tuple[np.ndarray, ...]] = []
    truths = np.zeros((3, num_classes), np.int64)
    for prediction, target in zip(predictions, targets, strict=True):
        best = np.argsort(-prediction.scores, kind="stable")[:max_detections]
        chosen = Detections(
            boxes=prediction.boxes[best], scores=prediction.scores[best], labels=prediction.labels[best]
        )
        pairing = pair(chosen, target, iou_threshold)
        kinds, mended, usable = _sort(chosen, target, pairing, iou_threshold, background_iou)
        counted = ~np.asarray(target.iscrowd, bool)
        unfound = counted.copy()
        unfound[pairing.truth_of[pairing.truth_of >= 0]] = False
        missed.append(unfound & ~usable)
        for row, which in enumerate((counted, unfound, missed[-1])):
            truths[row] += np.bincount(target.labels[which], minlength=num_classes)
        in_order = np.full(len(prediction.scores), IGNORED)
        in_order[best] = kinds
        of_detections.append(in_order)
        shown = kinds != IGNORED
        parts.append((chosen.labels[shown], chosen.scores[shown], kinds[shown], mended[shown]))
    none = (np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    columns = (np.concatenate(column) for column in zip(none, *parts, strict=True))
    points = _Points(*columns, *truths)
    counts = np.bincount(points.kinds, minlength=len(KINDS))[: len(KINDS)]
    counts[MISSED] = truths[2].sum()
    return ErrorTypes(
        _as_is(points),
        dict(zip(KINDS, counts.tolist(), strict=True)),
        _gains(points),
        of_detections,
        missed,
    )


def _sort(
    prediction: Detections, target: Objects, pairing: Pairing, iou_threshold: float, background_iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinds [N], classes after mending [N], and which truths [M] a mended detection would take.

    Args:
        prediction: N detections of an image by falling score.
        target: its truths.
        pairing: of the two.
        iou_threshold, background_iou: the paper's t_f and t_b.
    """
    kinds = np.where(pairing.truth_of >= 0, RIGHT, np.where(pairing.ignored, IGNORED, BACKGROUND))
    mended = np.full(len(kinds), -1)
    usable = np.zeros(len(target), bool)
    wrong = np.flatnonzero(kinds == BACKGROUND)
    if not len(target) or not len(wrong):
        return kinds, mended, usable
    same = prediction.labels[wrong, None] == target.labels[None, :]
    overlap = pairing.overlap[wrong]
    of_class, of_others = np.where(same, overlap, 0), np.where(same, 0, overlap)
    found = np.zeros(len(target), bool)
    found[pairing.truth_of[pairing.truth_of >= 0]] = True
    near, other, nearest = of_class.max(1), of_others.max(1), overlap.max(1)
    conditions = {
        LOCALISATION: (background_iou <= near) & (near <= iou_threshold),
        CLASSIFICATION: other >= iou_threshold,
        DUPLICATE: np.where(found, of_class, 0).max(1) >= iou_threshold,
        BACKGROUND: nearest <= background_iou,
    }
    kinds[wrong] = np.select(list(conditions.values()), list(conditions), BOTH)
    # of all errors about one free truth the best mended one takes it, the others are removed
    about = np.where(kinds[wrong] == LOCALISATION, of_class.argmax(1), of_others.argmax(1))
    for index, truth in zip(wrong.tolist(), about.tolist(), strict=True):
        if kinds[index] in (LOCALISATION, CLASSIFICATION) and not found[truth] and not usable[truth]:
            usable[truth] = True
            mended[index] = target.labels[truth]
    return kinds, mended, usable


def _as_is(points: _Points) -> float | None:
    return _mean_ap(points.labels, points.scores, points.kinds == RIGHT, points.num_truths, points.num_truths)


def _gains(points: _Points) -> dict[str, float | None]:
    labels, scores, kinds, mended, num_truths, num_unfound, num_missed = points
    ap, right = _as_is(points), kinds == RIGHT
    if ap is None:
        return dict.fromkeys((*KINDS, *SPECIAL))
    after: dict[str, float | None] = {}
    for kind, name in enumerate(KINDS):
        error = kinds == kind
        stays = ~error | (mended >= 0)
        fixed = np.where(error & stays, mended, labels)[stays]
        left = num_truths - (num_missed if kind == MISSED else 0)
        after[name] = _mean_ap(fixed, scores[stays], (right | error)[stays], left, num_truths)
    after["false_positives"] = _mean_ap(labels, right.astype(np.float64), right, num_truths, num_truths)
    after["false_negatives"] = _mean_ap(labels, scores, right, num_truths - num_unfound, num_truths)
    gains: dict[str, float | None] = {}
    for name, value in after.items():
        gain = None if value is None else value - ap
        # mending can cost a little where a level of recall falls on another detection: that is no gain
        gains[name] = gain if gain is None or name in SPECIAL else max(gain, 0.0)
    return gains


def _mean_ap(
    labels: np.ndarray, scores: np.ndarray, right: np.ndarray, num_truths: np.ndarray, originally: np.ndarray
) -> float | None:
    """COCO's 101-point AP, mean over the classes that had truth; one that lost it counts 0 if it has detections."""
    order = np.argsort(-scores, kind="stable")
    order = order[np.argsort(labels[order], kind="stable")]
    edges = np.searchsorted(labels[order], np.arange(len(num_truths) + 1))
    aps = []
    for label in np.flatnonzero(originally):
        of_class = right[order[edges[label] : edges[label + 1]]]
        if num_truths[label]:
            aps.append(_average_precision(of_class, int(num_truths[label])))
        elif len(of_class):
            aps.append(0.0)
    return float(np.mean(aps)) if aps else None


def _average_precision(right: np.ndarray, num_truths: int) -> float:
    """Interpolated precision at 101 levels of recall, of detections by falling score."""
    num_right = np.cumsum(right)
    precision = np.maximum.accumulate((num_right / np.arange(1, len(right) + 1))[::-1])[::-1]
    places = np.searchsorted(num_right / num_truths, RECALL_LEVELS)
    return float(np.append(precision, 0.0)[places].mean())
