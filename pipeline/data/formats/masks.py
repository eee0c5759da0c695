"""Images beside label maps: one PNG per image whose values are classes, and perhaps one whose values are instances."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.formats import SPELLINGS, WHOLE, Fault, Places, Repeatable, Source, image_files, plain_info, shown
from pipeline.data.formats.exporting import FileNames, check_maps, hidden, kinds_of, left_out, put
from pipeline.data.images import ImageError, decode_values
from pipeline.data.instance_maps import majority, objects_of
from pipeline.data.records import RawObject, Record
from pipeline.data.store import Store
from pipeline.errors import PipelineError, did_you_mean
from pipeline.ops import masks as mask_ops
from pipeline.structures import IGNORE


def layout(root: Path) -> dict[str, Places]:
    """`images`, `masks` and `instances`, each with a folder for each split or without; empty where nothing is found."""

    def beside(tail: str) -> Places:
        return {role: f"{role}{tail}" for role in ("images", "masks", "instances") if (root / f"{role}{tail}").is_dir()}

    divided: dict[str, Places] = {}
    for split, spellings in SPELLINGS.items():
        spelling = next((name for name in spellings if (root / "images" / name).is_dir()), None)
        if spelling is not None:
            divided[split] = beside(f"/{spelling}")
    return divided or ({WHOLE: beside("")} if (root / "images").is_dir() else {})


def read(
    root: Path,
    *,
    split: str,
    images: str | Path,
    masks: str | Path | None = None,
    instances: str | Path | None = None,
    numbers: Mapping[int, str],
    things: Sequence[str] = (),
) -> Source:
    """The images of one split with the maps of the same names.

    Args:
        root: the dataset's folder; the other places are relative to it.
        split: train, val or test.
        images: the folder of images.
        masks: the folder of class maps; in a palette image the index counts, not the colour.
        instances: the folder of instance maps: 0 is none, any other value one object.
        numbers: name of each value of the class maps; other values are not scored.
        things: those of the names whose instances are objects; None of them: all names, where there are no class maps.
            An instance's class is the most frequent one under it.

    Raises:
        PipelineError: a folder is missing, or names do not fit.
    """
    if masks is None and instances is None:
        raise PipelineError("masks: neither a folder of masks nor one of instances; fix: name one")
    for name in things:
        if name not in numbers.values():
            raise PipelineError(f"things: no class {name!r}; {did_you_mean(name, numbers.values())}")
    if instances is not None and masks is None and len(numbers) != 1:
        raise PipelineError(
            f"instances: without class maps there can be one class only (there are {len(numbers)}); fix: name `masks`"
        )
    if instances is not None and masks is not None and not things:
        raise PipelineError("instances: no class is a thing; fix: list those in `things`")
    objects = list(things) if masks is not None else list(numbers.values())
    info = plain_info(["detection", "instance"] if instances is not None else [], objects)
    values = {number: index for index, number in enumerate(sorted(numbers))}
    if masks is not None:
        info.tasks.append("semantic")
        info.semantic_classes = [numbers[number] for number in sorted(numbers)]
        info.thing_of_semantic = [objects.index(n) if n in objects else -1 for n in info.semantic_classes]
    files = image_files(root / images, root)
    maps = {
        role: image_files(root / place, root) for role, place in (("masks", masks), ("instances", instances)) if place
    }
    reader = _Reader(root, split, files, maps)
    reader.label_of = {number: objects.index(name) for number, name in numbers.items() if name in objects}
    return Source(info, Repeatable(reader.records), len(files), values if masks is not None else None)


class _Reader:
    """The folders of one split."""

    label_of: Mapping[int, int]

    def __init__(
        self, root: Path, split: str, files: Mapping[str, Path], maps: Mapping[str, Mapping[str, Path]]
    ) -> None:
        self.root, self.split, self.files, self.maps = root, split, files, maps

    def records(self) -> Iterator[Record | Fault]:
        for role, files in self.maps.items():
            for key in sorted(files.keys() - self.files.keys()):
                fix = "add the image or remove this map"
                name = shown(files[key], self.root)
                yield Fault("no image", self.split, name, None, f"{role}: has no image of its name", fix)
        for key, path in self.files.items():
            name = shown(path, self.root)
            missing = [role for role, files in self.maps.items() if key not in files]
            if missing:
                fix = "draw one or move the image away"
                what = f"{missing[0]}: no map of its name"
                yield Fault("no map", self.split, name, None, what, fix, "dropped image")
                continue
            record = Record(split=self.split, image_id=key, file_name=name, image=path)
            if "masks" in self.maps:
                record.semantic = self.maps["masks"][key]
            if "instances" in self.maps:
                record.annotation = shown(self.maps["instances"][key], self.root)
                try:
                    record.objects = self._objects(key)
                except (OSError, PipelineError) as error:
                    fix = "write a map of one whole number for each pixel"
                    yield Fault("map", self.split, record.annotation, None, str(error), fix, "dropped image")
                    continue
            yield record

    def _objects(self, key: str) -> list[RawObject]:
        ids = decode_values(self.maps["instances"][key].read_bytes())
        if "masks" not in self.maps:
            (label,) = self.label_of.values()
            return objects_of(ids, dict.fromkeys(set(ids.ravel().tolist()) - {0}, label))
        values = decode_values(self.maps["masks"][key].read_bytes())
        if values.shape != ids.shape:
            raise ImageError(f"of size {ids.shape}, the class map is {values.shape}")
        under = majority(ids, values, ignored=(IGNORE,))
        return objects_of(ids, {n: self.label_of[value] for n, value in under.items() if value in self.label_of})


def write(folder: Path, store: Store) -> list[str]:
    """Writes `images/<split>`, class maps in `masks/<split>`, `instances/<split>` if objects have masks, classes.yaml.

    Class maps come back exactly; 255 is not scored. A store without them gets maps of its objects' masks over a class
    "background". In instance maps each pixel can belong to one object: a smaller one covers a larger one, so masks that
    do not overlap come back exactly. Image bytes are those of the store, so an EXIF orientation stays in them; maps are
    of the image as shown.

    Returns:
        In words, what the format has no place for.

    Raises:
        PipelineError: the store has neither class maps nor masks, or more classes than a map has values.
    """
    info, names = store.info, FileNames()
    kinds = kinds_of(store)
    if not {"semantic", "masks"} & kinds:
        raise PipelineError(f"{info.name}: has no masks; fix: export it as coco, voc, yolo, imagefolder or csv")
    if "masks" in kinds:
        check_maps(store, len(info.classes))
    num_hidden = 0
    for split_name in info.counts:
        split = store.split(split_name)
        for index in range(len(split)):
            row = split.row(index)
            name = names.of(row, split_name)
            semantic, instances = _maps(row)
            put(folder / "images" / split_name / name, row["image"])
            stem = f"{Path(name).stem}.png"
            put(folder / "masks" / split_name / stem, row["semantic"] if "semantic" in kinds else _png(semantic))
            if "masks" in kinds:
                put(folder / "instances" / split_name / stem, _png(instances))
                num_hidden += hidden(instances, row.get("objects") or [])
    classes = info.semantic_classes if "semantic" in kinds else ["background", *info.classes]
    lines = [f"  {value}: {json.dumps(name, ensure_ascii=False)}\n" for value, name in enumerate(classes)]
    put(folder / "classes.yaml", "".join(["names:\n", *lines]).encode())
    covered = [f"masks that others cover ({num_hidden})"] if num_hidden else []
    return left_out(store, "objects", "masks", "semantic") + covered


def _maps(row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The class map (class + 1, 0 background) and the instance map of a row's objects: [H, W] uint8, uint16."""
    height, width = row["height"], row["width"]
    semantic, instances = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint16)
    objects = enumerate(row.get("objects") or [], start=1)
    for number, obj in sorted(objects, key=lambda item: -item[1]["area"]):
        if obj["mask"] is not None:
            mask = mask_ops.decode(obj["mask"], height, width)
            semantic[mask], instances[mask] = obj["label"] + 1, number
    return semantic, instances


def _png(values: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()
