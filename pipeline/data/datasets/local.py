"""Your own files, in the layout of another tool; `inputs` is their path or address."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.data import splits as dealing
from pipeline.data.colours import label_colours
from pipeline.data.formats import (
    UNKNOWN,
    WHOLE,
    Fault,
    Places,
    Source,
    class_list,
    coco,
    csv,
    imagefolder,
    masks,
    panoptic,
    voc,
    yolo,
)
from pipeline.data.ingest import OnError, ingest
from pipeline.data.inputs import folder_of, shown_address
from pipeline.data.records import Record
from pipeline.errors import ParamsError, PipelineError, did_you_mean
from pipeline.structures import DatasetInfo

Format = Literal["coco", "voc", "yolo", "imagefolder", "csv", "masks", "panoptic"]
Split = Literal["train", "val", "test"]
Share = Annotated[float, Field(gt=0, le=1)]

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}

READERS: dict[Format, ModuleType] = {
    "coco": coco,
    "voc": voc,
    "yolo": yolo,
    "imagefolder": imagefolder,
    "csv": csv,
    "masks": masks,
    "panoptic": panoptic,
}

# What each format's reader takes: places, by the names of its arguments, and options of `prepare`.
PLACES: dict[Format, tuple[str, ...]] = {
    "coco": ("images", "annotations", "keypoints", "captions", "panoptic", "maps"),
    "voc": ("images", "annotations", "image_set", "semantic", "instances"),
    "yolo": ("images", "labels"),
    "imagefolder": ("images",),
    "csv": ("images", "annotations"),
    "masks": ("images", "masks", "instances"),
    "panoptic": ("images", "annotations", "maps"),
}
OPTIONS: dict[Format, tuple[str, ...]] = {
    "voc": ("one_based",),
    "csv": ("columns",),
    "masks": ("things",),
}
BY_NUMBER: tuple[Format, ...] = ("yolo", "masks")  # their files give classes as numbers, which `classes` names
OWN_IDS: tuple[Format, ...] = ("voc", "csv")  # their files name each image once for all splits


def prepare(
    folder: Path,
    *,
    seed: int,
    inputs: str,
    format: Format,
    on_error: OnError = "fail",
    places: Places | None = None,
    splits: dict[Split, Places] | None = None,
    shares: dict[Split, Share] | None = None,
    stratify: bool = False,
    group: str | None = None,
    classes: list[str] | dict[str, str] | str | None = None,
    things: list[str] | None = None,
    columns: dict[str, str] | None = None,
    one_based: bool | None = None,
    keypoints: list[str] | None = None,
    skeleton: list[tuple[int, int]] | None = None,
    channels: Literal[1, 3] = 3,
    licence: str = UNKNOWN,
    attribution: str = UNKNOWN,
    source: str | None = None,
) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split by shares.
        inputs: path or address of the data.
        format: the layout they have.
        on_error: what a faulty image or annotation does.
        places: where the parts of an undivided dataset are, relative to `inputs`; None: where the format has them.
        splits: the same for each split that is given.
        shares: how undivided images are dealt out, or those of `train` where `splits` gives others beside it.
        stratify: whether each class is dealt out by the same shares; an image with objects counts for its rarest class.
        group: a regular expression whose first group, searched in the file name, names what stays in one split.
        classes: names in the order of their indices, or by the number in the data, or a file in `inputs` that has them;
            None: what the data say.
        things: for masks, the classes whose instances are objects.
        columns: for csv, what the table calls its columns.
        one_based: for voc, whether pixels count from 1.
        keypoints: names of the P keypoints, where the data do not say.
        skeleton: pairs of keypoint indices, from 0, that a picture joins.
        channels: 1 to read images as grey, 3 as RGB.
        licence: on what terms the data may be used.
        attribution: whom to name.
        source: where the data are from; None: `inputs`.

    Raises:
        ParamsError: options that do not fit the format, each other or the data.
        PipelineError: the data cannot be read, or hold a fault with `on_error: fail`.
    """
    where = f"params.yaml datasets.{folder.name}.options"
    given = {"things": things, "columns": columns, "one_based": one_based}
    given = {name: value for name, value in given.items() if value is not None}
    reader = READERS[format]
    _check(where, format, given, shares, splits)
    root = folder_of(inputs)
    parts: dict[Any, Places] = dict(splits or {}) or ({WHOLE: places} if places else reader.layout(root))
    if not parts:
        raise ParamsError(
            f"{where}: {shown_address(inputs)} is not laid out as {format} data mostly are; "
            f"fix: write `places` or `splits`, with {', '.join(PLACES[format])}"
        )
    _check_places(where, format, reader.read, parts, is_divided=splits is not None)
    options = given | _class_options(where, format, root, classes)
    options |= {"keypoints": keypoints or []} if format == "yolo" else {}
    read = {split: _read(reader, root, split, part, options) for split, part in parts.items()}
    if len({tuple(part.info.classes) for part in read.values()}) > 1:  # a split may lack a class
        options["classes"] = sorted({name for part in read.values() for name in part.info.classes})
        read = {split: _read(reader, root, split, part, options) for split, part in parts.items()}
    info = _info(where, read, keypoints, skeleton)
    info.name, info.channels, info.licence, info.attribution = folder.name, channels, licence, attribution
    info.source = shown_address(inputs) if source is None else source
    dataset = _Dataset(where, read, group, has_own_ids=format in OWN_IDS)
    if shares is not None or (WHOLE in read and not read[WHOLE].has_splits):
        dataset.deal(shares or SHARES, seed=seed, stratify=stratify)
    elif stratify:
        raise ParamsError(f"{where}.stratify: the splits are given; fix: leave it out, or give `shares`")
    ingest(
        folder,
        info,
        dataset.records(),
        on_error=on_error,
        semantic_values=next(iter(read.values())).semantic_values,
        tell_unnamed=format == "masks",
        num_records=sum(part.num_records for part in read.values()),
    )


def _check(
    where: str, format: Format, given: Mapping[str, Any], shares: Mapping[Any, float] | None, splits: Any
) -> None:
    """Refuses options that do not fit the format or each other."""
    for name in given:
        if name not in OPTIONS.get(format, ()):
            raise ParamsError(f"{where}.{name}: means nothing to {format}; fix: leave it out")
    if shares is None:
        return
    if abs(sum(shares.values()) - 1) > 1e-6 or "train" not in shares:
        raise ParamsError(f"{where}.shares: should have train and add up to 1 ({dict(shares)}); fix: correct them")
    for name in shares:
        if splits and (("train" not in splits) or (name != "train" and name in splits)):
            raise ParamsError(
                f"{where}.shares.{name}: shares deal out the images of `train`, and {name} is given by `splits`; "
                "fix: give each split once"
            )


def _check_places(
    where: str, format: Format, read: Callable[..., Source], parts: Mapping[str, Places], *, is_divided: bool
) -> None:
    """Refuses places that the format's reader does not know, and the lack of those that it needs."""
    needed = {
        name
        for name, parameter in inspect.signature(read).parameters.items()
        if parameter.default is parameter.empty and name in PLACES[format]
    }
    for split, part in parts.items():
        at = f"{where}.splits.{split}" if is_divided else f"{where}.places"
        for name in part:
            if name not in PLACES[format]:
                raise ParamsError(f"{at}.{name}: {format} has no such place; {did_you_mean(name, PLACES[format])}")
        for name in sorted(needed - set(part)):
            raise ParamsError(f"{at}: no {name!r}; fix: write `{name}: ...` there")


def _class_options(
    where: str, format: Format, root: Path, classes: list[str] | dict[str, str] | str | None
) -> dict[str, Any]:
    """What the reader is told of classes: names by their numbers in the data, or names in order, or nothing."""
    if classes is None and format in BY_NUMBER:
        classes = yolo.config_of(root)
        if classes is None:
            raise ParamsError(f"{where}.classes: missing; {format} data hold numbers; fix: list the names")
    if classes is None:
        return {}
    try:
        if isinstance(classes, str):
            numbers = class_list.read_classes(root / classes, classes)
        else:
            numbers = class_list.numbered(classes, f"{where}.classes")
    except PipelineError as error:
        raise ParamsError(str(error)) from None
    return {"numbers": numbers} if format in BY_NUMBER else {"classes": list(numbers.values())}


def _read(reader: ModuleType, root: Path, split: str, places: Places, options: Mapping[str, Any]) -> Source:
    named = None if split == WHOLE and reader.__name__.endswith(".csv") else split or "train"
    source: Source = reader.read(root, split=named, **places, **options)
    return source


def _info(
    where: str,
    read: Mapping[str, Source],
    keypoints: list[str] | None,
    skeleton: list[tuple[int, int]] | None,
) -> DatasetInfo:
    """The info that all splits share, with the keypoints and skeleton of params.yaml over those of the data."""
    first, *others = (part.info for part in read.values())
    info = first
    for split, other in zip(list(read)[1:], others, strict=True):
        if (other.semantic_classes, other.keypoints) != (info.semantic_classes, info.keypoints):
            raise PipelineError(
                f"{where}: {split} has other categories than {next(iter(read))}; fix: make them the same"
            )
        info.tasks += [task for task in other.tasks if task not in info.tasks]
    if keypoints is not None:
        if info.keypoints and len(info.keypoints) != len(keypoints):
            raise ParamsError(
                f"{where}.keypoints: {len(keypoints)} names, the data have {len(info.keypoints)} keypoints; "
                "fix: name each"
            )
        info.keypoints = keypoints
        info.tasks += ["keypoints"] if "keypoints" not in info.tasks else []
    for index, pair in enumerate(skeleton or []):
        if not all(0 <= end < len(info.keypoints) for end in pair):
            last = len(info.keypoints) - 1
            raise ParamsError(
                f"{where}.skeleton.{index}: should be two of the keypoints 0 to {last} ({list(pair)}); fix: correct it"
            )
    info.colours = label_colours(len(info.semantic_classes))
    if skeleton is not None:
        info.skeleton = [list(pair) for pair in skeleton]
    return info


class _Dataset:
    """The records of all parts, with ids, groups and splits of their own."""

    def __init__(self, where: str, read: Mapping[str, Source], group: str | None, *, has_own_ids: bool) -> None:
        self.where, self.read, self.has_own_ids = where, read, has_own_ids
        self.dealt: dict[str, str] = {}
        self.group: re.Pattern[str] | None = None
        if group is not None:
            try:
                self.group = re.compile(group)
            except re.error as error:
                raise ParamsError(f"{where}.group: not a regular expression ({error}); fix: correct it") from None
            if not self.group.groups:
                raise ParamsError(f"{where}.group: has no group ({group!r}); fix: put the part that counts in brackets")

    def records(self) -> Iterator[Record | Fault]:
        """All records in their final splits, and what the readers found wrong."""
        for split in self.read:
            for item in self._part(split):
                dealt = self.dealt.get(item.image_id, item.split)
                if isinstance(item, Record):
                    item.split = dealt
                    yield item
                else:
                    yield replace(item, split=dealt)

    def deal(self, shares: Mapping[Any, float], *, seed: int, stratify: bool) -> None:
        """Deals out the undivided images, or those of train."""
        ids: list[str] = []
        groups: list[str] = []
        labels: list[tuple[int, ...]] = []
        for item in self._part(WHOLE if WHOLE in self.read else "train"):
            if isinstance(item, Record) and item.split != "train":  # a table's own word
                if item.split in shares:
                    raise ParamsError(
                        f"{self.where}.shares.{item.split}: shares deal out the images of `train`, and {item.split} is "
                        "given by the table; fix: give each split once"
                    )
            elif isinstance(item, Record):
                ids.append(item.image_id)
                groups += [item.group] if item.group is not None else []
                of_objects = {obj.label for obj in item.objects or []}
                labels.append((item.label,) if item.label is not None else tuple(sorted(of_objects)))
        if groups and len(groups) < len(ids):
            raise ParamsError(f"{self.where}: {len(ids) - len(groups)} images have no group; fix: give each one")
        if stratify and not any(labels):
            raise ParamsError(f"{self.where}.stratify: the images have neither classes nor objects; fix: leave it out")
        counts = Counter(label for each in labels for label in each)
        rarest = [min(each, key=lambda label: (counts[label], label), default=-1) for each in labels]
        try:
            dealt = dealing.assign(
                ids, shares=shares, seed=seed, labels=rarest if stratify else None, groups=groups or None
            )
        except ParamsError as error:
            raise ParamsError(f"{self.where}.shares: {error}") from None
        self.dealt = dict(zip(ids, dealt, strict=True))

    def _part(self, split: str) -> Iterator[Record | Fault]:
        is_prefixed = len(self.read) > 1 and not self.has_own_ids
        for item in self.read[split].records:
            own_id = f"{split}/{item.image_id}" if is_prefixed else item.image_id
            if isinstance(item, Fault):
                yield replace(item, image_id=own_id)
                continue
            item.image_id = own_id
            if self.group is not None:
                item.group = self._group_of(item.file_name)
            yield item

    def _group_of(self, file_name: str) -> str:
        assert self.group is not None
        match = self.group.search(file_name)
        if match is None or match[1] is None:
            raise ParamsError(f"{self.where}.group: finds nothing in {file_name!r}; fix: correct the expression")
        return match[1]
