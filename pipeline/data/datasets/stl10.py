"""STL-10: 13,000 labelled photographs of 96x96 pixels in ten classes.

The official 8,000 test images are `test`; the 5,000 training images are `train` and `val`, a share of each class. The
100,000 images without labels, of other classes too, are left out: no row of a classification set is without a class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.data import binary
from pipeline.data.download import Asset
from pipeline.data.ingest import OnError
from pipeline.data.originals import Original, checksums, original
from pipeline.structures import DatasetInfo

Share = Annotated[float, Field(gt=0, lt=1)]

ASSETS = {
    "archive": Asset(
        name="stl10/stl10_binary.tar.gz",
        urls=(
            "https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        ),
        # as TensorFlow Datasets publishes it (url_checksums/stl10.txt)
        checksum="sha256:f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
        size=2640397119,
    )
}
LICENCE = "none stated; the images are from ImageNet, whose terms allow research and teaching that is not commercial"
ATTRIBUTION = "A. Coates, H. Lee, A. Y. Ng: An Analysis of Single Layer Networks in Unsupervised Feature Learning. 2011"
SOURCE = "https://cs.stanford.edu/~acoates/stl10/"
INNER = "stl10_binary"
SIDE = 96


def prepare(folder: Path, *, seed: int, on_error: OnError = "fail", val: Share = 0.2) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split into train and val.
        on_error: what a faulty image does.
        val: share of the official training images that are the val split.
    """
    files = original(ASSETS["archive"])
    info = DatasetInfo(
        name=folder.name,
        tasks=["classification"],
        classes=[line for _, line in files.lines(f"{INNER}/class_names.txt")],
        channels=3,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
        checksum=checksums(ASSETS.values()),
    )
    train, test = (_part(files, split) for split in ("train", "test"))
    binary.write(folder, info, train=train, test=test, val=val, seed=seed, on_error=on_error)


def _part(files: Original, split: str) -> binary.Part:
    """Rows of the red, the green and the blue plane, each column by column; the labels count from 1."""
    planes = binary.read_rows(files.path(f"{INNER}/{split}_X.bin"), 3 * SIDE**2).reshape(-1, 3, SIDE, SIDE)
    labels = binary.read_rows(files.path(f"{INNER}/{split}_y.bin"), 1)[:, 0]
    return binary.Part(split, planes.transpose(0, 3, 2, 1), labels.astype(np.int64) - 1)
