"""Penn-Fudan: 170 photographs of streets and campuses with the masks of 345 pedestrians.

It has no official split; the photographs are dealt out at random, those of both universities in equal shares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.data import instance_maps, splits
from pipeline.data.colours import label_colours
from pipeline.data.download import Asset
from pipeline.data.ingest import OnError, ingest
from pipeline.data.originals import Original, checksums, original, read_map
from pipeline.data.pool import ordered_map
from pipeline.data.records import Record
from pipeline.errors import ParamsError
from pipeline.structures import DatasetInfo

Share = Annotated[float, Field(gt=0, lt=1)]
Item = tuple[Path, Path, str]

ASSETS = {
    "images": Asset(
        name="penn_fudan/PennFudanPed.zip",
        urls=("https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip",),
        size=53723336,  # no checksum is published
    )
}
LICENCE = "none stated; published for research"
ATTRIBUTION = "L. Wang, J. Shi, G. Song, I.-F. Shen: Object Detection Combining Recognition and Segmentation. ACCV 2007"
SOURCE = "https://www.cis.upenn.edu/~jshi/ped_html/"


def prepare(folder: Path, *, seed: int, on_error: OnError = "fail", train: Share = 0.7, val: Share = 0.15) -> None:
    """Writes the store: boxes, instance masks and a semantic map of pedestrians.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split.
        on_error: what a faulty image or annotation does.
        train: share of the train split.
        val: share of the val split; the rest is test.
    """
    if train + val >= 1:
        raise ParamsError(
            f"params.yaml datasets.{folder.name}.options: train and val leave no image for test ({train} + {val}); "
            "fix: shares that add up to less than 1"
        )
    items = _items(original(ASSETS["images"]), seed, {"train": train, "val": val, "test": 1 - train - val})
    info = DatasetInfo(
        name=folder.name,
        tasks=["detection", "instance", "semantic"],
        classes=["pedestrian"],
        semantic_classes=["background", "pedestrian"],
        thing_of_semantic=[-1, 0],
        colours=label_colours(2),
        channels=3,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
        checksum=checksums(ASSETS.values()),
    )
    values = {0: 0} | dict.fromkeys(range(1, 255), 1)  # pedestrians are numbered
    ingest(
        folder,
        info,
        ordered_map(_record, items, name=lambda item: item[0].name),
        on_error=on_error,
        semantic_values=values,
        num_records=len(items),
    )


def _items(files: Original, seed: int, shares: dict[str, float]) -> list[Item]:
    """Image, map and split of each photograph."""
    images = files.members("PennFudanPed/PNGImages", "*.png")
    maps = [files.path(f"PennFudanPed/PedMasks/{image.stem}_mask.png") for image in images]
    names = [image.stem for image in images]
    universities = ["Fudan" if name.startswith("Fudan") else "Penn" for name in names]
    dealt = splits.assign(names, shares=shares, seed=seed, labels=universities)
    return list(zip(images, maps, dealt, strict=True))


def _record(item: Item) -> Record:
    image, instances, split = item
    ids = read_map(instances)
    return Record(
        split=split,
        image_id=image.stem,
        file_name=f"PNGImages/{image.name}",
        image=image,
        size=ids.shape,  # type: ignore[arg-type]  # two-dimensional
        objects=instance_maps.objects_of(ids, {int(number): 0 for number in range(1, ids.max() + 1)}),
        semantic=instances,
        annotation=f"PedMasks/{instances.name}",
    )
