"""The verdict on a detector's raw boxes, after suppression."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.store import Split
from pipeline.metrics import detection as metrics
from pipeline.metrics import detection_errors, reference
from pipeline.metrics.detection import Detections
from pipeline.params import DetectionEvaluation
from pipeline.reporting import plots
from pipeline.reporting.gallery import Item, Mark
from pipeline.reporting.verdicts import (
    Predictions,
    Verdict,
    class_colours,
    detection_details,
    of_gallery,
    some_and_worst,
)
from pipeline.reporting.verdicts.suppression import described, suppressed
from pipeline.structures import Objects
from pipeline.visualise import draw

SHOWN_SCORE, SHOWN_IOU = 0.3, 0.5
"""The score from which a box is drawn and counted image by image, and the IoU at which it is right."""
NUM_RANDOM, NUM_WORST, CELL = 4, 2, 192
LEAST_SCORE, MOST_SHOWN = 0.1, 30
"""Of the detections of an image in the gallery."""


def judge(predictions: Predictions, split: Split, evaluation: DetectionEvaluation) -> Verdict:
    """Judges boxes against the objects of a split.

    Raises:
        PipelineError: an image's boxes, scores and labels differ in number, or one of them is impossible.
    """
    info = split.info
    raw = detections_of(predictions, len(info.classes))
    kept = suppressed(raw, evaluation)
    targets = [objects_of(rows) for rows in split.column("objects")]
    evaluate = reference.evaluate_detections if evaluation.engine == "pycocotools" else metrics.evaluate_detections
    result = evaluate(predictions=kept, targets=targets, num_classes=len(info.classes))
    per_class = detection_details.by_size(result, metrics.per_class(result, info.classes), list(metrics.AREAS))
    details = detection_details.details(
        predictions=kept, targets=targets, num_classes=len(info.classes), shown_score=SHOWN_SCORE
    )
    shown = [_chosen(p, p.scores >= SHOWN_SCORE) for p in kept]
    outcomes = [
        metrics.outcome(prediction=p, target=t, iou_threshold=SHOWN_IOU) for p, t in zip(shown, targets, strict=True)
    ]

    mistakes = np.array([o.wrong.sum() + o.missed.sum() for o in outcomes])

    def draw_pictures(folder: Path) -> None:
        curves = metrics.precision_recall(result)
        plots.precision_recall(folder / "pr_curves.png", curves, info.classes, [row["ap50"] for row in per_class])
        plots.bars(
            folder / "per_class.png", [row["ap"] for row in per_class], info.classes, label="AP at IoU .50 to .95"
        )
        details.draw(folder, info.classes)
        draw_predictions(folder / "predictions.png", split, shown, targets, outcomes)

    return Verdict(
        metrics=result.metrics,
        per_class=per_class,
        protocol=[
            ("engine", evaluation.engine),
            *result.protocol,
            ("boxes", "xyxy in pixels of the original image, a pixel is one unit wide"),
            ("score_threshold", evaluation.score_threshold),
            ("suppression", described(evaluation)),
            ("max_detections", f"{evaluation.max_detections} of an image"),
            ("per_image", f"right, wrong, missed at IoU {SHOWN_IOU} of boxes that score {SHOWN_SCORE} or more"),
            *details.protocol(),
        ],
        per_image=_per_image(predictions.image_ids, targets, shown, outcomes, result),
        draw=draw_pictures,
        tables=details.tables(),
        show=lambda: (
            items(predictions, split, evaluation, of_gallery(mistakes)),
            dict(zip(info.classes, class_colours(info), strict=True)),
        ),
    )


def items(
    predictions: Predictions, split: Split, evaluation: DetectionEvaluation, indices: Sequence[int]
) -> list[Item]:
    """Some images with their truths and detections, each with what became of it, for a gallery."""
    names = split.info.classes
    kept = suppressed(detections_of(predictions.of(indices), len(names)), evaluation)
    samples = [split.read(index) for index in indices]
    targets = [sample.objects for sample in samples if sample.objects is not None]
    errors = detection_errors.error_types(predictions=kept, targets=targets, num_classes=len(names))
    kinds = [*detection_errors.KINDS, "right", "ignored"]
    shown = []
    for sample, found, target, of in zip(samples, kept, targets, errors.of_detections, strict=True):
        best = np.flatnonzero(found.scores >= LEAST_SCORE)[:MOST_SHOWN]
        missed = metrics.outcome(
            prediction=_chosen(found, found.scores >= SHOWN_SCORE), target=target, iou_threshold=SHOWN_IOU
        ).missed
        truth = [
            Mark(names[label], "missed" if lost else "found", box)
            for label, lost, box in zip(target.labels, missed, target.boxes, strict=True)
        ]
        answers = [Mark(names[found.labels[i]], kinds[of[i]], found.boxes[i], float(found.scores[i])) for i in best]
        shown.append(Item(sample.image_id, sample.image, truth, answers))
    return shown


def detections_of(predictions: Predictions, num_classes: int) -> list[Detections]:
    """One checked prediction per image."""
    columns = (predictions.column(name) for name in ("boxes", "scores", "labels"))
    checked = []
    for image_id, boxes, scores, labels in zip(predictions.image_ids, *columns, strict=True):
        numbers = {"boxes": len(boxes or ()), "scores": len(scores or ()), "labels": len(labels or ())}
        if len(set(numbers.values())) > 1:
            what = ", ".join(f"{number} {name}" for name, number in numbers.items())
            raise predictions.fault(image_id, "boxes", f"of different number ({what})")
        prediction = Detections(
            boxes=np.array(boxes or (), np.float32).reshape(-1, 4),
            scores=np.array(scores or (), np.float32),
            labels=np.array(labels or (), np.int64),
        )
        x1, y1, x2, y2 = prediction.boxes.T
        faults = {
            "boxes": ~np.isfinite(prediction.boxes).all(1) | (x2 < x1) | (y2 < y1),
            "scores": ~np.isfinite(prediction.scores),
            "labels": (prediction.labels < 0) | (prediction.labels >= num_classes),
        }
        for name, fault in faults.items():
            for index in np.flatnonzero(fault)[:1]:
                value = getattr(prediction, name)[index].tolist()
                raise predictions.fault(image_id, f"{name}[{index}]", f"cannot be ({value})")
        checked.append(prediction)
    return checked


def _chosen(prediction: Detections, indices: np.ndarray) -> Detections:
    return Detections(
        boxes=prediction.boxes[indices], scores=prediction.scores[indices], labels=prediction.labels[indices]
    )


def objects_of(rows: list[dict[str, Any]]) -> Objects:
    """The boxes of a stored row; no image is decoded."""
    return Objects(
        boxes=np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4),
        labels=np.array([row["label"] for row in rows], np.int64),
        area=np.array([row["area"] for row in rows], np.float32),
        iscrowd=np.array([row["iscrowd"] for row in rows], bool),
    )


def _per_image(
    image_ids: list[str],
    targets: list[Objects],
    shown: list[Detections],
    outcomes: list[metrics.Outcome],
    result: metrics.Result,
) -> pa.Table:
    """Counts to read, and the matches that all figures can be computed from again for any choice of images."""
    near = [float(o.near[o.missed].max()) if o.missed.any() else None for o in outcomes]
    return pa.table(
        {
            "image_id": image_ids,
            "num_truths": pa.array([int((~target.iscrowd).sum()) for target in targets], pa.int32()),
            "num_detections": pa.array([len(prediction.scores) for prediction in shown], pa.int32()),
            "tp": pa.array([int(o.right.sum()) for o in outcomes], pa.int32()),
            "fp": pa.array([int(o.wrong.sum()) for o in outcomes], pa.int32()),
            "fn": pa.array([int(o.missed.sum()) for o in outcomes], pa.int32()),
            "best_missed_iou": pa.array(near, pa.float32()),
            **metrics.per_image(result),
        }
    )


def draw_predictions(
    path: Path,
    split: Split,
    shown: list[Detections],
    targets: list[Objects],
    outcomes: list[metrics.Outcome],
    *,
    num_random: int = NUM_RANDOM,
    num_worst: int = NUM_WORST,
) -> None:
    """Truth and prediction side by side: images drawn at random, then those with most mistakes."""
    names, colours = split.info.classes, class_colours(split.info)
    mistakes = np.array([o.wrong.sum() + o.missed.sum() for o in outcomes])
    drawn, worst = some_and_worst(mistakes, num_random, num_worst)
    images, captions = [], []
    for index in drawn + worst:
        image, truth, found, of = split.read(index).image, targets[index], shown[index], outcomes[index]
        scale = max(1, CELL // max(image.shape[:2]))
        scored = [f"{names[k]} {score:.2f}" for k, score in zip(found.labels, found.scores, strict=True)]
        for boxes, labels, texts in (
            (truth.boxes, truth.labels, [names[label] for label in truth.labels]),
            (found.boxes, found.labels, scored),
        ):
            order = range(len(boxes))[::-1]  # the best on top
            images.append(
                draw.boxes(
                    image,
                    boxes[order],
                    captions=[texts[i] for i in order],
                    colours=[colours[labels[i]] for i in order],
                    scale=scale,
                )
            )
        counts = f"{of.right.sum()} right, {of.wrong.sum()} wrong, {of.missed.sum()} missed"
        captions += ["truth" + (", among the worst" if index in worst else ""), counts]
    draw.save(path, draw.grid(images, columns=4, captions=captions, cell=CELL))
