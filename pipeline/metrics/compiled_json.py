"""A scanner of COCO's lists of results in machine code; it gives up on all that is not plain: msgspec looks again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.ops.compiled import compiled

POWERS = 10.0 ** np.arange(23)
"""The powers of ten that float64 holds exactly."""
NUM_THREADS = 2


@dataclass
class Scanned:
    """A list of results in columns.

    Attributes:
        image_ids, category_ids: [N] int64.
        scores: [N] float64.
        values: [N, W] float64, of boxes or keypoints.
        sizes: [N, 2] int64, of masks.
        runs, run_counts: [R] int64 runs of all masks and [N] int64 how many each has.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    values: np.ndarray
    sizes: np.ndarray
    runs: np.ndarray
    run_counts: np.ndarray


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
    values, sizes = np.empty((starts[-1], width)), np.empty((starts[-1], 2 if width == 0 else 0), np.int64)
    run_counts = np.empty(starts[-1], np.int64) if width == 0 else np.empty(0, np.int64)

    def scan(part: int) -> tuple[bool, np.ndarray]:
        """Fills in the rows of a part, which are known beforehand: nothing is joined afterwards."""
        begin, end, here = bounds[part], ends[part], slice(starts[part], starts[part + 1])
        runs = np.empty(0 if width else end - begin, np.int64)
        slow = np.empty((nums[part] * (width + 1), 3), np.int64)
        columns = (ids[0, here], ids[1, here], scores[here], values[here], sizes[here], runs, run_counts[here], slow)
        last = part == len(bounds) - 1
        count, num_slow, num_runs = scan_rows(codes, begin, end, part == 0, last, POWERS, key, *columns)
        for row, column, first, stop in _rows_of(slow[:num_slow], width):
            if column < width:
                values[here][row, column] = float(data[first:stop])
            else:
                scores[here][row] = float(data[first:stop])
        return count == nums[part], runs[:num_runs]

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        parts = list(pool.map(scan, range(len(bounds))))
    if not all(plain for plain, _ in parts) or not (np.isfinite(values).all() and np.isfinite(scores).all()):
        return None
    return Scanned(ids[0], ids[1], scores, values, sizes, np.concatenate([runs for _, runs in parts]), run_counts)


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
def read_runs(codes: np.ndarray, at: int, end: int, runs: np.ndarray, num: int) -> tuple[int, int]:
    """COCO's run-length string from its quote on: the place after it (-1: none) and how many runs there are now."""
    if at >= end or codes[at] != 34:
        return -1, num
    at += 1
    first = num
    value, shift = 0, 0
    while at < end and codes[at] != 34:
        code = int(codes[at])
        if code == 92:  # its own backslash, which JSON doubles
            at += 1
            if at >= end or codes[at] != 92:
                return -1, num
        at += 1
        code -= 48
        if code < 0 or code > 63 or shift > 55:
            return -1, num
        value |= (code & 31) << shift
        shift += 5
        if code & 32 == 0:
            if code & 16:
                value -= 1 << shift
            if num - first > 2:
                value += runs[num - 2]
            runs[num] = value
            num += 1
            value, shift = 0, 0
    return (at + 1 if at < end and shift == 0 else -1), num


@compiled
def read_mask(
    codes: np.ndarray, at: int, end: int, powers: np.ndarray, size: np.ndarray, runs: np.ndarray, num: int
) -> tuple[int, int]:
    """A mask of size and counts: the place after it (-1: none) and how many runs there are now."""
    if at >= end or codes[at] != 123:
        return -1, num
    seen = 0
    while True:
        begin, stop, at = read_key(codes, at + 1, end)
        if at < 0:
            return -1, num
        if is_key(codes, begin, stop, b"counts"):
            seen += 1
            at, num = read_runs(codes, at, end, runs, num)
        elif is_key(codes, begin, stop, b"size"):
            seen += 4
            if at >= end or codes[at] != 91:
                return -1, num
            for side in range(2):
                value, at = whole(codes, skip(codes, at + 1, end), end, powers)
                if at < 0:
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
            return (at + 1 if seen == 5 else -1), num
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
    runs: np.ndarray,
    run_counts: np.ndarray,
    slow: np.ndarray,
) -> tuple[int, int, int]:
    """Reads objects with image_id, category_id, score and `key`, and no other, into rows of the arrays.

    Returns:
        The number of objects, -1 where something else was met; the number of rows of `slow` (row times W + 1 plus
        column, begin and end of the text) for numbers left to Python, the score in column W; and the number of runs.
    """
    width = values.shape[1]
    row, num_slow, num_runs = 0, 0, 0
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
                    before = num_runs
                    at, num_runs = read_mask(codes, at, end, powers, sizes[row], runs, num_runs)
                    run_counts[row] = num_runs - before
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
                return (-1 if closes else row), num_slow, num_runs
        elif at < end and codes[at] == 93 and closes:
            return (row if skip(codes, at + 1, end) == end else -1), num_slow, num_runs
        else:
            return -1, 0, 0
    return -1, 0, 0
