"""Images in folders named after their class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.data.formats import (
    IMAGE_SUFFIXES,
    SPELLINGS,
    WHOLE,
    Fault,
    Places,
    Repeatable,
    Source,
    files_below,
    first_folder,
    is_inside,
    is_passed_over,
    plain_info,
    shown,
)
from pipeline.data.formats.exporting import FileNames, kinds_of, left_out, put
from pipeline.data.records import Record
from pipeline.data.store import Store
from pipeline.errors import PipelineError, did_you_mean


def layout(root: Path) -> dict[str, Places]:
    """A folder for each split with those of the classes in it, or the folders of the classes themselves."""
    found = ((split, first_folder(root, *spellings)) for split, spellings in SPELLINGS.items())
    divided: dict[str, Places] = {split: {"images": folder} for split, folder in found if folder is not None}
    return divided or {WHOLE: {"images": "."}}


def read(root: Path, *, split: str, images: str | Path = ".", classes: Sequence[str] | None = None) -> Source:
    """The images of one split.

    Args:
        root: the dataset's folder.
        split: train, val or test.
        images: the folder that holds the folders of classes, relative to `root`.
        classes: names in the order of their indices; None: the folders, sorted. An empty one is a class too.

    Folders and files whose name starts with a dot are passed over, and so are `__MACOSX` and files that are no images.

    Raises:
        PipelineError: no folder, no class, no image, or a folder that is none of `classes`.
    """
    folder = root / images
    if not folder.is_dir():
        raise PipelineError(f"{shown(folder, root)}: no such folder; fix: name the folder that holds those of classes")
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not is_passed_over(path.name))
    if not folders:
        raise PipelineError(
            f"{shown(folder, root)}: no folder of a class in it; fix: put images in one folder per class, or, where it "
            "is a class itself and no split, write `places` with `images: .`"
        )
    names = [path.name for path in folders] if classes is None else list(classes)
    for path in folders:
        if path.name not in names:
            raise PipelineError(f"{shown(path, root)}: no class of that name; {did_you_mean(path.name, names)}")
    files = [(names.index(path.name), file) for path in folders for file in files_below(path, root) if _is_image(file)]
    if not files:
        raise PipelineError(
            f"{shown(folder, root)}: no image in its folders; fix: put {', '.join(IMAGE_SUFFIXES)} there"
        )
    loose = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_image(path)]

    def records() -> Iterator[Record | Fault]:
        for path in loose:
            fix = "move it into the folder of its class"
            what = "is in no folder of a class"
            yield Fault("no class", split, shown(path, root), None, what, fix, "dropped image")
        for label, path in files:
            name = path.relative_to(folder).as_posix()
            yield Record(split=split, image_id=name, file_name=shown(path, root), image=path, label=label)

    return Source(plain_info(["classification"], names), Repeatable(records), len(files))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_passed_over(path.name)


def write(folder: Path, store: Store) -> list[str]:
    """Writes `<split>/<class>/` with the images; classes without images get a folder too.

    Labels come back exactly, their indices in the order of the names. Image bytes are those of the store, an EXIF
    orientation with them.

    Returns:
        In words, what the format has no place for.

    Raises:
        PipelineError: the store has no labels of whole images, or a class has a name that no folder can have.
    """
    info, names = store.info, FileNames()
    if "label" not in kinds_of(store):
        raise PipelineError(f"{info.name}: its images have no class, so no folder; fix: export it as coco, voc or yolo")
    for name in info.classes:
        if not is_inside(name) or "/" in name or name.startswith(".") or name != name.strip():
            raise PipelineError(f"{info.name}: class {name!r} cannot be a folder; fix: rename it, or export it as csv")
    for split_name in info.counts:
        split = store.split(split_name)
        for name in info.classes:
            (folder / split_name / name).mkdir(parents=True)
        for index in range(len(split)):
            row = split.row(index)
            place = f"{split_name}/{info.classes[row['label']]}"
            put(folder / place / names.of(row, place), row["image"])
    return left_out(store, "label")
