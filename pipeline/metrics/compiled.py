"""The detection engine's loops in machine code, equal to the NumPy ones to the bit; imported for large sets only."""

import numpy as np

from pipeline.ops.compiled import compiled

EPSILON = np.spacing(1)
"""As in `average_precision`, which imports this module."""


@compiled
def sort_keys(keys: np.ndarray, position_bits: int) -> np.ndarray:
    """Sorts keys [N] uint64 whose lowest bits are their position, in four passes or so of twelve bits (radix sort)."""
    num_passes = (64 - position_bits + 11) // 12
    counts = np.zeros((num_passes, 1 << 12), np.int64)
    for key in keys:
        for step in range(num_passes):
            counts[step, (key >> np.uint64(position_bits + 12 * step)) & np.uint64(4095)] += 1
    other = np.empty_like(keys)
    for step in range(num_passes):
        total = 0
        for digit in range(1 << 12):
            total, counts[step, digit] = total + counts[step, digit], total
        for key in keys:
            digit = (key >> np.uint64(position_bits + 12 * step)) & np.uint64(4095)
            other[counts[step, digit]] = key
            counts[step, digit] += 1
        keys, other = other, keys
    return keys


@compiled
def rank(images: np.ndarray, cells: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `matching._rank`: positions are dealt out to their images, then counted from the first of each cell on."""
    following = np.zeros(images.max() + 2 if len(images) else 1, np.int64)
    for image in images:
        following[image + 1] += 1
    following = np.cumsum(following)
    by_cell, ranks = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    for position in range(len(order)):
        image = images[order[position]]
        by_cell[following[image]] = position
        following[image] += 1
    cell, head = np.int64(-1), 0
    for place in range(len(order)):
        position = by_cell[place]
        if cells[order[position]] != cell:
            cell, head = cells[order[position]], place
        ranks[position] = place - head
    return by_cell, ranks


@compiled
def greedy(
    holders: np.ndarray,
    candidates: np.ndarray,
    reached: np.ndarray,
    truth_bits: np.ndarray,
    iscrowd: np.ndarray,
    cells: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `matching._greedy`, one detection after the other."""
    num = 0
    for pair in range(len(holders)):
        num += pair == 0 or holders[pair] != holders[pair - 1]
    active, matched, ignored = np.empty(num, np.int64), np.empty(num, np.int64), np.empty(num, np.int64)
    taken = np.zeros(len(truth_bits), np.int64)
    index, start = 0, 0
    while start < len(holders):
        stop = start + 1
        while stop < len(holders) and holders[stop] == holders[start]:
            stop += 1
        mine = np.int64(0)
        for pair in range(start, stop):
            truth = candidates[pair]
            used = np.int64(0) if iscrowd[truth] else taken[truth]
            free = reached[pair] & ~mine & ~used & ~truth_bits[truth]
            mine |= free
            taken[truth] |= free
        lost = np.int64(0)
        for pair in range(start, stop):
            truth = candidates[pair]
            used = np.int64(0) if iscrowd[truth] else taken[truth]
            free = reached[pair] & ~mine & ~used & truth_bits[truth]
            mine |= free
            lost |= free
            taken[truth] |= free
        active[index], matched[index], ignored[index] = holders[start], mine, lost
        index += 1
        start = stop
    return active, matched, ignored


@compiled
def fill_curves(
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
    """As `average_precision._fill_curves`, class by class."""
    num_thresholds, num_levels, num_classes, num_areas, num_most = precision.shape
    longest = 0
    for label in range(num_classes):
        longest = max(longest, starts[label + 1] - starts[label])
    best, score = np.empty(longest), np.empty(longest)
    for label in range(num_classes):
        for area in range(num_areas):
            total = num_truths[label, area]
            if total == 0:
                continue
            for most in range(num_most):
                for threshold in range(num_thresholds):
                    bit = np.int64(1) << (area * num_thresholds + threshold)
                    num, changed = 0, 0
                    for index in range(starts[label], starts[label + 1]):
                        if ranks[index] >= max_detections[most] or matched[index] & bit == 0:
                            continue
                        if ignored[index] & bit:
                            changed -= outside[index] & bit == 0
                            continue
                        changed += outside[index] & bit != 0
                        num += 1
                        best[num - 1] = num / (before[most, area, index] + changed + EPSILON)
                        score[num - 1] = scores[index]
                    for index in range(num - 1, 0, -1):
                        best[index - 1] = max(best[index - 1], best[index])
                    recall[threshold, label, area, most] = num / total
                    for level in range(num_levels):
                        position = needed[label, area, level] - 1
                        found = position < num
                        precision[threshold, level, label, area, most] = best[position] if found else 0.0
                        reached[threshold, level, label, area, most] = score[position] if found else 0.0


@compiled
def fill_resampled(
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
    """As `resampling._fill_resampled`, the resamples side by side in the inner loops."""
    num, num_thresholds, num_classes = precision.shape[0], precision.shape[1], precision.shape[2]
    num_most = len(max_detections)
    longest = 0
    for label in range(num_classes):
        active = 0
        for index in range(starts[label], starts[label + 1]):
            active += matched[index] != 0
        longest = max(longest, active)
    holders = np.empty(longest, np.int64)
    between = np.empty((longest, num), np.int32)
    best = np.empty((longest, num))
    steps = np.empty((longest, num), np.int32)
    idle, found, counted = np.empty(num, np.int32), np.empty(num, np.int32), np.empty(num, np.int32)
    last, value, share = np.empty(num, np.int32), np.empty(num), np.empty((num_most, num), np.int32)
    most_truths = 0
    for label in range(num_classes):
        for area in areas:
            for r in range(num):
                most_truths = max(most_truths, truths[label, area, r])
    reached = np.empty((num, most_truths + 1), np.int32)
    for label in range(num_classes):
        for area in areas:
            any_truth = False
            for r in range(num):
                total = truths[label, area, r]
                any_truth |= total > 0
                reached[r, 0] = 0
                level = 0
                for n in range(1, total + 1):
                    while level <= 100 and (100 * n > level * total or (100 * n == level * total and exact[level])):
                        level += 1
                    reached[r, n] = level
            if not any_truth:
                continue
            inside = np.int64(1) << (area * num_thresholds)
            active = 0
            idle[:] = 0
            for index in range(starts[label], starts[label + 1]):
                weight = weights[images[index]]
                if matched[index] == 0:
                    if ignored[index] & inside == 0:
                        for r in range(num):
                            idle[r] += weight[r]
                else:
                    holders[active] = index
                    between[active] = idle
                    active += 1
            for threshold in range(num_thresholds):
                bit = np.int64(1) << (area * num_thresholds + threshold)
                found[:] = 0
                counted[:] = 0
                last[:] = 0
                value[:] = 0
                share[:] = 0
                points = 0
                for place in range(active):
                    index = holders[place]
                    if ignored[index] & bit:
                        continue
                    weight = weights[images[index]]
                    for r in range(num):
                        counted[r] += weight[r]
                    if matched[index] & bit == 0:
                        continue
                    for r in range(num):
                        found[r] += weight[r]
                        best[points, r] = found[r] / (between[place, r] + counted[r] + EPSILON)
                    for r in range(num):
                        level = reached[r, found[r]]
                        steps[points, r] = level - last[r]
                        last[r] = level
                    for most in range(num_most):
                        if ranks[index] < max_detections[most]:
                            for r in range(num):
                                share[most, r] += weight[r]
                    points += 1
                for point in range(points - 1, 0, -1):
                    for r in range(num):
                        best[point - 1, r] = max(best[point - 1, r], best[point, r])
                for point in range(points):
                    for r in range(num):
                        value[r] += best[point, r] * steps[point, r]
                for r in range(num):
                    total = truths[label, area, r]
                    if total > 0:
                        precision[r, threshold, label, area] = value[r] / 101
                        for most in range(num_most):
                            recall[r, threshold, label, area, most] = share[most, r] / total


@compiled
def box_overlaps(
    boxes: np.ndarray, truth: np.ndarray, iscrowd: np.ndarray, index: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """As the function of pairs that `overlaps.of_boxes` gives, from boxes [N, 4] and truth [M, 4] in xywh."""
    overlaps = np.zeros(len(index))
    for pair in range(len(index)):
        a, b = index[pair], others[pair]
        width = min(boxes[a, 0] + boxes[a, 2], truth[b, 0] + truth[b, 2]) - max(boxes[a, 0], truth[b, 0])
        if width <= 0:
            continue
        height = min(boxes[a, 1] + boxes[a, 3], truth[b, 1] + truth[b, 3]) - max(boxes[a, 1], truth[b, 1])
        if height <= 0:
            continue
        shared = width * height
        union = boxes[a, 2] * boxes[a, 3]
        if not iscrowd[b]:
            union = union + truth[b, 2] * truth[b, 3] - shared
        overlaps[pair] = shared / union
    return overlaps


@compiled
def keypoint_extents(keypoints: np.ndarray) -> np.ndarray:
    """As `overlaps.extent`."""
    extents = np.empty((len(keypoints), 4))
    for index in range(len(keypoints)):
        left = right = keypoints[index, 0, 0]
        top = bottom = keypoints[index, 0, 1]
        for point in range(1, keypoints.shape[1]):
            x, y = keypoints[index, point, 0], keypoints[index, point, 1]
            left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
        extents[index, 0], extents[index, 1], extents[index, 2], extents[index, 3] = left, top, right, bottom
    return extents


@compiled
def keypoint_errors(
    keypoints: np.ndarray,
    truth: np.ndarray,
    nums: np.ndarray,
    outer: np.ndarray,
    bounds: np.ndarray,
    extents: np.ndarray,
    variances: np.ndarray,
    areas: np.ndarray,
    index: np.ndarray,
    others: np.ndarray,
    is_cut: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The exponents of `overlaps.of_keypoints`, of labelled keypoints (of all, where none is) one after the other.

    Args:
        keypoints: [N, P, 3] of detections.
        truth: [M, P, 3].
        nums: [M], labelled keypoints.
        outer: [M, 4] xyxy, the box grown to three times.
        bounds: [M, 4] xyxy, outside of which no keypoint counts half.
        extents: [N, 4] xyxy of the keypoints of each detection.
        variances: [P].
        areas: [M], with pycocotools' epsilon.
        index, others: [Q] pairs.
        is_cut: whether pairs that cannot reach a half are left out.

    Returns:
        Exponents [E], and [Q + 1] where those of each pair begin.
    """
    num_points = truth.shape[1]
    offsets = np.zeros(len(index) + 1, np.int64)
    for pair in range(len(index)):
        a, b = index[pair], others[pair]
        far = extents[a, 2] < bounds[b, 0] or extents[a, 3] < bounds[b, 1]
        far = far or extents[a, 0] > bounds[b, 2] or extents[a, 1] > bounds[b, 3]
        num = nums[b] if nums[b] else num_points
        offsets[pair + 1] = offsets[pair] + (0 if is_cut and nums[b] and far else num)
    errors = np.empty(offsets[-1])
    for pair in range(len(index)):
        place = offsets[pair]
        if offsets[pair + 1] == place:
            continue
        a, b = index[pair], others[pair]
        for point in range(num_points):
            x, y = keypoints[a, point, 0], keypoints[a, point, 1]
            if nums[b] == 0:
                dx = max(0.0, outer[b, 0] - x) + max(0.0, x - outer[b, 2])
                dy = max(0.0, outer[b, 1] - y) + max(0.0, y - outer[b, 3])
            elif truth[b, point, 2] > 0:
                dx, dy = x - truth[b, point, 0], y - truth[b, point, 1]
            else:
                continue
            errors[place] = (dx * dx + dy * dy) / variances[point] / areas[b] / 2
            place += 1
    return errors, offsets


@compiled
def row_means(terms: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """[Q] the mean of each row of up to 128 terms, added up in NumPy's order; 0 for an empty row."""
    means = np.zeros(len(offsets) - 1)
    for row in range(len(means)):
        first, num = offsets[row], offsets[row + 1] - offsets[row]
        if num == 0:
            continue
        if num < 8:
            total, at = 0.0, 0
        else:
            eight = terms[first : first + 8].copy()
            at = 8
            while at < num - num % 8:
                for place in range(8):
                    eight[place] += terms[first + at + place]
                at += 8
            total = ((eight[0] + eight[1]) + (eight[2] + eight[3])) + ((eight[4] + eight[5]) + (eight[6] + eight[7]))
        while at < num:
            total += terms[first + at]
            at += 1
        means[row] = total / num
    return means


@compiled
def extent(begins: np.ndarray, stops: np.ndarray, first: int, last: int, height: int, box: np.ndarray) -> int:
    """The area of a mask of the intervals `first` up to `last`; `box` becomes its tight box, zeros for an empty one."""
    box[:] = 0
    if first == last:
        return 0
    area, column, top, bottom = 0, int(begins[first] // height * height), height, 0
    box[0] = column // height
    for index in range(first, last):
        begin, stop = int(begins[index]), int(stops[index])
        area += stop - begin
        while begin >= column + height:
            column += height
        top = min(top, begin - column)
        bottom = max(bottom, stop - column)
        if stop > column + height:  # it goes on in the next column
            top, bottom = 0, height
    box[1], box[2], box[3] = top, (stops[last - 1] - 1) // height + 1, bottom
    return area


@compiled
def intervals(
    ends: np.ndarray, nums: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As `overlaps._intervals`, mask by mask."""
    num_masks = len(nums)
    begins, stops = np.empty(len(ends) // 2 + num_masks, np.int64), np.empty(len(ends) // 2 + num_masks, np.int64)
    offsets, areas = np.zeros(num_masks + 1, np.int64), np.zeros(num_masks, np.int64)
    boxes = np.zeros((num_masks, 4), np.int64)
    num, run = 0, 0
    for mask in range(num_masks):
        for place in range(run + 1, run + nums[mask], 2):
            if ends[place] > ends[place - 1]:
                begins[num], stops[num] = ends[place - 1], ends[place]
                num += 1
        run += nums[mask]
        offsets[mask + 1] = num
        areas[mask] = extent(begins, stops, offsets[mask], num, sizes[mask, 0], boxes[mask])
    return begins[:num].copy(), stops[:num].copy(), offsets, areas, boxes


@compiled
def intersections(
    begins: np.ndarray,
    stops: np.ndarray,
    offsets: np.ndarray,
    truth_begins: np.ndarray,
    truth_stops: np.ndarray,
    truth_offsets: np.ndarray,
    index: np.ndarray,
    others: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
) -> np.ndarray:
    """As `overlaps._intersections`: both lists of intervals are walked at once."""
    shared = np.zeros(len(index), np.int64)
    for pair in range(len(index)):
        a, a_end = offsets[index[pair]], offsets[index[pair] + 1]
        b, b_end = truth_offsets[others[pair]], truth_offsets[others[pair] + 1]
        a += np.searchsorted(stops[a:a_end], first[pair], side="right")
        b += np.searchsorted(truth_stops[b:b_end], first[pair], side="right")
        total = np.int64(0)
        while a < a_end and b < b_end and begins[a] < last[pair]:
            total += max(np.int64(0), min(stops[a], truth_stops[b]) - max(begins[a], truth_begins[b]))
            if stops[a] < truth_stops[b]:
                a += 1
            else:
                b += 1
        shared[pair] = total
    return shared


@compiled
def count_bits(masks: np.ndarray, starts: np.ndarray, num_bits: int) -> np.ndarray:
    """As `average_precision._count_bits`."""
    counts = np.zeros((len(starts) - 1, num_bits), np.int64)
    for label in range(len(starts) - 1):
        for index in range(starts[label], starts[label + 1]):
            for bit in range(num_bits):
                counts[label, bit] += (masks[index] >> bit) & 1
    return counts
