"""The one on-disk form of a dataset: Arrow IPC files per split and an info.json.

Image bytes are kept as the source had them; annotations are checked once, when they are written.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.ops import masks as mask_ops
from pipeline.paths import write_json, written_whole
from pipeline.structures import DatasetInfo, Objects, Sample, Segments

ROWS_PER_BATCH = 256
MAX_SHARD_BYTES = 512 * 2**20

OBJECT = pa.struct(
    {
        "label": pa.int32(),
        "bbox": pa.list_(pa.float32(), 4),
        "area": pa.float32(),
        "iscrowd": pa.bool_(),
        "mask": pa.binary(),
        "keypoints": pa.list_(pa.float32()),
    }
)
SEGMENT = pa.struct({"id": pa.int32(), "label": pa.int32()})
COLUMNS = {
    "image_id": pa.string(),
    "file_name": pa.string(),
    "image": pa.binary(),
    "height": pa.int32(),
    "width": pa.int32(),
    "label": pa.int32(),
    "objects": pa.list_(OBJECT),
    "semantic": pa.binary(),
    "panoptic": pa.binary(),
    "segments": pa.list_(SEGMENT),
    "captions": pa.list_(pa.string()),
    "target": pa.float32(),
    "group": pa.string(),
}


def encode_png(image: np.ndarray) -> bytes:
    """Lossless PNG bytes of a [H, W], [H, W, 1] or [H, W, 3] uint8 image, without metadata."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def decode_image(data: bytes, channels: int = 3) -> np.ndarray:
    """The [H, W, C] uint8 pixels of encoded image bytes."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def encode_ids(ids: np.ndarray) -> bytes:
    """PNG bytes of a [H, W] map of segment ids below 2**24, as COCO's panoptic format: id = R + 256 G + 65536 B."""
    channels = [(ids >> shift) & 255 for shift in (0, 8, 16)]
    return encode_png(np.stack(channels, axis=-1).astype(np.uint8))


def decode_ids(data: bytes) -> np.ndarray:
    """The [H, W] int32 segment ids written by `encode_ids`."""
    channels = decode_image(data, channels=3).astype(np.int32)
    return channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]


def to_row(sample: Sample, image_bytes: bytes | None = None) -> dict[str, Any]:
    """One row of the table.

    Args:
        sample: the sample; `image_bytes`, if given, is its source's encoding and is kept as it is.

    Raises:
        PipelineError: an annotation cannot be right; names image and index.
    """
    height, width = sample.image.shape[:2]
    row: dict[str, Any] = {
        "image_id": sample.image_id,
        "file_name": sample.file_name,
        "image": image_bytes if image_bytes is not None else encode_png(sample.image),
        "height": height,
        "width": width,
    }
    if sample.objects is not None:
        row["objects"] = [_object_row(sample, index) for index in range(len(sample.objects))]
    if sample.semantic is not None:
        if sample.semantic.shape != (height, width):
            raise PipelineError(
                f"{sample.file_name} semantic: the map is {sample.semantic.shape}, the image {(height, width)}"
            )
        row["semantic"] = encode_png(sample.semantic)
    if sample.segments is not None:
        row["panoptic"] = encode_ids(sample.segments.ids)
        row["segments"] = [
            {"id": int(i), "label": int(label)}
            for i, label in zip(sample.segments.segment_ids, sample.segments.labels, strict=True)
        ]
    for name in ("label", "captions", "target", "group"):
        if getattr(sample, name) is not None:
            row[name] = getattr(sample, name)
    return row


def _object_row(sample: Sample, index: int) -> dict[str, Any]:
    objects = sample.objects
    assert objects is not None
    box = objects.boxes[index]
    if not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
        raise PipelineError(
            f"{sample.file_name}#{index} bbox: not a box with positive area ({box.tolist()}); "
            "fix: correct or remove this annotation"
        )
    row = {
        "label": int(objects.labels[index]),
        "bbox": box.tolist(),
        "area": float(objects.area[index]),
        "iscrowd": bool(objects.iscrowd[index]),
    }
    if objects.masks is not None:
        row["mask"] = mask_ops.encode(objects.masks[index])["counts"]
    if objects.keypoints is not None:
        row["keypoints"] = objects.keypoints[index].ravel().tolist()
    return row


class StoreWriter:
    """Writes rows to the shards of a store; made by `writing`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: dict[str, int] = {}
        self._pending: dict[str, list[dict[str, Any]]] = {}
        self._files: dict[str, pa.ipc.RecordBatchFileWriter] = {}
        self._schemas: dict[str, pa.Schema] = {}
        self._shards: dict[str, int] = {}
        self._bytes: dict[str, int] = {}

    def add(self, split: str, row: dict[str, Any]) -> None:
        """Appends a row made by `to_row`; the first batch of a split fixes its columns."""
        self.counts[split] = self.counts.get(split, 0) + 1
        pending = self._pending.setdefault(split, [])
        pending.append(row)
        if len(pending) >= ROWS_PER_BATCH:
            self._flush(split)

    def _flush(self, split: str) -> None:
        rows = self._pending[split]
        if not rows:
            return
        if split not in self._schemas:
            self._schemas[split] = pa.schema([(n, t) for n, t in COLUMNS.items() if any(n in row for row in rows)])
        batch = pa.RecordBatch.from_pylist(rows, schema=self._schemas[split])
        if self._bytes.get(split, 0) + batch.nbytes > MAX_SHARD_BYTES and split in self._files:
            self._files.pop(split).close()
        if split not in self._files:
            shard = self._shards.get(split, -1) + 1
            self._shards[split], self._bytes[split] = shard, 0
            path = self.folder / f"{split}-{shard:05d}.arrow"
            self._files[split] = pa.ipc.new_file(str(path), self._schemas[split])
        self._files[split].write_batch(batch)
        self._bytes[split] += batch.nbytes
        rows.clear()

    def close(self) -> None:
        """Writes what is pending and closes the shards."""
        for split in self._pending:
            self._flush(split)
        for file in self._files.values():
            file.close()


@contextmanager
def writing(folder: Path, info: DatasetInfo) -> Iterator[StoreWriter]:
    """Opens a store for writing; it appears whole at `folder` when the block ends well.

    `info.counts` is filled in; so are `mean`, `std` and `image_size` from the train split where they are empty.
    """
    with written_whole(folder) as temporary:
        temporary.mkdir()
        writer = StoreWriter(temporary)
        yield writer
        writer.close()
        info.counts = dict(sorted(writer.counts.items()))
        if not info.mean and "train" in writer.counts:
            _measure(temporary, info)
        write_json(temporary / "info.json", info.to_json())


def _measure(folder: Path, info: DatasetInfo) -> None:
    """Fills in channel mean and std, and the image size if all agree, from the train split."""
    total, squares, count = np.zeros(info.channels), np.zeros(info.channels), 0
    sizes = set()
    table = _read_table(folder, "train")
    for chunk in table.column("image").to_pylist():
        pixels = decode_image(chunk, info.channels).astype(np.float64) / 255
        total += pixels.sum((0, 1))
        squares += (pixels**2).sum((0, 1))
        count += pixels.shape[0] * pixels.shape[1]
        sizes.add(pixels.shape[:2])
    mean = total / count
    info.mean = [round(float(v), 6) for v in mean]
    info.std = [round(float(v), 6) for v in np.sqrt(np.maximum(squares / count - mean**2, 0))]
    info.image_size = [int(v) for v in sizes.pop()] if len(sizes) == 1 else None


def _read_table(folder: Path, split: str) -> pa.Table:
    shards = sorted(folder.glob(f"{split}-*.arrow"))
    if not shards:
        have = sorted({path.name.rsplit("-", 1)[0] for path in folder.glob("*.arrow")})
        raise PipelineError(f"{folder}: no split {split!r}; it has: {', '.join(have) or 'none'}")
    return pa.concat_tables(pa.ipc.open_file(pa.memory_map(str(shard))).read_all() for shard in shards)


class Split:
    """One split of a store, memory-mapped; rows decode when they are asked for."""

    def __init__(self, table: pa.Table, info: DatasetInfo) -> None:
        self.table = table
        self.info = info

    def __len__(self) -> int:
        return self.table.num_rows

    def column(self, name: str) -> list[Any]:
        """All values of a column, undecoded."""
        return self.table.column(name).to_pylist()

    def row(self, index: int) -> dict[str, Any]:
        """One row as it is stored, images still encoded."""
        return self.table.slice(index, 1).to_pylist()[0]

    def read(self, index: int, masks: bool = False) -> Sample:
        """One decoded sample.

        Args:
            index: position in the split.
            masks: whether to decode instance masks and the panoptic map too, which take longest.
        """
        row = self.row(index)
        height, width = row["height"], row["width"]
        objects = row.get("objects")
        segments = row.get("segments") if masks else None
        return Sample(
            image_id=row["image_id"],
            file_name=row["file_name"],
            image=decode_image(row["image"], self.info.channels),
            label=row.get("label"),
            objects=None if objects is None else _read_objects(objects, height, width, self.info, masks),
            semantic=decode_image(row["semantic"], 1)[..., 0] if row.get("semantic") is not None else None,
            segments=None
            if segments is None
            else Segments(
                ids=decode_ids(row["panoptic"]),
                segment_ids=np.array([s["id"] for s in segments], np.int64),
                labels=np.array([s["label"] for s in segments], np.int64),
            ),
            captions=row.get("captions"),
            target=row.get("target"),
            group=row.get("group"),
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self.read(index) for index in range(len(self)))


def _read_objects(rows: list[dict[str, Any]], height: int, width: int, info: DatasetInfo, masks: bool) -> Objects:
    num = len(rows)
    has_masks = masks and all(row["mask"] is not None for row in rows) and "instance" in info.tasks
    return Objects(
        boxes=np.array([row["bbox"] for row in rows], np.float32).reshape(num, 4),
        labels=np.array([row["label"] for row in rows], np.int64),
        area=np.array([row["area"] for row in rows], np.float32),
        iscrowd=np.array([row["iscrowd"] for row in rows], bool),
        masks=np.stack([mask_ops.decode(row["mask"], height, width) for row in rows])
        if has_masks and num
        else (np.zeros((0, height, width), bool) if has_masks else None),
        keypoints=np.array([row["keypoints"] for row in rows], np.float32).reshape(num, len(info.keypoints), 3)
        if info.keypoints
        else None,
    )


class Store:
    """A dataset on disk.

    Raises:
        PipelineError: the folder is not a store, or is of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.info = DatasetInfo(**json.loads((folder / "info.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise PipelineError(f"{folder}: no dataset there; fix: dvc repro the stage that writes it") from None
        except (TypeError, ValueError) as error:
            raise PipelineError(
                f"{folder}/info.json: not readable ({error}); fix: dvc repro --force its stage"
            ) from None

    def split(self, name: str) -> Split:
        """One split by name: train, val or test."""
        return Split(_read_table(self.folder, name), self.info)
