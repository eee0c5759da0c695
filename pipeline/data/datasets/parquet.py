"""A Parquet file, or a folder of them, with the images inside or beside; the options say which column is what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline.data.columns import SPLIT_NAMES, BoxFormat, Mapped, Part, Row, Table, write
from pipeline.data.download import redacted
from pipeline.data.ingest import OnError
from pipeline.errors import ParamsError, PipelineError, did_you_mean
from pipeline.structures import SPLITS, DatasetInfo

Share = Annotated[float, Field(ge=0, lt=1)]

ROWS = 64  # read at a time: with photographs some ten megabytes


def prepare(
    folder: Path,
    *,
    seed: int,
    inputs: str,
    columns: dict[str, str],
    on_error: OnError = "fail",
    splits: dict[str, str] | None = None,
    val: Share = 0.1,
    test: Share = 0.1,
    classes: list[str] | None = None,
    semantic_classes: list[str] | None = None,
    box_format: BoxFormat = "xyxy",
    relative_boxes: bool = False,
    licence: str = "none stated",
    attribution: str = "",
) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the splits that the files do not have.
        inputs: the file or folder.
        columns: the column of each role: image, id, file_name, label, bbox, category, mask, area, iscrowd, semantic,
            captions, target, group, split; `objects.bbox` is a column inside another.
        on_error: what a faulty row or annotation does.
        splits: for train, val and test a pattern of file names in the folder; without it the names tell, and all is
            train where they tell nothing.
        val: share of the train rows that are the val split where there is none; 0: there is none.
        test: the same of the test split.
        classes: names of the classes; without them those that Hugging Face's metadata give, or that occur.
        semantic_classes: names of the values of the label maps.
        box_format: what the four numbers of a box are.
        relative_boxes: whether they are shares of the image's width and height.
        licence: the terms of the data.
        attribution: who made them.
    """
    where = f"params.yaml datasets.{folder.name}"
    if "://" in inputs:
        raise ParamsError(f"{where}.inputs: no path ({redacted(inputs)}); fix: copy it to this machine, write its path")
    files = _files(Path(inputs), splits, where)
    first = _schema(next(path for paths in files.values() for path in paths))
    root = Path(inputs) if Path(inputs).is_dir() else Path(inputs).parent
    parts = [Part(split, split, partial(_rows, paths, root), _num_rows(paths), root) for split, paths in files.items()]
    features = _features(first)
    mapped = Mapped(
        f"{where}.options",
        columns,
        classes or [],
        semantic_classes or [],
        box_format,
        relative_boxes,
        val,
        test,
    )
    info = DatasetInfo(
        name=folder.name,
        tasks=[],
        classes=[],
        channels=3,
        licence=licence,
        attribution=attribution,
        source=Path(inputs).name,
    )
    write(folder, Table(parts, features, first.names), mapped, info, seed=seed, on_error=on_error)


def _files(inputs: Path, patterns: dict[str, str] | None, where: str) -> dict[str, list[Path]]:
    """The files of each split, by name."""
    if inputs.is_file():
        if patterns:
            raise ParamsError(f"{where}.options.splits: {inputs} is one file; fix: name its split column in `columns`")
        return {"train": [inputs]}
    found = sorted(inputs.rglob("*.parquet"))
    if not found:
        raise PipelineError(f"{where}.inputs: no Parquet file at {inputs}; fix: name a file, or a folder that has some")
    files: dict[str, list[Path]]
    if patterns:
        for split in patterns:
            if split not in SPLITS:
                raise ParamsError(f"{where}.options.splits.{split}: unknown key; {did_you_mean(split, SPLITS)}")
        files = {split: sorted(inputs.glob(pattern)) for split, pattern in patterns.items()}
        for split, pattern in patterns.items():
            if not files[split]:
                raise PipelineError(
                    f"{where}.options.splits.{split}: no file like {pattern!r} in {inputs}; fix: correct it"
                )
        return files
    told = {path: _split_of(path.relative_to(inputs)) for path in found}
    if not any(told.values()):
        return {"train": found}
    for path, tells in told.items():
        if tells is None:
            raise PipelineError(
                f"{path}: its name tells no split, while those of others do; fix: say in `splits` which files are what"
            )
    return {split: [path for path in found if told[path] == split] for split in SPLITS if split in told.values()}


def _split_of(path: Path) -> str | None:
    """The split that a file's folders or the words of its name tell, as in `train-00000-of-00002.parquet`."""
    words = [*path.parts[:-1], *path.stem.replace("_", "-").replace(".", "-").split("-")]
    return next((SPLIT_NAMES[word.lower()] for word in words if word.lower() in SPLIT_NAMES), None)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise PipelineError(f"{path}: not readable as Parquet ({_line(error)}); fix: supply it again") from None


def _schema(path: Path) -> pa.Schema:
    return _opened(path).schema_arrow


def _num_rows(paths: list[Path]) -> int:
    return sum(_opened(path).metadata.num_rows for path in paths)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face notes of the columns' types, among them the names of classes."""
    try:
        return dict(json.loads(schema.metadata[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return {}


def _rows(paths: list[Path], root: Path, columns: list[str]) -> Iterator[Row]:
    """The rows of some files, a few at a time in memory."""
    for path in paths:
        name, number = path.relative_to(root).as_posix(), 0
        file = _opened(path)
        missing = [column for column in columns if column not in file.schema_arrow.names]
        if missing:
            raise PipelineError(f"{name}: no column {missing[0]!r}, which other files have; fix: supply it again")
        try:
            for batch in file.iter_batches(ROWS, columns=columns):
                for row in batch.to_pylist():
                    yield f"{name}:{number}", row
                    number += 1
        except (pa.ArrowException, OSError) as error:
            raise PipelineError(f"{name}:{number}: not readable ({_line(error)}); fix: supply it again") from None


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
