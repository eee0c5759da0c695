"""What is wrong or doubtful in a finished store: duplicates, boxes, classes without samples, and what ingest found.

Every finding names file and index. The lists are bounded; the totals are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.data import findings, fingerprints
from pipeline.data.annotations import ROUNDING
from pipeline.data.store import Split, Store
from pipeline.ops.boxes import iou

MAX_LISTED = 50  # findings of one kind that are listed
NEAR_BOX_IOU = 0.9
SIDES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)  # pixels
ASPECTS = (1 / 3, 1 / 2, 2 / 3, 3 / 4, 1 / 1.05, 1.05, 4 / 3, 3 / 2, 2, 3)  # width by height


@dataclass
class Kind:
    """Findings of one sort.

    Attributes:
        total: how many.
        by_split: how many in each split; a pair across splits counts for its first.
        by_action: how many were kept, and of how many the annotation or the image was dropped.
        listed: the first MAX_LISTED of them: split, file, index, what, action.
    """

    total: int = 0
    by_split: Counter[str] = field(default_factory=Counter)
    by_action: Counter[str] = field(default_factory=Counter)
    listed: list[dict[str, Any]] = field(default_factory=list)

    def add(self, split: str, file: str, index: int | str | None, what: str, action: str = "kept") -> None:
        """Counts one finding."""
        self.total += 1
        self.by_split[split] += 1
        self.by_action[action] += 1
        if len(self.listed) < MAX_LISTED:
            self.listed.append({"split": split, "file": file, "index": index, "what": what, "action": action})


@dataclass
class Health:
    """A dataset's health report.

    Attributes:
        report: the content of health.json.
        pairs: equal or nearly equal images, two of (split, position) each, those across splits first.
    """

    report: dict[str, Any]
    pairs: list[tuple[tuple[str, int], tuple[str, int]]]


def health(store: Store) -> Health:
    """Looks over a whole store.

    Returns:
        A report of: skipped (annotations, images), checks (kinds of findings: total, by_split, by_action, listed),
        image_side and aspect (images by split for each range of the longer side in pixels, and of width by height),
        classes_without_samples (names by split).
    """
    splits = {name: store.split(name) for name in sorted(store.info.counts)}
    kinds: dict[str, Kind] = {}

    def found(kind: str, *finding: Any) -> None:
        kinds.setdefault(kind, Kind()).add(*finding)

    for one in findings.read(store.folder) or []:
        found(one.kind, one.split, one.file, one.index, one.what, one.action)
    objects = {name: split.objects() for name, split in splits.items() if "objects" in split.table.column_names}
    for name, truth in objects.items():
        _check_boxes(name, splits[name], truth, found)
    pairs = _duplicates(store, splits, found)
    report = {
        "skipped": findings.skipped(store.folder) or {"annotations": 0, "images": 0},
        "checks": {kind: vars(kinds[kind]) for kind in sorted(kinds)},
        "image_side": _histogram(splits, SIDES, lambda height, width: np.maximum(height, width), _side),
        "aspect": _histogram(splits, ASPECTS, lambda height, width: width / height, _aspect),
        "classes_without_samples": _classes_without_samples(store, splits, objects),
    }
    return Health(report, pairs)


def _check_boxes(name: str, split: Split, objects: dict[str, np.ndarray], found: Callable[..., None]) -> None:
    """Boxes that reach beyond the image, and nearly equal ones of one class in one image."""
    boxes, images = objects["bbox"], objects["image"]
    files = split.table.column("file_name")
    starts = np.searchsorted(images, np.arange(len(split) + 1))
    bounds = np.stack([split.table.column(side).to_numpy() for side in ("width", "height")], 1)[images]
    beyond = np.maximum(-boxes[:, :2], boxes[:, 2:] - bounds).max(1) > ROUNDING if len(boxes) else np.zeros(0, bool)
    for place in np.flatnonzero(beyond):
        image = images[place]
        what = f"bbox: {_numbers(boxes[place])} reaches beyond the image of {bounds[place][0]} x {bounds[place][1]}"
        found("box partly outside", name, files[image].as_py(), int(place - starts[image]), what)
    for image in np.flatnonzero(np.diff(starts) > 1):
        part = slice(starts[image], starts[image + 1])
        labels, crowd = objects["label"][part], objects["iscrowd"][part]
        overlaps = iou(boxes[part].astype(np.float64), boxes[part].astype(np.float64))
        near = (overlaps > NEAR_BOX_IOU) & (labels[:, None] == labels) & ~(crowd[:, None] | crowd)
        for first, second in np.argwhere(np.triu(near, 1)):
            label = split.info.classes[labels[first]]
            what = f"bbox: overlaps number {first}, also {label}, with an IoU of {overlaps[first, second]:.3f}"
            found("near-duplicate boxes", name, files[int(image)].as_py(), int(second), what)


def _duplicates(
    store: Store, splits: dict[str, Split], found: Callable[..., None]
) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """Notes equal and nearly equal images; returns the first of the pairs, those across splits before the others."""
    prints = fingerprints.load(store)
    names = list(splits)
    ends = np.cumsum([len(split) for split in splits.values()])

    def where(place: int) -> tuple[str, int]:
        number = int(np.searchsorted(ends, place, side="right"))
        return names[number], int(place - (ends[number - 1] if number else 0))

    def file(at: tuple[str, int]) -> str:
        return str(splits[at[0]].table.column("file_name")[at[1]].as_py())

    def label(at: tuple[str, int]) -> str:
        table = splits[at[0]].table
        value = table.column("label")[at[1]].as_py() if "label" in table.column_names else None
        return "" if value is None else store.info.classes[value]

    groups = fingerprints.equal_groups(store, prints)
    rest = np.setdiff1d(np.arange(len(prints)), [place for group in groups for place in group[1:]])
    numbers = np.repeat(np.arange(len(names)), [len(split) for split in splits.values()])
    near = rest[fingerprints.near_pairs(prints[rest], numbers[rest])]
    shown: dict[str, list[tuple[tuple[str, int], tuple[str, int]]]] = {}
    for words, pairs in (
        ("equal", [(group[0], other) for group in groups for other in group[1:]]),
        ("nearly equal", near.tolist()),
    ):
        for first, second in ((where(a), where(b)) for a, b in pairs):
            relation = "within a split" if first[0] == second[0] else "across splits"
            labels = [label(first), label(second)]
            differ = f", labelled {labels[0]} and {labels[1]}" if labels[0] != labels[1] else ""
            what = f"image: {words} to {file(second)} ({second[0]} {second[1]}){differ}"
            found(f"{words} images {relation}", first[0], file(first), first[1], what)
            shown.setdefault(relation, []).append((first, second))
    return [pair for relation in ("across splits", "within a split") for pair in shown.get(relation, [])[:MAX_LISTED]]


def _histogram(
    splits: dict[str, Split],
    edges: tuple[float, ...],
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
    title: Callable[[float | None, float | None], str],
) -> list[dict[str, Any]]:
    """For each range that occurs its title and the images of each split; a value on an edge belongs below it."""
    counts = {}
    for name, split in splits.items():
        height, width = (split.table.column(side).to_numpy() for side in ("height", "width"))
        places = np.searchsorted(edges, measure(height, width), side="left")
        counts[name] = np.bincount(places, minlength=len(edges) + 1)
    bounds = [None, *edges, None]
    return [
        {"range": title(bounds[place], bounds[place + 1]), "images": {n: int(c[place]) for n, c in counts.items()}}
        for place in range(len(edges) + 1)
        if any(c[place] for c in counts.values())
    ]


def _side(above: float | None, to: float | None) -> str:
    if above is None:
        return f"up to {to}"
    return f"above {above}" if to is None else f"{int(above) + 1} to {to}"


def _aspect(above: float | None, to: float | None) -> str:
    if above is None:
        return f"up to {to:.2f}"
    return f"above {above:.2f}" if to is None else f"{above:.2f} to {to:.2f}"


def _classes_without_samples(
    store: Store, splits: dict[str, Split], objects: dict[str, dict[str, np.ndarray]]
) -> dict[str, list[str]]:
    """Names of the classes that neither label nor object of a split shows."""
    result = {}
    for name, split in splits.items():
        seen: set[int] = set()
        if "label" in split.table.column_names:
            seen |= set(split.table.column("label").drop_null().unique().to_pylist())
        if name in objects:
            seen |= set(np.unique(objects[name]["label"]).tolist())
        if name in objects or "label" in split.table.column_names:
            result[name] = [title for value, title in enumerate(store.info.classes) if value not in seen]
    return result


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
