"""Panoptic maps in COCO's layout: a JSON of segments and a folder of PNGs, of the truth and of the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.data.formats import is_inside
from pipeline.data.formats.coco import Id
from pipeline.data.formats.json_file import decode, top_level
from pipeline.data.store import decode_ids
from pipeline.errors import PipelineError
from pipeline.metrics import panoptic as metrics
from pipeline.reporting import plots
from pipeline.reporting.scoring.results import unknown
from pipeline.reporting.verdicts import Verdict
from pipeline.structures import Segments


class Segment(msgspec.Struct):
    """An entry of `segments_info`."""

    id: int
    category_id: Id
    iscrowd: Literal[0, 1] = 0


class Annotation(msgspec.Struct):
    """The segments of one image; `file_name` is that of the PNG."""

    image_id: Id
    file_name: str
    segments_info: list[Segment]


class Category(msgspec.Struct):
    """A thing or stuff."""

    id: Id
    name: str
    isthing: Literal[0, 1] = 1


class Maps(Sequence[Segments]):
    """The segments of each image, decoded when they are asked for.

    Args:
        path: the JSON, for messages; its PNGs are in the folder of its name beside it.
        annotations: in the order of the images.
        labels: class index by category id.
    """

    def __init__(self, path: Path, annotations: Sequence[Annotation], labels: dict[Id, int]) -> None:
        self.path, self.annotations, self.labels = path, annotations, labels

    def __len__(self) -> int:
        return len(self.annotations)

    @overload
    def __getitem__(self, index: int) -> Segments: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Segments]: ...
    def __getitem__(self, index: int | slice) -> Segments | Sequence[Segments]:
        """One image's, or some images'."""
        if isinstance(index, slice):
            return Maps(self.path, self.annotations[index], self.labels)
        annotation = self.annotations[index]
        file = self.path.with_suffix("") / annotation.file_name
        try:
            ids = decode_ids(file.read_bytes())
        except OSError as error:
            reason = error.strerror or "no image"
            raise PipelineError(f"{annotation.file_name}: not readable ({reason}); fix: write the PNG") from None
        return Segments(
            ids,
            np.array([segment.id for segment in annotation.segments_info], np.int64),
            np.array([self.labels[segment.category_id] for segment in annotation.segments_info], np.int64),
        )


def panoptic(truth: Path, predictions: Path) -> Verdict:
    """Judges panoptic maps.

    Raises:
        PipelineError: a file is wrong, or an image has no prediction.
    """
    content = top_level(truth, truth.name, ("annotations", "categories"))
    categories = _list(truth, content, "categories", Category)
    categories.sort(key=lambda category: (isinstance(category.id, str), category.id))
    labels = {category.id: index for index, category in enumerate(categories)}
    known = _annotations(truth, _list(truth, content, "annotations", Annotation), labels)
    found = _annotations(
        predictions,
        _list(predictions, top_level(predictions, predictions.name, ("annotations",)), "annotations", Annotation),
        labels,
    )
    for image_id in found:
        if image_id not in known:
            raise PipelineError(f"{predictions.name} image_id: {unknown(image_id, known, 'image')}")
    for image_id in known:
        if image_id not in found:
            raise PipelineError(f"{predictions.name}: no prediction of image {image_id!r}; fix: predict every image")
    names = [category.name for category in categories]
    try:
        result = metrics.evaluate(
            predictions=Maps(predictions, [found[image_id] for image_id in known], labels),
            targets=Maps(truth, list(known.values()), labels),
            classes=names,
            is_thing=[bool(category.isthing) for category in categories],
            crowds=[np.array([bool(s.iscrowd) for s in one.segments_info], bool) for one in known.values()],
        )
    except ValueError as error:
        raise PipelineError(f"{predictions.name}: {error}; fix: correct the map or its segments_info") from None

    def draw_pictures(folder: Path) -> None:
        plots.bars(folder / "per_class.png", [row["pq"] for row in result.per_class], names, label="panoptic quality")

    ids = pa.array([str(image_id) for image_id in known])
    return Verdict(
        metrics=result.metrics,
        per_class=result.per_class,
        protocol=[
            ("matching", "segments of one class whose intersection is more than half of their union"),
            ("void", "pixels without truth count for no prediction; what lies on them by more than half is no mistake"),
            ("crowds", "match nothing; what lies on them and on void by more than half is no mistake"),
            ("mean", "over the classes in truth or prediction"),
        ],
        per_image=result.per_image.add_column(0, "image_id", ids),
        draw=draw_pictures,
    )


def _list(path: Path, content: dict[str, msgspec.Raw], key: str, kind: type[Any]) -> list[Any]:
    found: list[Any] = []
    try:
        raw = msgspec.json.decode(content[key], type=list[msgspec.Raw])
        found.extend(decode(entry, kind) for entry in raw)
    except (ValueError, msgspec.MsgspecError) as error:
        raise PipelineError(f"{path.name} {key}[{len(found)}] {error}; fix: correct it") from None
    return found


def _annotations(path: Path, entries: list[Annotation], labels: dict[Id, int]) -> dict[Id, Annotation]:
    """By image."""
    found: dict[Id, Annotation] = {}
    for index, entry in enumerate(entries):
        place = f"{path.name} annotations[{index}]"
        if entry.image_id in found:
            raise PipelineError(f"{place} image_id: a second one of image {entry.image_id!r}; fix: keep one")
        if not is_inside(entry.file_name):
            raise PipelineError(f"{place} file_name: leaves the folder of maps ({entry.file_name!r}); fix: correct it")
        for segment in entry.segments_info:
            if segment.category_id not in labels:
                raise PipelineError(f"{place} category_id: {unknown(segment.category_id, labels, 'category')}")
        if len({segment.id for segment in entry.segments_info}) < len(entry.segments_info):
            raise PipelineError(f"{place} segments_info: two segments share an id; fix: give each its own")
        found[entry.image_id] = entry
    return found
