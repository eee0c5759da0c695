"""COCO's panoptic layout: a PNG per image whose colours are segments, and a JSON that names the class of each.

Source: https://cocodataset.org/#format-data, section 4; a segment's id is R + 256 G + 65536 B.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.data.formats import SPELLINGS, Places, Source, coco


def layout(root: Path) -> dict[str, Places]:
    """Where COCO keeps the splits; empty where nothing is found.

    Raises:
        ParamsError: as `coco.only_one`.
    """
    found = {split: coco.only_one(root, split, coco.candidates_of(root, split, "panoptic")) for split in SPELLINGS}
    return {split: places for split, places in found.items() if places is not None}


def read(
    root: Path,
    *,
    split: str,
    images: str | Path,
    annotations: str | Path,
    maps: str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> Source:
    """The images of one split with their segments, and the class map that these show; a crowd is void in both.

    Args:
        root: the dataset's folder; the other places are relative to it.
        split: train, val or test.
        images: the folder of images.
        annotations: the JSON.
        maps: the folder of PNGs; None: that of the JSON's name, beside it, as COCO has it.
        classes: names of the things in the order of their indices; None: all by id.

    Raises:
        PipelineError: the JSON as a whole is wrong.
    """
    maps = Path(annotations).with_suffix("") if maps is None else maps
    source = coco.read(root, split=split, images=images, panoptic=annotations, maps=maps, classes=classes)
    source.info.tasks.append("semantic")
    return source
