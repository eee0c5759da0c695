"""A number of class scores, from what is known of each image."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.reporting.explain.parts import Dialect, Explanation, mean, ratio, weighted


def explain(table: pa.Table, metric: str, num_classes: int) -> Explanation:
    """From the per-image table of a classifier of so many classes."""
    labels, predicted = (table.column(name).to_numpy() for name in ("label", "predicted"))
    if not len(labels):
        return Explanation(["no images"], [])
    matrix = np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, -1)
    right, truths, shown = np.diagonal(matrix), matrix.sum(1), matrix.sum(0)
    lines = [
        f"{len(labels)} images of {int((truths > 0).sum())} classes, {int(right.sum())} right",
        f"{int((shown > 0).sum())} classes were predicted at least once",
    ]
    recall, precision, f1 = ratio(right, truths), ratio(right, shown), ratio(2 * right, truths + shown)
    dialects: list[Dialect] = []
    if metric in ("top1", "balanced_accuracy", "micro_f1"):
        dialects = [
            Dialect(
                "share of images that are right (accuracy, micro F1, micro recall)", mean(right.sum() / truths.sum())
            ),
            Dialect("mean over the classes of the share of their images found (macro recall)", mean(recall)),
            Dialect("mean over the classes of precision, undefined ones left out", mean(precision)),
        ]
    if metric == "macro_f1":
        p, r = (np.array([mean(values) or 0.0]) for values in (precision, recall))
        dialects = [
            Dialect("mean over the classes that occur in truth or prediction", mean(f1)),
            Dialect("mean over the classes of the truth alone", mean(f1[truths > 0])),
            Dialect("mean over the classes weighted by their images", weighted(f1, truths)),
            Dialect("F1 of the mean precision and the mean recall", mean(ratio(2 * p * r, p + r))),
        ]
    if metric == "ece" and "probability_of_predicted" in table.column_names:
        confidence = table.column("probability_of_predicted").to_numpy().astype(np.float64)
        correct = table.column("correct").to_numpy(zero_copy_only=False).astype(np.float64)
        for bins in (10, 15, 20):
            places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
            dialects.append(Dialect(f"{bins} bins of equal width", _gap(confidence, correct, places)))
        order = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
        dialects.append(
            Dialect("15 bins of equally many images", _gap(confidence, correct, order * 15 // len(confidence)))
        )
    if metric == "log_loss" and "probability_of_truth" in table.column_names:
        given = table.column("probability_of_truth").to_numpy().astype(np.float64)
        for words, least in (("float32's smallest step, 1.2e-7", 2.0**-23), ("1e-15", 1e-15)):
            dialects.append(
                Dialect(f"probabilities of at least {words}", float(-np.log(np.maximum(given, least)).mean()))
            )
        dialects.append(Dialect("in bits", float(-np.log2(np.maximum(given, 2.0**-23)).mean())))
    if metric == "brier" and "brier" in table.column_names:
        scores = table.column("brier").to_numpy()
        dialects = [
            Dialect("summed over the classes, as Brier 1950", mean(scores)),
            Dialect("half of it, 0..1, as for two classes", mean(scores / 2)),
            Dialect("mean over the classes", mean(scores / num_classes)),
        ]
    return Explanation(lines, dialects)


def _gap(confidence: np.ndarray, correct: np.ndarray, bins: np.ndarray) -> float:
    """Mean over the images of the distance of confidence from accuracy in their bin."""
    return float(np.abs(np.bincount(bins, weights=confidence - correct)).sum() / len(confidence))
