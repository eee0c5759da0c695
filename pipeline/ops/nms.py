"""Suppression of boxes that show what a better one shows: greedy, soft, by distance, and fusion; no torch.

Every variant works within groups: `labels` are classes, or any numbers that say which boxes compete (all zeros for
suppression that is blind to classes; image and class in one number for a whole data set at once).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from pipeline.ops import boxes as box_ops

Overlap = Callable[..., np.ndarray]

PAIRS_AT_ONCE = 2**19
"""How many pairs of boxes NumPy looks at in one go: 50 MB."""
PAIRS_WORTH_COMPILING = 5 * 10**7
"""Pairs from which numba's second of loading is repaid; once it is there, a thousandth of it is enough."""
LARGEST_COMPILED, SMALLEST_COMPILED = 1e15, 1e-25
"""Coordinates and areas within which float32 overlaps neither overflow nor vanish, as the compiled grid supposes."""


class Fused(NamedTuple):
    """Boxes after fusion, by falling score.

    Attributes:
        boxes: [N, 4] float32 xyxy in pixels.
        scores: [N] float32.
        labels: [N] int64.
        sources: [N] int64, how many boxes went into each.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    sources: np.ndarray


def nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """The boxes that no better box overlaps too much, as `torchvision.ops.nms` chooses them.

    Args:
        boxes: [N, 4] xyxy in pixels; computed with in float32.
        scores: [N].
        iou_threshold: an overlap strictly above it suppresses.

    Returns:
        Indices of the kept boxes, by score descending; equal scores stay in the order given.
    """
    return nms_per_class(boxes, scores, np.zeros(len(scores), np.int64), iou_threshold)


def nms_per_class(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Suppression within each class on its own.

    torchvision's `batched_nms` shifts classes apart by an offset, which rounds boxes; here they stay as they are.
    Many boxes are suppressed by compiled code, with equal results.

    Args:
        boxes: [N, 4] xyxy in pixels; computed with in float32.
        scores: [N].
        labels: [N], class of each box.
        iou_threshold: an overlap strictly above it suppresses.

    Returns:
        Indices of the kept boxes of all classes, by score descending; equal scores in ascending order of index.
    """
    boxes, scores, labels = _arrays(boxes, scores, labels)
    counts = np.unique(labels, return_counts=True)[1] if labels.any() else np.array([len(labels)])
    worth = PAIRS_WORTH_COMPILING // (1000 if "pipeline.ops.nms_compiled" in sys.modules else 1)
    if (counts**2).sum() // 2 < worth or iou_threshold < 0 or not _are_plain(boxes):
        return _greedy(boxes, scores, labels, iou_threshold, box_ops.iou)
    from pipeline.ops import nms_compiled

    if scores.dtype == np.float32 and not np.isnan(scores).any():
        by_score = nms_compiled.falling_order((scores + np.float32(0)).view(np.uint32))  # -0 becomes 0
    else:
        by_score = _by_score(scores)
    order, starts = _grouped(by_score, labels)
    keep = nms_compiled.suppress(boxes, order, starts, float(iou_threshold))
    return by_score[keep[by_score]]


def diou_nms(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """DIoU-NMS (Zheng et al. 2020, section 3.3): greedy, by IoU less the distance of the centres.

    Two boxes that overlap much with their centres apart are taken for two objects.

    Args:
        boxes: [N, 4] xyxy in pixels.
        scores: [N].
        labels: [N], class of each box.
        threshold: a `boxes.diou` strictly above it suppresses.

    Returns:
        Indices of the kept boxes in the order of `nms_per_class`.
    """
    return _greedy(*_arrays(boxes, scores, labels), threshold, box_ops.diou)


def soft_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    method: Literal["linear", "gaussian"],
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
) -> tuple[np.ndarray, np.ndarray]:
    """Soft-NMS (Bodla et al. 2017, figure 2): a better box lowers the scores of those it overlaps, within a class.

    Args:
        boxes: [N, 4] xyxy in pixels; computed with in float64.
        scores: [N], not negative.
        labels: [N], class of each box.
        method: "linear" multiplies a score by 1 - IoU where the IoU is `iou_threshold` or more (equation 2),
            "gaussian" by exp(-IoU^2 / sigma) everywhere (equation 3).
        iou_threshold: used by "linear" alone.
        sigma: used by "gaussian" alone.
        score_threshold: a box whose score falls below it is gone.

    Returns:
        Indices of the boxes left and their lowered scores in float64, by lowered score descending; equal ones in
        ascending order of index.
    """
    boxes, scores, labels = _arrays(boxes, scores, labels)
    corners, lowered = boxes.astype(np.float64), scores.astype(np.float64)
    chosen = np.zeros(len(scores), np.bool_)
    order, starts = _grouped(np.arange(len(scores)), labels)
    for begin, end in pairwise(starts.tolist()):
        left = order[begin:end]
        while len(left):
            best = int(lowered[left].argmax())
            if lowered[left[best]] < score_threshold:
                break
            index, left = left[best], np.delete(left, best)
            chosen[index] = True
            overlap = box_ops.iou(corners[index][None], corners[left])[0]
            if method == "linear":
                lowered[left] *= np.where(overlap >= iou_threshold, 1 - overlap, 1)
            else:
                lowered[left] *= np.exp(-(overlap**2) / sigma)
    kept = np.flatnonzero(chosen)
    kept = kept[_by_score(lowered[kept])]
    return kept, lowered[kept]


def weighted_box_fusion(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    iou_threshold: float = 0.55,
    models: np.ndarray | None = None,
    weights: Sequence[float] = (1.0,),
) -> Fused:
    """Weighted boxes fusion (Solovyev et al. 2021, section 3): overlapping boxes become their mean weighted by score.

    Args:
        boxes: [N, 4] xyxy in pixels; computed with in float64.
        scores: [N], not negative.
        labels: [N], class of each box; fusion is within a class.
        iou_threshold: a box joins the cluster whose fused box it overlaps most, if by more than this.
        models: [N], which of the T models found each box; None: there is one.
        weights: T numbers, what each model's scores are multiplied with; T counts in the score, too.

    Returns:
        One box per cluster. Its score is the mean of the n weighted scores in it times min(n, T) / W, where W is the
        sum of all weights, as in the authors' code: what few models found counts for less.
    """
    boxes, scores, labels = _arrays(boxes, scores, labels)
    shares = np.asarray(weights, np.float64)
    models = np.zeros(len(scores), np.int64) if models is None else np.asarray(models, np.int64)
    weighted = scores.astype(np.float64) * shares[models]
    corners = boxes.astype(np.float64)
    found: list[tuple[np.ndarray, float, int, int]] = []
    order, starts = _grouped(_by_score(weighted), labels)
    for begin, end in pairwise(starts.tolist()):
        fused, members = np.zeros((end - begin, 4)), list[list[int]]()
        for index in order[begin:end].tolist():
            overlap = box_ops.iou(corners[index][None], fused[: len(members)])[0]
            cluster = int(overlap.argmax()) if overlap.max(initial=-1) > iou_threshold else len(members)
            if cluster == len(members):
                members.append([])
            members[cluster].append(index)
            fused[cluster] = _weighted_mean(corners[members[cluster]], weighted[members[cluster]])
        for box, inside in zip(fused, members, strict=False):
            agreement = min(len(inside), len(shares)) / shares.sum()
            found.append((box, weighted[inside].mean() * agreement, int(labels[inside[0]]), len(inside)))
    found.sort(key=lambda cluster: -cluster[1])
    return Fused(
        np.array([cluster[0] for cluster in found], np.float32).reshape(-1, 4),
        np.array([cluster[1] for cluster in found], np.float32),
        np.array([cluster[2] for cluster in found], np.int64),
        np.array([cluster[3] for cluster in found], np.int64),
    )


def _weighted_mean(corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum()
    return (corners * weights[:, None]).sum(0) / total if total > 0 else corners.mean(0)


def _arrays(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes = np.ascontiguousarray(boxes, np.float32).reshape(-1, 4)
    return boxes, np.asarray(scores), np.asarray(labels, np.int64)


def _are_plain(boxes: np.ndarray) -> bool:
    """Whether the compiled grid may take the boxes: finite, no negative side, float32 holds their areas."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return bool(
        np.abs(boxes).max(initial=0) < LARGEST_COMPILED  # False for NaN
        and sides.min(initial=0) >= 0
        and sides.min(where=sides > 0, initial=1) > SMALLEST_COMPILED**0.5
    )


def _by_score(scores: np.ndarray) -> np.ndarray:
    """Indices by falling score; equal ones in the order given, NaN last."""
    return np.argsort(-scores, kind="stable")


def _grouped(order: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices of `order` [N] group by group, in that order within, and where each group starts, [G + 1]."""
    in_order = labels[order]
    low, high = int(in_order.min(initial=0)), int(in_order.max(initial=0))
    # NumPy sorts 16-bit numbers in linear time
    narrow = (in_order - low).astype(np.uint16) if high - low < 2**16 else in_order
    by_group = np.argsort(narrow, kind="stable")
    in_order = in_order[by_group]
    changes = np.flatnonzero(in_order[1:] != in_order[:-1]) + 1
    return order[by_group], np.concatenate([[0], changes, [len(order)]]).astype(np.int64)


def _greedy(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float, overlap: Overlap
) -> np.ndarray:
    """Greedy suppression in NumPy: of all pairs of a group those that overlap, then one pass over these."""
    by_score = _by_score(scores)
    order, starts = _grouped(by_score, labels)
    ends = np.repeat(starts[1:], np.diff(starts))  # where each box's group ends
    in_order, keep = boxes[order], np.ones(len(order), np.bool_)
    places, start = np.arange(len(order)), 0
    while start < len(order):
        after = np.cumsum(ends[start:] - places[start:] - 1)
        stop = start + max(1, int(np.searchsorted(after, PAIRS_AT_ONCE, side="right")))
        sources = places[start:stop][keep[start:stop]]
        numbers = ends[sources] - sources - 1
        betters = np.repeat(sources, numbers)
        offsets = np.arange(len(betters)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
        worse = betters + 1 + offsets
        alive = keep[worse]
        betters, worse = betters[alive], worse[alive]
        # torchvision compares its float32 overlap with a double threshold: 0.6 in float32 is more than 0.6
        overlaps = overlap(in_order[betters], in_order[worse], paired=True).astype(np.float64)
        betters, worse = betters[overlaps > threshold], worse[overlaps > threshold]
        firsts = np.flatnonzero(np.diff(betters, prepend=-1))
        for better, losers in zip(betters[firsts].tolist(), np.split(worse, firsts[1:]), strict=False):
            if keep[better]:
                keep[losers] = False
        start = stop
    kept = np.zeros(len(order), np.bool_)
    kept[order[keep]] = True
    return by_score[kept[by_score]]
