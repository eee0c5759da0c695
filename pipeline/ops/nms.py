"""Greedy non-maximum suppression in NumPy: no torch for thresholds that change in seconds."""

import numpy as np

from pipeline.ops import boxes as box_ops


def nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """The boxes that no better box overlaps too much, as `torchvision.ops.nms` chooses them.

    Args:
        boxes: [N, 4] xyxy in pixels; computed with in float32.
        scores: [N].
        iou_threshold: an overlap strictly above it suppresses.

    Returns:
        Indices of the kept boxes, by score descending; equal scores stay in the order given.
    """
    boxes = np.ascontiguousarray(boxes, np.float32).reshape(-1, 4)
    left = np.argsort(-np.asarray(scores), kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        overlap = box_ops.iou(boxes[best][None], boxes[left])[0]
        # torchvision compares its float32 overlap with a double threshold: 0.6 in float32 is more than 0.6
        left = left[overlap.astype(np.float64) <= iou_threshold]
    return np.array(kept, np.int64)


def nms_per_class(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Suppression within each class on its own.

    torchvision's `batched_nms` shifts classes apart by an offset, which rounds boxes; here they stay as they are.

    Args:
        boxes: [N, 4] xyxy in pixels.
        scores: [N].
        labels: [N], class of each box.
        iou_threshold: an overlap strictly above it suppresses.

    Returns:
        Indices of the kept boxes of all classes, by score descending; equal scores in ascending order of index.
    """
    kept = [np.zeros(0, np.int64)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        kept.append(members[nms(boxes[members], scores[members], iou_threshold)])
    indices = np.sort(np.concatenate(kept))
    return indices[np.argsort(-scores[indices], kind="stable")]
