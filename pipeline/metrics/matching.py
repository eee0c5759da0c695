"""Which detection takes which truth, as COCO decides it: greedy, for all thresholds and area ranges at once.

The ten thresholds and four ranges of area are forty bits of one integer per truth and per detection: whether a truth is
still free is one `&` for all of them. The pairs that overlap enough are found first (nine of ten detections have none);
then the k-th detection of every image and class is matched in one step, for all images side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

NUM_PAIRS_AT_ONCE = 1 << 16
"""Pairs whose overlap is computed in one step: few enough to stay in the processor's cache."""

Overlap = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""Overlap of detections and truths by index, float64; of one below the least that matters it may say anything lower."""


@dataclass
class Found:
    """N detections of all images.

    Attributes:
        images: [N] int64, index of the image, ascending.
        labels: [N] int64, class indices.
        scores: [N] float64, finite.
        areas: [N] float64.
        exempt: [N] bool, ignored where they take no truth (LVIS: their class is not annotated to the last object), or
            None.
    """

    images: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    exempt: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Truths:
    """M truths of all images.

    Attributes:
        images: [M] int64, index of the image, ascending.
        labels: [M] int64, class indices.
        areas: [M] float64.
        iscrowd: [M] bool: may be taken by any number of detections.
        ignored: [M] bool: not to be found, and what is matched to it counts neither as right nor as wrong.
    """

    images: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray
    ignored: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Grid:
    """The thresholds and area ranges of an evaluation: bit `area * T + threshold` of a mask stands for one of each.

    Attributes:
        thresholds: [T] float64, ascending.
        ranges: [A, 2] float64, least and greatest area, both included.
    """

    thresholds: np.ndarray
    ranges: np.ndarray

    def __post_init__(self) -> None:
        if self.num_bits > 63:
            raise ValueError(f"{len(self.thresholds)} thresholds times {len(self.ranges)} areas are more than 63 bits")

    @property
    def num_bits(self) -> int:
        """T * A."""
        return len(self.thresholds) * len(self.ranges)

    @property
    def of_area(self) -> np.ndarray:
        """[A] int64, the bits of all thresholds of one area range."""
        num = len(self.thresholds)
        return ((1 << num) - 1) << (num * np.arange(len(self.ranges), dtype=np.int64))

    def outside(self, areas: np.ndarray) -> np.ndarray:
        """[N] int64, for areas [N] the bits of the ranges that they are not in."""
        bits = np.zeros(len(areas), np.int64)
        for (low, high), mask in zip(self.ranges, self.of_area, strict=True):
            bits |= np.where((areas < low) | (areas > high), mask, 0)
        return bits

    def reached(self, overlaps: np.ndarray) -> np.ndarray:
        """[N] int64, for overlaps [N] the bits of the thresholds that they reach."""
        # COCO: a threshold of 1 is met from 1 - 1e-10 on
        count = np.searchsorted(np.minimum(self.thresholds, 1 - 1e-10), overlaps, side="right")
        return ((1 << count.astype(np.int64)) - 1) * int((self.of_area & -self.of_area).sum())


@dataclass
class Matched:
    """N' detections (those beyond the most of an image and class are left out), by class and falling score.

    Equal scores stay in the order of images, within an image in the order given.

    Attributes:
        indices: [N'] int64, position in `Found`.
        starts: [K + 1] int64, where the detections of each class start.
        ranks: [N'] int64, position by falling score among the detections of the class in the image.
        matched: [N'] int64, the bits at which it takes a truth.
        ignored: [N'] int64, the bits at which it counts neither as right nor as wrong.
        outside: [N'] int64, the bits of area ranges that it is not in itself.
        num_truths: [K, A] int64, truths to be found.
    """

    indices: np.ndarray
    starts: np.ndarray
    ranks: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    outside: np.ndarray
    num_truths: np.ndarray


def match(
    found: Found,
    truths: Truths,
    overlap: Overlap,
    grid: Grid,
    *,
    num_images: int,
    num_classes: int,
    max_detections: int,
    compiled: bool = False,
) -> Matched:
    """Matches as `COCOeval.evaluateImg`: by falling score, each detection takes the free truth it overlaps most.

    A truth that counts goes before one that is ignored; of equal overlaps the later truth is taken; a crowd is never
    used up; a detection that takes nothing and lies outside of an area range is ignored there.

    Args:
        overlap: of pairs of the same image and class.
        max_detections: the most of a class in an image; of these the best are taken.
        compiled: whether numba does the loops; the result is the same to the bit.
    """
    rank, greedy = _rank, _greedy
    if compiled:
        from pipeline.metrics.compiled import greedy, rank
    order = by_class_and_score(found.labels, found.scores, num_classes, compiled=compiled)
    cells = found.images * num_classes + found.labels
    by_cell, ranks = rank(found.images, cells, order)
    if ranks.max(initial=-1) >= max_detections:
        order, by_cell, ranks = _best(order, by_cell, ranks, max_detections)
    members = order[by_cell]
    truth_cells = truths.images * num_classes + truths.labels
    truth_order = np.argsort(truth_cells, kind="stable")
    shared = _shared_cells(cells[members], truth_cells[truth_order])
    least = float(min(grid.thresholds[0], 1 - 1e-10))
    holders, candidates, overlaps = _pairs(members, truth_order, shared, overlap, least)
    truth_bits = grid.outside(truths.areas)
    truth_bits[truths.ignored] = grid.of_area.sum()
    matched, ignored = np.zeros(len(order), np.int64), np.zeros(len(order), np.int64)
    if len(holders):
        holders, candidates, overlaps = _best_first(holders, candidates, overlaps)
        active, taken, given_up = greedy(
            holders, candidates, grid.reached(overlaps), truth_bits, truths.iscrowd, cells[members]
        )
        matched[by_cell[active]], ignored[by_cell[active]] = taken, given_up
    outside = grid.outside(found.areas)
    if found.exempt is not None:
        outside[found.exempt] = grid.of_area.sum()
    outside = outside[order]
    ignored |= ~matched & outside
    counted = (truth_bits[:, None] & grid.of_area) == 0
    num_truths = np.stack([np.bincount(truths.labels[of], minlength=num_classes) for of in counted.T], axis=1)
    starts = np.searchsorted(found.labels[order], np.arange(num_classes + 1))
    return Matched(order, starts, ranks, matched, ignored, outside, num_truths)


def match_best(
    found: Found, truths: Truths, overlap: Overlap, thresholds: np.ndarray, num_classes: int, most: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matches as the devkit of VOC: a detection competes only for the truth it overlaps most, taken or not.

    Of equal overlaps the earlier truth; the detection with the best score takes it, all others are wrong.

    Args:
        most: of each class in an image the best so many are judged; None: all.

    Returns:
        For the detections by class and falling score: [T, N'] bool right, [T, N'] bool ignored (on an ignored truth),
        and [K + 1] where each class starts.
    """
    order = by_class_and_score(found.labels, found.scores, num_classes)
    cells = found.images * num_classes + found.labels
    by_cell, ranks = _rank(found.images, cells, order)
    if most is not None:
        order, by_cell, ranks = _best(order, by_cell, ranks, most)
    truth_cells = truths.images * num_classes + truths.labels
    truth_order = np.argsort(truth_cells, kind="stable")
    members = order[by_cell]
    shared = _shared_cells(cells[members], truth_cells[truth_order])
    holders, candidates, overlaps = _pairs(members, truth_order, shared, overlap, float(thresholds[0]))
    preferred = np.lexsort((candidates, -overlaps, holders))
    heads = preferred[_heads(holders[preferred])]
    best, height = np.full(len(order), -1), np.full(len(order), -1.0)
    best[by_cell[holders[heads]]], height[by_cell[holders[heads]]] = candidates[heads], overlaps[heads]
    right, ignored = (np.zeros((len(thresholds), len(order)), bool) for _ in range(2))
    for index, threshold in enumerate(thresholds):
        claims = np.flatnonzero(height >= threshold)
        spare = truths.ignored[best[claims]]
        ignored[index, claims[spare]] = True
        claims = claims[~spare]
        right[index, claims[np.unique(best[claims], return_index=True)[1]]] = True
    return right, ignored, np.searchsorted(found.labels[order], np.arange(num_classes + 1))


def by_class_and_score(
    labels: np.ndarray, scores: np.ndarray, num_classes: int, *, compiled: bool = False
) -> np.ndarray:
    """[N] int64, the order of detections by class, then falling score; equal scores stay in the order given.

    Class, score and position are packed into one integer, because sorting integers is several times faster than sorting
    indices; where scores have more digits than fit, the few neighbours that agree in the packed ones are sorted again.
    """
    num = len(scores)
    position_bits, class_bits = max(1, (num - 1).bit_length()), max(1, (num_classes - 1).bit_length())
    score_bits = 64 - position_bits - class_bits
    if score_bits < 16:
        return np.lexsort((-scores, labels))
    bits = (scores + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    falling = np.where(bits >> np.uint64(63), bits, ~bits ^ np.uint64(1 << 63))  # floats order as their bits do
    keys = falling >> np.uint64(64 - score_bits) << np.uint64(position_bits)
    keys |= labels.astype(np.uint64) << np.uint64(64 - class_bits)
    keys |= np.arange(num, dtype=np.uint64)
    if compiled:
        from pipeline.metrics.compiled import sort_keys

        keys = sort_keys(keys, position_bits)
    else:
        keys.sort()
    order = (keys & np.uint64((1 << position_bits) - 1)).astype(np.int64)
    keys >>= np.uint64(position_bits)
    same, ranked = keys[1:] == keys[:-1], falling[order]
    if (same & (ranked[1:] < ranked[:-1])).any():
        run = np.flatnonzero(np.append(same, False) | np.append(False, same))
        order[run] = order[run][np.lexsort((ranked[run], keys[run]))]
    return order


def spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The integers from each start on, as many as counted, one range after the other.

    >>> spread(np.array([5, 0, 7]), np.array([2, 0, 3]))
    array([5, 6, 7, 8, 9])
    """
    offsets = np.cumsum(counts) - counts
    return np.repeat(starts - offsets, counts) + np.arange(counts.sum())


def _rank(images: np.ndarray, cells: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For an order by class and score: its own order by image and class, and the position of each in its cell."""
    images, cells = images[order], cells[order]
    small = images.astype(np.uint16) if images.max(initial=0) < 1 << 16 else images  # NumPy sorts 16 bits by radix
    by_cell = np.argsort(small, kind="stable")
    heads = _heads(cells[by_cell])
    sizes = np.diff(np.append(heads, len(cells)))
    ranks = np.empty(len(cells), np.int64)
    ranks[by_cell] = np.arange(len(cells)) - np.repeat(heads, sizes)
    return by_cell, ranks


def _best(
    order: np.ndarray, by_cell: np.ndarray, ranks: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same without the positions beyond the most of a cell."""
    kept = ranks < most
    places = np.cumsum(kept) - 1
    return order[kept], places[by_cell[kept[by_cell]]], ranks[kept]


def _heads(cells: np.ndarray) -> np.ndarray:
    """Where each run of equal values starts."""
    return np.flatnonzero(np.append(True, cells[1:] != cells[:-1])) if len(cells) else np.zeros(0, np.int64)


def _shared_cells(cells: np.ndarray, truth_cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Start and number of the detections, start and number of the truths, of each cell that has both."""
    heads = _heads(cells)
    sizes = np.diff(np.append(heads, len(cells)))
    firsts = np.searchsorted(truth_cells, cells[heads], side="left")
    nums = np.searchsorted(truth_cells, cells[heads], side="right") - firsts
    shared = nums > 0
    return heads[shared], sizes[shared], firsts[shared], nums[shared]


def _pairs(
    members: np.ndarray,
    truth_members: np.ndarray,
    shared: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    overlap: Overlap,
    least: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that overlap enough: position of the detection by cell (ascending), index of the truth, overlap."""
    firsts, sizes, truth_firsts, nums = shared
    ends = np.cumsum(sizes * nums)
    chunks = []
    start = 0
    while start < len(firsts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + NUM_PAIRS_AT_ONCE, side="right")))
        here = slice(start, stop)
        each = np.repeat(nums[here], sizes[here])
        holders = np.repeat(spread(firsts[here], sizes[here]), each)
        candidates = truth_members[spread(np.repeat(truth_firsts[here], sizes[here]), each)]
        overlaps = overlap(members[holders], candidates, least)
        enough = np.flatnonzero(overlaps >= least)
        chunks.append((holders[enough], candidates[enough], overlaps[enough]))
        start = stop
    if not chunks:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    holders, candidates, overlaps = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return holders, candidates, overlaps


def _best_first(
    holders: np.ndarray, candidates: np.ndarray, overlaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of each detection by falling overlap; of equal ones the later truth comes first, as COCO takes it."""
    several = np.append(holders[1:] == holders[:-1], False)
    several[1:] |= several[:-1].copy()
    run = np.flatnonzero(several)
    order = np.arange(len(holders))
    order[run] = run[np.lexsort((-candidates[run], -overlaps[run], holders[run]))]
    return holders, candidates[order], overlaps[order]


def _greedy(
    holders: np.ndarray,
    candidates: np.ndarray,
    reached: np.ndarray,
    truth_bits: np.ndarray,
    iscrowd: np.ndarray,
    cells: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k-th detection of every cell at once: they compete for no truth.

    Args:
        holders: [P] position of the detection of each pair, ascending; its pairs are in order of preference.
        candidates: [P] index of the truth.
        reached: [P] int64, bits at which the pair overlaps enough.
        truth_bits: [M] int64, bits at which each truth is ignored.
        iscrowd: [M] bool.
        cells: image and class of each position.

    Returns:
        Positions of the detections with pairs, and their bits: matched, and matched to an ignored truth.
    """
    heads = _heads(holders)
    active, nums = holders[heads], np.diff(np.append(heads, len(holders)))
    cell_heads = _heads(cells[active])
    wave = np.arange(len(active)) - np.repeat(cell_heads, np.diff(np.append(cell_heads, len(active))))
    by_wave = np.argsort(wave.astype(np.uint16) if wave.max() < 1 << 16 else wave, kind="stable")
    taken = np.zeros(len(truth_bits), np.int64)
    matched, ignored = np.zeros(len(active), np.int64), np.zeros(len(active), np.int64)
    once = np.where(iscrowd, 0, -1)  # a crowd is not used up
    for members in np.split(by_wave, np.searchsorted(wave[by_wave], np.arange(1, wave.max() + 1))):
        most = int(nums[members].max())
        for pass_ignored in (False, True):
            for choice in range(most):
                here = members[nums[members] > choice] if choice else members
                pair = heads[here] + choice
                truth = candidates[pair]
                free = reached[pair] & ~matched[here] & ~(taken[truth] & once[truth])
                free &= truth_bits[truth] if pass_ignored else ~truth_bits[truth]
                matched[here] |= free
                taken[truth] |= free
                if pass_ignored:
                    ignored[here] |= free
    return active, matched, ignored
