"""What a store holds, as numbers: images and objects by class and split, sizes, channels, and where it is from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.data import findings
from pipeline.data.store import Split, Store, decode_image, map_encoded

QUARTILES = {"smallest": 0.0, "first quartile": 0.25, "median": 0.5, "third quartile": 0.75, "largest": 1.0}


def statistics(store: Store) -> dict[str, Any]:
    """The numbers of all splits; kinds of truth that a store lacks are left out.

    Returns:
        Facts: licence, attribution, source, checksum, tasks, channels, mean and std of the channels (0..1), image_size
        (height and width, or least and most of each), skipped (annotations and images left out at ingest). By split:
        counts, groups, objects. By class and split: images_per_class, objects_per_class, semantic_share (of the scored
        pixels, 0..1). By number and split: objects_per_image (images with so many objects). By quartile and split:
        object_side (root of the area, pixels).
    """
    info = store.info
    splits = {name: store.split(name) for name in info.counts}
    columns = next(iter(splits.values())).table.column_names
    result: dict[str, Any] = {
        "licence": info.licence,
        "attribution": info.attribution,
        "source": info.source,
        "checksum": info.checksum,
        "tasks": info.tasks,
        "channels": info.channels,
        "mean": info.mean,
        "std": info.std,
        "image_size": info.image_size or [_range(splits.values(), side) for side in ("height", "width")],
        "counts": {name: len(split) for name, split in splits.items()},
    }
    left_out = findings.skipped(store.folder)
    if left_out is not None:
        result["skipped"] = left_out
    if info.keypoints:
        result["keypoints"] = info.keypoints
    if "group" in columns:
        result["groups"] = {
            name: pc.count_distinct(split.table.column("group")).as_py() for name, split in splits.items()
        }
    if "label" in columns:
        labels = {name: _counts(split.table.column("label").drop_null().to_numpy()) for name, split in splits.items()}
        result["images_per_class"] = _rows(enumerate(info.classes), labels)
    if "objects" in columns:
        objects = {name: split.objects() for name, split in splits.items()}
        result["objects"] = {name: len(found["label"]) for name, found in objects.items()}
        labels = {name: _counts(found["label"]) for name, found in objects.items()}
        result["objects_per_class"] = _rows(enumerate(info.classes), labels)
        numbers = {
            name: _counts(np.bincount(found["image"], minlength=len(splits[name]))) for name, found in objects.items()
        }
        occurring = sorted(set().union(*numbers.values()))
        result["objects_per_image"] = _rows(((number, str(number)) for number in occurring), numbers)
        sides = {name: np.sqrt(found["area"].astype(np.float64)) for name, found in objects.items()}
        result["object_side"] = {
            title: {
                name: round(float(np.quantile(side, share)), 1) if len(side) else None for name, side in sides.items()
            }
            for title, share in QUARTILES.items()
        }
    if "semantic" in columns:
        shares = {name: _semantic_shares(store, name) for name in splits}
        result["semantic_share"] = _rows(enumerate(info.semantic_classes), shares)
    return result


def _counts(values: np.ndarray) -> Counter[int]:
    numbers, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))


def _rows(keys: Iterable[tuple[int, str]], by_split: Mapping[str, Mapping[int, Any]]) -> dict[str, dict[str, Any]]:
    """For each key's title the value of each split."""
    return {title: {name: values[key] for name, values in by_split.items()} for key, title in keys}


def _range(splits: Iterable[Split], side: str) -> str:
    bounds = [pc.min_max(split.table.column(side)).as_py() for split in splits]
    return f"{min(b['min'] for b in bounds)} to {max(b['max'] for b in bounds)}"


def _semantic_shares(store: Store, split: str) -> dict[int, float]:
    counts = sum(map_encoded(store.folder, split, "semantic", _value_counts), np.zeros(256, np.int64))
    num_classes = len(store.info.semantic_classes)
    scored = max(1, counts[:num_classes].sum())
    return {value: round(float(counts[value] / scored), 4) for value in range(num_classes)}


def _value_counts(data: bytes) -> np.ndarray:
    """[256] pixels of each value of a semantic map."""
    return np.bincount(decode_image(data, 1).ravel(), minlength=256)
