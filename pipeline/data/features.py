"""Stored features of a dataset: one Arrow file per split beside the dataset's info.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.paths import write_json, written_whole
from pipeline.structures import DatasetInfo


@dataclass
class FeatureSplit:
    """The features of one split.

    Attributes:
        image_ids: N ids.
        features: [N, D] float32.
        labels: [N] int64, or None.
    """

    image_ids: list[str]
    features: np.ndarray
    labels: np.ndarray | None


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of lists of one length as [N, D] float32."""
    flat = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), -1).astype(np.float32, copy=False)


def as_lists(values: np.ndarray) -> pa.Array:
    """[N, D] as a column of lists of one length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), values.shape[1])


def write(folder: Path, info: DatasetInfo, description: dict[str, Any], splits: dict[str, FeatureSplit]) -> None:
    """Writes all splits, whole or not at all; `description` names backbone, weights, image_size and dimension."""
    with written_whole(folder) as temporary:
        temporary.mkdir()
        for name, split in splits.items():
            columns: dict[str, Any] = {"image_id": pa.array(split.image_ids, pa.string())}
            if split.labels is not None:
                columns["label"] = pa.array(split.labels, pa.int32())
            columns["features"] = as_lists(split.features)
            table = pa.table(columns)
            with pa.ipc.new_file(str(temporary / f"{name}.arrow"), table.schema) as file:
                file.write_table(table)
        write_json(temporary / "info.json", info.to_json())
        write_json(temporary / "features.json", description)


def read(folder: Path, split: str) -> FeatureSplit:
    """One split.

    Raises:
        PipelineError: it is not there.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(folder / f"{split}.arrow"))).read_all()
    except FileNotFoundError:
        raise PipelineError(f"{folder}: no features of split {split!r}; fix: dvc repro its extract stage") from None
    labels = table.column("label").to_numpy().astype(np.int64) if "label" in table.column_names else None
    return FeatureSplit(table.column("image_id").to_pylist(), matrix(table.column("features")), labels)


def describe(folder: Path) -> tuple[DatasetInfo, dict[str, Any]]:
    """The dataset's info, and what made the features."""
    info = DatasetInfo(**json.loads((folder / "info.json").read_text(encoding="utf-8")))
    return info, json.loads((folder / "features.json").read_text(encoding="utf-8"))
