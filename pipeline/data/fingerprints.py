"""A small grey picture of every image, by which duplicates and near-duplicates are found."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from pipeline.data import images
from pipeline.data.pool import ordered_map
from pipeline.data.store import Store, map_encoded

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = "fingerprints.npy"
SIDE = 16
BANDS = 8  # of 8 bits each: two hashes that differ in fewer bits than there are bands agree in one of them
MAX_DISTANCE = 6  # bits of 64
MIN_CORRELATION = 0.98
ROWS_AT_ONCE = 512  # of a bucket that are held against the rest of it


def of(image: Image) -> np.ndarray:
    """[SIDE * SIDE] uint8: the image in grey, stretched to a small square; each pixel the mean of its part."""
    from PIL.Image import Resampling

    return np.asarray(image.convert("L").resize((SIDE, SIDE), Resampling.BOX)).ravel()


def _of_encoded(data: bytes, *, channels: int) -> np.ndarray:
    return of(images.checked(images.opened(data), channels, whole=False))


def save(folder: Path, by_split: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Writes the fingerprints of a store: [N, SIDE * SIDE] of all its images, splits in alphabetical order."""
    np.save(folder / FILE, np.concatenate([part for name in sorted(by_split) for part in by_split[name]]))


def load(store: Store) -> np.ndarray:
    """[N, SIDE * SIDE] fingerprints of all images, splits in alphabetical order; made where the store has none."""
    if (store.folder / FILE).is_file():
        return np.load(store.folder / FILE)
    function = functools.partial(_of_encoded, channels=store.info.channels)
    found = [one for split in sorted(store.info.counts) for one in map_encoded(store.folder, split, "image", function)]
    return np.array(found, np.uint8).reshape(-1, SIDE * SIDE)


def equal_groups(store: Store, prints: np.ndarray) -> list[list[int]]:
    """Groups of images whose pixels are the same, each in rising order, by their first.

    Only images of one size are decoded to compare them, and of these only such as share their fingerprint or, where
    they are large, the length of their bytes: ingest takes the fingerprint of a large JPEG at one of two scales.

    Args:
        store: of the N images.
        prints: [N, D] their fingerprints.
    """
    tables = [store.split(name).table for name in sorted(store.info.counts)]
    sizes = np.concatenate([np.stack([table.column(side) for side in ("height", "width")], 1) for table in tables])
    lengths = np.concatenate([pc.binary_length(table.column("image")) for table in tables])
    by_key: dict[bytes, list[int]] = {}
    for place, key in enumerate(np.concatenate([prints, sizes.astype(np.int32).view(np.uint8).reshape(-1, 8)], 1)):
        by_key.setdefault(key.tobytes(), []).append(place)
    for place in np.flatnonzero(sizes.astype(np.int64).prod(1) > images.LARGE).tolist():
        by_key.setdefault(repr((*sizes[place].tolist(), lengths[place])).encode(), []).append(place)
    candidates = sorted({place for places in by_key.values() if len(places) > 1 for place in places})
    digest = functools.partial(_digest, channels=store.info.channels)
    groups: dict[bytes, list[int]] = {}
    for place, found in zip(candidates, ordered_map(digest, _encoded(store, candidates)), strict=True):
        groups.setdefault(found, []).append(place)
    return sorted(group for group in groups.values() if len(group) > 1)


def _encoded(store: Store, places: list[int]) -> Iterator[bytes]:
    starts, start = {}, 0
    for name in sorted(store.info.counts):
        starts[name] = start
        start += store.info.counts[name]
    for name, start in starts.items():
        column = store.split(name).table.column("image")
        for place in places:
            if start <= place < start + store.info.counts[name]:
                yield column[place - start].as_py()


def _digest(data: bytes, *, channels: int) -> bytes:
    pixels = images.decode(data, channels)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def hashes(prints: np.ndarray) -> np.ndarray:
    """[N] uint64 perceptual hashes: which of the 8 x 8 lowest cosine frequencies are above their median.

    C. Zauner: Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2.1, here of
    SIDE x SIDE pixels and with the constant term left as it is.

    Args:
        prints: [N, SIDE * SIDE] fingerprints.
    """
    steps = np.arange(SIDE)
    cosines = np.cos(np.pi / SIDE * (steps + 0.5) * np.arange(8)[:, None])
    squares = prints.reshape(-1, SIDE, SIDE).astype(np.float64)
    frequencies = (cosines @ squares @ cosines.T).reshape(-1, 64)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def near_pairs(prints: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Pairs of images that look the same, though their pixels may differ.

    Hashes at most MAX_DISTANCE bits apart are found by bucket, then their fingerprints are held against each other:
    a correlation of MIN_CORRELATION or more makes a pair, whatever their brightness and contrast. Of an image's pairs
    with earlier images the first in its own split and the first in another are kept, so that a film of a thousand
    frames that look alike makes a thousand pairs and not half a million.

    Args:
        prints: [N, SIDE * SIDE] fingerprints.
        splits: [N] number of the split of each.

    Returns:
        [P, 2] positions, the first below the second, in rising order.
    """
    centred = prints.astype(np.float32) - prints.mean(1, dtype=np.float32, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    directions = centred / np.maximum(norms, 1e-3)
    none = len(prints)
    earliest = np.full((2, none), none)  # in the same split, in another
    for rows, columns in _near_hashes(hashes(prints)):
        for start in range(0, len(rows), 2**16):
            first, second = rows[start : start + 2**16], columns[start : start + 2**16]
            alike = np.einsum("ij,ij->i", directions[first], directions[second]) >= MIN_CORRELATION
            for across in (0, 1):
                chosen = alike & ((splits[first] != splits[second]) == across)
                np.minimum.at(earliest[across], second[chosen], first[chosen])
    seconds = np.broadcast_to(np.arange(none), (2, none))
    pairs = np.stack([earliest, seconds], axis=-1)[earliest < none]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _near_hashes(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of positions, the first below the second, whose 64-bit hashes differ in MAX_DISTANCE bits at most."""
    for band in range(BANDS):
        keys = (values >> np.uint64(8 * band)) & np.uint64(255)
        order = np.argsort(keys, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for start in range(0, len(bucket), ROWS_AT_ONCE):
                rows = bucket[start : start + ROWS_AT_ONCE]
                columns = bucket[start:]  # those before have met these rows already
                differences = values[rows][:, None] ^ values[columns][None, :]
                first, second = np.nonzero(np.bitwise_count(differences) <= MAX_DISTANCE)
                apart = differences[first, second]
                # once for each pair, in the lowest of the bands in which its hashes agree
                is_new = rows[first] < columns[second]
                for earlier in range(band):
                    is_new &= ((apart >> np.uint64(8 * earlier)) & np.uint64(255)) != 0
                yield rows[first][is_new], columns[second][is_new]
