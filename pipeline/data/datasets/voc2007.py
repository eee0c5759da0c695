"""PASCAL VOC 2007: 9,963 photographs with boxes of 20 classes, 632 of them with class and object maps.

The official train, val and test images are the splits; their truth is public.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.data import pascal
from pipeline.data.download import Asset
from pipeline.data.ingest import OnError
from pipeline.data.pascal import Part, Release, Truth


def _asset(file: str, size: int, md5: str) -> Asset:
    return Asset(
        name=f"voc2007/{file}",
        urls=(
            f"https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/{file}",
            f"http://host.robots.ox.ac.uk/pascal/VOC/voc2007/{file}",
            f"https://data.pjreddie.com/files/{file}",
        ),
        checksum=f"md5:{md5}",
        size=size,
    )


ASSETS = {
    "trainval": _asset("VOCtrainval_06-Nov-2007.tar", 460032000, "c52e279531787c972589f7e41ab4ae64"),
    "test": _asset("VOCtest_06-Nov-2007.tar", 451020800, "b6e924de25625d8de591ea690078ad9f"),
}
ATTRIBUTION = (
    "M. Everingham, L. Van Gool, C. K. I. Williams, J. Winn and A. Zisserman: "
    "The PASCAL Visual Object Classes Challenge 2007 (VOC2007) Results"
)
SOURCE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/"


def prepare(folder: Path, *, seed: int, on_error: OnError = "fail", truth: Truth = "boxes") -> None:
    """Writes the store.

    A `difficult` object is stored as `iscrowd`: found or not, it does not count, which is VOC's own rule, save that
    the overlap with a crowd is COCO's, a share of the detection alone. Boxes come from pixels counted from 1.

    Args:
        folder: where to; its name is the dataset's.
        seed: unused; the splits are official.
        on_error: what a faulty image or annotation does.
        truth: `boxes` of all images, or `segmentation`: the images with class and object maps.
    """
    parts = (
        Part(ASSETS["trainval"], "train", {"train": 1.0}),
        Part(ASSETS["trainval"], "val", {"val": 1.0}),
        Part(ASSETS["test"], "test", {"test": 1.0}),
    )
    pascal.write(folder, Release(2007, parts, ATTRIBUTION, SOURCE), seed=seed, on_error=on_error, truth=truth)
