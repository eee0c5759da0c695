"""Greedy suppression and the sorting before it, compiled; chosen by `nms.py` for large sets, with the same results."""

import numpy as np

from pipeline.ops.compiled import compiled

NUM_DIGITS, DIGIT_BITS = 3, 11
FEW = 24
"""Boxes of a group up to which all pairs are looked at, for then a grid costs more than it saves."""
SLACK = 1e-5
"""How much the search window is too wide, relative: the overlap itself is rounded by some 1e-7 in float32."""


@compiled
def falling_order(bits: np.ndarray) -> np.ndarray:
    """A stable radix sort.

    Args:
        bits: [N] uint32, the bits of float32 numbers without NaN or -0.

    Returns:
        [N] int64, their indices by falling value; equal ones in the order given.
    """
    num, size = len(bits), 1 << DIGIT_BITS
    keys, keys_sorted = np.empty(num, np.uint32), np.empty(num, np.uint32)
    order, order_sorted = np.arange(num), np.empty(num, np.int64)
    for i in range(num):
        # rising keys are falling numbers: a positive number's bits rise with it, a negative one's fall
        keys[i] = bits[i] if bits[i] >> np.uint32(31) else bits[i] ^ np.uint32(0x7FFFFFFF)
    for digit in range(NUM_DIGITS):
        shift = np.uint32(digit * DIGIT_BITS)
        ends = np.zeros(size + 1, np.int64)
        for i in range(num):
            ends[((keys[i] >> shift) & np.uint32(size - 1)) + np.uint32(1)] += 1
        for value in range(size):
            ends[value + 1] += ends[value]
        for i in range(num):
            value = (keys[i] >> shift) & np.uint32(size - 1)
            place = ends[value]
            ends[value] = place + 1
            keys_sorted[place], order_sorted[place] = keys[i], order[i]
        keys, keys_sorted = keys_sorted, keys
        order, order_sorted = order_sorted, order
    return order


@compiled
def suppress(boxes: np.ndarray, order: np.ndarray, starts: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy suppression within groups.

    A box is compared with the kept boxes near it alone: these are in a uniform grid of their centres. Boxes of widths
    w and v whose overlap is above t have centres no further apart than (w + v) / 2 * (1 - t) / (1 + t), and v <= w / t.

    Args:
        boxes: [N, 4] float32 xyxy, finite, no side negative and no area so small that float32 cannot hold it.
        order: [N] int64, indices of the boxes, group by group and by falling score within.
        starts: [G + 1] int64, where each group starts in `order`; the last is N.
        threshold: an overlap strictly above it suppresses; not negative.

    Returns:
        [N] bool, which boxes are kept.
    """
    keep = np.zeros(len(boxes), np.bool_)
    largest = 0
    for group in range(len(starts) - 1):
        largest = max(largest, starts[group + 1] - starts[group])
    kept, areas = np.empty((largest, 4), np.float32), np.empty(largest, np.float32)
    following = np.empty(largest, np.int32)
    heads = np.empty(4 * largest + 16, np.int32)
    least = threshold * (1 - SLACK)
    reach = max((1 - least) / (1 + least), 0.0) / 2
    for group in range(len(starts) - 1):
        begin, end = starts[group], starts[group + 1]
        num = end - begin
        if num == 0:
            continue
        left, top, right, bottom = np.inf, np.inf, -np.inf, -np.inf
        widest, highest, width_sum, height_sum = 0.0, 0.0, 0.0, 0.0
        if num > FEW:
            for place in range(begin, end):
                box = boxes[order[place]]
                x1, y1, x2, y2 = float(box[0]), float(box[1]), float(box[2]), float(box[3])
                left, right = min(left, x1 + x2), max(right, x1 + x2)
                top, bottom = min(top, y1 + y2), max(bottom, y1 + y2)
                widest, highest = max(widest, x2 - x1), max(highest, y2 - y1)
                width_sum += x2 - x1
                height_sum += y2 - y1
        # twice the centre is what is sorted into cells
        most = int(np.sqrt(3.0 * num)) + 1
        columns, rows, per_x, per_y = 1, 1, 0.0, 0.0
        if right > left:
            columns = int(min(most, max(1.0, (right - left) * num / max(2 * width_sum * reach, 1e-30))))
            per_x = columns / (right - left) * (1 - 1e-9)
        if bottom > top:
            rows = int(min(most, max(1.0, (bottom - top) * num / max(2 * height_sum * reach, 1e-30))))
            per_y = rows / (bottom - top) * (1 - 1e-9)
        if num <= FEW:
            left, top = 0.0, 0.0
        heads[: columns * rows] = -1
        num_kept = 0
        for place in range(begin, end):
            index = order[place]
            x1, y1, x2, y2 = boxes[index, 0], boxes[index, 1], boxes[index, 2], boxes[index, 3]
            area = (x2 - x1) * (y2 - y1)
            width, height = float(x2) - float(x1), float(y2) - float(y1)
            x, y = float(x1) + float(x2), float(y1) + float(y2)
            # twice the distance of centres, for these are doubled too
            across = 2 * reach * (width + min(widest, width / max(least, 1e-30)))
            down = 2 * reach * (height + min(highest, height / max(least, 1e-30)))
            first_column = int(max(0.0, (x - across - left) * per_x))
            last_column = int(min(columns - 1.0, (x + across - left) * per_x))
            first_row = int(max(0.0, (y - down - top) * per_y))
            last_row = int(min(rows - 1.0, (y + down - top) * per_y))
            free = True
            for row in range(first_row, last_row + 1):
                for column in range(first_column, last_column + 1):
                    other = heads[row * columns + column]
                    while other >= 0:
                        shared_width = min(x2, kept[other, 2]) - max(x1, kept[other, 0])
                        shared_height = min(y2, kept[other, 3]) - max(y1, kept[other, 1])
                        if shared_width > 0 and shared_height > 0:
                            shared = shared_width * shared_height
                            # torchvision's order: the float32 overlap is compared with a double threshold
                            if float(shared / (areas[other] + area - shared)) > threshold:
                                free = False
                                break
                        other = following[other]
                    if not free:
                        break
                if not free:
                    break
            if free:
                keep[index] = True
                cell = int((y - top) * per_y) * columns + int((x - left) * per_x)
                kept[num_kept, 0], kept[num_kept, 1], kept[num_kept, 2], kept[num_kept, 3] = x1, y1, x2, y2
                areas[num_kept] = area
                following[num_kept] = heads[cell]
                heads[cell] = num_kept
                num_kept += 1
    return keep
