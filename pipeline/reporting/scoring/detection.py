"""The verdict on boxes, masks or keypoints in other tools' files, and hints where these look misread."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.metrics import detection as metrics
from pipeline.metrics import overlaps
from pipeline.metrics.detection import AREAS, MAX_DETECTIONS, DetectionColumns, Detections, Result
from pipeline.reporting import plots
from pipeline.reporting.scoring import sets
from pipeline.reporting.scoring.results import Found, Kind
from pipeline.reporting.scoring.truth import Truth
from pipeline.reporting.verdicts import Verdict, detection_details
from pipeline.reporting.verdicts.detection import draw_predictions
from pipeline.structures import Objects

SHOWN_SCORE, NUM_WORST = 0.3, 6
SUSPICIOUS = 0.1
"""A misreading is suggested where it would raise map50 by this much, and at least double it."""


@dataclass
class Judged:
    """A verdict and what to say beside it.

    Attributes:
        verdict: figures, protocol, a row per image, pictures.
        warnings: one line each: what looks misread, and what was left out.
        worst: names of images with the most mistakes, the worst first, and how many these are.
    """

    verdict: Verdict
    warnings: list[str]
    worst: list[tuple[str, int]]


def columns(found: Found, kind: Kind, num_keypoints: int) -> DetectionColumns:
    """All detections in the order of the images, within an image in that of the file."""
    order = np.argsort(np.array(found.images, np.int64), kind="stable")
    return DetectionColumns(
        images=np.array(found.images, np.int64)[order],
        labels=np.array(found.labels, np.int64)[order],
        scores=np.array(found.scores, np.float64)[order],
        boxes_xywh=np.array(found.boxes_xywh, np.float64).reshape(-1, 4)[order],
        masks=overlaps.masks_of([found.masks[index] for index in order]) if kind == "masks" else None,
        keypoints=np.array(found.keypoints, np.float64).reshape(-1, num_keypoints, 3)[order]
        if kind == "keypoints"
        else None,
    )


def judge(name: str, truth: Truth, found: Found, kind: Kind) -> Judged:
    """Judges detections by COCO's rules.

    Args:
        name: of the predictions, for messages.
        truth: the objects to be found.
        found: detections.
        kind: what overlaps.

    Raises:
        PipelineError: masks of another size than their image's.
    """
    for index, (image, mask) in enumerate(zip(found.images, found.masks, strict=False)):
        size = truth.sizes[image]
        if size is not None and tuple(mask["size"]) != tuple(size):
            given, wanted = (f"{height} x {width}" for height, width in (mask["size"], size))
            raise PipelineError(
                f"{name}#{index} segmentation: a mask of {given} pixels, the image has {wanted}; "
                "fix: encode the mask of the whole image"
            )
    shown = columns(found, kind, len(truth.keypoints))
    sigmas = None
    if kind == "keypoints" and len(truth.keypoints) != len(overlaps.COCO_SIGMAS):
        sigmas = [1 / len(truth.keypoints)] * len(truth.keypoints)
    try:
        result = metrics.evaluate_detections(
            predictions=shown,
            targets=truth.columns,
            num_classes=len(truth.classes),
            num_images=len(truth.image_ids),
            kind=kind,
            sigmas=sigmas,
        )
    except ValueError as error:
        raise PipelineError(f"{name}: {error}; fix: correct or remove the entry") from None
    predictions, targets = of_images(truth, shown)
    details = detection_details.details(
        predictions=predictions, targets=targets, num_classes=len(truth.classes), shown_score=SHOWN_SCORE
    )
    areas = [area for area in AREAS if kind != "keypoints" or area != "small"]
    per_class = detection_details.by_size(result, metrics.per_class(result, truth.classes), areas)
    mistakes = details.num_mistakes()

    def draw_pictures(folder: Path) -> None:
        if kind != "keypoints":
            curves = metrics.precision_recall(result)
            plots.precision_recall(folder / "pr_curves.png", curves, truth.classes, [row["ap50"] for row in per_class])
        plots.bars(folder / "per_class.png", [row["ap"] for row in per_class], truth.classes, label="AP at .50 to .95")
        details.draw(folder, truth.classes)
        _draw_worst(folder / "predictions.png", truth, predictions, targets, mistakes)

    most = MAX_DETECTIONS[-1] if kind != "keypoints" else 20
    beyond = len(shown.scores) - int(result.matches.offsets[-1])
    protocol = [
        ("task", {"boxes": "detection", "masks": "instance", "keypoints": "keypoints"}[kind]),
        ("num_images", len(truth.image_ids)),
        ("num_truths", int((~truth.columns.iscrowd).sum())),
        ("num_crowds", int(truth.columns.iscrowd.sum())),
        ("num_detections", len(shown.scores)),
        ("num_detections_left_out", f"{beyond}, beyond the best {most} of a class in an image"),
        *result.protocol,
        ("equal_scores", "as pycocotools: by id of the image, then in the order of the file"),
        ("suppression", "none: detections are taken as they are"),
        *details.protocol(),
    ]
    if sigmas is not None:
        protocol.append(("sigmas", f"1 / {len(sigmas)} for each keypoint, for these are not COCO's 17"))
    verdict = Verdict(
        metrics=result.metrics,
        per_class=per_class,
        protocol=protocol,
        per_image=_per_image(truth, shown, mistakes, result),
        draw=draw_pictures,
        tables=details.tables(),
    )
    verdict.add_intervals(lambda table, weights: metrics.resampled(table, weights, kind=kind), None)
    order = sorted(range(len(mistakes)), key=lambda index: (-mistakes[index], index))
    return Judged(
        verdict,
        [*truth.notes, *_warnings(truth, shown, result, kind, sigmas, beyond, most)],
        [(truth.image_ids[index], mistakes[index]) for index in order if mistakes[index]],
    )


def of_images(truth: Truth, shown: DetectionColumns) -> tuple[list[Detections], list[Objects]]:
    """Boxes as corners, image by image, for what looks at single images."""
    edges = np.arange(len(truth.image_ids) + 1)
    found, known = np.searchsorted(shown.images, edges), np.searchsorted(truth.columns.images, edges)
    predictions, targets = [], []
    for index in range(len(truth.image_ids)):
        rows = slice(found[index], found[index + 1])
        predictions.append(
            Detections(boxes=_corners(shown.boxes_xywh[rows]), scores=shown.scores[rows], labels=shown.labels[rows])
        )
        rows = slice(known[index], known[index + 1])
        objects = truth.columns
        targets.append(
            Objects(
                boxes=_corners(objects.boxes_xywh[rows]),
                labels=objects.labels[rows],
                area=objects.areas[rows],
                iscrowd=objects.iscrowd[rows],
            )
        )
    return predictions, targets


def _draw_worst(
    path: Path, truth: Truth, predictions: list[Detections], targets: list[Objects], mistakes: list[int]
) -> None:
    """Truth and boxes of the images with most mistakes, on grey paper where there are no images."""
    order = np.argsort(-np.array(mistakes, np.int64), kind="stable")[:NUM_WORST].tolist()
    worst, sizes = [targets[index] for index in order], []
    shown = [detection_details.from_score(predictions[index], SHOWN_SCORE) for index in order]
    outcomes = [metrics.outcome(prediction=one, target=target) for one, target in zip(shown, worst, strict=True)]
    if not any(outcome.wrong.any() or outcome.missed.any() for outcome in outcomes):
        return
    for index, target, one in zip(order, worst, shown, strict=True):
        far = np.concatenate([target.boxes, one.boxes, [[0, 0, 1, 1]]]).max(0)
        sizes.append(truth.sizes[index] or (int(far[3]) + 1, int(far[2]) + 1))
    info = sets.info(["detection"], truth.classes)
    ids = {"image_id": [truth.image_ids[index] for index in order]}
    draw_predictions(
        path,
        sets.split(info, ids, [truth.images[index] for index in order], sizes),
        shown,
        worst,
        outcomes,
        num_random=0,
        num_worst=NUM_WORST,
    )


def _corners(boxes_xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], 1)


def _per_image(truth: Truth, shown: DetectionColumns, mistakes: list[int], result: Result) -> pa.Table:
    num = len(truth.image_ids)
    counted = truth.columns.images[~truth.columns.iscrowd]
    return pa.table(
        {
            "image_id": truth.image_ids,
            "num_truths": np.bincount(counted, minlength=num),
            "num_detections": np.bincount(shown.images, minlength=num),
            "num_mistakes": pa.array(mistakes, pa.int64()),
            **metrics.per_image(result),
        }
    )


def _warnings(
    truth: Truth,
    shown: DetectionColumns,
    result: Result,
    kind: Kind,
    sigmas: list[float] | None,
    beyond: int,
    most: int,
) -> list[str]:
    """What looks misread, where another reading scores much better."""
    lines = []
    num = len(shown.scores)
    if beyond:
        lines.append(f"{beyond} of {num} detections are beyond the best {most} of a class in an image and do not count")
    if not num:
        return [*lines, "no detections: AP is 0"]
    low, high = float(shown.scores.min()), float(shown.scores.max())
    if low < 0 or high > 1:
        lines.append(f"scores from {low:g} to {high:g} are no shares: they are ranked as they are, without calibration")
    silent = len(truth.image_ids) - len(np.unique(shown.images))
    if 2 * silent > len(truth.image_ids):
        lines.append(f"{silent} of {len(truth.image_ids)} images have no detection; are these all predictions?")
    boxes, known = shown.boxes_xywh, truth.columns.boxes_xywh
    if kind == "boxes" and boxes.max() <= 2 < known.max(initial=0):
        lines.append("boxes reach no further than 2: shares of the image? COCO's are in pixels")
    readings = {}
    if kind == "boxes" and (boxes[:, 2:] >= boxes[:, :2]).all():
        corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        readings["boxes read as x1, y1, x2, y2"] = dataclasses.replace(shown, boxes_xywh=corners)
    for step in (-1, 1):
        moved = shown.labels + step
        if len(truth.classes) > 1:
            inside = (moved >= 0) & (moved < len(truth.classes))
            readings[f"classes moved by {step:+d}"] = _chosen(dataclasses.replace(shown, labels=moved), inside)
    own, none = result.metrics["map50"], "no detection matches a truth of its class"
    told = len(lines)
    for what, reading in readings.items() if own is not None and own < 0.5 else ():
        other = metrics.evaluate_detections(
            predictions=reading,
            targets=truth.columns,
            num_classes=len(truth.classes),
            num_images=len(truth.image_ids),
            kind=kind,
            iou_thresholds=(0.5,),
            sigmas=sigmas,
        ).metrics["map50"]
        if other is not None and own is not None and other > max(2 * own, own + SUSPICIOUS):
            lines.append(f"{none if own == 0 else f'map50 is {own:.3f}'}; with {what} it would be {other:.3f}")
    if own == 0 and len(lines) == told:
        lines.append(f"{none}; are classes and boxes those of this truth?")
    return lines


def _chosen(shown: DetectionColumns, rows: np.ndarray) -> DetectionColumns:
    """Some of the detections."""
    return DetectionColumns(
        images=shown.images[rows],
        labels=shown.labels[rows],
        scores=shown.scores[rows],
        boxes_xywh=shown.boxes_xywh[rows],
        masks=None if shown.masks is None else shown.masks.take(np.flatnonzero(rows)),
        keypoints=None if shown.keypoints is None else shown.keypoints[rows],
    )
