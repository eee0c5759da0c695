"""Average precision by every published rule; each takes the matches in order of score and differs in the integration.

The rules disagree on the same matches by several points, so a number without its rule says little: `RULES` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipeline.metrics.matching import Matched

RECALL_LEVELS = np.linspace(0, 1, 101)
EPSILON = np.spacing(1)
"""COCO adds it to the denominator of precision, so that its best precision is a bit below 1."""

RULES = {
    "coco": "COCO: interpolated precision, mean over the 101 levels of recall 0, .01, ... 1",
    "voc11": "VOC 2007: interpolated precision, mean over the 11 levels of recall 0, .1, ... 1",
    "voc11_arange": "as voc11 with the levels of numpy.arange: its .3, .6 and .7 lie a rounding error above",
    "voc_all": "VOC 2010: area under interpolated precision, a step at every true positive; a pixel has no width",
    "voc_all_devkit": "as voc_all with the devkit's boxes: a box from 3 to 5 is 3 pixels wide",
    "trapezoid": "YOLO family: trapezoids over 101 linearly interpolated levels; several points above the others",
}


@dataclass
class Curves:
    """What COCO accumulates, NaN where pycocotools has -1: for a class and area without truth.

    Attributes:
        final: [T, R, K, A] precision with the most detections: all that COCO's figures of precision are made from.
        recall: [T, K, A, D], the greatest, by threshold, class, area and number of detections.
        full: computes `precision` and `scores`; they are large and seldom looked at.
    """

    final: np.ndarray
    recall: np.ndarray
    full: Callable[[], tuple[np.ndarray, np.ndarray]] = field(repr=False)

    @cached_property
    def _full(self) -> tuple[np.ndarray, np.ndarray]:
        return self.full()

    @property
    def precision(self) -> np.ndarray:
        """[T, R, K, A, D], interpolated, by threshold, level of recall, class, area, number of detections."""
        return self._full[0]

    @property
    def scores(self) -> np.ndarray:
        """[T, R, K, A, D], the score at which a level of recall is reached; 0 where it is not."""
        return self._full[1]


def accumulate(
    matched: Matched,
    scores: np.ndarray,
    *,
    num_thresholds: int,
    max_detections: tuple[int, ...],
    levels: np.ndarray = RECALL_LEVELS,
    compiled: bool = False,
) -> Curves:
    """Precision and recall as `COCOeval.accumulate`, from the true positives alone: only there does precision peak.

    Args:
        matched: N' detections by class and falling score.
        scores: [N'] float64, of these.
        num_thresholds: T.
        max_detections: D numbers; of each class in an image the best so many count.
        levels: [R] levels of recall, ascending from 0.
        compiled: whether numba does the loops; the result is the same to the bit.
    """
    fewer, last = max_detections[:-1], max_detections[-1:]
    final = _filled(matched, scores, num_thresholds, last, levels, compiled)
    recall = [share[..., None] for share in _recall(matched, num_thresholds, fewer, compiled)]

    def full() -> tuple[np.ndarray, np.ndarray]:
        others = _filled(matched, scores, num_thresholds, fewer, levels, compiled)
        precision, reached = (np.concatenate([others[index], final[index]], axis=-1) for index in (0, 2))
        return precision, reached

    return Curves(final[0][..., 0], np.concatenate([*recall, final[1]], axis=-1), full)


def _filled(
    matched: Matched,
    scores: np.ndarray,
    num_thresholds: int,
    max_detections: tuple[int, ...],
    levels: np.ndarray,
    compiled: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision [T, R, K, A, D], recall [T, K, A, D] and scores [T, R, K, A, D]."""
    num_classes, num_areas = matched.num_truths.shape
    shape = (num_classes, num_areas, len(max_detections))
    precision = np.full((num_thresholds, len(levels), *shape), np.nan)
    recall = np.full((num_thresholds, *shape), np.nan)
    reached = np.full((num_thresholds, len(levels), *shape), np.nan)
    active = np.flatnonzero(matched.matched)
    classes = np.repeat(np.arange(num_classes), np.diff(matched.starts))[active]
    fill: Callable[..., None] = _fill_curves
    if compiled:
        from pipeline.metrics.compiled import fill_curves as fill
    fill(
        matched.matched[active],
        matched.ignored[active],
        matched.outside[active],
        matched.ranks[active],
        scores[active],
        np.searchsorted(classes, np.arange(num_classes + 1)),
        _before(matched, active, classes, num_thresholds, max_detections),
        matched.num_truths,
        needed_truths(matched.num_truths, levels),
        np.array(max_detections, np.int64),
        precision,
        recall,
        reached,
    )
    # at recall 0 stands the best score of the class, be it right, wrong or ignored
    has = np.diff(matched.starts) > 0
    first = np.zeros(num_classes)
    first[has] = scores[matched.starts[:-1][has]]
    zero = levels == 0
    reached[:, zero] = np.where(np.isnan(reached[:, zero]), np.nan, first[:, None, None])
    return precision, recall, reached


def _recall(matched: Matched, num_thresholds: int, max_detections: tuple[int, ...], compiled: bool) -> list[np.ndarray]:
    """For each number, [T, K, A], the share of the truths that the best so many of an image and class find."""
    num_classes, num_areas = matched.num_truths.shape
    right = matched.matched & ~matched.ignored
    active = np.flatnonzero(right)
    right, ranks = right[active], matched.ranks[active]
    starts = np.searchsorted(active, matched.starts)
    count: Callable[..., np.ndarray] = _count_bits
    if compiled:
        from pipeline.metrics.compiled import count_bits as count
    shares = []
    for most in max_detections:
        found = count(np.where(ranks < most, right, 0), starts, num_thresholds * num_areas)
        found = found.reshape(num_classes, num_areas, num_thresholds)
        share = found / np.maximum(matched.num_truths, 1)[..., None]
        shares.append(np.where((matched.num_truths > 0)[..., None], share, np.nan).transpose(2, 0, 1))
    return shares


def _count_bits(masks: np.ndarray, starts: np.ndarray, num_bits: int) -> np.ndarray:
    """[K, bits], how many masks of each class have each bit; the classes start at [K + 1]."""
    classes = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    flags = (classes[masks >> bit & 1 == 1] for bit in range(num_bits))
    return np.stack([np.bincount(some, minlength=len(starts) - 1) for some in flags], axis=1)


def needed_truths(num_truths: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """[..., R] int64, how many of so many truths must be found to reach each level of recall; at least 1.

    The least n with n / M >= level in float64, as a search in COCO's array of recalls finds it.
    """
    total = np.maximum(num_truths, 1)[..., None]
    needed = np.ceil(levels * total).astype(np.int64)
    needed -= (needed - 1) / total >= levels
    needed += needed / total < levels
    return np.maximum(needed, 1)


def integrate(right: np.ndarray, num_truths: int, rule: str) -> float:
    """Average precision of one class by a rule.

    Args:
        right: [N] bool, by falling score, of the detections that count.
        num_truths: M, at least 1.
        rule: a key of `RULES`.
    """
    if not len(right):
        return 0.0
    found = np.cumsum(right)
    recall, precision = found / num_truths, found / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if rule == "trapezoid":
        levels = np.interp(RECALL_LEVELS, np.concatenate([[0], recall, [1]]), np.concatenate([best[:1], best, [0]]))
        return float(np.trapezoid(levels, RECALL_LEVELS))
    if rule.startswith("voc_all"):
        return float((np.diff(recall, prepend=0) * best).sum())
    levels = {"coco": RECALL_LEVELS, "voc11": np.arange(11) / 10, "voc11_arange": np.arange(0, 1.1, 0.1)}[rule]
    at = np.searchsorted(recall, levels, side="left")
    return float(np.where(at < len(best), np.append(best, 0)[np.minimum(at, len(best))], 0).mean())


def _before(
    matched: Matched, active: np.ndarray, classes: np.ndarray, num_thresholds: int, max_detections: tuple[int, ...]
) -> np.ndarray:
    """[D, A, P] int64: detections of the class inside of the area range, up to and including each of P active ones."""
    num_areas = matched.num_truths.shape[1]
    before = np.empty((len(max_detections), num_areas, len(active)), np.int64)
    total = np.zeros(len(matched.ranks) + 1, np.int64)
    for index, most in enumerate(max_detections):
        counted = matched.ranks < most
        for area in range(num_areas):
            inside = matched.outside & (1 << area * num_thresholds) == 0
            np.cumsum(inside & counted, out=total[1:])
            before[index, area] = total[active + 1] - total[matched.starts[classes]]
    return before


def _fill_curves(
    matched: np.ndarray,
    ignored: np.ndarray,
    outside: np.ndarray,
    ranks: np.ndarray,
    scores: np.ndarray,
    starts: np.ndarray,
    before: np.ndarray,
    num_truths: np.ndarray,
    needed: np.ndarray,
    max_detections: np.ndarray,
    precision: np.ndarray,
    recall: np.ndarray,
    reached: np.ndarray,
) -> None:
    """Fills in the curves [T, R, K, A, D] from the P detections that take a truth at any threshold, by class and score.

    Of the others only the number matters: `before` [D, A, P] counts the detections inside of the area range. Two kinds
    are counted wrongly there: one outside that takes a truth counts all the same, one inside on an ignored truth not.
    """
    num_thresholds, _, num_classes, num_areas, num_most = precision.shape
    classes = np.repeat(np.arange(num_classes), np.diff(starts))
    for most in range(num_most):
        shown = ranks < max_detections[most]
        for area in range(num_areas):
            known = num_truths[:, area] > 0
            wanted = needed[known, area]
            for threshold in range(num_thresholds):
                bit = 1 << np.int64(area * num_thresholds + threshold)
                right = (matched & ~ignored & bit != 0) & shown
                change = (right & (outside & bit != 0)).astype(np.int64)
                change -= (matched & ignored & ~outside & bit != 0) & shown
                changed = np.append(0, np.cumsum(change))
                index = np.flatnonzero(right)
                of_class = classes[index]
                first = np.searchsorted(of_class, np.arange(num_classes + 1))
                counted = before[most, area, index] + changed[index + 1] - changed[starts[of_class]]
                best = (np.arange(len(index)) - first[of_class] + 1) / (counted + EPSILON)
                _suffix_maximum(best, of_class)
                num_right = np.diff(first)[known]
                position = first[:-1][known, None] + wanted - 1
                found = wanted <= num_right[:, None]
                position[~found] = 0
                for curve, values in ((precision, best), (reached, scores[index])):
                    curve[threshold, :, known, area, most] = (
                        np.where(found, values[position], 0.0) if len(index) else 0.0
                    )
                recall[threshold, known, area, most] = num_right / num_truths[known, area]


def _suffix_maximum(values: np.ndarray, classes: np.ndarray) -> None:
    """Replaces each value by the greatest from it to the end of its class; classes are ascending."""
    step, longest = 1, int(np.bincount(classes).max(initial=0))
    while step < longest:
        np.maximum(values[:-step], values[step:], out=values[:-step], where=classes[:-step] == classes[step:])
        step *= 2
