"""COCO's figures by pycocotools itself, from the same columns: what our engine is held against.

pycocotools counts a NaN box as a perfect match, never matches an annotation of id 0 and reads past short run lengths;
it is only shown columns that `evaluate_detections` has accepted, with ids from 1.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.metrics import detection
from pipeline.metrics.average_precision import Curves
from pipeline.metrics.detection import DetectionColumns, Detections, Kind, ObjectColumns, Result
from pipeline.metrics.overlaps import Masks
from pipeline.structures import Objects

IOU_TYPES = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}


def evaluate_detections(
    *, predictions: Sequence[Detections], targets: Sequence[Objects], num_classes: int, kind: Kind = "boxes"
) -> Result:
    """As `detection.evaluate_detections` by rule coco, with pycocotools' figures and curves.

    Raises:
        ValueError: as there.
    """
    result = detection.evaluate_detections(
        predictions=predictions, targets=targets, num_classes=num_classes, kind=kind, rule="coco"
    )
    shown, truth = detection.columns_of(predictions, kind), detection.object_columns_of(targets, kind)
    found, stats = curves(predictions=shown, targets=truth, num_images=len(targets), num_classes=num_classes, kind=kind)
    result.metrics = {
        name: None if value < 0 else value for name, value in zip(result.metrics, stats.tolist(), strict=True)
    }
    result.curves, result.ap = found, found.final[..., 0].mean(1)
    return result


def curves(
    *, predictions: DetectionColumns, targets: ObjectColumns, num_images: int, num_classes: int, kind: Kind = "boxes"
) -> tuple[Curves, np.ndarray]:
    """Precision, recall and scores with NaN in place of -1, and pycocotools' twelve (keypoints: ten) figures.

    Args:
        predictions, targets: columns in order of images.
        num_images: I.
        num_classes: K.
        kind: what overlaps.
    """
    from pycocotools.cocoeval import COCOeval

    shown = _annotations(predictions, kind)
    for row, score in zip(shown, predictions.scores.tolist(), strict=True):
        row["score"] = score
    truth = _annotations(targets, kind)
    for row, area, crowd in zip(truth, targets.areas.tolist(), targets.iscrowd.tolist(), strict=True):
        row |= {"area": area, "iscrowd": int(crowd)}
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _coco(truth, num_images, num_classes), _coco(shown, num_images, num_classes), IOU_TYPES[kind]
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision, recall, scores = (evaluation.eval[name] for name in ("precision", "recall", "scores"))
    undefined = precision < 0
    precision, scores = (np.where(undefined, np.nan, values) for values in (precision, scores))
    recall = np.where(recall < 0, np.nan, recall)
    return Curves(precision[..., -1], recall, lambda: (precision, scores)), evaluation.stats


def _annotations(columns: DetectionColumns | ObjectColumns, kind: Kind) -> list[dict[str, Any]]:
    boxes = columns.boxes_xywh
    rows = [
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for number, (image, label, box) in enumerate(
            zip(columns.images.tolist(), columns.labels.tolist(), boxes.tolist(), strict=True), 1
        )
    ]
    if kind == "masks":
        assert columns.masks is not None
        for index, (row, area) in enumerate(zip(rows, columns.masks.areas.tolist(), strict=True)):
            row |= {"segmentation": _run_lengths(columns.masks, index), "area": area}
    if kind == "keypoints":
        assert columns.keypoints is not None
        for row, points in zip(rows, columns.keypoints, strict=True):
            spans = np.ptp(points[:, :2], axis=0)
            row |= {"keypoints": points.ravel().tolist(), "area": float(spans[0] * spans[1])}
            row["num_keypoints"] = int((points[:, 2] > 0).sum())
    return rows


def _run_lengths(masks: Masks, index: int) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    height, width = masks.sizes[index].tolist()
    return coco_mask.frPyObjects({"size": [height, width], "counts": masks.runs(index)}, height, width)


def _coco(annotations: list[dict[str, Any]], num_images: int, num_classes: int) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": index, "height": 0, "width": 0} for index in range(num_images)],  # looked at, not used
        "categories": [{"id": index} for index in range(num_classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
