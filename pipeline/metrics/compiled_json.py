"""A scanner of COCO's lists of boxes in machine code; it gives up on all that is not plain, and msgspec looks again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.ops.compiled import compiled

POWERS = 10.0 ** np.arange(23)
"""The powers of ten that float64 holds exactly."""
NUM_THREADS = 2


def read_boxes(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Image ids, category ids, boxes [N, 4] and scores of a list of results; None where something is not plain.

    Numbers are exact: where digits and exponent fit, one division of two exact numbers rounds once, as it must; the
    others are left to Python.
    """
    codes = np.frombuffer(data, np.uint8)
    bounds = [0]
    for part in range(1, NUM_THREADS):
        bounds.append(data.find(b"{", max(bounds[-1] + 1, len(data) * part // NUM_THREADS)))
    if min(bounds) < 0:
        bounds = [0]
    ends = [*bounds[1:], len(data)]

    def scan(part: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        begin, end = bounds[part], ends[part]
        num = data.count(b"{", begin, end)
        ids, numbers = np.empty((num, 2), np.int64), np.empty((num, 5))
        slow = np.empty((5 * num, 3), np.int64)
        last = part == len(bounds) - 1
        count, num_slow = scan_boxes(codes, begin, end, part == 0, last, POWERS, ids, numbers, slow)
        return (count if count == num else -1), ids, numbers, slow[:num_slow]

    if len(bounds) == 1:
        parts = [scan(0)]
    else:
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            parts = list(pool.map(scan, range(NUM_THREADS)))
    if min(count for count, *_ in parts) < 0:
        return None
    for _, _, numbers, slow in parts:
        flat = numbers.reshape(-1)
        for place, begin, end in slow.tolist():
            flat[place] = float(data[begin:end])
    ids = np.concatenate([part[1] for part in parts])
    numbers = np.concatenate([part[2] for part in parts])
    if not np.isfinite(numbers).all():
        return None
    return ids[:, 0].copy(), ids[:, 1].copy(), np.ascontiguousarray(numbers[:, :4]), numbers[:, 4].copy()


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
def scan_boxes(
    codes: np.ndarray,
    begin: int,
    end: int,
    opens: bool,
    closes: bool,
    powers: np.ndarray,
    ids: np.ndarray,
    numbers: np.ndarray,
    slow: np.ndarray,
) -> tuple[int, int]:
    """Reads objects with image_id, category_id, bbox and score, and no other key, into rows of `ids` and `numbers`.

    Returns:
        The number of objects, -1 where something else was met, and the number of rows of `slow` (place in `numbers`,
        begin and end of the text) for numbers left to Python.
    """
    row, num_slow = 0, 0
    at = skip(codes, begin, end)
    if opens:
        if at >= end or codes[at] != 91:
            return -1, 0
        at = skip(codes, at + 1, end)
        if at < end and codes[at] == 93:
            return (0 if closes and skip(codes, at + 1, end) == end else -1), 0
    while at < end:
        if codes[at] != 123 or row >= len(ids):
            return -1, 0
        at += 1
        seen = 0
        while True:
            at = skip(codes, at, end)
            if at >= end or codes[at] != 34:
                return -1, 0
            key = at + 1
            at = key
            while at < end and codes[at] != 34 and codes[at] != 92:
                at += 1
            stop = at
            if at >= end or codes[at] != 34:
                return -1, 0
            at = skip(codes, at + 1, end)
            if at >= end or codes[at] != 58:
                return -1, 0
            at = skip(codes, at + 1, end)
            if is_key(codes, key, stop, b"bbox"):
                if seen & 4 or at >= end or codes[at] != 91:
                    return -1, 0
                seen |= 4
                for column in range(4):
                    at = skip(codes, at + 1, end)
                    first = at
                    value, at, exact = number(codes, at, end, powers)
                    if at < 0:
                        return -1, 0
                    if not exact:
                        slow[num_slow, 0], slow[num_slow, 1], slow[num_slow, 2] = row * 5 + column, first, at
                        num_slow += 1
                    numbers[row, column] = value
                    at = skip(codes, at, end)
                    if at >= end or codes[at] != (44 if column < 3 else 93):
                        return -1, 0
                at += 1
            else:
                first = at
                value, at, exact = number(codes, at, end, powers)
                if at < 0:
                    return -1, 0
                if is_key(codes, key, stop, b"score"):
                    if seen & 8:
                        return -1, 0
                    seen |= 8
                    if not exact:
                        slow[num_slow, 0], slow[num_slow, 1], slow[num_slow, 2] = row * 5 + 4, first, at
                        num_slow += 1
                    numbers[row, 4] = value
                else:
                    column = 0 if is_key(codes, key, stop, b"image_id") else 1
                    if column == 1 and not is_key(codes, key, stop, b"category_id"):
                        return -1, 0
                    if seen & (column + 1) or not exact or value != np.floor(value):
                        return -1, 0
                    for place in range(first, at):  # 1.0 and 1e3 are no ids
                        if codes[place] != 45 and not 48 <= codes[place] <= 57:
                            return -1, 0
                    seen |= column + 1
                    ids[row, column] = np.int64(value)
            at = skip(codes, at, end)
            if at >= end:
                return -1, 0
            if codes[at] == 125:
                break
            if codes[at] != 44:
                return -1, 0
            at += 1
        if seen != 15:
            return -1, 0
        row += 1
        at = skip(codes, at + 1, end)
        if at < end and codes[at] == 44:
            at = skip(codes, at + 1, end)
            if at >= end:
                return (row, num_slow) if not closes else (-1, 0)
        elif at < end and codes[at] == 93 and closes:
            return (row if skip(codes, at + 1, end) == end else -1), num_slow
        else:
            return -1, 0
    return -1, 0
