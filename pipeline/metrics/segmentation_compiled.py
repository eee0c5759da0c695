"""Counting of pairs of pixels in machine code; chosen by `segmentation.py` for large sets, with the same results."""

import numpy as np

from pipeline.ops.compiled import compiled

SPREAD = 0x0101010101010101
"""A byte times this stands in all eight bytes of a word."""


def pairs(first: np.ndarray, second: np.ndarray, num_classes: int) -> np.ndarray:
    """[K + 1, K + 1] int64, how often each pair of values stands at one place; all from K on are one value.

    Args:
        first, second: [N] uint8, contiguous, N at least 1.
        num_classes: K.
    """
    first_words, second_words = (values[: len(first) // 8 * 8].view(np.uint64) for values in (first, second))
    return _pairs(first, second, first_words, second_words, num_classes)


@compiled
def _pairs(
    first: np.ndarray, second: np.ndarray, first_words: np.ndarray, second_words: np.ndarray, num_classes: int
) -> np.ndarray:
    counted = np.zeros(2**16, np.int32)
    last = (np.int64(first[0]) << 8) | second[0]
    length = 0
    spread = np.uint64(SPREAD)
    for word in range(len(first_words)):
        if first_words[word] == spread * np.uint64(last >> 8) and second_words[word] == spread * np.uint64(last & 255):
            length += 8  # eight pixels more of the same run
            continue
        for index in range(8 * word, 8 * word + 8):
            cell = (np.int64(first[index]) << 8) | second[index]
            if cell != last:
                counted[last] += length
                last, length = cell, 0
            length += 1
    for index in range(8 * len(first_words), len(first)):  # the rest, pixel by pixel
        cell = (np.int64(first[index]) << 8) | second[index]
        if cell != last:
            counted[last] += length
            last, length = cell, 0
        length += 1
    counted[last] += length
    found = np.empty((num_classes + 1, num_classes + 1), np.int64)
    found[num_classes] = 0
    for row in range(num_classes):
        start, rest = 256 * row, 0
        for column in range(num_classes):
            found[row, column] = counted[start + column]
        for column in range(num_classes, 256):
            rest += counted[start + column]
        found[row, num_classes] = rest
    for row in range(num_classes, 256):
        for column in range(256):
            if counted[256 * row + column]:
                found[num_classes, min(column, num_classes)] += counted[256 * row + column]
    return found
