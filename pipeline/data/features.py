"""Stored features of a dataset: one Arrow file per split beside the dataset's info.json.

A store whose rows hold numbers of their own (a table's) is read alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.paths import write_json, written_whole
from pipeline.structures import DatasetInfo

DESCRIPTION = "features.json"
STATE = "state.safetensors"
"""What a backbone has learnt from the train split, where it learns."""


@dataclass
class FeatureSplit:
    """The features of one split.

    Attributes:
        image_ids: N ids.
        features: [N, D] float32.
        labels: [N] int64, or None.
        targets: [N] float32, or None.
    """

    image_ids: list[str]
    features: np.ndarray
    labels: np.ndarray | None
    targets: np.ndarray | None = None


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of lists of one length as [N, D] float32."""
    flat = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), -1).astype(np.float32, copy=False)


def as_lists(values: np.ndarray) -> pa.Array:
    """[N, D] as a column of lists of one length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), values.shape[1])


def write(
    folder: Path,
    info: DatasetInfo,
    description: dict[str, Any],
    splits: dict[str, FeatureSplit],
    state: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes all splits, whole or not at all.

    Args:
        folder: where to.
        info: of the dataset.
        description: backbone, weights, image_size and dimension, and options where there are any.
        splits: by name.
        state: what the backbone has learnt from the train split.
    """
    with written_whole(folder) as temporary:
        temporary.mkdir()
        for name, split in splits.items():
            columns: dict[str, Any] = {"image_id": pa.array(split.image_ids, pa.string())}
            if split.labels is not None:
                columns["label"] = pa.array(split.labels, pa.int32())
            if split.targets is not None:
                columns["target"] = pa.array(split.targets, pa.float32())
            columns["features"] = as_lists(split.features)
            table = pa.table(columns)
            with pa.ipc.new_file(str(temporary / f"{name}.arrow"), table.schema) as file:
                file.write_table(table)
        write_json(temporary / "info.json", info.to_json())
        write_json(temporary / DESCRIPTION, description)
        if state:
            from safetensors.numpy import save

            (temporary / STATE).write_bytes(save(dict(state)))


def read(folder: Path, split: str) -> FeatureSplit:
    """One split of extracted features, or of a store whose rows hold numbers.

    Raises:
        PipelineError: it is not there, or the store's images have no numbers beside them.
    """
    if not (folder / DESCRIPTION).is_file() and (folder / "info.json").is_file():
        return _of_table(folder, split)
    try:
        table = pa.ipc.open_file(pa.memory_map(str(folder / f"{split}.arrow"))).read_all()
        table.validate(full=True)
        return _split_of(table)
    except FileNotFoundError:
        raise PipelineError(f"{folder}: no features of split {split!r}; fix: dvc repro its extract stage") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError, ValueError, KeyError, AttributeError) as error:
        what = str(error).partition("\n")[0]
        raise PipelineError(
            f"{folder}/{split}.arrow: damaged ({what}); fix: python -m pipeline verify, which tells how to mend it"
        ) from None


def _of_table(folder: Path, split: str) -> FeatureSplit:
    from pipeline.data.store import Store

    table = Store(folder).split(split).table
    if "features" not in table.column_names or table.column("features").null_count:
        raise PipelineError(f"{folder}: images without numbers beside them; fix: extract features and name those")
    return _split_of(table)


def _split_of(table: pa.Table) -> FeatureSplit:
    have = table.column_names
    labels = table.column("label").to_numpy().astype(np.int64) if "label" in have else None
    targets = table.column("target").to_numpy().astype(np.float32) if "target" in have else None
    return FeatureSplit(table.column("image_id").to_pylist(), matrix(table.column("features")), labels, targets)


def info_of(folder: Path) -> DatasetInfo:
    """The dataset's info.

    Raises:
        PipelineError: it is not there, or no info.
    """
    try:
        return DatasetInfo.from_json(json.loads((folder / "info.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise PipelineError(f"{folder}: no features there; fix: dvc repro the stage that writes them") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PipelineError(f"{folder}/info.json: not readable ({error}); fix: dvc repro --force its stage") from None


def describe(folder: Path) -> tuple[DatasetInfo, dict[str, Any]]:
    """The dataset's info, and what made the features."""
    return info_of(folder), json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))


def state_of(folder: Path) -> dict[str, np.ndarray]:
    """What the backbone has learnt from the train split; empty where it has learnt nothing."""
    if not (folder / STATE).is_file():
        return {}
    from safetensors.numpy import load_file

    return load_file(folder / STATE)
