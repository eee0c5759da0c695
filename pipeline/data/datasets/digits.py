"""1,797 handwritten digits of 8x8 pixels, from scikit-learn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.data import store
from pipeline.errors import ParamsError
from pipeline.structures import DatasetInfo, Sample

Share = Annotated[float, Field(gt=0, lt=1)]
Unused = Annotated[float, Field(ge=0, lt=1)]
UNUSED = "unused"
LICENCE = "CC BY 4.0"
ATTRIBUTION = "E. Alpaydin and C. Kaynak: Optical Recognition of Handwritten Digits. UCI, 1998"
SOURCE = "https://archive.ics.uci.edu/dataset/80 (its test part, as in scikit-learn's load_digits)"


def prepare(folder: Path, *, seed: int, train: Share = 0.7, val: Share = 0.15, unused: Unused = 0.0) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split, which is stratified by class.
        train: share of the train split.
        val: share of the val split; the rest is test.
        unused: share that is left out, between val and test: 0.05, 0.15 and 0.65 give few images to learn from and
            the same test split as 0.7, 0.15 and none.
    """
    from sklearn.datasets import load_digits

    if train + val + unused >= 1:
        given = " + ".join(f"{share}" for share in (train, val, unused) if share)
        raise ParamsError(
            f"params.yaml datasets.{folder.name}.options: train and val leave no image for test ({given}); "
            "fix: shares that add up to less than 1"
        )

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    info = DatasetInfo(
        name=folder.name,
        tasks=["classification"],
        classes=[str(name) for name in digits.target_names],
        channels=1,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
        checksum=f"sha256:{hashlib.sha256(images.tobytes()).hexdigest()}",
    )
    shares = {"train": train, "val": val, UNUSED: unused, "test": 1 - train - val - unused}
    names = split_names(digits.target, shares, seed)
    with store.writing(folder, info) as writer:
        for index, (image, label) in enumerate(zip(images, digits.target, strict=True)):
            if names[index] == UNUSED:
                continue
            name = f"{index:04d}"
            sample = Sample(image_id=name, file_name=f"{name}.png", image=image, label=int(label))
            writer.add(names[index], store.to_row(sample))


def split_names(labels: np.ndarray, shares: dict[str, float], seed: int) -> list[str]:
    """The split of each image, with the same shares in every class.

    Args:
        labels: [N] class indices.
        shares: of each split, adding up to 1; the last one takes what rounding leaves.
        seed: of the order in which a class is dealt out.
    """
    result = np.empty(len(labels), object)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = np.random.default_rng([seed, int(label)]).permutation(members)
        ends = np.round(np.cumsum(list(shares.values())) * len(members)).astype(int)
        ends[-1] = len(members)
        start = 0
        for name, end in zip(shares, ends, strict=True):
            result[members[start:end]] = name
            start = end
    return result.tolist()
