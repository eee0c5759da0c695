"""COCO's figures for many resamples of the images at once, from matches that were made once.

Matching happens within an image, and the order of detections by score does not depend on which images there are: a
resample is a whole number of copies of each image, and only sums along that order change. Copies of one image are
taken to follow each other; two detections of one class, image and score stay together with those of the copies.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.average_precision import EPSILON, RECALL_LEVELS
from pipeline.metrics.matching import by_class_and_score

COMPILED_FROM = 200_000_000
"""Detections times resamples from which numba is worth the second that it takes to load."""
RESAMPLES_AT_ONCE = 128


@dataclass
class Statistics:
    """What the figures of a set are made from, N detections and M truths by image.

    Attributes:
        num_images: I.
        num_thresholds, num_areas: T and A; bit `area * T + t` of a mask is for these.
        images, labels, scores, matched, ignored: [N], within an image by class and falling score.
        truth_images, truth_labels, truth_ranges: [M], of the ranges bit `area` is set where the truth is to be found.
    """

    num_images: int
    num_thresholds: int
    num_areas: int
    images: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    truth_images: np.ndarray
    truth_labels: np.ndarray
    truth_ranges: np.ndarray


@dataclass
class Resampled:
    """Average precision and recall of each resample.

    Attributes:
        precision: [R, T, K, A], mean over the levels of recall; NaN without truth.
        recall: [R, T, K, A, D], the greatest, by number of detections.
    """

    precision: np.ndarray
    recall: np.ndarray


def resample(
    statistics: Statistics,
    weights: np.ndarray,
    max_detections: tuple[int, ...],
    *,
    areas: tuple[int, ...] | None = None,
    compiled: bool | None = None,
) -> Resampled:
    """Average precision and recall where each image counts as often as its weight says.

    Args:
        statistics: of the whole set.
        weights: [R, I] whole numbers.
        max_detections: D numbers; precision is that of the last, which the matches must have been made with.
        areas: which area ranges are computed, by number; the others are NaN. None: all.
        compiled: whether numba does the loops; None: where the set is large.
    """
    num_classes = int(max(statistics.labels.max(initial=-1), statistics.truth_labels.max(initial=-1))) + 1
    num_areas, num_thresholds = statistics.num_areas, statistics.num_thresholds
    num_resamples = len(weights)
    wanted = tuple(range(num_areas)) if areas is None else areas
    cells = statistics.images * max(num_classes, 1) + statistics.labels
    heads = np.flatnonzero(np.append(True, cells[1:] != cells[:-1])) if len(cells) else np.zeros(0, np.int64)
    ranks = np.arange(len(cells)) - np.repeat(heads, np.diff(np.append(heads, len(cells))))
    order = by_class_and_score(statistics.labels, statistics.scores.astype(np.float64), max(num_classes, 1))
    starts = np.searchsorted(statistics.labels[order], np.arange(num_classes + 1))
    columns = [statistics.images[order], statistics.matched[order], statistics.ignored[order], ranks[order]]
    by_image = np.ascontiguousarray(weights.T.astype(np.int32))
    truths = _weighted_truths(statistics, weights, num_classes)
    precision = np.full((num_resamples, num_thresholds, num_classes, num_areas), np.nan)
    recall = np.full((num_resamples, num_thresholds, num_classes, num_areas, len(max_detections)), np.nan)
    if compiled is None:
        compiled = len(order) * num_resamples >= COMPILED_FROM
    fill: Callable[..., None] = _fill_resampled
    if compiled:
        from pipeline.metrics.compiled import fill_resampled as fill
    exact = np.arange(101) / 100 >= RECALL_LEVELS

    def run(begin: int) -> None:
        here = slice(begin, begin + RESAMPLES_AT_ONCE)
        fill(
            *columns,
            starts,
            np.ascontiguousarray(by_image[:, here]),
            np.ascontiguousarray(truths[..., here]),
            np.array(max_detections),
            np.array(wanted),
            exact,
            precision[here],
            recall[here],
        )

    begins = range(0, num_resamples, RESAMPLES_AT_ONCE)
    if compiled and num_resamples > RESAMPLES_AT_ONCE:
        run(0)  # compiles
        with ThreadPoolExecutor(2) as pool:  # compiled loops let go of the interpreter
            list(pool.map(run, begins[1:]))
    else:
        for begin in begins:
            run(begin)
    return Resampled(precision, recall)


def _weighted_truths(statistics: Statistics, weights: np.ndarray, num_classes: int) -> np.ndarray:
    """[K, A, R] int64, truths to be found in each resample."""
    counts = np.zeros((statistics.num_images, num_classes * statistics.num_areas))
    for area in range(statistics.num_areas):
        counted = statistics.truth_ranges >> area & 1 == 1
        cells = statistics.truth_labels[counted].astype(np.int64) * statistics.num_areas + area
        np.add.at(counts, (statistics.truth_images[counted], cells), 1)
    total = counts.T @ weights.T.astype(np.float64)  # whole numbers below 2^53: exact
    return total.astype(np.int64).reshape(num_classes, statistics.num_areas, len(weights))


def _fill_resampled(
    images: np.ndarray,
    matched: np.ndarray,
    ignored: np.ndarray,
    ranks: np.ndarray,
    starts: np.ndarray,
    weights: np.ndarray,
    truths: np.ndarray,
    max_detections: np.ndarray,
    areas: np.ndarray,
    exact: np.ndarray,
    precision: np.ndarray,
    recall: np.ndarray,
) -> None:
    """Fills in precision [R, T, K, A] and recall [R, T, K, A, D] of some resamples.

    Args:
        images, matched, ignored, ranks: [N] by class and falling score.
        starts: [K + 1].
        weights: [I, R].
        truths: [K, A, R].
        max_detections: [D].
        areas: which are wanted.
        exact: [101] bool, whether a recall of just l / 100 reaches level l in float64.
    """
    num_thresholds, num_classes = precision.shape[1:3]
    for label in range(num_classes):
        here = slice(starts[label], starts[label + 1])
        active = np.flatnonzero(matched[here])
        weight = weights[images[here]]
        of_active = weight[active]
        hits, misses, rank = matched[here][active], ignored[here][active], ranks[here][active]
        for area in areas:
            total = truths[label, area]
            if not total.any():
                continue
            # those that take no truth at any threshold are ignored at all of them, or at none
            idle = (matched[here] == 0) & (ignored[here] & (1 << np.int64(area * num_thresholds)) == 0)
            before = np.cumsum(weight * idle[:, None], axis=0, dtype=np.int64)[active]
            for threshold in range(num_thresholds):
                bit = np.int64(1) << np.int64(area * num_thresholds + threshold)
                right = hits & ~misses & bit != 0
                counted = before + np.cumsum(of_active * (misses & bit == 0)[:, None], axis=0, dtype=np.int64)
                found = np.cumsum(of_active[right], axis=0, dtype=np.int64)
                best = found / (counted[right] + EPSILON)
                best = np.maximum.accumulate(best[::-1], axis=0)[::-1]
                reached = _levels_reached(found, np.maximum(total, 1), exact)
                steps = np.diff(reached, axis=0, prepend=0)
                value = (best * steps).sum(0) / len(exact)
                precision[:, threshold, label, area] = np.where(total > 0, value, np.nan)
                for index, most in enumerate(max_detections):
                    share = of_active[right & (rank < most)].sum(0) / np.maximum(total, 1)
                    recall[:, threshold, label, area, index] = np.where(total > 0, share, np.nan)


def _levels_reached(found: np.ndarray, total: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """[P, R] int64, how many of the levels 0, .01, ... 1 are reached by found [P, R] of total [R]; 0 without any found.

    Level l is reached where found / total >= l / 100 in float64: the same as among whole numbers, but for equality,
    where some levels lie a rounding error above l / 100.
    """
    level = 100 * found // total
    level -= (level * total == 100 * found) & ~exact[level]
    return np.where(found > 0, level + 1, 0)
