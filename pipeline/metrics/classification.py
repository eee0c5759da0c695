"""Accuracy of class scores, in several senses, how well they rank images, and their calibration.

All figures are made from the columns of `per_image` and a weight per image: one evaluation is the weight 1
everywhere, a bootstrap resample how often each image was drawn.
"""

import sys
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.metrics import Metric, bootstrap, ratio

METRICS = {
    "top1": Metric(True, "share of images whose highest score is of the true class"),
    "top5": Metric(True, "share of images whose class is among the 5 with the highest scores"),
    "balanced_accuracy": Metric(True, "mean over the classes of the share of their images found"),
    "macro_f1": Metric(True, "mean over the classes of F1, the harmonic mean of precision and recall"),
    "micro_f1": Metric(True, "F1 of all decisions pooled: with one class per image it equals top1"),
    "auroc": Metric(True, "area under the ROC curve of each class against the rest, mean over the classes"),
    "average_precision": Metric(True, "average precision of each class against the rest, mean over the classes"),
    "log_loss": Metric(False, "mean of -ln of the probability given to the true class"),
    "brier": Metric(False, "mean over the images of the squared error of their probabilities, summed over classes"),
    "ece": Metric(False, "expected calibration error: mean distance of confidence from accuracy, in 15 bins"),
}
NUM_BINS = 15
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""What log_loss takes for a probability of 0, as scikit-learn does for float32."""
COMPILED, COMPILED_FROM = "pipeline.metrics.classification_compiled", 2**25
"""The module of machine code, and the images x classes x resamples from which it is worth the second to load it."""
MAX_KEPT_SCORES = 50_000
"""So many scores fit into a small per-image table; of larger sets it keeps what all but the rankings need."""


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


def log_losses(probabilities: np.ndarray) -> np.ndarray:
    """[N], -ln of the probabilities [N] given to the true classes."""
    return -np.log(np.clip(probabilities.astype(np.float64), SMALLEST_PROBABILITY, 1))


def brier_scores(*, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N], sum over the classes of (p - [true])^2, 0..2 (Brier 1950), of probabilities [N, K] and labels [N]."""
    errors = scores.astype(np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    return np.einsum("nk,nk->n", errors, errors)


def confusion(*, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[K, K] int64, images by true class (row) and predicted class (column); scores [N, K], labels [N]."""
    num_classes = scores.shape[1]
    cells = labels.astype(np.int64) * num_classes + scores.argmax(1)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def calibration(*, confidence: np.ndarray, correct: np.ndarray) -> Calibration:
    """Confidence against accuracy (Guo et al. 2017, section 2).

    Args:
        confidence: [N], the highest probability of each image.
        correct: [N] bool, whether it is of the true class.
    """
    top, bins = confidence.astype(np.float64), _bins(confidence)
    counts = np.bincount(bins, minlength=NUM_BINS)
    sums = (np.bincount(bins, weights=values, minlength=NUM_BINS) for values in (top, correct))
    mean_confidence, accuracy = (
        np.divide(of_bin, counts, out=np.full(NUM_BINS, np.nan), where=counts > 0) for of_bin in sums
    )
    gaps = np.bincount(bins, weights=top - correct, minlength=NUM_BINS)
    ece = float(np.abs(gaps).sum() / len(top)) if len(top) else None
    return Calibration(mean_confidence, accuracy, counts, ece)


def _bins(confidence: np.ndarray) -> np.ndarray:
    """[N], the bin of each; bins are closed above, as in the paper: 1.0 belongs to the last one."""
    return np.clip(np.ceil(confidence.astype(np.float64) * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)


def rankings(
    *, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, compiled: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How well the scores of each class put its images before all others.

    The area under the ROC curve is the chance that an image of the class scores higher than another, an equal score
    counting half (Mann and Whitney 1947). Average precision is the mean over the images of the class of the precision
    at their scores, without interpolation; images of equal score come at once.

    Args:
        scores: [N, K].
        labels: [N].
        weights: [R, N] integers, how often each image counts.
        compiled: whether machine code adds up; None: where there is much to do, or it is loaded already.

    Returns:
        Two arrays [R, K]: AUROC, NaN where a class has no images or all, and average precision, NaN without images.
    """
    scores = _floats(scores)
    num_images, num_classes = scores.shape
    if compiled is None:
        compiled = weights.size * num_classes >= COMPILED_FROM or COMPILED in sys.modules
    auroc, precision = (np.full((len(weights), num_classes), np.nan) for _ in range(2))
    cells, kind = (2**26, np.uint16) if compiled else (2**18, np.int32)  # what is fastest, by trial
    chosen = bootstrap.slices(len(weights), num_images, cells)
    blocks = [np.ascontiguousarray(weights[rows].T, dtype=kind) for rows in chosen]
    total = weights.sum(1, dtype=np.int64).astype(np.float64)
    for label in np.unique(labels):
        order = np.argsort(-scores[:, label], kind="stable")
        falling = scores[order, label]
        ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]) + 1, num_images)  # of the runs of equal scores
        lost, shares, num = _ranked(order, ends, labels == label, blocks, compiled)
        with np.errstate(invalid="ignore"):  # a class that a resample lacks is 0 / 0
            # pairs within the class are no pairs
            auroc[:, label] = 1 - (lost - num**2) / (2 * num * (total - num))
            precision[:, label] = shares / num
    return auroc, precision


def _ranked(
    order: np.ndarray, ends: np.ndarray, positive: np.ndarray, blocks: list[np.ndarray], compiled: bool
) -> tuple[np.ndarray, ...]:
    """What the rankings of one class are made of.

    Args:
        order: [N], images by falling score.
        ends: [G], where runs of equal scores end in `order`.
        positive: [N] bool, images of the class.
        blocks: weights [N, r] of resamples side by side, together R.
        compiled: whether machine code does it.

    Returns:
        Three arrays [R] float64: for each image of the class all weight above it, and again with all in its run; the
        sum of the precisions at the images of the class; their number.
    """
    if compiled:
        from pipeline.metrics import classification_compiled

        parts = [classification_compiled.ranked(order, ends, positive, block) for block in blocks]
        lost, all_shares, num = (np.concatenate(values) for values in zip(*parts, strict=True))
        return lost, all_shares, num
    num_images = len(order)
    positives = np.flatnonzero(positive[order])
    runs, first = np.unique(np.searchsorted(ends, positives, side="right"), return_index=True)
    starts, stops = np.append(0, ends)[runs], ends[runs]
    # rows: the images of a run with images of the class, the others since the run before it, those of the class
    in_run = _members(order, starts, stops, num_images)
    between = _members(order, np.append(0, stops[:-1]), starts, num_images)
    own = _members(order[positives], first, np.append(first[1:], len(positives)), num_images)
    right, in_runs, others = (np.hstack([of @ block for block in blocks]) for of in (own, in_run, between))
    through, found = _cumulated(others + in_runs), _cumulated(right)
    shares = right * (found / np.maximum(through, 1))
    return np.einsum("gr,gr->r", right, 2 * through - in_runs), shares.sum(0), found[-1]


def _members(order: np.ndarray, starts: np.ndarray, stops: np.ndarray, num_images: int) -> Any:
    """[G, N] sparse int32, row g 1 at the images `order[starts[g] : stops[g]]`; the ranges rise."""
    from scipy import sparse  # type: ignore[import-untyped]

    inside = np.concatenate([order[start:stop] for start, stop in zip(starts, stops, strict=True)])
    borders = np.append(0, np.cumsum(stops - starts))
    return sparse.csr_array((np.ones(len(inside), np.int32), inside, borders), (len(starts), num_images))


def _cumulated(rows: np.ndarray) -> np.ndarray:
    """Cumulative sums over the rows in float64; whole rows at once are faster than `np.cumsum`."""
    if rows.shape[1] < 64:
        return np.cumsum(rows, axis=0, dtype=np.float64)
    found = rows.astype(np.float64)
    for index in range(1, len(found)):
        np.add(found[index - 1], found[index], out=found[index])
    return found


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
                "precision": ratio(right, num_predicted),
                "recall": ratio(right, num_images),
                "f1": ratio(2 * right, num_images + num_predicted),
            }
        )
    return rows


def per_image(*, scores: np.ndarray, labels: np.ndarray, probabilities: bool = True, top_k: int = 5) -> pa.Table:
    """What `resampled` needs of each image.

    Args:
        scores: [N, K], one score per class; whole numbers become float64.
        labels: [N], true classes.
        probabilities: whether each row of `scores` is a distribution.
        top_k: the k of `top<k>`; from K on every prediction is right.

    Returns:
        label, predicted, correct, correct_top<k>, scores; of probabilities also probability_of_truth,
        probability_of_predicted, log_loss and brier.

    Raises:
        ValueError: a score is NaN, which no rank can be given to, or a label is no class.
    """
    scores, labels = _floats(scores), np.asarray(labels, np.int64)
    for index in np.flatnonzero((labels < 0) | (labels >= scores.shape[1]))[:1]:
        raise ValueError(f"image {index}: label {labels[index]} of {scores.shape[1]} classes")
    for index in np.flatnonzero(np.isnan(scores).any(1))[:1]:
        raise ValueError(f"image {index}: a score is NaN; fix: give every class a number")
    ranks = rank_of_truth(scores=scores, labels=labels)
    columns = {
        "label": pa.array(labels, pa.int32()),
        "predicted": pa.array(scores.argmax(1), pa.int32()),
        "correct": ranks < 1,
        f"correct_top{top_k}": ranks < top_k,
    }
    if probabilities:
        of_truth = np.take_along_axis(scores, labels[:, None], 1)[:, 0]
        columns["probability_of_truth"] = of_truth
        columns["probability_of_predicted"] = scores.max(1, initial=0)
        columns["log_loss"] = log_losses(of_truth).astype(np.float32)  # to be read; the figure is of the probability
        columns["brier"] = brier_scores(scores=scores, labels=labels)
    columns["scores"] = bootstrap.as_lists(scores)
    return pa.table(columns)


def _floats(scores: np.ndarray) -> np.ndarray:
    """Scores as they are, whole numbers as float64: the negative of a uint8 is one."""
    return scores if scores.dtype.kind == "f" else scores.astype(np.float64)


def resampled(table: pa.Table, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `METRICS` for weighted images.

    Args:
        table: N rows of `per_image`, where `correct` may be a chance, 0..1; without `scores` auroc and
            average_precision are undefined, without `probability_of_truth` log_loss, brier and ece are. It has the
            `top<k>` of its columns.
        weights: [R, N] integers, how often each image counts.

    Returns:
        Name to [R] float64, NaN where undefined. balanced_accuracy is over the classes that have images, macro_f1
        over those that have images or were predicted, auroc and average_precision over those that have images.
    """
    top_ks = [name.removeprefix("correct_") for name in table.column_names if name.startswith("correct_top")]
    names = [name for name in METRICS if name != "top5"]
    undefined = np.full(len(weights), np.nan)
    result = dict.fromkeys(("top1", *top_ks, *names), undefined)
    if not table.num_rows:
        return result
    columns = {name: table.column(name).to_numpy() for name in table.column_names if name != "scores"}
    correct = columns["correct"]
    parts = {"top1": correct} | {name: columns[f"correct_{name}"] for name in top_ks}
    gaps = np.zeros((len(correct), 0))
    if "probability_of_truth" in columns:
        confidence = columns["probability_of_predicted"].astype(np.float64)
        gaps = np.zeros((len(correct), NUM_BINS))
        gaps[np.arange(len(correct)), _bins(confidence)] = confidence - correct
        parts |= {"log_loss": log_losses(columns["probability_of_truth"]), "brier": columns["brier"]}
    values = np.column_stack([*parts.values(), *gaps.T])
    sums, of_classes = bootstrap.sums(weights, values, _members_of_classes(columns))
    settled, unsettled, taken_for, shares_right = np.split(of_classes, 4, axis=1)
    num_of_class, num_predicted, right = settled + unsettled, settled + taken_for, settled + shares_right
    with np.errstate(invalid="ignore"):  # a resample without images
        shares = sums / num_of_class.sum(1, keepdims=True)
    result |= dict(zip(parts, shares.T, strict=False))
    result["micro_f1"] = result["top1"]
    with np.errstate(invalid="ignore"):  # a class that a resample lacks is 0 / 0
        result["balanced_accuracy"] = bootstrap.defined_mean(right / num_of_class)
        result["macro_f1"] = bootstrap.defined_mean(2 * right / (num_of_class + num_predicted))
    if "probability_of_truth" in columns:
        result["ece"] = np.abs(shares[:, len(parts) :]).sum(1)
    if "scores" in table.column_names:
        scores = bootstrap.as_matrix(table, "scores")
        both = rankings(scores=scores, labels=columns["label"], weights=weights)
        result["auroc"], result["average_precision"] = (bootstrap.defined_mean(values) for values in both)
    return result


def metrics(
    *, scores: np.ndarray, labels: np.ndarray, probabilities: bool = True, top_k: int = 5
) -> dict[str, float | None]:
    """The figures of `METRICS` for one set of images; None where undefined, which all are without images.

    Args:
        scores: [N, K], one score per class.
        labels: [N], true classes.
        probabilities: whether each row of `scores` is a distribution; if not, log_loss, brier and ece are None.
        top_k: the k of `top<k>`; from K on every prediction is right.
    """
    table = per_image(scores=scores, labels=labels, probabilities=probabilities, top_k=top_k)
    return bootstrap.once(resampled, table)


def _members_of_classes(columns: dict[str, np.ndarray]) -> Any:
    """[N, 4 K] sparse: what is right stands in its class; all else in its class, the predicted one, and by its chance.

    The last is empty but where `correct` is a chance.
    """
    from scipy import sparse  # type: ignore[import-untyped]

    labels, predicted, correct = columns["label"], columns["predicted"], columns["correct"]
    num_classes = int(max(labels.max(), predicted.max())) + 1
    is_settled = (correct == 1) & (labels == predicted)
    settled, unsettled = np.flatnonzero(is_settled), np.flatnonzero(~is_settled)
    partly = np.flatnonzero(~is_settled & (correct != 0))
    images = np.concatenate([settled, unsettled, unsettled, partly])
    of_images = (labels[settled], labels[unsettled], predicted[unsettled], labels[partly])
    where = np.concatenate([of + place * num_classes for place, of in enumerate(of_images)])
    values = np.concatenate([np.ones(len(images) - len(partly)), correct[partly]])
    return sparse.csc_array((values, (images, where)), (len(labels), 4 * num_classes))
