"""A store as COCO's files: images by split, and JSON of instances with keypoints, captions and panoptic segments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.data.formats.exporting import FileNames, left_out, put
from pipeline.data.store import Split, Store


def write(folder: Path, store: Store) -> list[str]:
    """Writes `<split>/` with images and `annotations/` with one JSON for each kind of truth and split.

    Everything comes back as it is: boxes to float32, masks, keypoints, captions and panoptic maps exactly. Image bytes
    are those of the store, so an EXIF orientation stays in them; annotations are in pixels of the image as shown.
    Ids of images are those of the store where all of them are whole numbers, else numbers from 1. Semantic maps and
    labels of whole images have no place in COCO's format.

    Returns:
        In words, what the format has no place for.
    """
    ids = _numbers_of(store)
    for split_name in store.info.counts:
        _Writer(folder, store, split_name, ids).write()
    return left_out(store, "objects", "masks", "keypoints", "panoptic", "captions")


def _numbers_of(store: Store) -> dict[str, int]:
    """The number of each image id."""
    names = [name for split in store.info.counts for name in store.split(split).column("image_id")]
    if all(name.isdecimal() and len(name) < 16 for name in names) and len({int(name) for name in names}) == len(names):
        return {name: int(name) for name in names}
    return {name: number for number, name in enumerate(names, start=1)}


class _Writer:
    """Writes one split; annotations go to the file image by image, for there may be many."""

    def __init__(self, folder: Path, store: Store, split: str, ids: Mapping[str, int]) -> None:
        self.folder, self.info, self.split_name, self.ids = folder, store.info, split, ids
        self.split: Split = store.split(split)
        self.names = FileNames()
        self.num_annotations = 0

    def write(self) -> None:
        columns = self.split.table.column_names
        things = [
            {
                "id": index,
                "name": name,
                **(
                    {"keypoints": self.info.keypoints, "skeleton": [[a + 1, b + 1] for a, b in self.info.skeleton]}
                    if self.info.keypoints
                    else {}
                ),
            }
            for index, name in enumerate(self.info.classes, start=1)
        ]
        semantic = [
            {"id": index, "name": name, "isthing": int(thing >= 0)}
            for index, (name, thing) in enumerate(
                zip(self.info.semantic_classes, self.info.thing_of_semantic, strict=True), start=1
            )
        ]
        kinds: dict[str, tuple[str, Any, list[dict[str, Any]] | None]] = {
            "instances": ("objects", self._objects, things),
            "captions": ("captions", self._captions, None),
            "panoptic": ("panoptic", self._panoptic, semantic),
        }
        images = []
        for index in range(len(self.split)):
            row = self.split.row(index)
            name = self.names.of(row)
            put(self.folder / self.split_name / name, row["image"])
            number = self.ids[row["image_id"]]
            images.append({"file_name": name, "height": row["height"], "id": number, "width": row["width"]})
        for kind, (column, entries, categories) in kinds.items():
            if column in columns or (kind == "instances" and not {"captions", "panoptic"} & set(columns)):
                self._write_json(kind, images, entries, categories)

    def _write_json(
        self, kind: str, images: list[dict[str, Any]], entries: Any, categories: list[dict[str, Any]] | None
    ) -> None:
        path = self.folder / "annotations" / f"{kind}_{self.split_name}.json"
        path.parent.mkdir(exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.write('{"annotations": [')
            separator = "\n"
            for image, index in zip(images, range(len(self.split)), strict=True):
                for entry in entries(self.split.row(index), image):
                    file.write(f"{separator}{_json(entry)}")
                    separator = ",\n"
            file.write("\n]")
            for key, content in (("categories", categories), ("images", images)):
                if content is not None:
                    file.write(f',\n"{key}": [\n' + ",\n".join(map(_json, content)) + "\n]")
            file.write("}\n")

    def _objects(self, row: dict[str, Any], image: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for obj in row.get("objects") or []:
            self.num_annotations += 1
            x1, y1, x2, y2 = obj["bbox"]
            entry = {
                "id": self.num_annotations,
                "image_id": image["id"],
                "category_id": obj["label"] + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": obj["area"],
                "iscrowd": int(obj["iscrowd"]),
            }
            if obj["mask"] is not None:
                size = [row["height"], row["width"]]
                entry["segmentation"] = {"size": size, "counts": obj["mask"].decode("ascii")}
            if self.info.keypoints and obj["keypoints"] is not None:
                entry["keypoints"] = obj["keypoints"]
                entry["num_keypoints"] = sum(visibility > 0 for visibility in obj["keypoints"][2::3])
            yield entry

    def _captions(self, row: dict[str, Any], image: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for caption in row.get("captions") or []:
            self.num_annotations += 1
            yield {"id": self.num_annotations, "image_id": image["id"], "caption": caption}

    def _panoptic(self, row: dict[str, Any], image: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if row.get("panoptic") is None:
            return
        name = f"{Path(image['file_name']).stem}.png"
        put(self.folder / "annotations" / f"panoptic_{self.split_name}" / name, row["panoptic"])
        segments = [{"id": segment["id"], "category_id": segment["label"] + 1} for segment in row["segments"]]
        yield {"image_id": image["id"], "file_name": name, "segments_info": segments}


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
