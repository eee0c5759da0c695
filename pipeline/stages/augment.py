"""Reads a store; writes it with augmented copies added to its train split, statistics and a picture of some copies."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.data import augmentation
from pipeline.data.pool import block_map
from pipeline.data.statistics import statistics
from pipeline.data.store import Split, Store, encode_png, to_batch, to_row, writing
from pipeline.params import Params
from pipeline.progress import progress
from pipeline.structures import DatasetInfo, Sample


def run(params: Params, name: str) -> None:
    """Makes augmentation `name` of params.yaml."""
    entry = params.augmentations[name]
    where = f"augmentations.{name}.transforms"
    transforms = [dict(transform) for transform in entry.transforms]
    policy = augmentation.compose(transforms, where, entry.min_visibility)  # its faults before any work
    source = Store(paths.inputs(entry.inputs))
    policy.check(source.info, where)
    _train.cache_clear()  # this process may have read a folder of the same name before
    make = functools.partial(
        _copies,
        folder=source.folder,
        policy=json.dumps(transforms),
        seed=params.defaults.seed,
        copies=entry.copies,
        min_visibility=entry.min_visibility,
    )
    info = replace(source.info, mean=[], std=[], counts={}, image_size=None)  # measured again, copies included
    names = source.split("train").table.column("file_name")
    num = len(names)
    with writing(paths.augmented(name), info) as writer:
        for split_name in source.info.counts:
            for batch in source.split(split_name).table.to_batches():
                writer.add_batch(split_name, batch)
        make = functools.partial(make, scratch=writer.folder)
        blocks = block_map(make, progress(range(num), f"augment {name}"), name=lambda index: names[index].as_py())
        writer.moments = np.zeros((3, info.channels), np.int64)
        with contextlib.closing(blocks):  # whose processes write to the folder that an error removes
            for _, (file, moments) in blocks:
                writer.add_batch("train", _taken(file))
                writer.moments += moments
    write_report(paths.augmented(name), paths.data_report(name), num_originals=num)


@functools.cache
def _policy(policy: str, min_visibility: float) -> augmentation.Policy:
    import cv2

    cv2.setNumThreads(1)  # there is a process for every core
    return augmentation.compose(json.loads(policy), "transforms", min_visibility)


@functools.cache
def _train(folder: Path) -> Split:
    return Store(folder).split("train")


def _copies(
    indices: list[int], *, folder: Path, policy: str, seed: int, copies: int, min_visibility: float, scratch: Path
) -> tuple[Path, np.ndarray]:
    """A file with the rows of all copies of some images of the train split, and the `images.moments` of both.

    Args:
        indices: of the images.
        folder: of the store.
        policy: transforms as JSON.
        seed: of the augmentation.
        copies: of each image.
        min_visibility: as `augmentation.compose` takes it.
        scratch: the folder to write to; half a gigabyte of pixels takes longer through a pipe.
    """
    split, steps = _train(folder), _policy(policy, min_visibility)
    rows, moments = [], np.zeros((3, split.info.channels), np.int64)
    for index in indices:
        sample = split.read(index, masks=True)
        moments += _moments(sample.image)
        for number in range(1, copies + 1):
            copy = augmentation.augmented(sample, steps, split.info, seed=seed, number=number, partners=split)
            moments += _moments(copy.image)
            rows.append(to_row(copy, encode_png(copy.image, quick=True)))
    batch, file = to_batch(rows), scratch / f"{indices[0]}.copies"
    with pa.ipc.new_file(str(file), batch.schema) as writer:
        writer.write_batch(batch)
    return file, moments


def _taken(file: Path) -> pa.RecordBatch:
    """The rows that `_copies` wrote; the file's name is gone, its bytes stay as long as the rows."""
    batch = pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0)
    file.unlink()
    return batch


def _moments(image: np.ndarray) -> np.ndarray:
    """`images.moments` by OpenCV, which is loaded here, in a third of the time."""
    import cv2

    channels = cv2.split(image)
    # the norm is a root squared again, off by a millionth
    sums = [(image[..., 0].size, round(cv2.sumElems(of)[0]), round(cv2.norm(of, cv2.NORM_L2SQR))) for of in channels]
    return np.array(sums, np.int64).T


def write_report(folder: Path, report: Path, num_originals: int) -> None:
    """Statistics, and for each kind of truth a picture of some originals beside their copies."""
    from pipeline.visualise import draw, previews

    store = Store(folder)
    split = store.split("train")
    copies = (len(split) - num_originals) // num_originals
    shown = min(copies, 3)
    columns, rows, cell = (8, 6, 96) if store.info.tasks == ["classification"] else (4, 3, 224)
    samples, captions = [], []
    for index in np.linspace(0, num_originals - 1, min(num_originals, columns // (1 + shown) * rows)).astype(int):
        for number in range(1 + shown):
            place = num_originals + index * copies + number - 1 if number else index
            samples.append(split.read(int(place), masks=True))
            original = previews.caption(samples[-1], store.info, "labels") or "original"
            captions.append(f"copy {number}" if number else original)
    columns = columns // (1 + shown) * (1 + shown)
    drawings: dict[str, Callable[[Sample, DatasetInfo], np.ndarray]] = {"preview": previews.truth}
    for kind in ("semantic", "panoptic", "keypoints"):
        if kind in store.info.tasks:
            drawings[f"preview_{kind}"] = previews.DRAWINGS[kind]
    with paths.written_whole(report) as temporary:
        temporary.mkdir()
        paths.write_json(temporary / "statistics.json", statistics(store))
        (temporary / "pictures").mkdir()
        for name, drawing in drawings.items():
            drawn = [drawing(sample, store.info) for sample in samples]
            sheet = draw.grid(drawn, columns=columns, captions=captions, cell=cell)
            draw.save(temporary / "pictures" / f"{name}.png", sheet)
