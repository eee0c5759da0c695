"""COCO 2017: 123,287 photographs with boxes and masks of 80 classes, keypoints of persons, captions and panoptic maps.

The test images have no public truth and are left out: the official val images are `test` here, and `val` is a share
of the official train images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.data import splits
from pipeline.data.colours import label_colours
from pipeline.data.download import Asset
from pipeline.data.formats import Fault, Source, coco, json_file
from pipeline.data.ingest import OnError, ingest
from pipeline.data.originals import checksums, original, unpacked
from pipeline.data.records import Record
from pipeline.errors import ParamsError, PipelineError

Share = Annotated[float, Field(gt=0, lt=1)]
Truth = Literal["instances", "keypoints", "captions", "panoptic"]


def _asset(place: str, size: int, sha256: str) -> Asset:
    return Asset(
        name=f"coco2017/{place.rpartition('/')[2]}",
        urls=(f"http://images.cocodataset.org/{place}", f"https://s3.amazonaws.com/images.cocodataset.org/{place}"),
        checksum=f"sha256:{sha256}",
        size=size,
    )


# COCO publishes no checksums; these are those that TensorFlow Datasets recorded of the official files
ASSETS = {
    "train": _asset(
        "zips/train2017.zip", 19336861798, "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"
    ),
    "val": _asset("zips/val2017.zip", 815585330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
    "annotations": _asset(
        "annotations/annotations_trainval2017.zip",
        252907541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    ),
    "panoptic": _asset(
        "annotations/panoptic_annotations_trainval2017.zip",
        860725834,
        "c05f76d2129b6b561eb70efe16e7006df62f73fb92889132d373b9d90e31a370",
    ),
}
LICENCE = "annotations: CC BY 4.0; images: each under its own licence, see Flickr's terms of use"
ATTRIBUTION = (
    "T.-Y. Lin, M. Maire, S. Belongie, L. Bourdev, R. Girshick, J. Hays, P. Perona, D. Ramanan, C. L. Zitnick and "
    "P. Dollár: Microsoft COCO: Common Objects in Context. ECCV 2014. Annotations: COCO Consortium"
)
SOURCE = "https://cocodataset.org"


def prepare(
    folder: Path,
    *,
    seed: int,
    on_error: OnError = "fail",
    truth: Annotated[tuple[Truth, ...], Field(min_length=1)] = ("instances",),
    val: Share = 0.05,
) -> None:
    """Writes the store.

    Every image of a split is in it, those without any object too. Classes stand in the order of COCO's category ids.
    With `keypoints`, objects of other classes than person have 17 points of visibility 0. A panoptic segment that is a
    crowd becomes void, which is not scored either (COCO's own rule excuses predictions of the crowd's class alone).

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split.
        on_error: what a faulty image or annotation does.
        truth: the kinds of truth to read; `panoptic` is a download of its own.
        val: share of the official train images that are the val split.
    """
    if len(set(truth)) < len(truth):
        raise ParamsError(
            f"params.yaml datasets.{folder.name}.options.truth: a kind stands twice ({', '.join(truth)}); "
            "fix: name each once"
        )
    training, test = (_source(split, official, truth) for split, official in (("train", "train"), ("test", "val")))
    if training.info != test.info:
        raise PipelineError(
            f"{ASSETS['annotations'].name}: the categories of train2017 and val2017 differ; fix: supply it anew"
        )
    info = training.info
    info.colours = label_colours(len(info.semantic_classes) + 1)[1:]
    info.name, info.licence, info.attribution, info.source = folder.name, LICENCE, ATTRIBUTION, SOURCE
    info.checksum = checksums(ASSETS[name] for name in ASSETS if name in ("train", "val", *_archives(truth)))
    ids = _image_ids(next(iter(_files("train", truth).values())))
    dealt = splits.assign(ids, shares={"train": 1 - val, "val": val}, seed=seed)
    records = _records(training, test, dict(zip(ids, dealt, strict=True)))
    ingest(
        folder,
        info,
        records,
        on_error=on_error,
        semantic_values=training.semantic_values,
        num_records=training.num_records + test.num_records,
    )


def _archives(truth: Collection[Truth]) -> set[str]:
    """The archives of annotations that hold these kinds of truth."""
    return {"panoptic" if kind == "panoptic" else "annotations" for kind in truth}


def _files(official: str, truth: Collection[Truth]) -> dict[Truth, Path]:
    """The JSON file of each kind of truth of an official split."""
    files: dict[Truth, Path] = {}
    for kind in truth:
        archive = original(ASSETS["panoptic" if kind == "panoptic" else "annotations"])
        name = "person_keypoints" if kind == "keypoints" else kind
        files[kind] = archive.path(f"annotations/{name}_{official}2017.json")
    return files


def _source(split: str, official: str, truth: Collection[Truth]) -> Source:
    """The images of an official split and what its files say of them."""
    files = _files(official, truth)
    maps = None
    if "panoptic" in files:  # the maps are an archive in the archive
        maps = unpacked(files["panoptic"].with_suffix(".zip")).path(files["panoptic"].stem)
    return coco.read(
        next(iter(files.values())).parent,
        split=split,
        images=original(ASSETS[official]).path(f"{official}2017"),
        annotations=files.get("instances"),
        keypoints=files.get("keypoints"),
        captions=files.get("captions"),
        panoptic=files.get("panoptic"),
        maps=maps,
    )


def _image_ids(path: Path) -> list[str]:
    """The ids that a file of annotations lists, each once; a faulty entry is told by the reader."""
    ids: dict[str, None] = {}
    for raw in coco.File(path.parent, path.name, has_categories=False).images:
        with contextlib.suppress(ValueError):
            ids[str(json_file.decode(raw, coco.Image).id)] = None
    return list(ids)


def _records(training: Source, test: Source, dealt: Mapping[str, str]) -> Iterator[Record | Fault]:
    for item in training.records:
        if isinstance(item, Record):
            item.split = dealt[item.image_id]
        yield item
    yield from test.records
