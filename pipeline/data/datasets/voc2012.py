"""PASCAL VOC 2012: 11,540 photographs with boxes of 20 classes, 2,913 images with class and object maps.

The truth of the official test images is not public: the official val images are `test` here, and `val` is a share of
the official train images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.data import pascal
from pipeline.data.download import Asset
from pipeline.data.ingest import OnError
from pipeline.data.pascal import Part, Release, Truth

Share = Annotated[float, Field(gt=0, lt=1)]

FILE = "VOCtrainval_11-May-2012.tar"
ASSETS = {
    "trainval": Asset(
        name=f"voc2012/{FILE}",
        urls=(
            f"https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/{FILE}",
            f"http://host.robots.ox.ac.uk/pascal/VOC/voc2012/{FILE}",
            f"https://data.pjreddie.com/files/{FILE}",
        ),
        checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
        size=1999639040,
    )
}
ATTRIBUTION = (
    "M. Everingham, L. Van Gool, C. K. I. Williams, J. Winn and A. Zisserman: "
    "The PASCAL Visual Object Classes Challenge 2012 (VOC2012) Results"
)
SOURCE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"


def prepare(folder: Path, *, seed: int, on_error: OnError = "fail", truth: Truth = "boxes", val: Share = 0.1) -> None:
    """Writes the store.

    A `difficult` object is stored as `iscrowd`: found or not, it does not count, which is VOC's own rule, save that
    the overlap with a crowd is COCO's, a share of the detection alone. Boxes come from pixels counted from 1.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split.
        on_error: what a faulty image or annotation does.
        truth: `boxes` of all images, or `segmentation`: the images with class and object maps.
        val: share of the official train images that are the val split.
    """
    parts = (
        Part(ASSETS["trainval"], "train", {"train": 1 - val, "val": val}),
        Part(ASSETS["trainval"], "val", {"test": 1.0}),
    )
    pascal.write(folder, Release(2012, parts, ATTRIBUTION, SOURCE), seed=seed, on_error=on_error, truth=truth)
