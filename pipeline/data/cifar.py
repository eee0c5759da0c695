"""What CIFAR-10 and CIFAR-100 share: terms, rows and lists of names.

Their Python archives are pickles, which run code when they are read; the binary ones hold the same pixels.
"""

from __future__ import annotations

import numpy as np

from pipeline.data.binary import Part, read_rows
from pipeline.data.download import Asset
from pipeline.data.originals import Original, checksums
from pipeline.errors import PipelineError
from pipeline.structures import DatasetInfo

LICENCE = "none stated"
ATTRIBUTION = "A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images. 2009"
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
SIDE = 32


def read_part(files: Original, member: str, split: str, *, num_labels: int, label: int = 0) -> Part:
    """A file of CIFAR's: rows of labels, then the red, the green and the blue plane.

    Args:
        files: the unpacked archive.
        member: the file's name in it.
        split: what its images are called.
        num_labels: labels at the start of a row.
        label: which of them is the class.
    """
    rows = read_rows(files.path(member), num_labels + 3 * SIDE**2)
    planes = rows[:, num_labels:].reshape(-1, 3, SIDE, SIDE)
    return Part(split, planes.transpose(0, 2, 3, 1), np.asarray(rows[:, label]))


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
