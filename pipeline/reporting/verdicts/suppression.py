"""What suppression leaves of a run's raw boxes, by the choice in params.yaml, for all images at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipeline.metrics.detection import Detections
from pipeline.ops.nms import diou_nms, nms_per_class, soft_nms, weighted_box_fusion
from pipeline.params import DetectionEvaluation

SIGMA = 0.5
"""Of Gaussian soft suppression, the value of its paper."""


def suppressed(raw: Sequence[Detections], evaluation: DetectionEvaluation) -> list[Detections]:
    """The boxes of each image that are kept, by falling score; equal scores in the order given.

    Args:
        raw: one per image.
        evaluation: what to keep.
    """
    nums = [len(one.scores) for one in raw]
    images = np.repeat(np.arange(len(raw)), nums)
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in raw)])
    scores = np.concatenate([np.zeros(0, np.float32), *(one.scores for one in raw)])
    labels = np.concatenate([np.zeros(0, np.int64), *(one.labels for one in raw)])
    likely = scores >= evaluation.score_threshold
    images, boxes, scores, labels = images[likely], boxes[likely], scores[likely], labels[likely]
    num_classes = int(labels.max(initial=0)) + 1
    groups = images if evaluation.suppression == "agnostic" else images * num_classes + labels
    threshold = evaluation.iou_threshold
    if evaluation.suppression == "fusion":
        fused = weighted_box_fusion(boxes, scores, groups, iou_threshold=threshold)
        boxes, scores = fused.boxes, fused.scores
        images, labels = fused.labels // num_classes, fused.labels % num_classes
        kept = np.arange(len(scores))
    elif evaluation.suppression in ("soft_linear", "soft_gaussian"):
        kept, lowered = soft_nms(
            boxes,
            scores,
            groups,
            method="linear" if evaluation.suppression == "soft_linear" else "gaussian",
            iou_threshold=threshold,
            sigma=SIGMA,
            score_threshold=evaluation.score_threshold,
        )
        scores = scores.copy()
        scores[kept] = lowered
    elif evaluation.suppression == "diou":
        kept = diou_nms(boxes, scores, groups, threshold)
    else:
        kept = nms_per_class(boxes, scores, groups, threshold)
    kept = kept[np.argsort(images[kept], kind="stable")]
    starts = np.searchsorted(images[kept], np.arange(len(raw) + 1))
    result = []
    for start, end in pairwise(starts.tolist()):
        best = kept[start : min(end, start + evaluation.max_detections)]
        result.append(Detections(boxes=boxes[best], scores=scores[best], labels=labels[best]))
    return result


def described(evaluation: DetectionEvaluation) -> str:
    """The choice in words, for the protocol."""
    threshold = evaluation.iou_threshold
    return {
        "greedy": f"greedy within each class, IoU above {threshold}",
        "agnostic": f"greedy over all classes, IoU above {threshold}",
        "diou": f"greedy within each class, DIoU above {threshold}",
        "soft_linear": f"soft within each class, scores times 1 - IoU from IoU {threshold} on",
        "soft_gaussian": f"soft within each class, scores times exp(-IoU^2 / {SIGMA})",
        "fusion": f"weighted box fusion within each class, IoU above {threshold}",
    }[evaluation.suppression]
