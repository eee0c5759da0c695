"""The verdict on a classifier's scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.store import Split
from pipeline.metrics import classification as metrics
from pipeline.params import ClassificationEvaluation
from pipeline.reporting import plots
from pipeline.reporting.gallery import Item, Mark
from pipeline.reporting.verdicts import Predictions, Verdict, class_colours, of_gallery, some_and_worst
from pipeline.visualise import draw

COLUMNS, CELL = 8, 112


def judge(predictions: Predictions, split: Split, evaluation: ClassificationEvaluation) -> Verdict:
    """Judges class scores against the labels of a split.

    Raises:
        PipelineError: an image has another number of scores than classes, one that is not finite, or probabilities
            that do not sum to 1.
    """
    labels = np.array(split.column("label"), np.int64)
    names = split.info.classes
    probabilities = bool(predictions.info["probabilities"])
    scores = _scores(predictions, len(names), probabilities)
    matrix = metrics.confusion(scores=scores, labels=labels)
    top_k = evaluation.top_k
    table = metrics.per_image(scores=scores, labels=labels, probabilities=probabilities, top_k=top_k)

    def draw_pictures(folder: Path) -> None:
        plots.confusion_matrix(folder / "confusion.png", matrix, names)
        if probabilities:
            correct = scores.argmax(1) == labels
            plots.reliability(
                folder / "calibration.png", metrics.calibration(confidence=scores.max(1, initial=0), correct=correct)
            )
        _draw_predictions(folder / "predictions.png", split, scores, labels, probabilities)

    return Verdict(
        metrics=metrics.metrics(scores=scores, labels=labels, probabilities=probabilities, top_k=top_k),
        per_class=_per_class(scores, labels, names),
        protocol=[*_protocol(probabilities, top_k, len(names)), *_kept(scores)],
        per_image=pa.table(
            {
                "image_id": predictions.image_ids,
                **{
                    name: table.column(name)
                    for name in table.column_names
                    if name != "scores" or scores.size <= metrics.MAX_KEPT_SCORES
                },
            }
        ),
        draw=draw_pictures,
        show=lambda: (
            items(
                predictions,
                split,
                evaluation,
                of_gallery(_mistakes(scores, labels)),
            ),
            dict(zip(names, class_colours(split.info), strict=True)),
        ),
    )


def items(
    predictions: Predictions, split: Split, evaluation: ClassificationEvaluation, indices: Sequence[int]
) -> list[Item]:
    """Some images with their class and the answer, for a gallery."""
    names = split.info.classes
    shown = []
    for index, scores in zip(indices, predictions.of(indices).column("scores"), strict=True):
        sample, best = split.read(index), int(np.argmax(scores))
        assert sample.label is not None
        kind = "right" if best == sample.label else "wrong"
        score = max(scores) if predictions.info["probabilities"] else None
        truth = Mark(names[sample.label], "truth")
        shown.append(Item(sample.image_id, sample.image, [truth], [Mark(names[best], kind, score=score)]))
    return shown


def _mistakes(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N], 0 where right, else 1 and by how much the answer leads the truth."""
    lead = scores.max(1, keepdims=True) - np.take_along_axis(scores, labels[:, None], 1)
    return np.where(scores.argmax(1) == labels, 0, 1 + lead[:, 0])


def _per_class(scores: np.ndarray, labels: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    """The rows of `metrics.per_class` with both rankings of each class; None where a class has no images, or all."""
    rows = metrics.per_class(metrics.confusion(scores=scores, labels=labels), names)
    once = np.ones((1, len(labels)), np.uint16)
    auroc, precision = metrics.rankings(scores=scores, labels=labels, weights=once)
    for index, row in enumerate(rows):
        for name, value in (("auroc", auroc[0, index]), ("average_precision", precision[0, index])):
            row[name] = None if np.isnan(value) else float(value)
    return rows


def _protocol(probabilities: bool, top_k: int, num_classes: int) -> list[tuple[str, Any]]:
    """The rules of the figures."""
    without = "not probabilities: log_loss, brier and ece are undefined"
    rules = [
        ("scores", "probabilities" if probabilities else without),
        ("ties", "the class that is listed first wins"),
        (f"top{top_k}", f"of {num_classes} classes"),
        ("balanced_accuracy", "mean recall over the classes with images"),
        ("macro_f1", "mean over the classes with images or predictions"),
        ("micro_f1", "over all images, as scikit-learn's: equal to top1"),
        ("auroc", "each class against the rest, mean over the classes with images; an equal score counts half"),
        ("average_precision", "step-wise, not interpolated; each class against the rest, mean over those with images"),
    ]
    if probabilities:
        rules += [
            ("log_loss", f"natural logarithm, probabilities of at least {metrics.SMALLEST_PROBABILITY:.3g}"),
            ("brier", "summed over the classes, 0 to 2"),
            ("ece", f"{metrics.NUM_BINS} bins of equal width, closed above, of the highest probability"),
        ]
    return rules


def _kept(scores: np.ndarray) -> list[tuple[str, Any]]:
    """What the per-image table leaves out."""
    if scores.size <= metrics.MAX_KEPT_SCORES:
        return []
    return [("per_image", f"without the {scores.size} scores: auroc and average_precision have no interval")]


def _scores(predictions: Predictions, num_classes: int, probabilities: bool) -> np.ndarray:
    """[N, K] float32, checked image by image."""
    rows = predictions.column("scores")
    for image_id, row in zip(predictions.image_ids, rows, strict=True):
        if row is None or len(row) != num_classes:
            what = f"{len(row or ())} numbers for {num_classes} classes"
            raise predictions.fault(image_id, "scores", what)
    scores = np.array(rows, np.float32).reshape(len(rows), num_classes)
    for index in np.flatnonzero(~np.isfinite(scores).all(1))[:1]:
        raise predictions.fault(predictions.image_ids[index], "scores", f"not finite ({scores[index].tolist()})")
    wrong = (np.abs(scores.sum(1) - 1) > 1e-3) | (scores.min(1, initial=0) < 0)
    for index in np.flatnonzero(wrong & probabilities)[:1]:
        what = f"no probabilities, they sum to {scores[index].sum():.4g}"
        raise predictions.fault(predictions.image_ids[index], "scores", what)
    return scores


def _draw_predictions(path: Path, split: Split, scores: np.ndarray, labels: np.ndarray, probabilities: bool) -> None:
    """Images drawn at random, then mistakes that lead the truth by most; green frames are right, orange ones wrong."""
    predicted, names = scores.argmax(1), split.info.classes
    drawn, worst = some_and_worst(_mistakes(scores, labels), 2 * COLUMNS, 2 * COLUMNS)
    images, captions = [], []
    for index in drawn + worst:
        share = f" {scores[index].max():.0%}" if probabilities else ""
        right = predicted[index] == labels[index]
        images.append(_framed(split.read(index).image, plots.GREEN if right else plots.ORANGE))
        captions.append(names[predicted[index]] + share + ("" if right else f"\nis {names[labels[index]]}"))
    draw.save(path, draw.grid(images, columns=COLUMNS, captions=captions, cell=CELL))


def _framed(image: np.ndarray, colour: str) -> np.ndarray:
    """The image, a small one grown by a whole factor, in a frame of a twentieth of its side."""
    factor = max(1, (CELL - 12) // max(image.shape[:2]))
    image = np.repeat(image.repeat(factor, 0).repeat(factor, 1), 3 // image.shape[2], axis=2)
    width = max(3, max(image.shape[:2]) // 20)
    height, length = image.shape[0] + 2 * width, image.shape[1] + 2 * width
    framed = np.empty((height, length, 3), np.uint8)
    framed[:] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    framed[width:-width, width:-width] = image
    return framed
