"""What lies behind a detector's AP: kinds of errors, a confusion matrix with background, and trust in its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.metrics import detection_confusion, detection_errors
from pipeline.metrics.classification import Calibration
from pipeline.metrics.detection import Detections, Result
from pipeline.metrics.detection_errors import BACKGROUND_IOU, KINDS, MAX_DETECTIONS, MISSED, SPECIAL, ErrorTypes
from pipeline.reporting import plots
from pipeline.structures import Objects

IOU = 0.5
BACKGROUND = "background"


@dataclass
class Details:
    """Of one set of images, by boxes.

    Attributes:
        errors: kinds of errors and what each costs.
        confusion: [K + 1, K + 1] of the boxes from `shown_score` on.
        shown_score: the least score of the boxes in `confusion`.
        calibration: of all boxes; None where scores are no shares.
    """

    errors: ErrorTypes
    confusion: np.ndarray
    shown_score: float
    calibration: Calibration | None

    def num_mistakes(self) -> list[int]:
        """For each image how many detections are wrong and how many truths missed."""
        return [
            int((kinds < MISSED).sum() + missed.sum())
            for kinds, missed in zip(self.errors.of_detections, self.errors.missed, strict=True)
        ]

    def tables(self) -> dict[str, list[list[Any]]]:
        """For metrics.json: name, number and AP to be gained of each kind of error."""
        return {
            "error_types": [[kind, self.errors.counts.get(kind), gain] for kind, gain in self.errors.gains.items()],
        }

    def protocol(self) -> list[tuple[str, Any]]:
        """The rules behind the details."""
        best = f"the {MAX_DETECTIONS} best boxes of an image"
        return [
            (
                "error_types",
                f"TIDE, by boxes, at IoU {IOU}, background up to {BACKGROUND_IOU}, {best}; crowds left out",
            ),
            ("confusion", f"by boxes, from score {self.shown_score}, IoU {IOU}, within classes first; crowds left out"),
            ("calibration", f"by boxes, score against the share right at IoU {IOU}, 15 bins, crowds left out"),
        ]

    def draw(self, folder: Path, classes: Sequence[str]) -> None:
        """Writes the pictures errors.png, confusion.png and, with a calibration, calibration.png."""
        names = [name.replace("_", " ") for name in (*KINDS, *SPECIAL)]
        counts = [self.errors.counts.get(kind) for kind in (*KINDS, *SPECIAL)]
        gains = [self.errors.gains[kind] for kind in (*KINDS, *SPECIAL)]
        plots.error_types(folder / "errors.png", names, gains, counts)
        plots.confusion_matrix(folder / "confusion.png", self.confusion, [*classes, BACKGROUND], of="objects")
        if self.calibration is not None:
            plots.reliability(
                folder / "calibration.png", self.calibration, of="detections", confidence="score of a detection"
            )


def details(
    *, predictions: Sequence[Detections], targets: Sequence[Objects], num_classes: int, shown_score: float
) -> Details:
    """All details of detections after suppression, one per image, and the truths in the same order."""
    shown = [from_score(prediction, shown_score) for prediction in predictions]
    are_shares = all(((p.scores >= 0) & (p.scores <= 1)).all() for p in predictions)
    return Details(
        errors=detection_errors.error_types(predictions=predictions, targets=targets, num_classes=num_classes),
        confusion=detection_confusion.confusion(
            predictions=shown, targets=targets, num_classes=num_classes, iou_threshold=IOU
        ),
        shown_score=shown_score,
        calibration=detection_confusion.calibration(predictions=predictions, targets=targets, iou_threshold=IOU)
        if are_shares
        else None,
    )


def by_size(result: Result, rows: list[dict[str, Any]], areas: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of each class with its AP by size of object, None without truth of that size.

    Args:
        result: of rule coco.
        rows: one per class.
        areas: names of the result's area ranges, the first of all objects.
    """
    if result.curves is None:
        return rows
    precision = result.curves.precision[..., -1]  # [T, R, K, A]
    for index, row in enumerate(rows):
        for number, name in enumerate(areas[1:], start=1):
            value = precision[:, :, index, number].mean()
            row[f"ap_{name}"] = None if np.isnan(value) else float(value)
    return rows


def from_score(prediction: Detections, score: float) -> Detections:
    """The boxes of that score or more."""
    shown = prediction.scores >= score
    return Detections(boxes=prediction.boxes[shown], scores=prediction.scores[shown], labels=prediction.labels[shown])
