"""Records to a store: every image decoded once, every annotation checked once, on all cores.

Memory does not grow with the number of images. What a source has wrong is named by file and annotation index: with
`on_error: fail` the first fault ends the work, with `skip` the annotation (or the image) is left out, counted, and told
in `findings.json` beside the data. What is kept but worth knowing, such as a box that was clipped, is told there too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.data import findings as findings_file
from pipeline.data import fingerprints, images, store
from pipeline.data.annotations import LARGEST, Fault, Frame, class_index, object_row
from pipeline.data.findings import Action, Finding
from pipeline.data.formats import Fault as SourceFault
from pipeline.data.images import ImageError
from pipeline.data.pool import block_map
from pipeline.data.records import Encoded, Record
from pipeline.errors import PipelineError
from pipeline.progress import progress
from pipeline.structures import IGNORE, SPLITS, DatasetInfo

OnError = Literal["fail", "skip"]
FIX = "fix: correct or remove it"


@dataclass(frozen=True)
class _Rules:
    """What every record is held against; small, for it travels with each chunk of work."""

    channels: int
    num_classes: int
    num_semantic: int
    num_keypoints: int
    values: np.ndarray | None
    has_semantic: bool
    tells_unnamed: bool = False


@dataclass
class _Made:
    """A record after its conversion.

    Attributes:
        row: None where the image is dropped.
        state: of the image's file when it was read, or None where the record held the bytes.
        moments: `images.moments`, of an image of the train split.
        fingerprint: `fingerprints.of` the image.
        findings: of the image and its annotations.
        fault: the first of them that ends the work where `on_error` is "fail".
    """

    row: dict[str, Any] | None = None
    state: tuple[int, int] | None = None
    moments: np.ndarray | None = None
    fingerprint: np.ndarray | None = None
    findings: list[Finding] = field(default_factory=list)
    fault: str | None = None

    def note(
        self, record: Record, kind: str, what: str, index: int | str | None = None, action: Action = "kept"
    ) -> None:
        self.findings.append(Finding(kind, record.split, record.file_name, index, what, action))

    def drop(self, record: Record, fault: Fault, index: int | str | None, action: Action) -> None:
        self.note(record, fault.kind, f"{fault.key}: {fault.what}", index, action)
        if self.fault is None:
            source = f", says {record.annotation}" if record.annotation else ""
            number = "" if index is None else f"#{index}"
            self.fault = f"{record.file_name}{number} {fault.key}: {fault.what}{source}; {FIX}"


@dataclass
class _Block:
    """Some records after their conversion, without the images' bytes, which took longer to send than all else.

    Attributes:
        places: for each split the positions of its rows among the records.
        batches: the rows of each split.
        fingerprints: [N, D] of the rows of each split.
        states: of the files of all records, as `_Made.state`.
        moments: sum of `images.moments` of the train split's images, or None without one.
        findings: of all records.
        fault: the first that ends the work where `on_error` is "fail".
    """

    places: dict[str, list[int]]
    batches: dict[str, pa.RecordBatch]
    fingerprints: dict[str, np.ndarray]
    states: list[tuple[int, int] | None]
    moments: np.ndarray | None
    findings: list[Finding]
    fault: str | None


def ingest(
    folder: Path,
    info: DatasetInfo,
    records: Iterable[Record | SourceFault],
    *,
    on_error: OnError = "fail",
    semantic_values: Mapping[int, int] | None = None,
    tell_unnamed: bool = False,
    num_records: int | None = None,
) -> None:
    """Writes the store of `records` at `folder`, with findings.json in it; it appears whole or not at all.

    Args:
        folder: where to; the folder's rows are in the order of the records.
        info: of the dataset; its counts, mean, std and image_size are filled in. Where it has "semantic" among its
            tasks, a record with a panoptic map alone gets the class map that this shows.
        records: taken as the work goes on; among them, what their reader found wrong.
        on_error: whether a fault ends the work or is left out and noted.
        semantic_values: for the values of the semantic maps the class index each becomes; all others become IGNORE.
            Without it the values are class indices, or IGNORE, already.
        tell_unnamed: whether an image whose map has other values than those, and than IGNORE, is a finding.
        num_records: how many there are, for the progress bar.

    Raises:
        PipelineError: a fault, with `on_error` "fail"; or no image is left.
    """
    rules = dataclasses.replace(_rules(info, semantic_values), tells_unnamed=tell_unnamed)
    convert = functools.partial(_block, rules=rules)
    blocks = block_map(convert, progress(records, f"read {info.name}", total=num_records), name=lambda r: r.file_name)
    findings: list[Finding] = []
    prints: dict[str, list[np.ndarray]] = {}
    seen: set[str] = set()
    with store.writing(folder, info) as writer, contextlib.closing(blocks):
        for part, block in blocks:
            _leave_out_seen(block, seen)
            if block.fault is not None and on_error == "fail":
                raise PipelineError(f"{block.fault}, or set on_error: skip")
            findings += block.findings
            for split, batch in block.batches.items():
                encoded = [_again(part[place], block.states[place]) for place in block.places[split]]
                writer.add_batch(split, store.with_images(batch, encoded))
                prints.setdefault(split, []).append(block.fingerprints[split])
            if block.moments is not None:
                writer.moments = block.moments if writer.moments is None else writer.moments + block.moments
        if not prints:
            first = f", the first: {findings[0].file} {findings[0].what}" if findings else ""
            raise PipelineError(
                f"{info.name}: no image is left ({len(findings)} faults{first}); fix: correct the source"
            )
        findings_file.write(writer.folder, findings)
        fingerprints.save(writer.folder, prints)


def _rules(info: DatasetInfo, semantic_values: Mapping[int, int] | None) -> _Rules:
    values = None
    if semantic_values is not None:
        values = np.full(max([255, *semantic_values]) + 2, IGNORE, np.uint8)  # the last stands for all larger values
        for value, label in semantic_values.items():
            values[value] = label
    return _Rules(
        channels=info.channels,
        num_classes=len(info.classes),
        num_semantic=len(info.semantic_classes),
        num_keypoints=len(info.keypoints),
        values=values,
        has_semantic="semantic" in info.tasks,
    )


def _leave_out_seen(block: _Block, seen: set[str]) -> None:
    """Drops images whose id stood before."""
    for split, batch in list(block.batches.items()):
        ids = batch.column("image_id").to_pylist()
        keep = np.ones(len(ids), bool)
        for place, image_id in enumerate(ids):
            if image_id in seen:
                keep[place] = False
                file = batch.column("file_name")[place].as_py()
                what = f"image_id: another image has the id {image_id!r} too"
                block.findings.append(Finding("duplicate id", split, file, None, what, "dropped image"))
                block.fault = block.fault or f"{file} {what}; {FIX}"
            seen.add(image_id)
        if not keep.all():
            block.batches[split] = batch.filter(pa.array(keep))
            block.places[split] = [place for place, kept in zip(block.places[split], keep, strict=True) if kept]
            block.fingerprints[split] = block.fingerprints[split][keep]
        if not keep.any():
            del block.batches[split]


def _again(record: Record | SourceFault, state: tuple[int, int] | None) -> bytes:
    """The bytes that another process has found good."""
    assert isinstance(record, Record)
    if isinstance(record.image, bytes):
        return record.image
    try:
        data = record.image.read_bytes()
        if _state(record.image) == state:
            return data
    except OSError:
        pass
    raise PipelineError(f"{record.file_name}: changed while it was read; fix: run again when nothing writes there")


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _block(records: list[Record | SourceFault], *, rules: _Rules) -> _Block:
    """Records converted, their rows in one batch for each split."""
    made = [_converted(record, rules=rules) for record in records]
    places: dict[str, list[int]] = {}
    for place, (record, one) in enumerate(zip(records, made, strict=True)):
        if one.row is not None:
            places.setdefault(record.split, []).append(place)
    train = [one.moments for one in made if one.moments is not None]
    return _Block(
        places=places,
        batches={split: store.to_batch([made[p].row or {} for p in some]) for split, some in places.items()},
        fingerprints={split: np.array([made[p].fingerprint for p in some]) for split, some in places.items()},
        states=[one.state for one in made],
        moments=np.sum(train, axis=0) if train else None,
        findings=[finding for one in made for finding in one.findings],
        fault=next((one.fault for one in made if one.fault is not None), None),
    )


def _converted(record: Record | SourceFault, *, rules: _Rules) -> _Made:
    """One record, decoded, checked and converted; a reader's fault becomes a finding."""
    if isinstance(record, SourceFault):
        finding = Finding(record.kind, record.split, record.file_name, record.index, record.what, record.action)
        return _Made(findings=[finding], fault=str(record))
    made = _Made()
    try:
        if record.split not in SPLITS:
            raise Fault("unknown split", "split", f"no split {record.split!r}; choices: {', '.join(SPLITS)}")
        _fill(made, record, rules)
    except Fault as fault:
        made = _Made()
        made.drop(record, fault, None, "dropped image")
    return made


def _fill(made: _Made, record: Record, rules: _Rules) -> None:
    """Fills in the row, moments and fingerprint; an image with a fault as a whole raises it."""
    data = _read(record.image, "image")
    if isinstance(record.image, Path):
        made.state = _state(record.image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on what it can nevertheless read
            image = images.opened(data)
            height, width = images.shown_size(image)
            turn = images.orientation(image)
            pages = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
            is_measured = record.split == "train" and (not images.is_large(image) or _is_chosen(record.image_id))
            pixels = images.checked(image, rules.channels, whole=is_measured)
    except ImageError as error:
        raise Fault("unreadable image", "image", str(error)) from None
    frame = Frame(height, width)
    if record.size is not None and tuple(record.size) != (height, width):
        frame = Frame(height, width, turn)
        if turn not in images.SIDEWAYS or tuple(record.size) != frame.source_size:
            what = f"the annotations are for {record.size[1]} x {record.size[0]}, the image is {width} x {height}"
            raise Fault("size mismatch", "size", what)
        what = f"its EXIF orientation {turn} is not in its annotations; they were turned with it"
        made.note(record, "turned", what)
    if pages > 1:
        made.note(record, "several pages", f"has {pages} pages or frames; the first is taken")
    row: dict[str, Any] = {
        "image_id": record.image_id,
        "file_name": record.file_name,
        "height": height,
        "width": width,
    }
    if record.label is not None:
        row["label"] = class_index(record.label, rules.num_classes, "label")
    if record.target is not None:
        if not -LARGEST <= record.target <= LARGEST:
            raise Fault("bad target", "target", f"not a finite number in single precision ({record.target})")
        row["target"] = float(record.target)
    if record.semantic is not None:
        row["semantic"], unnamed = _semantic(record.semantic, frame, rules)
        if unnamed and rules.tells_unnamed:
            shown = ", ".join(map(str, unnamed[:5])) + (", ..." if len(unnamed) > 5 else "")
            made.note(record, "unnamed value", f"semantic: the map has values without a name, not scored ({shown})")
    if record.panoptic is not None:
        row["panoptic"], ids = _panoptic(record, frame, rules.num_semantic)
        if rules.has_semantic and record.semantic is None:
            row["semantic"] = store.encode_png(_classes_of(ids, record.segments))
        row["segments"] = [{"id": number, "label": label} for number, label in record.segments]
    for name in ("captions", "group"):
        if getattr(record, name) is not None:
            row[name] = getattr(record, name)
    if record.objects is not None:
        row["objects"] = list(_objects(made, record, frame, rules))
    made.row = row
    made.moments = images.moments(pixels) if is_measured else None
    made.fingerprint = fingerprints.of(pixels)


def _is_chosen(image_id: str) -> bool:
    """Whether a large image is among those by which the mean and std of the dataset are measured: one in eight."""
    return zlib.crc32(image_id.encode()) % 8 == 0


def _objects(made: _Made, record: Record, frame: Frame, rules: _Rules) -> Iterator[dict[str, Any]]:
    """The rows of the objects; those with a fault are left out."""
    for raw in record.objects or []:
        note = functools.partial(made.note, record, index=raw.index)
        try:
            yield object_row(raw, frame, num_classes=rules.num_classes, num_keypoints=rules.num_keypoints, note=note)
        except Fault as fault:
            made.drop(record, fault, raw.index, "dropped annotation")


def _read(encoded: Encoded, key: str) -> bytes:
    if isinstance(encoded, bytes):
        return encoded
    try:
        return encoded.read_bytes()
    except OSError as error:
        raise Fault("unreadable image", key, f"cannot be read ({error.strerror})") from None


def _semantic(semantic: Encoded | np.ndarray, frame: Frame, rules: _Rules) -> tuple[bytes, list[int]]:
    """The PNG of a semantic map, in class indices and in the shown image; values of its own that became IGNORE."""
    if isinstance(semantic, np.ndarray):
        values = semantic
    else:
        try:
            values = images.decode_values(_read(semantic, "semantic"))
        except ImageError as error:
            raise Fault("bad map", "semantic", str(error)) from None
    values = raw = _in_frame(values, frame, "semantic")
    if rules.values is not None:
        if values.dtype != np.uint8:  # whose values all have a place in the table
            beyond = len(rules.values) - 1
            values = np.where((values < 0) | (values > beyond), beyond, values)
        values = rules.values[values]
    wrong = ((values < 0) | (values >= rules.num_semantic)) & (values != IGNORE)
    if wrong.any():
        raise Fault("unknown class", "semantic", f"no class {values[wrong].min()} (there are {rules.num_semantic})")
    lost = raw[(values == IGNORE) & (raw != IGNORE)] if rules.tells_unnamed else raw[:0]
    return store.encode_png(values.astype(np.uint8)), np.unique(lost).tolist()


def _panoptic(record: Record, frame: Frame, num_semantic: int) -> tuple[bytes, np.ndarray]:
    """The PNG of a panoptic map in the shown image, and its [H, W] ids; its segments are checked."""
    assert record.panoptic is not None
    data = _read(record.panoptic, "panoptic")
    try:
        ids = store.decode_ids(data)
    except ImageError as error:
        raise Fault("bad map", "panoptic", str(error)) from None
    if record.void:
        ids[np.isin(ids, record.void)] = 0
    turned = _in_frame(ids, frame, "panoptic")
    for number, label in record.segments:
        if not 0 < number < 2**24:
            raise Fault("bad map", "panoptic", f"segment {number}: an id that no colour stands for (1 to 16777215)")
        if not 0 <= label < num_semantic:
            raise Fault("unknown class", "panoptic", f"segment {number}: no class {label} (there are {num_semantic})")
    flat = ids.ravel()
    starts = flat[np.append(True, flat[1:] != flat[:-1])]  # of runs: far fewer to sort than all pixels
    unknown = np.setdiff1d(starts, [0, *(number for number, _ in record.segments)])
    if len(unknown):
        raise Fault("bad map", "panoptic", f"shows segment {unknown[0]}, which is not among its {len(record.segments)}")
    return (data if turned is ids and not record.void else store.encode_ids(turned)), turned


def _classes_of(ids: np.ndarray, segments: list[tuple[int, int]]) -> np.ndarray:
    """The [H, W] uint8 class map that a panoptic map of [H, W] ids shows; void is IGNORE."""
    numbers, places = np.unique(ids, return_inverse=True)
    classes = dict(segments)
    of_number = np.array([classes.get(number, IGNORE) for number in numbers.tolist()], np.uint8)
    return of_number[places].reshape(ids.shape)


def _in_frame(values: np.ndarray, frame: Frame, key: str) -> np.ndarray:
    """A [H, W] map turned as the image is shown, where it lies as the source's annotations do."""
    if values.shape == (frame.height, frame.width):
        return values
    if values.shape == frame.source_size:
        return images.turned_array(values, frame.turn)
    height, width = values.shape[:2]
    raise Fault("size mismatch", key, f"the map is {width} x {height}, the image is {frame.width} x {frame.height}")
