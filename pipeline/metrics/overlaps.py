"""Overlap of detections with truths of the same image, of boxes, masks as run lengths and keypoints, as pycocotools.

Each factory gives a function of pairs, for `matching.match`; overlaps are float64 and equal to pycocotools' to the bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from pipeline.metrics.matching import Overlap, spread

COCO_SIGMAS = (
    np.array([0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89])
    / 10.0
)
"""How far annotators differ on each of COCO's 17 keypoints, in square roots of the object's area."""
MAX_ADDED = 128
"""Terms that NumPy adds up in one way; of more it adds up the halves."""


def of_boxes(boxes_xywh: np.ndarray, truth_xywh: np.ndarray, iscrowd: np.ndarray, *, compiled: bool = False) -> Overlap:
    """Intersection over union of boxes; over the detection's own area where the truth is a crowd.

    Args:
        boxes_xywh: [N, 4] float64, left, top, width, height.
        truth_xywh: [M, 4] float64.
        iscrowd: [M] bool.
        compiled: whether numba does the loop; the result is the same to the bit.
    """
    if compiled:
        return partial(_compiled_boxes, boxes_xywh, truth_xywh, iscrowd)
    left, top, width, height = np.ascontiguousarray(boxes_xywh.T)
    right, bottom, area = left + width, top + height, width * height
    truth_left, truth_top, truth_width, truth_height = np.ascontiguousarray(truth_xywh.T)
    truth_right, truth_bottom, truth_area = (
        truth_left + truth_width,
        truth_top + truth_height,
        truth_width * truth_height,
    )
    any_crowd = bool(iscrowd.any())

    def overlap(index: np.ndarray, truth: np.ndarray, least: float) -> np.ndarray:
        shared = np.minimum(right[index], truth_right[truth]) - np.maximum(left[index], truth_left[truth])
        high = np.minimum(bottom[index], truth_bottom[truth]) - np.maximum(top[index], truth_top[truth])
        meets = (shared > 0) & (high > 0)
        shared *= high
        union = area[index]
        if any_crowd:
            union = np.where(iscrowd[truth], union, union + truth_area[truth] - shared)
        else:
            union = union + truth_area[truth] - shared
        return np.divide(shared, union, out=np.zeros_like(shared), where=meets)

    return overlap


def _compiled_boxes(
    boxes: np.ndarray, truth: np.ndarray, iscrowd: np.ndarray, index: np.ndarray, others: np.ndarray, least: float
) -> np.ndarray:
    from pipeline.metrics.compiled import box_overlaps

    return np.asarray(box_overlaps(boxes, truth, iscrowd, index, others))


class Masks:
    """N masks as the intervals of their pixels, counted down the columns as COCO does.

    Attributes:
        sizes: [N, 2] int64, height and width.
        offsets: [N + 1] int64, where the intervals of each mask start.
        begins, stops: [S] int64, first pixel of each interval and the one after its last; none is empty.
        areas: [N] int64, in pixels.
        boxes: [N, 4] int64 xyxy, tight; zeros for an empty mask.
    """

    def __init__(
        self,
        begins: np.ndarray,
        stops: np.ndarray,
        offsets: np.ndarray,
        areas: np.ndarray,
        boxes: np.ndarray,
        sizes: np.ndarray,
        *,
        compiled: bool | None = None,
    ) -> None:
        """Takes what belongs together; `of_ends` makes it.

        Args:
            begins, stops, offsets, areas, boxes, sizes: the attributes.
            compiled: whether numba does the loops; None: where it is loaded. The result is the same.
        """
        self.begins, self.stops, self.offsets, self.areas, self.boxes = begins, stops, offsets, areas, boxes
        self.sizes = sizes
        self.compiled = _is_compiled() if compiled is None else compiled

    @classmethod
    def of_ends(cls, ends: np.ndarray, nums: np.ndarray, sizes: np.ndarray, *, compiled: bool | None = None) -> Masks:
        """Masks from the ends of all runs, background and foreground by turns.

        Args:
            ends: [R] int64, where each run ends in its mask.
            nums: [N] int64, runs of each mask.
            sizes: [N, 2] int64.
            compiled: as above.
        """
        compiled = _is_compiled() if compiled is None else compiled
        intervals: Callable[..., tuple[np.ndarray, ...]] = _intervals
        if compiled:
            from pipeline.metrics.compiled import intervals
        begins, stops, offsets, areas, boxes = intervals(ends, nums, sizes)
        return cls(begins, stops, offsets, areas, boxes, sizes, compiled=compiled)

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def stride(self) -> int:
        """More than the pixels of any mask."""
        return int(self.sizes.prod(1).max(initial=0)) + 1

    @cached_property
    def begin_keys(self) -> np.ndarray:
        """[S] int64, ascending: `begins` with `stride` times the mask's index."""
        return np.repeat(np.arange(len(self)) * self.stride, np.diff(self.offsets)) + self.begins

    @cached_property
    def before(self) -> np.ndarray:
        """[S] int64, pixels of all intervals before each."""
        return np.cumsum(self.stops - self.begins) - (self.stops - self.begins)

    def covered(self, masks: np.ndarray, places: np.ndarray) -> np.ndarray:
        """[Q] int64, how many pixels of a mask lie before a place; `masks` and `places` are [Q]."""
        if not len(self.begins):
            return np.zeros(len(masks), np.int64)
        last = np.searchsorted(self.begin_keys, masks * self.stride + places, side="right") - 1
        none = last < self.offsets[masks]
        last[none] = 0
        pixels = self.before[last] - self.before[self.offsets[masks] * ~none]
        pixels += np.minimum(places, self.stops[last]) - self.begins[last]
        pixels[none] = 0
        return pixels

    def take(self, order: np.ndarray) -> Masks:
        """The masks of these indices."""
        nums = np.diff(self.offsets)[order]
        rows = spread(self.offsets[order], nums)
        ends = np.stack([self.begins[rows], self.stops[rows]], axis=1).ravel()
        return Masks.of_ends(ends, 2 * nums, self.sizes[order])

    def runs(self, index: int) -> list[int]:
        """The lengths of the runs of one mask, background first."""
        here = slice(self.offsets[index], self.offsets[index + 1])
        ends = np.stack([self.begins[here], self.stops[here]], axis=1).ravel()
        return np.diff(np.concatenate([[0], ends, [self.sizes[index].prod()]])).tolist()


def _is_compiled() -> bool:
    return "pipeline.metrics.compiled" in sys.modules


def _intervals(
    ends: np.ndarray, nums: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`begins`, `stops`, `offsets`, `areas` and `boxes` of `Masks`."""
    first = np.cumsum(nums) - nums
    place = np.arange(len(ends)) - np.repeat(first, nums)
    stop = np.flatnonzero(place % 2 == 1)
    begins, stops, owner = ends[stop - 1], ends[stop], np.repeat(np.arange(len(nums)), nums)[stop]
    filled = stops > begins
    begins, stops, owner = begins[filled], stops[filled], owner[filled]
    offsets = np.searchsorted(owner, np.arange(len(nums) + 1))
    total = np.append(0, np.cumsum(stops - begins))
    height = sizes[owner, 0]
    # float64 divides many times faster than integers do, and is exact here: places are far below 2^53
    x1, x2 = (begins / height).astype(np.int64), ((stops - 1) / height).astype(np.int64)
    y1, y2 = begins - x1 * height, stops - 1 - x2 * height
    across = x1 < x2
    y1[across], y2[across] = 0, height[across] - 1
    boxes = np.zeros((len(nums), 4), np.int64)
    some = np.flatnonzero(np.diff(offsets))
    if len(some):
        heads = offsets[some]
        for column, (values, reduce, more) in enumerate(
            ((x1, np.minimum, 0), (y1, np.minimum, 0), (x2, np.maximum, 1), (y2, np.maximum, 1))
        ):
            boxes[some, column] = reduce.reduceat(values, heads) + more
    return begins, stops, offsets, np.diff(total[offsets]), boxes


def decode_runs(strings: Sequence[bytes], numbers: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The runs of COCO's compressed strings: five bits a character, differences to the run before the last.

    Args:
        strings: one for each of N masks.
        numbers: what messages call the masks; None: their index.

    Returns:
        Runs of all masks [R] int64 and their number in each mask [N].

    Raises:
        ValueError: a string has a character that cannot be, or ends within a number; names the mask.
    """
    numbers = range(len(strings)) if numbers is None else numbers
    codes = np.frombuffer(b"".join(strings), np.uint8).astype(np.int64) - 48
    lengths = np.array([len(string) for string in strings], np.int64)
    string_ends = np.cumsum(lengths)
    if len(codes) and (codes.min() < 0 or codes.max() > 63):
        at = np.flatnonzero((codes < 0) | (codes > 63))[0]
        number = numbers[int(np.searchsorted(string_ends, at, side="right"))]
        raise ValueError(f"mask {number}: no run-length string of COCO")
    closing = codes & 32 == 0
    closed = np.append(0, np.cumsum(closing))
    filled = lengths > 0
    cut = np.flatnonzero(filled)[~closing[string_ends[filled] - 1]]
    if len(cut):
        raise ValueError(f"mask {numbers[cut[0]]}: its run-length string ends within a number")
    last = np.flatnonzero(closing)
    first = np.append(0, last[:-1] + 1)[: len(last)]
    shift = 5 * (np.arange(len(codes)) - np.repeat(first, last - first + 1))
    if shift.max(initial=0) > 55:
        number = numbers[int(np.searchsorted(string_ends, shift.argmax(), side="right"))]
        raise ValueError(f"mask {number}: a run is too long")
    values = np.add.reduceat((codes & 31) << shift, first) if len(first) else np.zeros(0, np.int64)
    negative = codes[last] & 16 != 0
    values[negative] -= 1 << (shift[last][negative] + 5)
    nums = np.diff(closed[np.append(0, string_ends)])
    heads = np.cumsum(nums) - nums
    place = np.arange(len(values)) - np.repeat(heads, nums)
    # places 3, 5, 7, ... add up from 1 on and 4, 6, 8, ... from 2 on: two running sums with a new start in each mask
    for odd in (1, 2):
        chain = np.flatnonzero((place >= odd) & (place % 2 == odd % 2))
        total = np.cumsum(values[chain])
        start = place[chain] == odd
        base = (total - values[chain])[start]
        values[chain] = total - np.repeat(base, np.diff(np.append(np.flatnonzero(start), len(chain))))
    return values, nums


def masks_of_runs(runs: np.ndarray, nums: np.ndarray, sizes: np.ndarray) -> Masks:
    """Masks of checked runs.

    Args:
        runs: [R] lengths of the runs of all masks, background first.
        nums: [N] runs of each mask.
        sizes: [N, 2], height and width.

    Raises:
        ValueError: the runs of a mask do not add up to its pixels (pycocotools would read on in foreign memory), or one
            is negative; names its index.
    """
    total = np.append(0, np.cumsum(runs))
    last = np.cumsum(nums)
    first = last - nums
    pixels = total[last] - total[first]
    if len(runs) and runs.min() < 0:
        index = np.searchsorted(last, np.flatnonzero(runs < 0)[0], side="right")
        raise ValueError(f"mask {index}: a run is negative")
    wrong = np.flatnonzero(pixels != sizes.prod(1))
    if len(wrong):
        height, width = sizes[wrong[0]]
        raise ValueError(f"mask {wrong[0]}: its runs add up to {pixels[wrong[0]]} pixels of {height} x {width}")
    return Masks.of_ends(total[1:] - np.repeat(total[first], nums), nums, sizes.astype(np.int64))


def masks_of(masks: Sequence[Any]) -> Masks:
    """Masks given as [H, W] arrays or as COCO's {"size": [H, W], "counts": bytes, str or list}.

    Raises:
        ValueError: one cannot be; names its index.
    """
    drawn = [isinstance(mask, np.ndarray) for mask in masks]
    sizes = [mask.shape if array else mask["size"] for mask, array in zip(masks, drawn, strict=True)]
    counts: list[Any] = [_runs_of(mask) if array else mask["counts"] for mask, array in zip(masks, drawn, strict=True)]
    return masks_of_counts(sizes, counts)


def masks_of_counts(sizes: Sequence[Sequence[int]], counts: Sequence[bytes | str | Sequence[int]]) -> Masks:
    """Masks given by height and width and COCO's run lengths, compressed or not.

    Raises:
        ValueError: one cannot be; names its index.
    """
    places = [index for index, value in enumerate(counts) if isinstance(value, (bytes, str))]
    strings = [value.encode() if isinstance(value := counts[index], str) else value for index in places]
    if _is_compiled() and len(places) == len(counts):
        from pipeline.metrics.compiled_json import masks_of_strings

        columns = masks_of_strings(strings, np.array(sizes, np.int64).reshape(-1, 2))  # type: ignore[arg-type]
        if columns is not None:
            return Masks(*columns)
    runs, nums = decode_runs(strings, places)  # type: ignore[arg-type]
    if len(places) < len(counts):
        parts: list[Any] = [None] * len(counts)
        for place, part in zip(places, np.split(runs, np.cumsum(nums)[:-1]), strict=False):
            parts[place] = part
        parts = [np.array(counts[i], np.int64) if part is None else part for i, part in enumerate(parts)]
        nums = np.array([len(part) for part in parts], np.int64)
        runs = np.concatenate([np.zeros(0, np.int64), *parts])
    return masks_of_runs(runs, nums, np.array(sizes, np.int64).reshape(-1, 2))


def _runs_of(mask: np.ndarray) -> np.ndarray:
    flat = np.concatenate([[False], mask.astype(bool).ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).astype(np.int64)


def of_masks(masks: Masks, truth: Masks, iscrowd: np.ndarray) -> Overlap:
    """Intersection over union of masks; over the detection's own area where the truth is a crowd.

    The intersection cannot exceed either area or what the boxes share, so that most pairs are settled without a look
    at their pixels. Masks of different size overlap by 0.
    """

    def overlap(index: np.ndarray, others: np.ndarray, least: float) -> np.ndarray:
        box, other = masks.boxes[index], truth.boxes[others]
        left, top = np.maximum(box[:, 0], other[:, 0]), np.maximum(box[:, 1], other[:, 1])
        right, bottom = np.minimum(box[:, 2], other[:, 2]), np.minimum(box[:, 3], other[:, 3])
        most = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
        area, other_area, crowd = masks.areas[index], truth.areas[others], iscrowd[others]
        most = np.minimum(most, np.minimum(area, other_area))
        most[(masks.sizes[index] != truth.sizes[others]).any(1)] = 0

        def ratio(shared: np.ndarray, pairs: Any) -> np.ndarray:
            union = np.where(crowd[pairs], area[pairs], area[pairs] + other_area[pairs] - shared)
            return np.divide(shared, union, out=np.zeros(len(shared)), where=shared > 0)

        overlaps = ratio(most, slice(None))
        open_pairs = np.flatnonzero((overlaps >= least) & (most > 0))
        if len(open_pairs):
            height = masks.sizes[index[open_pairs], 0]
            pairs = (index[open_pairs], others[open_pairs], left[open_pairs] * height, right[open_pairs] * height)
            shared = _intersections(masks, truth, *pairs)
            overlaps[open_pairs] = ratio(shared, open_pairs)
        return overlaps

    return overlap


def _intersections(
    masks: Masks, truth: Masks, index: np.ndarray, others: np.ndarray, begin: np.ndarray, stop: np.ndarray
) -> np.ndarray:
    """[P] int64, shared pixels of pairs of masks, all of which lie from `begin` to `stop`."""
    if masks.compiled:
        from pipeline.metrics.compiled import intersections

        columns = (masks.begins, masks.stops, masks.offsets, truth.begins, truth.stops, truth.offsets)
        return np.asarray(intersections(*columns, index, others, begin, stop))
    keys = masks.begin_keys
    first = np.maximum(np.searchsorted(keys, index * masks.stride + begin, side="right") - 1, masks.offsets[index])
    last = np.searchsorted(keys, index * masks.stride + stop, side="left")
    nums = last - first
    intervals, of_truth = spread(first, nums), np.repeat(others, nums)
    shared = truth.covered(of_truth, masks.stops[intervals]) - truth.covered(of_truth, masks.begins[intervals])
    total = np.append(0, np.cumsum(shared))
    ends = np.cumsum(nums)
    return np.asarray(total[ends] - total[ends - nums])


def of_keypoints(
    keypoints: np.ndarray,
    truth: np.ndarray,
    truth_xywh: np.ndarray,
    truth_areas: np.ndarray,
    sigmas: np.ndarray,
    *,
    extents: np.ndarray | None = None,
    compiled: bool = False,
) -> Overlap:
    """COCO's object keypoint similarity: the mean over labelled keypoints of exp(-d^2 / (2 area (2 sigma)^2)).

    Where a truth has no labelled keypoint, d is how far each keypoint lies outside of its box grown to three times.

    Args:
        keypoints: [N, P, 3] float64, x, y and a value not used.
        truth: [M, P, 3] float64, x, y, visibility (0: not labelled).
        truth_xywh: [M, 4] float64.
        truth_areas: [M] float64.
        sigmas: [P], COCO's are `COCO_SIGMAS`.
        extents: [N, 4], `extent(keypoints)` where it is known.
        compiled: whether numba does the loops; the result is the same to the bit.
    """
    variances = (np.asarray(sigmas) * 2) ** 2
    visible = truth[..., 2] > 0
    nums = visible.sum(1)
    x0, y0 = truth_xywh[:, 0] - truth_xywh[:, 2], truth_xywh[:, 1] - truth_xywh[:, 3]
    x1, y1 = truth_xywh[:, 0] + truth_xywh[:, 2] * 2, truth_xywh[:, 1] + truth_xywh[:, 3] * 2

    bounds = None
    if len(keypoints) and len(truth):
        bounds = _half_bounds(truth, visible, variances, truth_areas)
        extents = extent(keypoints, compiled=compiled) if extents is None else extents
    if compiled and bounds is not None and extents is not None and truth.shape[1] <= MAX_ADDED:
        from pipeline.metrics.compiled import keypoint_errors, row_means

        outer, areas = np.stack([x0, y0, x1, y1], axis=1), truth_areas + np.spacing(1)

        def overlap_compiled(index: np.ndarray, others: np.ndarray, least: float) -> np.ndarray:
            errors, offsets = keypoint_errors(
                keypoints, truth, nums, outer, bounds, extents, variances, areas, index, others, least >= 0.5
            )
            terms = np.exp(np.negative(errors, out=errors), out=errors)  # NumPy's exp, which is not numba's to the bit
            return np.asarray(row_means(terms, offsets))

        return overlap_compiled

    def overlap(index: np.ndarray, others: np.ndarray, least: float) -> np.ndarray:
        if bounds is None or extents is None or least < 0.5:
            return similarity(index, others)
        most, least_place = extents[index, 2:], extents[index, :2]
        is_near = ((most >= bounds[others, :2]) & (least_place <= bounds[others, 2:])).all(1)
        pairs = np.flatnonzero(is_near | (nums[others] == 0))
        overlaps = np.zeros(len(index))
        overlaps[pairs] = similarity(index[pairs], others[pairs])
        return overlaps

    def similarity(index: np.ndarray, others: np.ndarray) -> np.ndarray:
        x, y = keypoints[index, :, 0], keypoints[index, :, 1]
        dx, dy = x - truth[others, :, 0], y - truth[others, :, 1]
        bare = np.flatnonzero(nums[others] == 0)
        if len(bare):
            box = others[bare, None]
            for d, place, low, high in ((dx, x, x0, x1), (dy, y, y0, y1)):
                here = place[bare]
                d[bare] = np.maximum(0, low[box] - here) + np.maximum(0, here - high[box])
        errors = (dx**2 + dy**2) / variances / (truth_areas[others] + np.spacing(1))[:, None] / 2
        terms = np.exp(-errors)
        overlaps = np.zeros(len(index))
        for num in np.unique(nums[others]):  # as many terms in a row as COCO sums, for sums depend on their order
            rows = np.flatnonzero(nums[others] == num)
            chosen = terms[rows]
            if 0 < num < chosen.shape[1]:
                chosen = chosen[visible[others[rows]]].reshape(len(rows), num)
            overlaps[rows] = chosen.sum(1) / chosen.shape[1]
        return overlaps

    return overlap


def extent(keypoints: np.ndarray, *, compiled: bool = False) -> np.ndarray:
    """[N, 4] least x and y, greatest x and y of keypoints [N, P, 3]; P is at least 1."""
    if compiled:
        from pipeline.metrics.compiled import keypoint_extents

        return np.asarray(keypoint_extents(keypoints))
    least, most = keypoints[:, 0, :2].copy(), keypoints[:, 0, :2].copy()
    for column in range(1, keypoints.shape[1]):  # several times faster than a reduction over a short axis
        np.minimum(least, keypoints[:, column, :2], out=least)
        np.maximum(most, keypoints[:, column, :2], out=most)
    return np.concatenate([least, most], axis=1)


def _half_bounds(truth: np.ndarray, visible: np.ndarray, variances: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """[M, 4] xyxy: a mean of .5 needs a term of .5, one keypoint nearer than a radius to a labelled one."""
    radius = 1.01 * np.sqrt(2 * np.log(2) * variances.max() * (areas + np.spacing(1)))[:, None]
    low = np.where(visible[..., None], truth[..., :2], np.inf).min(1) - radius
    high = np.where(visible[..., None], truth[..., :2], -np.inf).max(1) + radius
    return np.concatenate([low, high], axis=1)
