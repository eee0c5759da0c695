"""ADE20K scene parsing (SceneParse150): 22,210 scenes whose pixels are told apart into 150 classes.

The test images of the challenge have no public truth: the official validation images are `test` here, and `val` is
a share of the official training images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.data import splits
from pipeline.data.colours import label_colours
from pipeline.data.download import Asset
from pipeline.data.ingest import OnError, ingest
from pipeline.data.originals import Original, checksums, original
from pipeline.data.records import Record
from pipeline.structures import DatasetInfo

Share = Annotated[float, Field(gt=0, lt=1)]

ROOT = "ADEChallengeData2016"
ASSETS = {
    "all": Asset(
        name="ade20k/ADEChallengeData2016.zip",
        urls=("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
        checksum="sha256:7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
        size=967382037,
    )
}
LICENCE = "images: non-commercial research and education only; annotations: BSD 3-Clause"
ATTRIBUTION = (
    "B. Zhou, H. Zhao, X. Puig, S. Fidler, A. Barriuso and A. Torralba: Scene Parsing through ADE20K Dataset. "
    "CVPR 2017. Annotations: copyright 2019 MIT, CSAIL"
)
SOURCE = "http://sceneparsing.csail.mit.edu"

# The first of each class's synonyms in objectInfo150.txt, in the order of the values 1..150
CLASSES = (  # noqa: SIM905  # a list would take a line for each
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, "
    "table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, "
    "armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, "
    "chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, "
    "case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, "
    "book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, "
    "hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television, airplane, "
    "dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, "
    "fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, "
    "minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, "
    "screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, "
    "monitor, bulletin board, shower, radiator, glass, clock, flag"
).split(", ")


def prepare(folder: Path, *, seed: int, on_error: OnError = "fail", val: Share = 0.05) -> None:
    """Writes the store: a semantic map of each image; value 0 of the originals, "other objects", is not scored.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split.
        on_error: what a faulty image or map does.
        val: share of the official training images that are the val split.
    """
    files = original(ASSETS["all"])
    training = files.members(f"{ROOT}/images/training", "*.jpg")
    validation = files.members(f"{ROOT}/images/validation", "*.jpg")
    names = [image.stem for image in training]
    dealt = splits.assign(names, shares={"train": 1 - val, "val": val}, seed=seed)
    info = DatasetInfo(
        name=folder.name,
        tasks=["semantic"],
        classes=[],
        semantic_classes=list(CLASSES),
        thing_of_semantic=[-1] * len(CLASSES),
        colours=label_colours(len(CLASSES) + 1)[1:],
        channels=3,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=SOURCE,
        checksum=checksums(ASSETS.values()),
    )
    items = [*zip(training, dealt, strict=True), *((image, "test") for image in validation)]
    ingest(
        folder,
        info,
        _records(files, items),
        on_error=on_error,
        semantic_values={value: value - 1 for value in range(1, 151)},
        num_records=len(items),
    )


def _records(files: Original, items: list[tuple[Path, str]]) -> Iterator[Record]:
    for image, split in items:
        member = f"{image.parent.name}/{image.stem}"
        yield Record(
            split=split,
            image_id=image.stem,
            file_name=f"images/{member}.jpg",
            image=image,
            semantic=files.root / f"{ROOT}/annotations/{member}.png",
            annotation=f"annotations/{member}.png",
        )
