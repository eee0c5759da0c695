"""What detections are taken for: right or wrong, a confusion matrix with background, and trust in their scores.

One IoU threshold, greedy matching by falling score, first within the class, then across classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics import classification
from pipeline.metrics.classification import Calibration
from pipeline.metrics.detection_columns import Detections
from pipeline.ops import boxes as box_ops
from pipeline.structures import Objects


@dataclass
class Pairing:
    """Detections and truths of one image, paired without regard to areas.

    Attributes:
        truth_of: [N] int64, the truth of its own class that a detection takes, -1 for none.
        other_of: [N] int64, of the detections that take none, the left-over truth of another class, -1 for none.
        ignored: [N] bool, detections that take none and lie on a crowd of their class: neither right nor wrong.
        overlap: [N, M] float64, IoU with the truths; 0 with crowds.
    """

    truth_of: np.ndarray
    other_of: np.ndarray
    ignored: np.ndarray
    overlap: np.ndarray


def pair(prediction: Detections, target: Objects, iou_threshold: float) -> Pairing:
    """Pairs the detections of one image with its truths.

    By falling score, a detection takes the free truth of its class that it overlaps most, from `iou_threshold` on.
    What then is left over on both sides is paired across classes in the same way.

    Args:
        prediction: N detections.
        target: M truths.
        iou_threshold: the least IoU of a pair; of a detection on a crowd, the least share of it inside.
    """
    found, truths = prediction.boxes.astype(np.float64), target.boxes.astype(np.float64)
    overlap = box_ops.iou(found, truths)
    crowds = np.asarray(target.iscrowd, bool)
    overlap[:, crowds] = 0
    same: np.ndarray = prediction.labels[:, None] == target.labels[None, :]
    order = np.argsort(-prediction.scores, kind="stable")
    truth_of = greedy(np.where(same, overlap, 0), order, iou_threshold)
    on_crowd = (box_ops.coverage(found, truths[crowds]) >= iou_threshold) & same[:, crowds]
    ignored = on_crowd.any(1) & (truth_of < 0)
    across = np.where(same, 0, overlap)
    across[:, truth_of[truth_of >= 0]] = 0
    across[ignored | (truth_of >= 0)] = 0
    return Pairing(truth_of, greedy(across, order, iou_threshold), ignored, overlap)


def greedy(overlap: np.ndarray, order: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Each detection in turn takes the free truth that it overlaps most; of equal ones the last, as COCO has it.

    Args:
        overlap: [N, M], IoU, 0 where a pair is not allowed.
        order: [N], the detections in their turn.
        iou_threshold: the least IoU of a pair, above 0.

    Returns:
        [N] int64, the truth that each takes, -1 for none.
    """
    taken = np.full(len(overlap), -1)
    able = np.any(overlap >= iou_threshold, axis=1)
    left = overlap.copy()
    for index in order[able[order]]:
        best = left.shape[1] - 1 - left[index, ::-1].argmax()
        if left[index, best] >= iou_threshold:
            taken[index] = best
            left[:, best] = 0
    return taken


@dataclass
class Outcome:
    """What became of one image's truths and detections at one IoU.

    Attributes:
        right: [N] bool, detections that take a truth.
        wrong: [N] bool, those that take none; a detection on a crowd is neither.
        missed: [M] bool, truths that no detection takes; a crowd cannot be missed.
        near: [M] float32, the highest IoU of each truth with a detection of its class; 0 without one and of a crowd.
    """

    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray
    near: np.ndarray


def outcome(*, prediction: Detections, target: Objects, iou_threshold: float = 0.5) -> Outcome:
    """What `pair` makes of the detections of one image within their classes.

    Args:
        prediction: N detections.
        target: M truths.
        iou_threshold: as of `pair`.
    """
    pairing = pair(prediction, target, iou_threshold)
    right = pairing.truth_of >= 0
    missed = ~np.asarray(target.iscrowd, bool)
    missed[pairing.truth_of[right]] = False
    own: np.ndarray = prediction.labels[:, None] == target.labels[None, :]
    near = np.where(own, pairing.overlap, 0).max(0, initial=0)
    return Outcome(right, ~right & ~pairing.ignored, missed, near)


def confusion(
    *, predictions: Sequence[Detections], targets: Sequence[Objects], num_classes: int, iou_threshold: float = 0.5
) -> np.ndarray:
    """Truths by their class and that of the detection paired with them; the diagonal holds what is right.

    Args:
        predictions: one per image, with the boxes above a score of the caller's choice.
        targets: one per image, in the same order.
        num_classes: K.
        iou_threshold: the least IoU of a pair.

    Returns:
        [K + 1, K + 1] int64, rows true. The last column counts truths that were missed, the last row detections of
        nothing; detections on a crowd of their class are not counted.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for prediction, target in zip(predictions, targets, strict=True):
        pairing = pair(prediction, target, iou_threshold)
        partner = np.maximum(pairing.truth_of, pairing.other_of)
        paired = partner >= 0
        np.add.at(matrix, (target.labels[partner[paired]], prediction.labels[paired]), 1)
        np.add.at(matrix, (num_classes, prediction.labels[~paired & ~pairing.ignored]), 1)
        missed = ~np.asarray(target.iscrowd, bool)
        missed[partner[paired]] = False
        np.add.at(matrix, (target.labels[missed], num_classes), 1)
    return matrix


def calibration(
    *, predictions: Sequence[Detections], targets: Sequence[Objects], iou_threshold: float = 0.5
) -> Calibration:
    """Scores of detections against the share of them that are right (Küppers et al. 2020, over confidence alone).

    Args:
        predictions: one per image, all detections whose scores are to be trusted.
        targets: one per image, in the same order.
        iou_threshold: from where on a detection that takes a truth of its class is right.

    Returns:
        15 bins; a detection on a crowd is not counted. Scores are held to 0..1.
    """
    scores, right = [np.zeros(0)], [np.zeros(0, bool)]
    for prediction, target in zip(predictions, targets, strict=True):
        pairing = pair(prediction, target, iou_threshold)
        scores.append(np.clip(prediction.scores[~pairing.ignored], 0, 1))
        right.append(pairing.truth_of[~pairing.ignored] >= 0)
    return classification.calibration(confidence=np.concatenate(scores), correct=np.concatenate(right))
