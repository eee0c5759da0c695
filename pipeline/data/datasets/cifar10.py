"""CIFAR-10: 60,000 photographs of 32x32 pixels in ten classes.

The official 10,000 test images are `test`; the 50,000 training images are `train` and `val`, a share of each class.
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
from pipeline.errors import PipelineError
from pipeline.structures import DatasetInfo

Share = Annotated[float, Field(gt=0, lt=1)]

ASSETS = {
    "archive": Asset(
        name="cifar10/cifar-10-binary.tar.gz",
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        # as TensorFlow Datasets publishes it (url_checksums/cifar10.txt); the page itself gives an md5, c32a1d4a...
        checksum="sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        size=170052171,
    )
}
LICENCE = "none stated"
ATTRIBUTION = "A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images. 2009"
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
INNER = "cifar-10-batches-bin"
SIDE = 32


def prepare(folder: Path, *, seed: int, on_error: OnError = "fail", val: Share = 0.1) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split into train and val.
        on_error: what a faulty image does.
        val: share of the official training images that are the val split.
    """
    files = original(ASSETS["archive"])
    batches = [read_part(files, f"{INNER}/data_batch_{number}.bin", "train", num_labels=1) for number in range(1, 6)]
    train = binary.Part(
        "train",
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
    )
    test = read_part(files, f"{INNER}/test_batch.bin", "test", num_labels=1)
    info = info_of(folder.name, class_names(files, f"{INNER}/batches.meta.txt", 10), ASSETS["archive"])
    binary.write(folder, info, train=train, test=test, val=val, seed=seed, on_error=on_error)


def read_part(files: Original, member: str, split: str, *, num_labels: int, label: int = 0) -> binary.Part:
    """A file of CIFAR's: rows of labels, then the red, the green and the blue plane.

    Args:
        files: the unpacked archive.
        member: the file's name in it.
        split: what its images are called.
        num_labels: labels at the start of a row.
        label: which of them is the class.
    """
    rows = binary.read_rows(files.path(member), num_labels + 3 * SIDE**2)
    planes = rows[:, num_labels:].reshape(-1, 3, SIDE, SIDE)
    return binary.Part(split, planes.transpose(0, 2, 3, 1), np.asarray(rows[:, label]))


def class_names(files: Original, member: str, num_classes: int) -> list[str]:
    """The class names that the archive lists, one on a line.

    Raises:
        PipelineError: there are not so many.
    """
    names = [line for _, line in files.lines(member)]
    if len(names) != num_classes:
        raise PipelineError(f"{files.name}/{member}: {len(names)} class names, not {num_classes}; fix: supply it anew")
    return names


def info_of(name: str, classes: list[str], asset: Asset) -> DatasetInfo:
    """What CIFAR-10 and CIFAR-100 have in common."""
    return DatasetInfo(
        name=name,
        tasks=["classification"],
        classes=classes,
        channels=3,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
        checksum=checksums([asset]),
    )
