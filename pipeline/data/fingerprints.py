"""A small grey picture of every image, by which duplicates and near-duplicates are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = "fingerprints.npy"
SIDE = 16


def of(image: Image) -> np.ndarray:
    """[SIDE * SIDE] uint8: the image in grey, stretched to a small square; each pixel the mean of its part."""
    from PIL.Image import Resampling

    return np.asarray(image.convert("L").resize((SIDE, SIDE), Resampling.BOX)).ravel()


def save(folder: Path, by_split: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Writes the fingerprints of a store: [N, SIDE * SIDE] of all its images, splits in alphabetical order."""
    np.save(folder / FILE, np.concatenate([one for name in sorted(by_split) for one in by_split[name]]))
