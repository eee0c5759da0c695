"""Counting of pairs of pixels in machine code; chosen by `segmentation.py` for large sets, with the same results."""

import numpy as np

from pipeline.ops.compiled import compiled


@compiled
def pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[65536] int32, how often 256 a + b stands in two arrays [N] uint8, N at least 1; a run of equals is one step."""
    counted = np.zeros(2**16, np.int32)
    last = (np.int64(first[0]) << 8) | second[0]
    length = 0
    for index in range(len(first)):
        cell = (np.int64(first[index]) << 8) | second[index]
        if cell == last:
            length += 1
        else:
            counted[last] += length
            last, length = cell, 1
    counted[last] += length
    return counted
