"""Readers and writers of other tools' layouts: each yields records of a split, or writes a store's images and truth.

A reader checks what belongs to its format (names, numbers, ids, keys); `pipeline/data/ingest.py` checks what needs the
image. Both tell a fault in one line that names the file and the annotation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.data.records import Record
from pipeline.errors import PipelineError
from pipeline.structures import DatasetInfo

Action = Literal["kept", "dropped annotation", "dropped image"]
DROPPED: Action = "dropped annotation"
IMAGE_SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
UNKNOWN = "unknown"
NOT_SHOWN = re.compile(r"[\0-\x1f\x7f\ud800-\udfff]")  # Python reads bytes that are not UTF-8 as surrogates


@dataclass(frozen=True)
class Fault:
    """What is wrong with one annotation or image, told by a reader among its records, before the record it is about.

    Attributes:
        kind: a few words that faults of one sort share, for counting.
        split: train, val or test.
        file_name: the file that is wrong, relative to the dataset, with `:LINE` where lines count.
        index: the annotation's number or id in the file, or None.
        what: what is wrong, beginning with the key where there is one.
        fix: what to do.
        action: what is done where faults are skipped.
        image_id: of the image that it is about, whose split is not known yet where images are dealt out; or empty.
    """

    kind: str
    split: str
    file_name: str
    index: int | str | None
    what: str
    fix: str
    action: Action = DROPPED
    image_id: str = ""

    def __str__(self) -> str:
        index = "" if self.index is None else f"#{self.index}"
        return f"{self.file_name}{index} {self.what}; fix: {self.fix}"


Records = Iterable[Record | Fault]


def about(image_id: str, items: Records) -> Iterator[Record | Fault]:
    """The items, each fault marked with the image that it is about."""
    return (replace(item, image_id=image_id) if isinstance(item, Fault) else item for item in items)


@dataclass
class Source:
    """What a reader found.

    Attributes:
        info: classes, tasks, keypoints; its counts, means and terms are filled in by others.
        records: in an order that depends on the files alone; may be gone through more than once.
        num_records: how many records there are if none is faulty.
        semantic_values: the class index of each raw value of the label maps; None: they are class indices.
        has_splits: whether the files themselves say which split each image is in.
    """

    info: DatasetInfo
    records: Records
    num_records: int
    semantic_values: dict[int, int] | None = None
    has_splits: bool = False


Places = dict[str, str]
"""Where the parts of one split are, relative to the dataset's folder, by the names that a reader gives them."""

WHOLE = ""
"""The key of the places of a dataset that is not divided into splits."""

SPELLINGS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@dataclass(frozen=True)
class Repeatable:
    """Records made anew each time they are gone through, so that none need be kept."""

    make: Callable[[], Iterator[Record | Fault]]

    def __iter__(self) -> Iterator[Record | Fault]:
        return self.make()


def plain_info(tasks: list[str], classes: Iterable[str]) -> DatasetInfo:
    """An info without a name and terms, which whoever reads the source fills in; images are RGB."""
    return DatasetInfo("", tasks, list(classes), channels=3, licence=UNKNOWN, attribution=UNKNOWN, source=UNKNOWN)


def shown(path: Path, root: Path) -> str:
    """A path as messages and findings name it: from the dataset's folder on, never absolute.

    Raises:
        PipelineError: the file's name is not UTF-8 or has control characters, so no line of text can hold it.
    """
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    if NOT_SHOWN.search(name):
        raise PipelineError(f"{name!a}: a file name that cannot be shown; fix: rename the file")
    return name


def is_inside(name: str) -> bool:
    """Whether a file name from an annotation stays within its folder on every system."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and not set(name) & set("\\:\0\n")


def is_passed_over(name: str) -> bool:
    """Whether a file or folder is a program's own, such as `.ipynb_checkpoints`, `._a.jpg` and `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def files_below(folder: Path, root: Path) -> list[Path]:
    """The files in a folder and its subfolders, linked ones too, sorted; those of programs are passed over.

    Raises:
        PipelineError: a folder cannot be listed.
    """

    def tell(error: OSError) -> None:
        name = shown(Path(error.filename), root)
        raise PipelineError(f"{name}: cannot be listed ({error.strerror}); fix: make the folder readable") from None

    found = []
    for place, folders, names in os.walk(folder, onerror=tell, followlinks=True):
        inner = (name for name in folders if not is_passed_over(name))
        folders[:] = [name for name in inner if not _leads_back(place, name)]
        found += [Path(place, name) for name in names if not is_passed_over(name)]
    return sorted(found)


def _leads_back(place: str, name: str) -> bool:
    """Whether a folder is a link to one that it is in."""
    path = os.path.join(place, name)
    return os.path.islink(path) and Path(place).resolve().is_relative_to(Path(path).resolve())


def image_files(folder: Path, root: Path) -> dict[str, Path]:
    """The images in a folder and its subfolders by their name from there without suffix, sorted.

    Raises:
        PipelineError: there is no such folder, it holds no image, or two images share a name but for the suffix.
    """
    if not folder.is_dir():
        raise PipelineError(f"{shown(folder, root)}: no such folder of images; fix: name the folder that holds them")
    found: dict[str, Path] = {}
    for path in files_below(folder, root):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            key = path.relative_to(folder).with_suffix("").as_posix()
            if key in found:
                raise PipelineError(
                    f"{shown(path, root)}: {found[key].name} has that name too, so annotations of either are "
                    "ambiguous; fix: rename one"
                )
            found[key] = path
    if not found:
        raise PipelineError(f"{shown(folder, root)}: holds no image; fix: put {', '.join(IMAGE_SUFFIXES)} files there")
    return found


def first_folder(root: Path, *names: str) -> str | None:
    """The first of some folders that is there."""
    return next((name for name in names if (root / name).is_dir()), None)
