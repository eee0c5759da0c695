"""A scanner of COCO's lists of results in machine code; it gives up on all that is not plain: msgspec looks again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.compiled import extent
from pipeline.ops.compiled import compiled

POWERS = 10.0 ** np.arange(23)
"""The powers of ten that float64 holds exactly."""
NUM_THREADS = 2


Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""What `overlaps.Masks` takes: begins, stops, offsets, areas, boxes, sizes."""


@dataclass
class Scanned:
    """A list of results in columns.

    Attributes:
        image_ids, category_ids: [N] int64.
        scores: [N] float64.
        values: [N, W] float64, of boxes or keypoints.
        masks: of segmentation, what `overlaps.Masks` takes.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    values: np.ndarray
    masks: Columns | None


def read(data: bytes, key: bytes, width: int) -> Scanned | None:
    """Columns of a list of results; None where something is not plain.

    Numbers are exact: where digits and exponent fit, one division of two exact numbers rounds once, as it must; the
    others are left to Python.

    Args:
        data: the file.
        key: bbox, keypoints or segmentation (compressed run lengths).
        width: how many numbers bbox or keypoints have; 0 for segmentation.
    """
    codes = np.frombuffer(data, np.uint8)
    bounds = [0]
    for part in range(1, NUM_THREADS):
        middle = max(bounds[-1] + 1, len(data) * part // NUM_THREADS)
        bounds.append(data.find(b"{", middle) if width else _next_row(data, middle))
    if min(bounds) < 0:
        bounds = [0]
    ends = [*bounds[1:], len(data)]

    per_row = 1 if width else 2
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        nums = [num // per_row for num in pool.map(lambda begin, end: count_code(codes, begin, end, 123), bounds, ends)]
    starts = [0, *np.cumsum(nums).tolist()]
    ids, scores = np.empty((2, starts[-1]), np.int64), np.empty(starts[-1])
    values = np.empty((starts[-1], width))
    num_masks = 0 if width else starts[-1]
    sizes, boxes = np.empty((num_masks, 2), np.int64), np.empty((num_masks, 4), np.int64)
    offsets, areas = np.zeros(num_masks + 1, np.int64), np.empty(num_masks, np.int64)
    # an interval takes two characters at least; memory that nothing is written to costs nothing
    begins, stops = np.empty((2, 0 if width else len(data)), np.int64)

    def scan(part: int) -> int:
        """Fills in the rows of a part, which are known beforehand; -1 or the number of its intervals."""
        begin, end, here = bounds[part], ends[part], slice(starts[part], starts[part + 1])
        slow = np.empty((nums[part] * (width + 1), 3), np.int64)
        columns = (ids[0, here], ids[1, here], scores[here], values[here])
        drawn = (sizes[here], begins[begin:end], stops[begin:end], offsets[1:][here], areas[here], boxes[here])
        last = part == len(bounds) - 1
        count, num_slow, num_intervals = scan_rows(
            codes, begin, end, part == 0, last, POWERS, key, *columns, *drawn, slow
        )
        for row, column, first, stop in _rows_of(slow[:num_slow], width):
            if column < width:
                values[here][row, column] = float(data[first:stop])
            else:
                scores[here][row] = float(data[first:stop])
        return num_intervals if count == nums[part] else -1

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        parts = list(pool.map(scan, range(len(bounds))))
    if min(parts) < 0 or not (np.isfinite(values).all() and np.isfinite(scores).all()):
        return None
    if width:
        return Scanned(ids[0], ids[1], scores, values, None)
    total = parts[0]
    for part in range(1, len(parts)):  # moved up to where the intervals of the part before end
        source, place = slice(bounds[part], bounds[part] + parts[part]), slice(total, total + parts[part])
        begins[place], stops[place] = begins[source], stops[source]
        offsets[1:][starts[part] : starts[part + 1]] += total
        total += parts[part]
    masks = (begins[:total], stops[:total], offsets, areas, boxes, sizes)
    return Scanned(ids[0], ids[1], scores, values, masks)


def masks_of_strings(strings: Sequence[bytes], sizes: np.ndarray) -> Columns | None:
    """Masks of COCO's run-length strings; None where one cannot be: NumPy then says which.

    Args:
        strings: one for each of N masks.
        sizes: [N, 2] int64, height and width.
    """
    if any(b'"' in string for string in strings):
        return None
    data = b'"' + b'"'.join(strings).replace(b"\\", b"\\\\") + b'"'  # as in a file
    begins, stops = np.empty((2, len(data)), np.int64)
    offsets, areas = np.zeros(len(strings) + 1, np.int64), np.empty(len(strings), np.int64)
    boxes = np.empty((len(strings), 4), np.int64)
    columns = (begins, stops, offsets, areas, boxes)
    if not read_strings(np.frombuffer(data, np.uint8), sizes, *columns):
        return None
    return begins[: offsets[-1]], stops[: offsets[-1]], offsets, areas, boxes, sizes


def _rows_of(slow: np.ndarray, width: int) -> list[tuple[int, int, int, int]]:
    """Row, column, begin and end of the text of each number that is left to Python."""
    return [(place // (width + 1), place % (width + 1), first, stop) for place, first, stop in slow.tolist()]


def _next_row(data: bytes, begin: int) -> int:
    """Where an object starts that is not the mask within one; -1: nowhere."""
    at = data.find(b"{", begin)
    while at > 0 and data[max(0, at - 40) : at].rstrip().endswith(b":"):
        at = data.find(b"{", at + 1)
    return at


@compiled
def count_code(codes: np.ndarray, begin: int, end: int, code: int) -> int:
    """How often a byte occurs."""
    num = 0
    for at in range(begin, end):
        num += codes[at] == code
    return num


@compiled
def skip(codes: np.ndarray, at: int, end: int) -> int:
    """The next place that is no white space."""
    while at < end and (codes[at] == 32 or codes[at] == 10 or codes[at] == 13 or codes[at] == 9):
        at += 1
    return at


@compiled
def number(codes: np.ndarray, at: int, end: int, powers: np.ndarray) -> tuple[float, int, bool]:
    """A number of JSON, the place after it (-1: none) and whether it is exact."""
    negative = at < end and codes[at] == 45
    at += negative
    first = at
    digits, scale, count = 0, 0, 0
    while at < end and 48 <= codes[at] <= 57:
        if count < 18:
            digits = digits * 10 + int(codes[at] - 48)
        count += digits > 0
        at += 1
    if at == first or (codes[first] == 48 and at > first + 1):
        return 0.0, -1, False
    if at < end and codes[at] == 46:
        at += 1
        dot = at
        while at < end and 48 <= codes[at] <= 57:
            if count < 18:
                digits = digits * 10 + int(codes[at] - 48)
                scale -= 1
            count += digits > 0
            at += 1
        if at == dot:
            return 0.0, -1, False
    if at < end and (codes[at] == 101 or codes[at] == 69):
        at += 1
        down = at < end and codes[at] == 45
        at += at < end and (codes[at] == 45 or codes[at] == 43)
        first, power = at, 0
        while at < end and 48 <= codes[at] <= 57:
            power = min(9999, power * 10 + int(codes[at] - 48))
            at += 1
        if at == first:
            return 0.0, -1, False
        scale += -power if down else power
    exact = count <= 17 and digits <= 9007199254740992 and -22 <= scale <= 22
    if not exact:
        return 0.0, at, False
    value = float(digits)
    if scale < 0:
        value /= powers[-scale]
    else:
        value *= powers[scale]
    return -value if negative else value, at, True


@compiled
def is_key(codes: np.ndarray, begin: int, end: int, name: bytes) -> bool:
    """Whether a key between its quotes is this one."""
    if end - begin != len(name):
        return False
    for index in range(len(name)):  # noqa: SIM110 - numba knows no all() over a generator
        if codes[begin + index] != name[index]:
            return False
    return True


@compiled
def read_list(
    codes: np.ndarray,
    at: int,
    end: int,
    powers: np.ndarray,
    values: np.ndarray,
    place: int,
    slow: np.ndarray,
    num_slow: int,
) -> tuple[int, int]:
    """A list of just so many numbers as `values` holds: the place after it (-1: none) and rows of `slow` in use."""
    if at >= end or codes[at] != 91:
        return -1, num_slow
    for column in range(len(values)):
        at = skip(codes, at + 1, end)
        first = at
        value, at, exact = number(codes, at, end, powers)
        if at < 0:
            return -1, num_slow
        if not exact:
            slow[num_slow, 0], slow[num_slow, 1], slow[num_slow, 2] = place + column, first, at
            num_slow += 1
        values[column] = value
        at = skip(codes, at, end)
        if at >= end or codes[at] != (44 if column < len(values) - 1 else 93):
            return -1, num_slow
    return at + 1, num_slow


@compiled
def whole(codes: np.ndarray, at: int, end: int, powers: np.ndarray) -> tuple[int, int]:
    """A whole number without point or exponent, and the place after it (-1: none)."""
    first = at
    value, at, exact = number(codes, at, end, powers)
    if at < 0 or not exact:
        return 0, -1
    for place in range(first, at):
        if codes[place] != 45 and not 48 <= codes[place] <= 57:
            return 0, -1
    return int(value), at


@compiled
def read_key(codes: np.ndarray, at: int, end: int) -> tuple[int, int, int]:
    """Begin and end of a key, and the place of its value (-1: none)."""
    at = skip(codes, at, end)
    if at >= end or codes[at] != 34:
        return 0, 0, -1
    begin = at + 1
    at = begin
    while at < end and codes[at] != 34 and codes[at] != 92:
        at += 1
    stop = at
    if at >= end or codes[at] != 34:
        return 0, 0, -1
    at = skip(codes, at + 1, end)
    if at >= end or codes[at] != 58:
        return 0, 0, -1
    return begin, stop, skip(codes, at + 1, end)


@compiled
def read_intervals(
    codes: np.ndarray, at: int, end: int, begins: np.ndarray, stops: np.ndarray, num: int
) -> tuple[int, int, int]:
    """COCO's run-length string from its quote on: the place after it (-1: none), intervals so far, pixels of it."""
    if at >= end or codes[at] != 34:
        return -1, num, 0
    at += 1
    count, total = 0, 0
    last, before = 0, 0
    value, shift = 0, 0
    while at < end and codes[at] != 34:
        code = int(codes[at])
        if code == 92:  # its own backslash, which JSON doubles
            at += 1
            if at >= end or codes[at] != 92:
                return -1, num, 0
        at += 1
        code -= 48
        if code < 0 or code > 63 or shift > 45:
            return -1, num, 0
        value |= (code & 31) << shift
        shift += 5
        if code & 32 == 0:
            if code & 16:
                value -= 1 << shift
            if count > 2:
                value += before
            if value < 0 or total > 1 << 52:
                return -1, num, 0
            if count & 1 and value > 0:
                begins[num], stops[num] = total, total + value
                num += 1
            total += value
            before, last = last, value
            count += 1
            value, shift = 0, 0
    return (at + 1 if at < end and shift == 0 else -1), num, total


@compiled
def read_strings(
    codes: np.ndarray,
    sizes: np.ndarray,
    begins: np.ndarray,
    stops: np.ndarray,
    offsets: np.ndarray,
    areas: np.ndarray,
    boxes: np.ndarray,
) -> bool:
    """Reads run-length strings between quotes that they share into the columns of `Masks`; False: one cannot be."""
    at, num = 0, 0
    for mask in range(len(sizes)):
        first = num
        at, num, total = read_intervals(codes, at, len(codes), begins, stops, num)
        if at < 0 or total != sizes[mask, 0] * sizes[mask, 1]:
            return False
        at -= 1  # its last quote is the first one of the next
        areas[mask] = extent(begins, stops, first, num, sizes[mask, 0], boxes[mask])
        offsets[mask + 1] = num
    return True


@compiled
def read_mask(
    codes: np.ndarray,
    at: int,
    end: int,
    powers: np.ndarray,
    size: np.ndarray,
    begins: np.ndarray,
    stops: np.ndarray,
    num: int,
) -> tuple[int, int]:
    """A mask of size and counts: the place after it (-1: none) and how many intervals there are now."""
    if at >= end or codes[at] != 123:
        return -1, num
    seen, total = 0, 0
    while True:
        begin, stop, at = read_key(codes, at + 1, end)
        if at < 0:
            return -1, num
        if is_key(codes, begin, stop, b"counts"):
            seen += 1
            at, num, total = read_intervals(codes, at, end, begins, stops, num)
        elif is_key(codes, begin, stop, b"size"):
            seen += 4
            if at >= end or codes[at] != 91:
                return -1, num
            for side in range(2):
                value, at = whole(codes, skip(codes, at + 1, end), end, powers)
                if at < 0 or value > 1 << 26:
                    return -1, num
                size[side] = value
                at = skip(codes, at, end)
                if at >= end or codes[at] != (44 if side == 0 else 93):
                    return -1, num
            at += 1
        else:
            return -1, num
        if at < 0:
            return -1, num
        at = skip(codes, at, end)
        if at < end and codes[at] == 125:
            return (at + 1 if seen == 5 and total == size[0] * size[1] else -1), num
        if at >= end or codes[at] != 44:
            return -1, num


@compiled
def scan_rows(
    codes: np.ndarray,
    begin: int,
    end: int,
    opens: bool,
    closes: bool,
    powers: np.ndarray,
    key: bytes,
    image_ids: np.ndarray,
    category_ids: np.ndarray,
    scores: np.ndarray,
    values: np.ndarray,
    sizes: np.ndarray,
    begins: np.ndarray,
    stops: np.ndarray,
    offsets: np.ndarray,
    areas: np.ndarray,
    boxes: np.ndarray,
    slow: np.ndarray,
) -> tuple[int, int, int]:
    """Reads objects with image_id, category_id, score and `key`, and no other, into rows of the arrays.

    Returns:
        The number of objects, -1 where something else was met; the number of rows of `slow` (row times W + 1 plus
        column, begin and end of the text) for numbers left to Python, the score in column W; and the number of
        intervals.
    """
    width = values.shape[1]
    row, num_slow, num = 0, 0, 0
    at = skip(codes, begin, end)
    if opens:
        if at >= end or codes[at] != 91:
            return -1, 0, 0
        at = skip(codes, at + 1, end)
        if at < end and codes[at] == 93:
            return (0 if closes and skip(codes, at + 1, end) == end else -1), 0, 0
    while at < end:
        if codes[at] != 123 or row >= len(scores):
            return -1, 0, 0
        seen = 0
        while True:
            first, stop, at = read_key(codes, at + 1, end)
            if at < 0:
                return -1, 0, 0
            if is_key(codes, first, stop, key):
                bit = 4
                if width:
                    at, num_slow = read_list(codes, at, end, powers, values[row], row * (width + 1), slow, num_slow)
                else:
                    first = num
                    at, num = read_mask(codes, at, end, powers, sizes[row], begins, stops, num)
                    if at >= 0:
                        areas[row] = extent(begins, stops, first, num, sizes[row, 0], boxes[row])
                        offsets[row] = num
            elif is_key(codes, first, stop, b"score"):
                bit = 8
                place = at
                value, at, exact = number(codes, at, end, powers)
                if at >= 0 and not exact:
                    slow[num_slow, 0], slow[num_slow, 1], slow[num_slow, 2] = row * (width + 1) + width, place, at
                    num_slow += 1
                scores[row] = value
            elif is_key(codes, first, stop, b"image_id"):
                bit = 1
                image_ids[row], at = whole(codes, at, end, powers)
            elif is_key(codes, first, stop, b"category_id"):
                bit = 2
                category_ids[row], at = whole(codes, at, end, powers)
            else:
                return -1, 0, 0
            if at < 0 or seen & bit:
                return -1, 0, 0
            seen |= bit
            at = skip(codes, at, end)
            if at >= end:
                return -1, 0, 0
            if codes[at] == 125:
                break
            if codes[at] != 44:
                return -1, 0, 0
        if seen != 15:
            return -1, 0, 0
        row += 1
        at = skip(codes, at + 1, end)
        if at < end and codes[at] == 44:
            at = skip(codes, at + 1, end)
            if at >= end:
                return (-1 if closes else row), num_slow, num
        elif at < end and codes[at] == 93 and closes:
            return (row if skip(codes, at + 1, end) == end else -1), num_slow, num
        else:
            return -1, 0, 0
    return -1, 0, 0
