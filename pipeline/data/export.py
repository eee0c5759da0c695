"""Writes a dataset of params.yaml back as files of another tool's layout."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.data.formats import coco_export, csv, imagefolder, masks, voc, yolo
from pipeline.data.store import Store
from pipeline.errors import ParamsError, did_you_mean
from pipeline.params import Params

WRITERS = {
    "coco": coco_export.write,
    "voc": voc.write,
    "yolo": yolo.write,
    "imagefolder": imagefolder.write,
    "masks": masks.write,
    "csv": csv.write,
}


def run(params: Params, name: str, format: str, out: Path | None) -> list[str]:
    """Exports dataset or augmentation `name`.

    Args:
        params: of the project.
        name: an entry of datasets or augmentations.
        format: the layout, one of WRITERS.
        out: the folder to write, which must not exist; None: `data/exports/<name>_<format>`.

    Returns:
        What to tell the user: where the files are, and what the format has no place for.

    Raises:
        ParamsError: no such name or format, or the folder exists.
        PipelineError: the dataset was not made yet, or lacks what the format is for.
    """
    if format not in WRITERS:
        raise ParamsError(f"--format: no format {format!r}; {did_you_mean(format, WRITERS)}")
    if name in params.datasets:
        store = Store(paths.raw(name))
    elif name in params.augmentations:
        store = Store(paths.augmented(name))
    else:
        near = did_you_mean(name, [*params.datasets, *params.augmentations])
        raise ParamsError(f"{paths.PARAMS}: no {name!r} in datasets or augmentations; {near}")
    folder = paths.export(name, format) if out is None else out
    left_out = export(store, format, folder)
    total = sum(store.info.counts.values())
    terms = f"licence: {store.info.licence}; attribution: {store.info.attribution}"
    return [f"{folder}: {total} images as {format} ({terms})", *(f"left out: {words}" for words in left_out)]


def export(store: Store, format: str, folder: Path) -> list[str]:
    """Writes a store in a format; the folder appears whole or not at all.

    Returns:
        In words, what the format has no place for.

    Raises:
        ParamsError: the folder exists.
        PipelineError: the store lacks what the format is for.
    """
    if folder.exists():
        raise ParamsError(f"{folder}: exists; fix: remove it, or name another folder with --out")
    with paths.written_whole(folder) as temporary:
        temporary.mkdir()
        return WRITERS[format](temporary, store)
