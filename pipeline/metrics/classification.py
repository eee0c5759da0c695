"""Accuracy of class scores, in several senses, and their calibration."""

from typing import Any, NamedTuple

import numpy as np

from pipeline.metrics import Metric

METRICS = {
    "top1": Metric(True, "share of images whose highest score is of the true class"),
    "top5": Metric(True, "share of images whose class is among the 5 with the highest scores"),
    "balanced_accuracy": Metric(True, "mean over the classes of the share of their images found"),
    "macro_f1": Metric(True, "mean over the classes of F1, the harmonic mean of precision and recall"),
    "log_loss": Metric(False, "mean of -ln of the probability given to the true class"),
    "ece": Metric(False, "expected calibration error: mean distance of confidence from accuracy, in 15 bins"),
}
NUM_BINS = 15
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""What log_loss takes for a probability of 0, as scikit-learn does for float32."""


class Calibration(NamedTuple):
    """How often predictions of each confidence are right; the bins split 0..1 evenly.

    Attributes:
        confidence: [bins], mean confidence of the predictions of a bin; NaN where there are none.
        accuracy: [bins], share of them that are right; NaN where there are none.
        counts: [bins], number of them.
        ece: mean of |confidence - accuracy| over the images; None without images.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray
    ece: float | None


def rank_of_truth(*, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the true one; 0 is a correct prediction.

    Args:
        scores: [N, K].
        labels: [N], true classes.

    Returns:
        [N] int64. Of equal scores the lower class comes first, as `argmax` has it.
    """
    of_truth = np.take_along_axis(scores, labels[:, None], 1)
    before = (scores > of_truth) | ((scores == of_truth) & (np.arange(scores.shape[1]) < labels[:, None]))
    return before.sum(1)


def log_losses(*, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N], -ln of the probability given to the true class, of scores [N, K] that are probabilities."""
    of_truth = np.take_along_axis(scores.astype(np.float64), labels[:, None], 1)[:, 0]
    return -np.log(np.clip(of_truth, SMALLEST_PROBABILITY, 1))


def confusion(*, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[K, K] int64, images by true class (row) and predicted class (column); scores [N, K], labels [N]."""
    num_classes = scores.shape[1]
    cells = labels * num_classes + scores.argmax(1)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def calibration(*, scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Confidence against accuracy (Guo et al. 2017, section 2) of scores [N, K] that are probabilities, labels [N]."""
    top = scores.max(1, initial=0).astype(np.float64)
    # bins are closed above, as in the paper: 1.0 belongs to the last one
    bins = np.clip(np.ceil(top * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    confidence, right = (
        np.bincount(bins, weights=values, minlength=NUM_BINS) for values in (top, scores.argmax(1) == labels)
    )
    ece = float(np.abs(confidence - right).sum() / len(labels)) if len(labels) else None
    empty = np.where(counts, 1.0, np.nan)
    return Calibration(confidence / np.maximum(counts, 1) * empty, right / np.maximum(counts, 1) * empty, counts, ece)


def per_class(matrix: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class.

    Args:
        matrix: [K, K] of `confusion`.
        classes: K names.

    Returns:
        One dict per class; None for what is undefined: precision of a class that was never predicted, recall of one
        without images, F1 of one with neither.
    """
    rows = []
    for index, name in enumerate(classes):
        right, num_images, num_predicted = matrix[index, index], matrix[index].sum(), matrix[:, index].sum()
        rows.append(
            {
                "class": name,
                "num_images": int(num_images),
                "num_predicted": int(num_predicted),
                "precision": _ratio(right, num_predicted),
                "recall": _ratio(right, num_images),
                "f1": _ratio(2 * right, num_images + num_predicted),
            }
        )
    return rows


def metrics(
    *, scores: np.ndarray, labels: np.ndarray, probabilities: bool = True, top_k: int = 5
) -> dict[str, float | None]:
    """The figures of `METRICS` for one set of images.

    Args:
        scores: [N, K], one score per class.
        labels: [N], true classes.
        probabilities: whether each row of `scores` is a distribution; if not, log_loss and ece are None.
        top_k: the k of `top<k>`; from K on every prediction is right.

    Returns:
        Name to value, None where undefined, which all are without images. balanced_accuracy is over the classes that
        have images, macro_f1 over those that have images or were predicted.
    """
    if not len(labels):
        return dict.fromkeys(("top1", f"top{top_k}", *list(METRICS)[2:]))
    ranks = rank_of_truth(scores=scores, labels=labels)
    rows = per_class(confusion(scores=scores, labels=labels), [""] * scores.shape[1])
    return {
        "top1": float(np.mean(ranks < 1)),
        f"top{top_k}": float(np.mean(ranks < top_k)),
        "balanced_accuracy": float(np.mean([row["recall"] for row in rows if row["recall"] is not None])),
        "macro_f1": float(np.mean([row["f1"] for row in rows if row["f1"] is not None])),
        "log_loss": float(log_losses(scores=scores, labels=labels).mean()) if probabilities else None,
        "ece": calibration(scores=scores, labels=labels).ece if probabilities else None,
    }


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
