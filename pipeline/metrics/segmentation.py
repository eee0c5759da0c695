"""Overlap of semantic label maps, from one confusion matrix pooled over all images."""

from typing import Any

import numpy as np

from pipeline.metrics import Metric
from pipeline.structures import IGNORE

METRICS = {
    "miou": Metric(True, "mean over the classes of intersection over union of their pixels"),
    "pixel_accuracy": Metric(True, "share of the scored pixels that are of the predicted class"),
    "dice": Metric(True, "mean over the classes of 2 |P & T| / (|P| + |T|)"),
    "miou_background_only": Metric(None, "the miou of predicting class 0 everywhere, to compare with"),
}


def confusion(*, label_map: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels by true and predicted class.

    Args:
        label_map: [H, W], predicted class of each pixel.
        target: [H, W], true class; `IGNORE` pixels are not counted.
        num_classes: K.

    Returns:
        [K, K + 1] int64, rows true. The last column counts pixels whose prediction is no class (`IGNORE`): these are
        wrong, for leaving out what is hard must not raise a score.
    """
    counted = target != IGNORE
    predicted = np.minimum(label_map[counted].astype(np.int64), num_classes)
    cells = target[counted].astype(np.int64) * (num_classes + 1) + predicted
    return np.bincount(cells, minlength=num_classes * (num_classes + 1)).reshape(num_classes, num_classes + 1)


def overlaps(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of each class, [K] int64 each, of a confusion matrix [K, K + 1]."""
    intersection = np.diagonal(matrix).copy()
    return intersection, matrix.sum(1) + matrix[:, :-1].sum(0) - intersection


def per_class(matrix: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    """IoU, Dice and accuracy of each class of a confusion matrix [K, K + 1].

    Returns:
        One dict per class; iou and dice are None for a class in neither truth nor prediction, accuracy (the share of
        its true pixels found) for one without truth.
    """
    intersection, union = overlaps(matrix)
    num_pixels = matrix.sum(1)
    return [
        {
            "class": name,
            "num_pixels": int(num_pixels[index]),
            "iou": _ratio(intersection[index], union[index]),
            "dice": _ratio(2 * intersection[index], union[index] + intersection[index]),
            "accuracy": _ratio(intersection[index], num_pixels[index]),
        }
        for index, name in enumerate(classes)
    ]


def metrics(matrix: np.ndarray) -> dict[str, float | None]:
    """The figures of `METRICS` of a pooled confusion matrix [K, K + 1].

    The means are over the classes that occur in truth or prediction; all are None where no pixel is scored.
    """
    if not matrix.sum():
        return dict.fromkeys(METRICS)
    background = np.zeros_like(matrix)
    background[:, 0] = matrix.sum(1)
    rows = [row for row in per_class(matrix, [""] * len(matrix)) if row["iou"] is not None]
    return {
        "miou": float(np.mean([row["iou"] for row in rows])),
        "pixel_accuracy": float(np.trace(matrix) / matrix.sum()),
        "dice": float(np.mean([row["dice"] for row in rows])),
        "miou_background_only": mean_iou(background),
    }


def mean_iou(matrix: np.ndarray) -> float | None:
    """Mean IoU of a confusion matrix [K, K + 1] over the classes that occur in it; None where no pixel is scored."""
    intersection, union = overlaps(matrix)
    occurs = union > 0
    return float(np.mean(intersection[occurs] / union[occurs])) if occurs.any() else None


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
