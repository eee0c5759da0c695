"""A scanner of COCO's lists of objects in machine code; it gives up on all that is not plain: msgspec looks again."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.metrics.compiled import extent
from pipeline.ops.compiled import compiled

POWERS = 10.0 ** np.arange(23)
"""The powers of ten that float64 holds exactly."""
NUM_THREADS = 2
INTEGER, MASK = -1, -2
"""What stands in place of the length of a list for a whole number, and for a mask in compressed run lengths."""
COUNTS, SIZE = np.frombuffer(b'counts"', np.uint8), np.frombuffer(b'size"', np.uint8)

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""What `overlaps.Masks` takes: begins, stops, offsets, areas, boxes, sizes."""


@dataclass
class Scanned:
    """A list of N objects in columns.

    Attributes:
        columns: by key, [N] int64, [N] float64, or [N, W] float64 of lists of W numbers.
        masks: what `overlaps.Masks` takes, where there are masks.
    """

    columns: dict[str, np.ndarray]
    masks: Columns | None


def read(data: bytes | mmap.mmap, lengths: Mapping[str, int], *, is_part: bool = False) -> Scanned | None:
    """Columns of a list of objects, each with all of these keys; None where something is not plain.

    Numbers are exact: where digits and exponent fit, one division of two exact numbers rounds once, as it must; the
    others are left to Python.

    Args:
        data: the file.
        lengths: by key, how many numbers its list has; 0 for one number without a list, INTEGER or MASK.
        is_part: the data is a part of what is known to be JSON, and other keys are passed over.
    """
    codes = np.frombuffer(data, np.uint8)
    bounds = [0]
    for part in range(1, 1 if is_part else NUM_THREADS):
        bounds.append(_next_row(data, max(bounds[-1] + 1, len(data) * part // NUM_THREADS)))
    if min(bounds) < 0:
        bounds = [0]
    ends = [*bounds[1:], len(data)]

    has_masks = MASK in lengths.values()
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        objects = pool.map(lambda begin, end: count_code(codes[begin:end], 123), bounds, ends)
        nums = [num // (1 + has_masks) for num in objects]
    starts = [0, *np.cumsum(nums).tolist()]
    names = np.array([key.encode() + b'"' for key in lengths]).view(np.uint8).reshape(len(lengths), -1)
    integers = np.empty((len(lengths), starts[-1]), np.int64)
    widths = np.array(list(lengths.values()))
    places = np.append(0, np.cumsum(np.maximum(widths, widths == 0) * starts[-1]))  # of each key's numbers
    values = np.empty(places[-1])
    num_masks = starts[-1] if has_masks else 0
    sizes, boxes = np.empty((num_masks, 2), np.int64), np.empty((num_masks, 4), np.int64)
    offsets, areas = np.zeros(num_masks + 1, np.int64), np.empty(num_masks, np.int64)
    # an interval takes two characters at least; memory that nothing is written to costs nothing
    begins, stops = np.empty((2, len(data) if has_masks else 0), np.int64)

    def scan(part: int) -> tuple[int, int]:
        """Fills in the rows of a part, from where they are known to start: how many, and the number of intervals."""
        begin, end, here = bounds[part], ends[part], slice(starts[part], starts[part + 1])
        slow = np.empty((nums[part] * (places[-1] // max(1, starts[-1])), 3), np.int64)
        drawn = (sizes[here], begins[begin:end], stops[begin:end], offsets[1:][here], areas[here], boxes[here])
        count, num_slow, num_intervals = scan_rows(
            *(codes, begin, end, part == 0, part == len(bounds) - 1, is_part, POWERS),
            *(names, widths, places, integers, values, starts[part], starts[part + 1]),
            *drawn,
            slow,
        )
        for place, first, stop in slow[:num_slow].tolist():
            values[place] = float(data[first:stop])
            if not math.isfinite(values[place]):
                return -1, 0
        return count, num_intervals

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        counts, parts = zip(*pool.map(scan, range(len(bounds))), strict=True)
    if min(counts) < 0 or list(counts[:-1]) != nums[:-1]:
        return None
    num = starts[-2] + counts[-1]
    columns = {}
    for key, width, place, row in zip(lengths, widths.tolist(), places.tolist(), integers, strict=False):
        if width != MASK:
            flat = values[place : place + num * max(1, width)]
            columns[key] = row[:num] if width == INTEGER else flat.reshape(num, width) if width else flat
    if not has_masks:
        return Scanned(columns, None)
    total = parts[0]
    for part in range(1, len(parts)):  # moved up to where the intervals of the part before end
        source, place = slice(bounds[part], bounds[part] + parts[part]), slice(total, total + parts[part])
        begins[place], stops[place] = begins[source], stops[source]
        offsets[1:][starts[part] : starts[part + 1]] += total
        total += parts[part]
    return Scanned(columns, (begins[:total], stops[:total], offsets[: num + 1], areas[:num], boxes[:num], sizes[:num]))


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


def _next_row(data: bytes | mmap.mmap, begin: int) -> int:
    """Where an object starts that is not the mask within one; -1: nowhere."""
    at = data.find(b"{", begin)
    while at > 0 and data[max(0, at - 40) : at].rstrip().endswith(b":"):
        at = data.find(b"{", at + 1)
    return at


@compiled
def count_code(codes: np.ndarray, code: int) -> int:
    """How often a byte occurs."""
    total = 0
    for first in range(0, len(codes), 255):
        here = np.uint8(0)  # one byte wide, so that 64 are counted at once
        for value in codes[first : first + 255]:
            here = np.uint8(here + np.uint8(value == code))
        total += int(here)
    return total


@compiled
def code_at(codes: np.ndarray, at: int) -> int:
    """The byte at a place; of a signed index numba would first ask whether it counts from the end."""
    return int(codes[np.uint64(at)])


@compiled
def skip(codes: np.ndarray, at: int, end: int) -> int:
    """The next place that is no white space."""
    while at < end and (codes[at] == 32 or codes[at] == 10 or codes[at] == 13 or codes[at] == 9):
        at += 1
    return at


@partial(compiled, inline="always")  # half as many instructions for each number
def number(codes: np.ndarray, at: int, end: int, powers: np.ndarray) -> tuple[float, int, bool]:
    """A number of JSON, the place after it (-1: none) and whether it is exact."""
    negative = at < end and code_at(codes, at) == 45
    at += negative
    first = at
    digits, scale = 0, 0
    while at < end and 48 <= code_at(codes, at) <= 57:
        digits = digits * 10 + (code_at(codes, at) - 48)
        at += 1
    count = at - first
    if count == 0 or (code_at(codes, first) == 48 and count > 1):
        return 0.0, -1, False
    if at < end and code_at(codes, at) == 46:
        at += 1
        dot = at
        while at < end and 48 <= code_at(codes, at) <= 57:
            digits = digits * 10 + (code_at(codes, at) - 48)
            at += 1
        scale = dot - at
        count -= scale
        if scale == 0:
            return 0.0, -1, False
    if at < end and (code_at(codes, at) == 101 or code_at(codes, at) == 69):
        at += 1
        down = at < end and code_at(codes, at) == 45
        at += at < end and (code_at(codes, at) == 45 or code_at(codes, at) == 43)
        first, power = at, 0
        while at < end and 48 <= code_at(codes, at) <= 57:
            power = min(9999, power * 10 + (code_at(codes, at) - 48))
            at += 1
        if at == first:
            return 0.0, -1, False
        scale += -power if down else power
    exact = count <= 18 and digits <= 9007199254740992 and -22 <= scale <= 22
    if not exact:
        return 0.0, at, False
    value = float(digits)
    if scale < 0:
        value /= powers[-scale]
    else:
        value *= powers[scale]
    return -value if negative else value, at, True


@compiled
def is_key(codes: np.ndarray, begin: int, name: np.ndarray) -> bool:
    """Whether a key is this one; both end with a quote."""
    for index in range(len(name)):
        if codes[begin + index] != name[index]:
            return False
        if name[index] == 34:
            return True
    return False


@compiled
def read_numbers(
    codes: np.ndarray,
    at: int,
    end: int,
    powers: np.ndarray,
    width: int,
    values: np.ndarray,
    place: int,
    slow: np.ndarray,
    num_slow: int,
) -> tuple[int, int]:
    """A list of `width` numbers, 0: one without a list; the place after it (-1: none) and rows of `slow` in use."""
    for column in range(max(1, width)):
        if width:
            if at >= end or code_at(codes, at) != (44 if column else 91):
                return -1, num_slow
            at = skip(codes, at + 1, end)
        first = at
        value, at, exact = number(codes, at, end, powers)
        if at < 0:
            return -1, num_slow
        if not exact:
            slow[num_slow, 0], slow[num_slow, 1], slow[num_slow, 2] = place + column, first, at
            num_slow += 1
        values[place + column] = value
        if width:
            at = skip(codes, at, end)
    if width:
        if at >= end or code_at(codes, at) != 93:
            return -1, num_slow
        at += 1
    return at, num_slow


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
def read_key(codes: np.ndarray, at: int, end: int) -> tuple[int, int]:
    """The begin of a key after its quote, and the place of its value (-1: none)."""
    at = skip(codes, at, end)
    if at >= end or code_at(codes, at) != 34:
        return 0, -1
    at += 1
    begin = at
    while at < end and code_at(codes, at) != 34 and code_at(codes, at) != 92:
        at += 1
    if at >= end or code_at(codes, at) != 34:
        return 0, -1
    at = skip(codes, at + 1, end)
    if at >= end or code_at(codes, at) != 58:
        return 0, -1
    return begin, skip(codes, at + 1, end)


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
        begin, at = read_key(codes, at + 1, end)
        if at < 0:
            return -1, num
        if is_key(codes, begin, COUNTS):
            seen += 1
            at, num, total = read_intervals(codes, at, end, begins, stops, num)
        elif is_key(codes, begin, SIZE):
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
def pass_over(codes: np.ndarray, at: int, end: int) -> int:
    """The place after a value, of which it is known that it is one."""
    depth, is_text = 0, False
    while at < end:
        code = codes[at]
        if is_text:
            at += code == 92
            is_text = code != 34
        elif code == 34:
            is_text = True
        elif code == 91 or code == 123:
            depth += 1
        elif code == 93 or code == 125 or code == 44:
            if depth == 0:
                return at
            depth -= code != 44
        at += 1
    return -1


@compiled
def is_same(codes: np.ndarray, one: int, other: int, length: int) -> bool:
    """Whether two texts are."""
    for index in range(length):  # noqa: SIM110 - numba knows no all() over a generator
        if code_at(codes, one + index) != code_at(codes, other + index):
            return False
    return True


@compiled
def scan_rows(
    codes: np.ndarray,
    begin: int,
    end: int,
    opens: bool,
    closes: bool,
    is_part: bool,
    powers: np.ndarray,
    names: np.ndarray,
    widths: np.ndarray,
    places: np.ndarray,
    integers: np.ndarray,
    values: np.ndarray,
    start: int,
    stop: int,
    sizes: np.ndarray,
    begins: np.ndarray,
    stops: np.ndarray,
    offsets: np.ndarray,
    areas: np.ndarray,
    boxes: np.ndarray,
    slow: np.ndarray,
) -> tuple[int, int, int]:
    """Reads objects that have each of the keys once into the rows from `start` up to `stop`; masks count from 0.

    Returns:
        The number of objects, -1 where something else was met; the number of rows of `slow` (place in `values`, begin
        and end of the text) for numbers left to Python; and the number of intervals.
    """
    num_keys = len(widths)
    row, num_slow, num = start, 0, 0
    texts = np.zeros((16, 3), np.int64)
    at = skip(codes, begin, end)
    if opens:
        if at >= end or code_at(codes, at) != 91:
            return -1, 0, 0
        at = skip(codes, at + 1, end)
        if at < end and code_at(codes, at) == 93:
            return (0 if closes and skip(codes, at + 1, end) == end else -1), 0, 0
    while at < end:
        if code_at(codes, at) != 123 or row >= stop:
            return -1, 0, 0
        seen, slot = 0, 0
        while True:
            text = at + 1  # of a key, mostly the same as in the object before
            before, length, key = texts[slot, 0], texts[slot, 1], texts[slot, 2]
            if length and text + length < end and is_same(codes, before, text, length):
                at = skip(codes, text + length, end)
            else:
                first, at = read_key(codes, text, end)
                if at < 0:
                    return -1, 0, 0
                key = 0
                while key < num_keys and not is_key(codes, first, names[key]):
                    key += 1
                texts[slot, 0], texts[slot, 1], texts[slot, 2] = text, at - text, key
            slot = min(slot + 1, len(texts) - 1)
            if key == num_keys:
                at = pass_over(codes, at, end) if is_part else -1
            elif seen >> key & 1:
                return -1, 0, 0
            elif widths[key] == INTEGER:
                integers[key, row], at = whole(codes, at, end, powers)
            elif widths[key] == MASK:
                before = num
                at, num = read_mask(codes, at, end, powers, sizes[row - start], begins, stops, num)
                if at >= 0:
                    areas[row - start] = extent(begins, stops, before, num, sizes[row - start, 0], boxes[row - start])
                    offsets[row - start] = num
            else:
                place = places[key] + row * max(1, widths[key])
                at, num_slow = read_numbers(codes, at, end, powers, widths[key], values, place, slow, num_slow)
            if at < 0:
                return -1, 0, 0
            if key < num_keys:
                seen |= 1 << key
            at = skip(codes, at, end)
            if at >= end:
                return -1, 0, 0
            if code_at(codes, at) == 125:
                break
            if code_at(codes, at) != 44:
                return -1, 0, 0
        if seen != (1 << num_keys) - 1:
            return -1, 0, 0
        row += 1
        at = skip(codes, at + 1, end)
        if at < end and code_at(codes, at) == 44:
            at = skip(codes, at + 1, end)
            if at >= end:
                return (-1 if closes else row - start), num_slow, num
        elif at < end and code_at(codes, at) == 93 and closes:
            return (row - start if skip(codes, at + 1, end) == end else -1), num_slow, num
        else:
            return -1, 0, 0
    return -1, 0, 0
