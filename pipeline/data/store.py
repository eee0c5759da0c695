"""The one on-disk form of a dataset: Arrow IPC files per split and an info.json.

Image bytes are kept as the source had them; annotations are checked once, when they are written.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data import images
from pipeline.data.pool import ordered_map
from pipeline.errors import PipelineError
from pipeline.ops import masks as mask_ops
from pipeline.paths import write_json, written_whole
from pipeline.structures import DatasetInfo, Objects, Sample, Segments

Result = TypeVar("Result")

ROWS_PER_BATCH = 256
MAX_BATCH_BYTES = 64 * 2**20  # of images; a batch is held in memory while it fills
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
    "features": pa.list_(pa.float32()),
    "group": pa.string(),
}


def encode_png(image: np.ndarray, quick: bool = False) -> bytes:
    """Lossless PNG bytes of a [H, W], [H, W, 1] or [H, W, 3] uint8 image, without metadata.

    Args:
        image: the pixels.
        quick: whether to take an eighth of the time and a fifth more room, for what is many and made anew at will;
            loads OpenCV.
    """
    if quick:
        return _quick_png(image)
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _quick_png(image: np.ndarray) -> bytes:
    """Each byte as the difference from its pixel's neighbour, of which only runs are packed; Pillow tries five ways."""
    import cv2

    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
    is_grey = image.ndim == 2 or image.shape[2] == 1
    pixels = np.ascontiguousarray(image) if is_grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".png", pixels, options)
    assert done, "OpenCV wrote no PNG"
    return bytes(encoded)


def decode_image(data: bytes, channels: int = 3) -> np.ndarray:
    """The [H, W, C] uint8 pixels of encoded image bytes, as the image is shown (`images.decode`)."""
    return images.decode(data, channels)


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
                f"{sample.file_name} semantic: the map is {sample.semantic.shape}, the image {(height, width)}; "
                "fix: correct it"
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


class _SplitWriter:
    """Writes the rows of one split; record batches and shards are cut by rows and bytes alone, however they come."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.num_rows = 0
        self.columns: set[str] = set()
        self._rows: list[dict[str, Any]] = []
        self._row_bytes = 0
        self._batches: list[pa.RecordBatch] = []
        self._batch_rows = self._batch_bytes = 0
        self._file: pa.ipc.RecordBatchFileWriter | None = None
        self._num_shards = self._shard_bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._row_bytes += len(row["image"])
        if len(self._rows) >= ROWS_PER_BATCH or self._row_bytes >= MAX_BATCH_BYTES:
            self._pack()

    def add_batch(self, batch: pa.RecordBatch) -> None:
        self._pack()
        self._take(batch)

    def close(self) -> None:
        self._pack()
        self._flush()
        if self._file is not None:
            self._file.close()

    def _pack(self) -> None:
        if self._rows:
            self._take(to_batch(self._rows))
            self._rows, self._row_bytes = [], 0

    def _take(self, batch: pa.RecordBatch) -> None:
        self.num_rows += batch.num_rows
        ends = np.cumsum(pc.binary_length(batch.column("image")).to_numpy(), dtype=np.int64)
        start = taken = 0
        while start < batch.num_rows:
            by_bytes = int(np.searchsorted(ends, taken + MAX_BATCH_BYTES - self._batch_bytes)) + 1
            end = min(batch.num_rows, start + ROWS_PER_BATCH - self._batch_rows, by_bytes)
            self._batches.append(batch.slice(start, end - start))
            self._batch_rows += end - start
            self._batch_bytes += int(ends[end - 1]) - taken
            start, taken = end, int(ends[end - 1])
            if self._batch_rows >= ROWS_PER_BATCH or self._batch_bytes >= MAX_BATCH_BYTES:
                self._flush()

    def _flush(self) -> None:
        if not self._batches:
            return
        new = {name for batch in self._batches for name in batch.schema.names} - self.columns
        self.columns |= new
        schema = _schema(self.columns)
        batch = pa.concat_batches([_widened(one, schema) for one in self._batches])
        self._batches, self._batch_rows, self._batch_bytes = [], 0, 0
        if self._file is not None and (new or self._shard_bytes + batch.nbytes > MAX_SHARD_BYTES):
            self._file.close()
            self._file = None
        if self._file is None:
            self._file = pa.ipc.new_file(str(self.folder / f"{self.split}-{self._num_shards:05d}.arrow"), schema)
            self._num_shards += 1
            self._shard_bytes = 0
        self._file.write_batch(batch)
        self._shard_bytes += batch.nbytes


class StoreWriter:
    """Writes rows to the shards of a store; made by `writing`.

    Attributes:
        folder: where the shards are until the store is whole.
        moments: `images.moments` over the train split, by whoever has decoded its images anyway; None: measured at the
            end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moments: np.ndarray | None = None
        self._splits: dict[str, _SplitWriter] = {}

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each split, once the writer is closed."""
        return {name: self._splits[name].num_rows for name in sorted(self._splits)}

    def add(self, split: str, row: dict[str, Any]) -> None:
        """Appends a row made by `to_row`."""
        self._split(split).add(row)

    def add_batch(self, split: str, batch: pa.RecordBatch) -> None:
        """Appends the rows of a batch made by `to_batch`."""
        self._split(split).add_batch(batch)

    def _split(self, name: str) -> _SplitWriter:
        if name not in self._splits:
            self._splits[name] = _SplitWriter(self.folder, name)
        return self._splits[name]

    def close(self) -> None:
        """Writes what is pending and closes the shards; a column that any shard has is then in all."""
        for split in self._splits.values():
            split.close()
        schema = _schema({name for split in self._splits.values() for name in split.columns})
        for path in sorted(self.folder.glob("*.arrow")):
            _widen(path, schema)


def to_batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    """Rows made by `to_row` as a batch with the columns that any of them has."""
    return pa.RecordBatch.from_pylist(rows, schema=_schema({name for row in rows for name in row}))


def with_images(batch: pa.RecordBatch, encoded: list[bytes]) -> pa.RecordBatch:
    """A batch made of rows without their images, with them."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["image"] = pa.array(encoded, COLUMNS["image"])
    schema = _schema(set(columns))
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _schema(columns: set[str]) -> pa.Schema:
    return pa.schema([(name, type_) for name, type_ in COLUMNS.items() if name in columns])


def _widened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with all columns of `schema`, nulls in those it lacks."""
    have = set(batch.schema.names)
    arrays = [batch.column(f.name) if f.name in have else pa.nulls(batch.num_rows, f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _widen(path: Path, schema: pa.Schema) -> None:
    """Rewrites a shard that lacks columns of `schema`."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as shard:
        if shard.schema.equals(schema):
            return
        with written_whole(path) as temporary, pa.ipc.new_file(str(temporary), schema) as wider:
            for number in range(shard.num_record_batches):
                wider.write_batch(_widened(shard.get_batch(number), schema))


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
        info.counts = writer.counts
        if not info.mean and "train" in info.counts:
            moments = writer.moments if writer.moments is not None else _moments(temporary, info.channels)
            info.mean, info.std = _mean_and_std(moments)
            info.image_size = _common_size(temporary)
        write_json(temporary / "info.json", info.to_json())


def _moments(folder: Path, channels: int) -> np.ndarray:
    """`images.moments` over the train split."""
    parts = map_encoded(folder, "train", "image", functools.partial(_moments_of, channels=channels))
    return sum(parts, np.zeros((3, channels), np.int64))


def _moments_of(data: bytes, *, channels: int) -> np.ndarray:
    return images.moments(images.shown(images.opened(data), channels))


def map_encoded(folder: Path, split: str, column: str, function: Callable[[bytes], Result]) -> Iterator[Result]:
    """`function` of every encoded image or map of a column, in order, on all cores; rows without one are left out.

    Args:
        folder: of the store.
        split: train, val or test.
        column: image, semantic or panoptic.
        function: a module's function or a `functools.partial` of one.
    """
    places = []
    for path in sorted(folder.glob(f"{split}-*.arrow")):
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as shard:
            places += [(path, number) for number in range(shard.num_record_batches)]
    for results in ordered_map(functools.partial(_of_batch, column=column, function=function), places, chunk=2):
        yield from results


def _of_batch(place: tuple[Path, int], *, column: str, function: Callable[[bytes], Result]) -> list[Result]:
    path, number = place
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as shard:
        return [function(value.as_py()) for value in shard.get_batch(number).column(column) if value.is_valid]


def _common_size(folder: Path) -> list[int] | None:
    """Height and width of the train split's images if all agree."""
    bounds = [pc.min_max(_read_table(folder, "train").column(side)).as_py() for side in ("height", "width")]
    return [b["min"] for b in bounds] if all(b["min"] == b["max"] for b in bounds) else None


def _mean_and_std(moments: np.ndarray) -> tuple[list[float], list[float]]:
    """Per channel, of values scaled to 0..1, from `images.moments` of uint8 pixels."""
    count, total, squares = moments.astype(np.float64)
    mean = total / count / 255
    std = np.sqrt(np.maximum(squares / count / 255**2 - mean**2, 0))
    return [round(float(v), 6) for v in mean], [round(float(v), 6) for v in std]


def _read_table(folder: Path, split: str) -> pa.Table:
    shards = sorted(folder.glob(f"{split}-*.arrow"))
    if not shards:
        have = sorted({path.name.rsplit("-", 1)[0] for path in folder.glob("*.arrow")})
        raise PipelineError(f"{folder}: no split {split!r}; choices: {', '.join(have) or 'none'}")
    try:
        return pa.concat_tables(_read_shard(shard) for shard in shards)
    except (OSError, pa.ArrowException, UnicodeDecodeError, ValueError) as error:
        what = str(error).partition("\n")[0]
        raise PipelineError(f"{folder}: the split {split} is damaged ({what}); {_again(folder)}") from None


def _read_shard(path: Path) -> pa.Table:
    """The rows of a shard, memory-mapped; offsets and texts are checked, for a wrong one would lead out of the file."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    table.validate(full=True)
    wrong = [field.name for field in table.schema if COLUMNS.get(field.name) != field.type]
    missing = {"image_id", "image"} - set(table.schema.names)
    if wrong or missing:
        raise ValueError(f"columns {', '.join([*wrong, *sorted(missing)])}")
    return table


def _again(place: Path | str) -> str:
    return f"fix: python -m pipeline verify, which tells how to mend {place}"


class Split:
    """One split of a store, memory-mapped; rows decode when they are asked for."""

    def __init__(self, table: pa.Table, info: DatasetInfo) -> None:
        self.table = table
        self.info = info
        self._columns = dict(zip(table.column_names, table.columns, strict=True))  # made anew at each look

    def __len__(self) -> int:
        return self.table.num_rows

    def column(self, name: str) -> list[Any]:
        """All values of a column, undecoded."""
        return self.table.column(name).to_pylist()

    def objects(self) -> dict[str, np.ndarray]:
        """All M objects of the split in the order of its images, without masks and keypoints.

        Returns:
            image: [M] position of the object's image in the split. label: [M]. bbox: [M, 4] float32 xyxy. area: [M]
            float32. iscrowd: [M] bool.
        """
        parts: dict[str, list[np.ndarray]] = {name: [] for name in ("image", "label", "bbox", "area", "iscrowd")}
        start = 0
        for chunk in self.table.column("objects").chunks:
            lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy()
            parts["image"].append(np.repeat(np.arange(start, start + len(chunk)), lengths))
            start += len(chunk)
            flat = chunk.flatten()
            boxes = pc.struct_field(flat, "bbox").flatten()
            if flat.null_count or boxes.null_count or len(boxes) != 4 * len(flat):
                raise PipelineError(f"{self.info.name}: objects without a box; {_again(self.info.name)}")
            for name in ("label", "area", "iscrowd"):
                parts[name].append(pc.struct_field(flat, name).to_numpy(zero_copy_only=False))
            parts["bbox"].append(boxes.to_numpy().reshape(-1, 4))
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def row(self, index: int) -> dict[str, Any]:
        """One row as it is stored, images still encoded."""
        return {name: column[index].as_py() for name, column in self._columns.items()}

    def read(self, index: int, masks: bool = False) -> Sample:
        """One decoded sample.

        Args:
            index: position in the split.
            masks: whether to decode instance masks and the panoptic map too, which take longest.

        Raises:
            PipelineError: the row is damaged.
        """
        row = self.row(index)
        try:
            return self._decoded(row, masks)
        except (PipelineError, ValueError, TypeError) as error:  # ingest has checked it: bytes have changed since
            what = f"row {index} ({row['image_id']!r}) is damaged ({str(error).partition(chr(10))[0]})"
            raise PipelineError(f"{self.info.name}: {what}; {_again(self.info.name)}") from None

    def _decoded(self, row: dict[str, Any], masks: bool) -> Sample:
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
        masks=np.stack([_mask(row["mask"], height, width) for row in rows])
        if has_masks and num
        else (np.zeros((0, height, width), bool) if has_masks else None),
        keypoints=np.array([row["keypoints"] for row in rows], np.float32).reshape(num, len(info.keypoints), 3)
        if info.keypoints
        else None,
    )


def _mask(counts: bytes, height: int, width: int) -> np.ndarray:
    """A mask whose code is of this image: pycocotools would read on behind a shorter one (observed on 2.0.11)."""
    if sum(mask_ops.runs_of(counts) or []) != height * width:
        raise ValueError("a mask that is not of its image")
    return mask_ops.decode(counts, height, width)


class Store:
    """A dataset on disk.

    Raises:
        PipelineError: the folder is not a store, or is of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.info = DatasetInfo.from_json(json.loads((folder / "info.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise PipelineError(f"{folder}: no dataset there; fix: dvc repro the stage that writes it") from None
        except (OSError, ValueError, RecursionError) as error:
            raise PipelineError(
                f"{folder}/info.json: not readable ({error}); fix: dvc repro --force its stage"
            ) from None

    def split(self, name: str) -> Split:
        """One split by name: train, val or test.

        Raises:
            PipelineError: there is none, or it is damaged; a flipped bit in a shard's footer can take rows away.
        """
        table, written = _read_table(self.folder, name), self.info.counts.get(name)
        if table.num_rows != written:
            what = f"{table.num_rows} rows, and {written} in info.json"
            raise PipelineError(f"{self.folder}: the split {name} is damaged ({what}); {_again(self.folder)}")
        return Split(table, self.info)
